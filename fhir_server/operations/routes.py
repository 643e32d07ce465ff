"""The addresses of operations: `[base]/$name`, `[base]/Type/$name`, `[base]/Type/id/$name`.
https://hl7.org/fhir/R4/operations.html#executing
"""

from flask import Blueprint, Response, g, request

from fhir_server import fhir_json
from fhir_server.answers import native_answer
from fhir_server.errors import MethodNotAllowed
from fhir_server.etag import parse_etag
from fhir_server.http import BLUEPRINT, choose_format, current_access, fhir_body, fhir_response, query_parameters
from fhir_server.operation import (
    Answer,
    Operation,
    OperationRequest,
    Operations,
    parameters_in_query,
    parameters_of,
)
from fhir_server.validation import check_id, check_type

METHODS = ["GET", "POST"]
OPERATIONS = tuple(f"{BLUEPRINT}.{level}_operation" for level in ("system", "type", "instance"))


def add_routes(fhir: Blueprint, operations: Operations) -> None:
    """Serve the operations below the FHIR base."""

    @fhir.route("/$<name>", methods=METHODS)
    def system_operation(name: str) -> Response:
        return _perform(operations.find(None, None, name), None, None)

    @fhir.route("/<resource_type>/$<name>", methods=METHODS)
    def type_operation(resource_type: str, name: str) -> Response:
        check_type(resource_type)
        return _perform(operations.find(resource_type, None, name), resource_type, None)

    @fhir.route("/<resource_type>/<id>/$<name>", methods=METHODS)
    def instance_operation(resource_type: str, id: str, name: str) -> Response:
        check_type(resource_type)
        operation = operations.find(resource_type, id, name)
        return _perform(operation, resource_type, check_id(id))


def _perform(operation: Operation, resource_type: str | None, id: str | None) -> Response:
    if operation.affects_state and request.method != "POST":
        raise MethodNotAllowed(f"${operation.name} changes something, so it takes POST")
    if operation.affects_state and "format" not in g:
        choose_format()  # refuses before anything is changed
    access = current_access()
    sent, bare = _sent(operation)
    asked = OperationRequest(
        access,
        resource_type,
        id,
        # The body first, so that an entry's place in it is its place here.
        sent + parameters_in_query(query_parameters()),
        sent=len(sent),
        bare=bare,
        if_match=parse_etag(request.headers.get("If-Match")),
        prefer=request.headers.get("Prefer", ""),
    )
    answer = operation.handler(asked)
    if isinstance(answer, dict):
        answer = Answer(answer)
    if answer.content is None:
        return Response(status=answer.status, headers=dict(answer.headers))
    content = answer.content
    if isinstance(content, dict) and content.get("resourceType") == "Binary" and (found := native_answer(content)):
        found.status_code = answer.status
        found.headers.extend(answer.headers)
        return found
    if "format" not in g:
        choose_format()
    body = content if isinstance(content, bytes) else fhir_json.dumps(content)
    return fhir_response(body, answer.status, dict(answer.headers))


def _sent(operation: Operation) -> tuple[list[dict], bool]:
    """The parameters in the body, and whether it was a bare resource."""
    if request.method != "POST" or not request.content_length:
        return [], False
    return parameters_of(operation, fhir_body())
