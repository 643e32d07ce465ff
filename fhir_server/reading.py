"""GET and HEAD in a Bundle: read, vread, history and search. https://hl7.org/fhir/R4/http.html#transaction"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fhir_server import bundle, fhir_json, history
from fhir_server.access import Access
from fhir_server.entry import Entry
from fhir_server.errors import Unprocessable
from fhir_server.etag import etag
from fhir_server.prepare import instant
from fhir_server.validation import check_type
from fhir_server.version import Version

if TYPE_CHECKING:
    from fhir_server.repository import Repository

_ID = r"[A-Za-z0-9\-.]{1,64}"
_ADDRESS = re.compile(
    rf"(?:(?P<type>[A-Za-z]+)(?:/(?P<id>{_ID}))?)?/?(?P<history>(?<![^/])_history(?:/(?P<version>\d{{1,9}}))?)?"
)

Answer = Callable[[], dict]  # an entry of the response Bundle; may raise a FhirError


def reading(repository: "Repository", access: Access, entry: Entry) -> Answer:
    """What answers the entry, once it is time to. Raises for what is understood as no read, or is not allowed."""
    match = _ADDRESS.fullmatch(entry.address)
    if match is None or not (match["type"] or match["history"]) or entry.address.endswith("/"):
        raise Unprocessable("a GET entry is a read, a history or a search", entry.at("request.url"))
    resource_type, id, version = match["type"], match["id"], match["version"]
    if resource_type:
        check_type(resource_type)
        access.require("read" if id else "search", resource_type)
    if match["history"] and version is None:
        return lambda: _history(repository, access, entry, resource_type, id)
    if version is not None and id is not None:
        return lambda: _content(entry, repository.vread(access, resource_type, id, int(version)))
    if version is None and id is not None:
        return lambda: _content(entry, repository.read(access, resource_type, id))
    if version is None and resource_type:
        return lambda: _search(repository, access, entry)
    raise Unprocessable("a GET entry is a read, a history or a search", entry.at("request.url"))


def _content(entry: Entry, version: Version) -> dict:
    about = {"etag": etag(version), "lastModified": instant(version.last_updated)}
    tag, since = entry.if_none_match(), entry.if_modified_since()
    known = tag is not None and (tag == "*" or etag(version).removeprefix("W/") in tag)
    if known or (tag is None and since is not None and version.last_updated.replace(microsecond=0) <= since):
        return {"response": {"status": "304 Not Modified", **about}}
    return _shown(entry, version.resource(), about)


def _history(
    repository: "Repository", access: Access, entry: Entry, resource_type: str | None, id: str | None
) -> dict:
    asked = history.read_request(parse_qsl(entry.query, keep_blank_values=True), entry.address, repository.seal)
    page = repository.history_page(access, resource_type, id, asked)
    links = history.links(repository.base_url, entry.address, asked, page, repository.seal)
    return _shown(entry, fhir_json.loads(bundle.assemble(bundle.history(repository.base_url, page.versions, links))))


def _search(repository: "Repository", access: Access, entry: Entry) -> dict:
    result = repository.search(access, entry.address, entry.query)
    return _shown(entry, fhir_json.loads(bundle.search_answer(repository.base_url, entry.address, result)))


def _shown(entry: Entry, resource: dict, about: dict | None = None) -> dict:
    content = {"resource": resource} if entry.method == "GET" else {}  # a HEAD is the same without content
    return content | {"response": {"status": "200 OK", **(about or {})}}
