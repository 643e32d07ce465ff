"""The FHIR REST API under one base. https://hl7.org/fhir/R4/http.html

Thin views: values out of the request, a plain function, its result into a response.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from urllib.parse import parse_qsl, urlencode

from flask import Blueprint, Response, request

from fhir_server import fhir_json
from fhir_server.answers import resource_answer, written_answer
from fhir_server.bundle import assemble, history, searchset
from fhir_server.errors import BadRequest, MethodNotAllowed, NotFound, PreconditionFailed
from fhir_server.etag import parse_etag
from fhir_server.http import BLUEPRINT, choose_format, current_access, fhir_body, fhir_response
from fhir_server.operation import Operation, OperationRequest
from fhir_server.prefer import preferences
from fhir_server.repository import Repository
from fhir_server.validation import check_type

MAX_HISTORY = 1000


def create_blueprint(
    repository: Repository, operations: Iterable[Operation], capability_statement: Callable[[], dict]
) -> Blueprint:
    """The views of the FHIR base; mount it where the public base URL says."""
    fhir = Blueprint(BLUEPRINT, __name__)
    by_name = {(operation.resource_type, operation.name): operation for operation in operations}

    @fhir.before_request
    def settle_format() -> None:
        choose_format()

    @fhir.get("/metadata")
    def metadata() -> Response:
        return fhir_response(fhir_json.dumps(capability_statement()), headers={"Access-Control-Allow-Origin": "*"})

    @fhir.post("/", strict_slashes=False)
    def bundle() -> Response:
        body = fhir_body()
        kind = body.get("type") if isinstance(body, dict) else None
        perform = repository.batch if kind == "batch" else repository.transaction
        return fhir_response(fhir_json.dumps(perform(current_access(), body)))  # type: ignore[arg-type]

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

    @fhir.get("/<resource_type>/<id>/_history")
    def instance_history(resource_type: str, id: str) -> Response:
        return _history(repository, resource_type, id)

    @fhir.get("/<resource_type>/_history")
    def type_history(resource_type: str) -> Response:
        return _history(repository, resource_type, None)

    @fhir.get("/<resource_type>")
    def search(resource_type: str) -> Response:
        return _search(resource_type, parse_qsl(request.query_string.decode(), keep_blank_values=True))

    @fhir.post("/<resource_type>/_search")
    def search_by_post(resource_type: str) -> Response:
        if request.mimetype != "application/x-www-form-urlencoded":
            raise BadRequest("_search takes application/x-www-form-urlencoded")
        in_address = parse_qsl(request.query_string.decode(), keep_blank_values=True)
        in_body = parse_qsl(request.get_data(cache=False).decode(errors="replace"), keep_blank_values=True)
        if format := dict(in_body).get("_format"):
            choose_format(format)
        return _search(resource_type, in_address + in_body)

    def _search(resource_type: str, parameters: list[tuple[str, str]]) -> Response:
        strict = preferences(request.headers.get("Prefer", "")).get("handling") == "strict"
        wanted = [(name, value) for name, value in parameters if name not in ("_format", "_pretty")]
        result = repository.search(current_access(), resource_type, wanted, strict=strict)
        return fhir_response(assemble(searchset(repository.base_url, resource_type, result)))

    @fhir.post("/<resource_type>")
    def create(resource_type: str) -> Response:
        resource = _resource_body(resource_type)
        resource.pop("id", None)  # the server gives the id of a create
        criteria = request.headers.get("If-None-Exist")
        written = repository.create(current_access(), resource, if_none_exist=criteria)
        return written_answer(repository, written)

    @fhir.put("/<resource_type>/<id>")
    def update(resource_type: str, id: str) -> Response:
        resource = _resource_body(resource_type)
        if resource.get("id") != id:
            raise BadRequest("the id of the resource is not the one of the address", f"{resource_type}.id")
        if_match = parse_etag(request.headers.get("If-Match"))
        if request.headers.get("If-None-Match") == "*" and repository.store.newest(resource_type, id):
            raise PreconditionFailed(f"{resource_type}/{id} exists")
        return written_answer(repository, repository.update(current_access(), resource, if_match=if_match))

    @fhir.delete("/<resource_type>/<id>")
    def delete(resource_type: str, id: str) -> Response:
        check_type(resource_type)
        if_match = parse_etag(request.headers.get("If-Match"))
        repository.delete(current_access(), resource_type, id, if_match=if_match)
        return Response(status=204)

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

    return fhir


def _history(repository: Repository, resource_type: str, id: str | None) -> Response:
    count = _whole_number("_count", 100, MAX_HISTORY)
    before = _whole_number("_before", None, 2**63 - 1)
    since = None
    if "_since" in request.args:
        try:
            since = datetime.fromisoformat(request.args["_since"].replace(" ", "+"))  # + reads as a space
            if since.tzinfo is None:
                raise ValueError("no offset")
        except ValueError:
            raise BadRequest("_since is an instant such as 2026-01-31T10:00:00Z") from None
    found = repository.history(
        current_access(), resource_type, id, count=(count or 0) + 1, since=since, before=before
    )
    more, page = len(found) > (count or 0), found[: count or 0]
    address = "/".join(part for part in (repository.base_url, resource_type, id, "_history") if part)
    links = [{"relation": "self", "url": f"{address}?{urlencode(request.args.to_dict())}".rstrip("?")}]
    if more and page:
        following = {**request.args.to_dict(), "_count": str(count), "_before": str(page[-1].number)}
        links.append({"relation": "next", "url": f"{address}?{urlencode(following)}"})
    return fhir_response(assemble(history(repository.base_url, page, links)))


def _whole_number(name: str, default: int | None, highest: int) -> int | None:
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 19:
        raise BadRequest(f"{name} is a whole number")
    return min(int(text), highest)


def _resource_body(resource_type: str) -> dict:
    check_type(resource_type)
    body = fhir_body()
    if not isinstance(body, dict):
        raise BadRequest("a resource is a JSON object")
    if body.get("resourceType") != resource_type:
        raise BadRequest("resourceType is not the one of the address", "Resource.resourceType")
    return body


def _parameters() -> list[dict]:
    """The entries of Parameters.parameter; of a GET, the query as strings."""
    query = [
        {"name": name, "valueString": value}
        for name, value in parse_qsl(request.query_string.decode(), keep_blank_values=True)
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
