"""batch and transaction. https://hl7.org/fhir/R4/http.html#transaction"""

import re
from typing import TYPE_CHECKING, Any

from fhir_server import fhir_json, references
from fhir_server.access import Access
from fhir_server.bundle import assemble, searchset
from fhir_server.errors import BadRequest, FhirError, PreconditionFailed, Unprocessable
from fhir_server.etag import etag, parse_etag
from fhir_server.prepare import Draft, instant

if TYPE_CHECKING:
    from fhir_server.repository import Repository, Written

MAX_ENTRIES = 5000
_INTERACTIONS = {"POST": "create", "PUT": "update", "DELETE": "delete"}
_STATUS = {True: "201 Created", False: "200 OK"}


def transaction(repository: "Repository", access: Access, bundle: dict) -> dict:
    """Commit all entries or none; the response Bundle has an entry for each, in the same order."""
    entries = _entries(bundle, "transaction")
    drafts: dict[int, Draft] = {}
    reads: dict[int, str] = {}
    for index, entry in enumerate(entries):
        method, url = _request(entry, index)
        if method == "GET":
            reads[index] = url
        elif method in _INTERACTIONS:
            drafts[index] = _draft(entry, method, url, index)
        else:
            raise Unprocessable(f"{method[:16]} is not offered in a transaction", _at(index, "request.method"))
    written = dict(zip(drafts, _write(repository, access, entries, drafts), strict=True))
    answers = []
    for index in range(len(entries)):
        if index in reads:
            answers.append(_get(repository, access, reads[index], _at(index, "request.url")))
        else:
            answers.append(_answer(repository, drafts[index], written[index]))
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}


def batch(repository: "Repository", access: Access, bundle: dict) -> dict:
    """Answer each entry for itself: a refused one has its OperationOutcome and changes nothing else."""
    answers = []
    for index, entry in enumerate(_entries(bundle, "batch")):
        try:
            method, url = _request(entry, index)
            if method == "GET":
                answers.append(_get(repository, access, url, _at(index, "request.url")))
                continue
            if method not in _INTERACTIONS:
                raise Unprocessable(f"{method[:16]} is not offered in a batch", _at(index, "request.method"))
            draft = _draft(entry, method, url, index)
            answers.append(_answer(repository, draft, repository.write(access, [draft])[0]))
        except FhirError as error:
            answers.append({"response": {"status": str(error.status), "outcome": error.outcome()}})
    return {"resourceType": "Bundle", "type": "batch-response", "entry": answers}


def _write(
    repository: "Repository", access: Access, entries: list[dict], drafts: dict[int, Draft]
) -> "list[Written]":
    """Resolve what the entries refer to one another by, then write them together."""
    full_urls: dict[str, int] = {}
    for index, draft in drafts.items():
        full_url = entries[index].get("fullUrl")
        if isinstance(full_url, str) and draft.interaction != "delete":
            if full_url in full_urls:
                raise BadRequest("two entries have this fullUrl", _at(index, "fullUrl"))
            full_urls[full_url] = index

    def resolve(placed: dict[int, tuple[str, str]]) -> None:
        targets = {full_url: "/".join(placed[index]) for full_url, index in full_urls.items()}
        for index, draft in drafts.items():
            if draft.interaction != "delete":
                draft.resource = references.rewrite(draft.resource, targets)
                _resolve_conditional(repository, access, draft.resource, _at(index, "resource"))
                _refuse_unresolved(draft.resource, _at(index, "resource"))

    return repository.write_together(access, drafts, resolve)


def _resolve_conditional(repository: "Repository", access: Access, resource: dict, path: str) -> None:
    for where, element in references.each(resource, path):
        criteria = references.conditional(element["reference"])
        if criteria is None:
            continue
        found = repository.match_one(access, *criteria, f"{where}.reference")
        if found is None:
            raise PreconditionFailed("the conditional reference matches no resource", f"{where}.reference")
        element["reference"] = found.reference


