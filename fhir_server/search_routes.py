"""The addresses of searches: of a type, of the whole system, of a compartment; by GET and by POST.
https://hl7.org/fhir/R4/http.html#search
"""

from urllib.parse import parse_qsl

from flask import Blueprint, Response, g, request

from fhir_server.bundle import search_answer
from fhir_server.errors import BadRequest
from fhir_server.http import choose_format, current_access, fhir_response, query_parameters
from fhir_server.prefer import preferences
from fhir_server.repository import Repository
from fhir_server.validation import check_id, check_type


def register(fhir: Blueprint, repository: Repository) -> None:
    """Serve searches below the FHIR base."""

    @fhir.get("/", strict_slashes=False)
    def search_system() -> Response:
        return _search(query_parameters())

    @fhir.post("/_search")
    def search_system_by_post() -> Response:
        return _search(_posted())

    @fhir.get("/<resource_type>")
    def search(resource_type: str) -> Response:
        return _search(query_parameters(), resource_type)

    @fhir.post("/<resource_type>/_search")
    def search_by_post(resource_type: str) -> Response:
        return _search(_posted(), resource_type)

    @fhir.get("/<owner>/<id>/*")
    def search_compartment(owner: str, id: str) -> Response:
        return _search(query_parameters(), None, (owner, id))

    @fhir.post("/<owner>/<id>/_search")
    def search_compartment_by_post(owner: str, id: str) -> Response:
        return _search(_posted(), None, (owner, id))

    @fhir.get("/<owner>/<id>/<resource_type>")
    def search_in_compartment(owner: str, id: str, resource_type: str) -> Response:
        return _search(query_parameters(), resource_type, (owner, id))

    @fhir.post("/<owner>/<id>/<resource_type>/_search")
    def search_in_compartment_by_post(owner: str, id: str, resource_type: str) -> Response:
        return _search(_posted(), resource_type, (owner, id))

    def _search(
        parameters: list[tuple[str, str]], resource_type: str | None = None, owner: tuple[str, str] | None = None
    ) -> Response:
        strict = preferences(request.headers.get("Prefer", "")).get("handling") == "strict"
        wanted = [(name, value) for name, value in parameters if name not in ("_format", "_pretty")]
        path = [resource_type] if resource_type else ["*"] if owner else []
        if owner:
            check_type(owner[0])
            path = [owner[0], check_id(owner[1]), *path]
        if resource_type:
            result = repository.search(current_access(), resource_type, wanted, strict=strict, compartment=owner)
        else:
            result = repository.search_across(current_access(), wanted, strict=strict, compartment=owner)
        return fhir_response(search_answer(repository.base_url, "/".join(path), result))


def _posted() -> list[tuple[str, str]]:
    """The parameters in the address and those in the body."""
    if request.mimetype != "application/x-www-form-urlencoded":
        raise BadRequest("_search takes application/x-www-form-urlencoded")
    in_address = query_parameters()
    g.posted = request.get_data(cache=False).decode(errors="replace")
    in_body = parse_qsl(g.posted, keep_blank_values=True)
    if format := dict(in_body).get("_format"):
        choose_format(format)
    return in_address + in_body
