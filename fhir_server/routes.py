"""The FHIR REST API under one base. https://hl7.org/fhir/R4/http.html

Thin views: values out of the request, a plain function, its result into a response.
"""

from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

from flask import Blueprint, Response, request

from fhir_server import bundle, fhir_json, history, write_routes
from fhir_server.answers import resource_answer
from fhir_server.bundle import assemble, searchset
from fhir_server.errors import BadRequest, MethodNotAllowed, NotAcceptable, NotFound
from fhir_server.http import BLUEPRINT, choose_format, current_access, fhir_body, fhir_response, query_parameters
from fhir_server.operation import Operation, OperationRequest
from fhir_server.prefer import preferences
from fhir_server.repository import Repository
from fhir_server.validation import check_type

_READS = (f"{BLUEPRINT}.read", f"{BLUEPRINT}.vread")


def create_blueprint(
    repository: Repository, operations: Iterable[Operation], capability_statement: Callable[[], dict]
) -> Blueprint:
    """The views of the FHIR base; mount it where the public base URL says."""
    fhir = Blueprint(BLUEPRINT, __name__)
    by_name = {(operation.resource_type, operation.name): operation for operation in operations}

    @fhir.before_request
    def settle_format() -> None:
        try:
            choose_format()
        except NotAcceptable:
            # A Binary has one more form, which only the Binary tells.
            if request.endpoint not in _READS or (request.view_args or {}).get("resource_type") != "Binary":
                raise

    @fhir.get("/metadata")
    def metadata() -> Response:
        return fhir_response(fhir_json.dumps(capability_statement()), headers={"Access-Control-Allow-Origin": "*"})

    @fhir.get("/<resource_type>/<id>")
    def read(resource_type: str, id: str) -> Response:
        if id.startswith("$"):
            return operate(resource_type, None, id)
        return resource_answer(repository, repository.read(current_access(), resource_type, id))

    @fhir.get("/<resource_type>/<id>/_history/<version>")
    def vread(resource_type: str, id: str, version: str) -> Response:
        if not version.isdecimal() or len(version) > 9:
            raise NotFound("versions are numbered from 1")
        return resource_answer(repository, repository.vread(current_access(), resource_type, id, int(version)))

    @fhir.get("/_history")
    def system_history() -> Response:
        return _history(None, None)

    @fhir.get("/<resource_type>/_history")
    def type_history(resource_type: str) -> Response:
        return _history(resource_type, None)

    @fhir.get("/<resource_type>/<id>/_history")
    def instance_history(resource_type: str, id: str) -> Response:
        return _history(resource_type, id)

    def _history(resource_type: str | None, id: str | None) -> Response:
        asked = history.read_request(query_parameters())
        page = repository.history_page(current_access(), resource_type, id, asked)
        address = "/".join(part for part in (repository.base_url, resource_type, id, "_history") if part)
        links = history.links(address, asked, page)
        return fhir_response(assemble(bundle.history(repository.base_url, page.versions, links)))

    @fhir.get("/<resource_type>")
    def search(resource_type: str) -> Response:
        return _search(resource_type, query_parameters())

    @fhir.post("/<resource_type>/_search")
    def search_by_post(resource_type: str) -> Response:
        if request.mimetype != "application/x-www-form-urlencoded":
            raise BadRequest("_search takes application/x-www-form-urlencoded")
        in_address = query_parameters()
        in_body = parse_qsl(request.get_data(cache=False).decode(errors="replace"), keep_blank_values=True)
        if format := dict(in_body).get("_format"):
            choose_format(format)
        return _search(resource_type, in_address + in_body)

    def _search(resource_type: str, parameters: list[tuple[str, str]]) -> Response:
        strict = preferences(request.headers.get("Prefer", "")).get("handling") == "strict"
        wanted = [(name, value) for name, value in parameters if name not in ("_format", "_pretty")]
        result = repository.search(current_access(), resource_type, wanted, strict=strict)
        return fhir_response(assemble(searchset(repository.base_url, resource_type, result)))

    @fhir.post("/<resource_type>/<id>")
    def type_operation(resource_type: str, id: str) -> Response:
        return operate(resource_type, None, id)

    @fhir.route("/<resource_type>/<id>/$<name>", methods=["GET", "POST"])
    def instance_operation(resource_type: str, id: str, name: str) -> Response:
        return operate(resource_type, id, f"${name}")

    def operate(resource_type: str, id: str | None, name: str) -> Response:
        check_type(resource_type)
        operation = by_name.get((resource_type, name.removeprefix("$")))
        if operation is None or not (operation.instance if id else operation.type_level):
            raise NotFound(f"{resource_type} has no operation {name[:64]!r} here")
        if operation.affects_state and request.method != "POST":
            raise MethodNotAllowed(f"{name} changes something, so it takes POST")
        asked = OperationRequest(current_access(), resource_type, id, _parameters())
        return fhir_response(fhir_json.dumps(operation.handler(asked)))

    write_routes.register(fhir, repository)
    return fhir


def _parameters() -> list[dict]:
    """The entries of Parameters.parameter; of a GET, the query as strings."""
    query = [
        {"name": name, "valueString": value}
        for name, value in query_parameters()
        if name not in ("_format", "_pretty")
    ]
    if request.method == "GET" or not request.content_length:
        return query
    body = fhir_body()
    if not isinstance(body, dict) or body.get("resourceType") != "Parameters":
        raise BadRequest("an operation takes a Parameters resource", "Parameters")
    entries = body.get("parameter", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("Parameters.parameter is a list of objects", "Parameters.parameter")
    return entries + query  # the body first, so that an entry's place in it is its place here
