"""The addresses of operations: `[base]/$name`, `[base]/Type/$name`, `[base]/Type/id/$name`.
https://hl7.org/fhir/R4/operations.html#executing
"""

from collections.abc import Iterable

from flask import Blueprint, Response, request

from fhir_server import fhir_json
from fhir_server.errors import BadRequest, MethodNotAllowed, NotFound
from fhir_server.etag import parse_etag
from fhir_server.http import current_access, fhir_body, fhir_response, query_parameters
from fhir_server.operation import Answer, Operation, OperationRequest
from fhir_server.validation import check_id, check_type

METHODS = ["GET", "POST"]
_ABOUT_THE_ANSWER = ("_format", "_pretty")


def add_routes(fhir: Blueprint, operations: Iterable[Operation]) -> None:
    """Serve the operations below the FHIR base."""
    by_name = {(operation.resource_type, operation.name): operation for operation in operations}

    @fhir.route("/$<name>", methods=METHODS)
    def system_operation(name: str) -> Response:
        operation = by_name.get((None, name))
        if operation is None or not operation.system:
            raise NotFound(f"the system has no operation {name[:64]!r} here")
        return _perform(operation, None, None)

    @fhir.route("/<resource_type>/$<name>", methods=METHODS)
    def type_operation(resource_type: str, name: str) -> Response:
        check_type(resource_type)
        operation = by_name.get((resource_type, name)) or by_name.get((None, name))
        if operation is None or not operation.type_level:
            raise NotFound(f"{resource_type} has no operation {name[:64]!r} here")
        return _perform(operation, resource_type, None)

    @fhir.route("/<resource_type>/<id>/$<name>", methods=METHODS)
    def instance_operation(resource_type: str, id: str, name: str) -> Response:
        check_type(resource_type)
        operation = by_name.get((resource_type, name)) or by_name.get((None, name))
        if operation is None or not operation.instance:
            raise NotFound(f"a {resource_type} has no operation {name[:64]!r} here")
        return _perform(operation, resource_type, check_id(id))


def _perform(operation: Operation, resource_type: str | None, id: str | None) -> Response:
    if operation.affects_state and request.method != "POST":
        raise MethodNotAllowed(f"${operation.name} changes something, so it takes POST")
    access = current_access()
    sent, bare = _sent(operation)
    asked = OperationRequest(
        access,
        resource_type,
        id,
        sent + _queried(),  # the body first, so that an entry's place in it is its place here
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
    body = content if isinstance(content, bytes) else fhir_json.dumps(content)
    return fhir_response(body, answer.status, dict(answer.headers))


def _queried() -> list[dict]:
    """The query as parameters of type string."""
    return [
        {"name": name, "valueString": value} for name, value in query_parameters() if name not in _ABOUT_THE_ANSWER
    ]


def _sent(operation: Operation) -> tuple[list[dict], bool]:
    """The parameters in the body, and whether it was a bare resource."""
    if request.method != "POST" or not request.content_length:
        return [], False
    body = fhir_body()
    if not isinstance(body, dict) or not isinstance(body.get("resourceType"), str):
        raise BadRequest("an operation takes a Parameters resource", "Parameters")
    if body["resourceType"] != "Parameters":
        if operation.takes is None:
            raise BadRequest("this operation takes a Parameters resource", "Parameters")
        return [{"name": operation.takes, "resource": body}], True
    entries = body.get("parameter", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("Parameters.parameter is a list of objects", "Parameters.parameter")
    return entries, False
