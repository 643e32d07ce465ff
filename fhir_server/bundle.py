"""Bundles put together from stored bytes, without parsing what is in them. https://hl7.org/fhir/R4/bundle.html"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fhir_server import fhir_json
from fhir_server.etag import etag
from fhir_server.prepare import instant
from fhir_server.search import SearchResult
from fhir_server.version import Version

_HISTORY_REQUESTS = {"create": ("POST", "201"), "update": ("PUT", "200"), "delete": ("DELETE", "204")}


@dataclass(slots=True)
class Page:
    """A Bundle about to be written: its head, and entries as (members before the resource, body, members after)."""

    head: dict
    entries: list[tuple[dict, bytes | None, dict]] = field(default_factory=list)


def search_answer(base_url: str, path: str, result: SearchResult) -> bytes:
    """What answers a search: a page, or what was done to find it."""
    if result.explanation is not None:
        return fhir_json.dumps(result.explanation)
    return assemble(searchset(base_url, path, result))


def searchset(base_url: str, path: str, result: SearchResult) -> Page:
    """A page of search results with links to itself, the first page, and those beside it. path: what was searched,
    below the base."""
    address = f"{base_url}/{path}" if path else base_url
    queries = {"self": result.applied, "first": result.first, "previous": result.previous, "next": result.next}
    links = [
        {"relation": relation, "url": f"{address}?{query}" if query else address}
        for relation, query in queries.items()
        if query is not None
    ]
    head: dict = {"resourceType": "Bundle", "type": "searchset"}
    if result.total is not None:
        head["total"] = result.total
    page = Page(head | {"link": links})
    for mode, versions in (("match", result.matches), ("include", result.included)):
        page.entries += [
            ({"fullUrl": f"{base_url}/{version.reference}"}, version.body, {"search": {"mode": mode}})
            for version in versions
        ]
    if result.outcome:
        page.entries.append(({}, fhir_json.dumps(result.outcome), {"search": {"mode": "outcome"}}))
    return page


def history(base_url: str, versions: Iterable[Version], links: list[dict]) -> Page:
    """A history Bundle; a deletion has a request and no resource. https://hl7.org/fhir/R4/http.html#history"""
    page = Page({"resourceType": "Bundle", "type": "history", "link": links})
    for version in versions:
        method, status = _HISTORY_REQUESTS[version.op]
        url = version.resource_type if method == "POST" else version.reference
        about = {
            "request": {"method": method, "url": url},
            "response": {
                "status": status,
                "etag": etag(version),
                "lastModified": instant(version.last_updated),
            },
        }
        page.entries.append(({"fullUrl": f"{base_url}/{version.reference}"}, version.body, about))
    return page


def assemble(page: Page) -> bytes:
    """The Bundle as JSON."""
    head = fhir_json.dumps(page.head)
    if not page.entries:
        return head
    return head[:-1] + b',"entry":[' + b",".join(_entry(*entry) for entry in page.entries) + b"]}"


def _entry(before: dict, body: bytes | None, after: dict) -> bytes:
    members = [fhir_json.dumps(part)[1:-1] for part in (before, after) if part]
    if body is not None:
        members.insert(1 if before else 0, b'"resource":' + body)
    return b"{" + b",".join(members) + b"}"