def _refuse_unresolved(resource: dict, path: str) -> None:
    for where, element in references.each(resource, path):
        if element["reference"].startswith("urn:uuid:"):
            raise Unprocessable("no entry of the Bundle has this fullUrl", f"{where}.reference")


def _entries(bundle: Any, expected: str) -> list[dict]:
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise BadRequest("a Bundle is expected", "Bundle")
    if bundle.get("type") != expected:
        raise BadRequest(f"a Bundle of type {expected} is expected", "Bundle.type")
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("Bundle.entry is a list of objects", "Bundle.entry")
    if len(entries) > MAX_ENTRIES:
        raise Unprocessable(f"a Bundle may have {MAX_ENTRIES} entries", "Bundle.entry")
    return entries


def _request(entry: dict, index: int) -> tuple[str, str]:
    request = entry.get("request")
    if not isinstance(request, dict):
        raise BadRequest("each entry has a request", _at(index, "request"))
    method, url = request.get("method"), request.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        raise BadRequest("a request has a method and a url", _at(index, "request"))
    return method, url.removeprefix("/")


def _draft(entry: dict, method: str, url: str, index: int) -> Draft:
    request, path = entry["request"], _at(index, "resource")
    if "?" in url:
        raise Unprocessable(f"conditional {method} is not offered", _at(index, "request.url"))
    resource_type, _, id = url.partition("/")
    resource = entry.get("resource")
    if method == "DELETE":
        resource = {"resourceType": resource_type, "id": id}
    if not isinstance(resource, dict):
        raise BadRequest("a POST or PUT entry has a resource", path)
    if resource.get("resourceType") != resource_type:
        raise BadRequest("request.url and resource differ in type", _at(index, "request.url"))
    if method == "POST" and id:
        raise BadRequest("a POST goes to a type", _at(index, "request.url"))
    if method == "PUT" and resource.get("id") != id:
        raise BadRequest("request.url and resource differ in id", f"{path}.id")
    if method == "POST":
        resource = {name: value for name, value in resource.items() if name != "id"}
    return Draft(
        _INTERACTIONS[method],
        resource,
        if_match=parse_etag(request.get("ifMatch"), _at(index, "request.ifMatch")),
        if_none_exist=_criteria(request, index) if method == "POST" else None,
        path=path,
    )


def _criteria(request: dict, index: int) -> str | None:
    criteria = request.get("ifNoneExist")
    if criteria is None:
        return None
    if not isinstance(criteria, str):
        raise BadRequest("ifNoneExist is a query", _at(index, "request.ifNoneExist"))
    return criteria.partition("?")[2] if "?" in criteria else criteria


def _answer(repository: "Repository", draft: Draft, written: "Written") -> dict:
    version = written.version
    if draft.interaction == "delete":
        return {"response": {"status": "204 No Content"}}
    return {
        "fullUrl": f"{repository.base_url}/{version.reference}",
        "response": {
            "status": _STATUS[written.created],
            "location": f"{repository.base_url}/{version.versioned_reference}",
            "etag": etag(version),
            "lastModified": instant(version.last_updated),
        },
    }


def _get(repository: "Repository", access: Access, url: str, path: str) -> dict:
    """A read or a search of a type, as an entry of the answer."""
    address, _, query = url.partition("?")
    read = re.fullmatch(r"([A-Za-z]+)/([A-Za-z0-9\-.]{1,64})", address)
    if read and not query:
        version = repository.read(access, read[1], read[2])
        response = {"status": "200 OK", "etag": etag(version), "lastModified": instant(version.last_updated)}
        return {"resource": version.resource(), "response": response}
    if re.fullmatch(r"[A-Za-z]+", address):
        result = repository.search(access, address, query)
        body = assemble(searchset(repository.base_url, address, result))
        return {"resource": fhir_json.loads(body), "response": {"status": "200 OK"}}
    raise Unprocessable("a GET entry is a read or a search of a type", path)


def _at(index: int, element: str) -> str:
    return f"Bundle.entry[{index}].{element}"
