"""Operations called by the entries of a Bundle. https://hl7.org/fhir/R4/operations.html#executing"""

import re
from collections.abc import Callable
from urllib.parse import parse_qsl

from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.entry import Entry, status_line
from fhir_server.errors import FhirError, MethodNotAllowed, Unprocessable
from fhir_server.operation import Answer, OperationRequest, Operations, parameters_in_query, parameters_of
from fhir_server.prepare import in_bundle
from fhir_server.validation import check_type

_ADDRESS = re.compile(r"(?:(?P<type>[A-Za-z]+)/(?:(?P<id>[A-Za-z0-9\-.]{1,64})/)?)?\$(?P<name>[A-Za-z0-9\-]+)")


def is_call(entry: Entry) -> bool:
    return entry.address.rpartition("/")[2].startswith("$")


def calling(operations: Operations, access: Access, entry: Entry, alone: bool) -> Callable[[], dict]:
    """What calls the operation and answers the entry, once it is time to.

    alone: as of a batch; in a transaction nothing is called that changes something. Raises for what is no call of an
    operation that is offered.
    """
    match = _ADDRESS.fullmatch(entry.address)
    if match is None:
        raise Unprocessable("an operation is called on the system, a type or a resource", entry.at("request.url"))
    resource_type, id = match["type"], match["id"]
    if resource_type is not None:
        check_type(resource_type)
    operation = operations.find(resource_type, id, match["name"])
    if operation.affects_state and not alone:
        text = f"${operation.name} changes something, which a transaction cannot take back; call it for itself"
        raise Unprocessable(text, entry.at("request.url"))
    if entry.method != "POST" and (entry.method != "GET" or operation.affects_state):
        raise MethodNotAllowed(f"${operation.name} is no {entry.method}", entry.at("request.method"))

    def call() -> dict:
        sent: list[dict] = []
        bare = False
        place = entry.at("request.url" if entry.resource is None else "resource")
        try:
            if entry.method == "POST" and entry.resource is not None:
                sent, bare = parameters_of(operation, entry.resource)
            queried = parameters_in_query(parse_qsl(entry.query, keep_blank_values=True))
            asked = OperationRequest(
                access, resource_type, id, sent + queried, len(sent), bare, if_match=entry.if_match()
            )
            return _answered(operation.handler(asked))
        except FhirError as error:
            raise in_bundle(error, place) from None

    return call


def _answered(answer: dict | Answer) -> dict:
    """The entry of the response Bundle."""
    if isinstance(answer, dict):
        answer = Answer(answer)
    content = fhir_json.loads(answer.content) if isinstance(answer.content, bytes) else answer.content
    location = answer.headers.get("Location") or answer.headers.get("Content-Location")
    response = {"status": status_line(answer.status)} | ({"location": location} if location else {})
    return ({} if content is None else {"resource": content}) | {"response": response}
