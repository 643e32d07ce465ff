"""The views that change something: create, update, patch, delete, each also conditionally, and whole Bundles."""

from urllib.parse import urlencode

from flask import Blueprint, Response, g, request

from fhir_server import fhir_json, merge_patch
from fhir_server.answers import written_answer
from fhir_server.binary import CONTEXT, sent_binary
from fhir_server.errors import BadRequest, UnsupportedMediaType
from fhir_server.etag import parse_etag
from fhir_server.formats import FHIR_JSON, FHIR_XML, JSON_PATCH, MERGE_PATCH
from fhir_server.http import content, current_access, fhir_body, fhir_response, query_parameters
from fhir_server.operation import Operations
from fhir_server.patch import patch_of
from fhir_server.prefer import preferences
from fhir_server.prepare import Patch
from fhir_server.repository import Repository
from fhir_server.validation import check_type

ACCEPT_PATCH = f"{JSON_PATCH}, {MERGE_PATCH}, {FHIR_JSON}, {FHIR_XML}"


def register(fhir: Blueprint, repository: Repository, operations: Operations) -> None:
    """Add the views to the blueprint. operations: those that a Bundle may call."""

    @fhir.post("/", strict_slashes=False)
    def bundle() -> Response:
        wanted = preferences(request.headers.get("Prefer", "")).get("return", "minimal")
        sent = fhir_body()
        if isinstance(sent, dict) and sent.get("type") == "transaction":
            g.interaction = "transaction"
        done = repository.perform(current_access(), sent, wanted, operations)
        return fhir_response(fhir_json.dumps(done))

    @fhir.post("/<resource_type>")
    def create(resource_type: str) -> Response:
        resource, _ = _resource_body(repository, resource_type)
        resource.pop("id", None)  # the server gives the id of a create
        criteria = request.headers.get("If-None-Exist", _criteria() or None)  # some clients state them in the address
        return written_answer(repository, repository.create(current_access(), resource, if_none_exist=criteria))

    @fhir.put("/<resource_type>/<id>")
    def update(resource_type: str, id: str) -> Response:
        resource, native = _resource_body(repository, resource_type)
        if native:
            resource["id"] = id
        if resource.get("id") != id:
            raise BadRequest("the id of the resource is not the one of the address", f"{resource_type}.id")
        written = repository.update(
            current_access(), resource, if_match=_if_match(), if_none_match=request.if_none_match.star_tag
        )
        return written_answer(repository, written)

    @fhir.put("/<resource_type>")
    def conditional_update(resource_type: str) -> Response:
        resource, _ = _resource_body(repository, resource_type)
        written = repository.update(current_access(), resource, if_match=_if_match(), criteria=_criteria())
        return written_answer(repository, written)

    @fhir.patch("/<resource_type>/<id>")
    def patch(resource_type: str, id: str) -> Response:
        check_type(resource_type)
        written = repository.patch(current_access(), resource_type, id, _patch_body(), if_match=_if_match())
        return written_answer(repository, written)

    @fhir.patch("/<resource_type>")
    def conditional_patch(resource_type: str) -> Response:
        check_type(resource_type)
        written = repository.patch(
            current_access(), resource_type, None, _patch_body(), if_match=_if_match(), criteria=_criteria()
        )
        return written_answer(repository, written)

    @fhir.delete("/<resource_type>/<id>")
    def delete(resource_type: str, id: str) -> Response:
        check_type(resource_type)
        return written_answer(
            repository, repository.delete(current_access(), resource_type, id, if_match=_if_match())
        )

    @fhir.delete("/<resource_type>")
    def conditional_delete(resource_type: str) -> Response:
        check_type(resource_type)
        written = repository.delete(current_access(), resource_type, None, if_match=_if_match(), criteria=_criteria())
        return written_answer(repository, written)


def _if_match() -> int | None:
    return parse_etag(request.headers.get("If-Match"))


def _criteria() -> str:
    """The conditions of the address, without what shapes the answer."""
    asked = query_parameters()
    return urlencode([(name, value) for name, value in asked if name not in ("_format", "_pretty")])


def _resource_body(repository: Repository, resource_type: str) -> tuple[dict, bool]:
    """(the resource sent, whether it was a Binary in its native form)."""
    check_type(resource_type)
    if resource_type == "Binary":
        context = request.headers.get(CONTEXT)
        return sent_binary(content(), request.content_type or "", context, repository.base_url)
    body = fhir_body()
    if not isinstance(body, dict):
        raise BadRequest("a resource is a JSON object")
    if body.get("resourceType") != resource_type:
        raise BadRequest("resourceType is not the one of the address", "Resource.resourceType")
    return body, False


def _patch_body() -> Patch:
    if request.mimetype == JSON_PATCH:
        return patch_of(fhir_json.loads(content()))
    if request.mimetype in (MERGE_PATCH, "application/json"):
        sent = fhir_json.loads(content())
        whole = isinstance(sent, list) or (isinstance(sent, dict) and sent.get("resourceType") == "Parameters")
        return patch_of(sent) if whole and request.mimetype != MERGE_PATCH else merge_patch.parse(sent)
    try:
        return patch_of(fhir_body())
    except UnsupportedMediaType:
        raise UnsupportedMediaType(
            f"a patch is one of {ACCEPT_PATCH}", headers={"Accept-Patch": ACCEPT_PATCH}
        ) from None
