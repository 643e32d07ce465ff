"""The FHIR REST API under one base. https://hl7.org/fhir/R4/http.html

Thin views: values out of the request, a plain function, its result into a response.
"""

import hashlib
from collections.abc import Callable, Iterable

from flask import Blueprint, Response, request

from fhir_server import bundle, fhir_json, history, search_routes, write_routes
from fhir_server.answers import resource_answer
from fhir_server.bundle import assemble
from fhir_server.errors import NotAcceptable, NotFound
from fhir_server.http import BLUEPRINT, choose_format, current_access, fhir_response, query_parameters
from fhir_server.operation import Operation, Operations
from fhir_server.operations.routes import OPERATIONS, add_routes
from fhir_server.repository import Repository

_READS = (f"{BLUEPRINT}.read", f"{BLUEPRINT}.vread")


def create_blueprint(
    repository: Repository, operations: Iterable[Operation], capability_statement: Callable[[], dict]
) -> Blueprint:
    """The views of the FHIR base; mount it where the public base URL says."""
    fhir = Blueprint(BLUEPRINT, __name__)

    @fhir.before_request
    def settle_format() -> None:
        try:
            choose_format()
        except NotAcceptable:
            # A Binary has one more form, which only the Binary tells.
            of_binary = (request.view_args or {}).get("resource_type") == "Binary"
            if not (request.endpoint in _READS and of_binary) and request.endpoint not in OPERATIONS:
                raise

    @fhir.get("/metadata")
    def metadata() -> Response:
        """Its ETag changes with what it says. https://hl7.org/fhir/R4/http.html#capabilities"""
        statement = capability_statement()
        # Each process has the date of its own start; that says nothing else.
        said = fhir_json.dumps({name: value for name, value in statement.items() if name != "date"})
        answer = fhir_response(fhir_json.dumps(statement), headers={"Access-Control-Allow-Origin": "*"})
        answer.set_etag(hashlib.sha256(said).hexdigest()[:32], weak=True)
        if "If-Match" not in request.headers:  # which is for writes; the library would answer it by 412
            answer.make_conditional(request)
        return answer

    @fhir.get("/<resource_type>/<id>")
    def read(resource_type: str, id: str) -> Response:
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
        address = "/".join(part for part in (resource_type, id, "_history") if part)
        asked = history.read_request(query_parameters(), address, repository.seal)
        page = repository.history_page(current_access(), resource_type, id, asked)
        links = history.links(repository.base_url, address, asked, page, repository.seal)
        return fhir_response(assemble(bundle.history(repository.base_url, page.versions, links)))

    search_routes.register(fhir, repository)
    offered = Operations(operations)
    add_routes(fhir, offered)
    write_routes.register(fhir, repository, offered)
    return fhir
