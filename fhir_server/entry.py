"""One entry of a batch or transaction, from what is sent to what is asked for.
https://hl7.org/fhir/R4/bundle.html#transaction
"""

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from fhir_server.errors import BadRequest, FhirError, Unprocessable
from fhir_server.etag import parse_etag
from fhir_server.patch import patch_in_bundle
from fhir_server.prepare import Draft, in_bundle

MAX_ENTRIES = 5000
# The order in which a transaction is processed. https://hl7.org/fhir/R4/http.html#trules
ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}
READS = ("GET", "HEAD")
_INTERACTIONS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_TARGET = re.compile(r"([A-Za-z]+)(?:/([A-Za-z0-9\-.]{1,64}))?")


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry asks for. address: its URL below the base, without the query."""

    index: int
    method: str
    address: str
    query: str
    full_url: str | None
    request: dict
    resource: Any

    def at(self, element: str) -> str:
        """`Bundle.entry[3].request.url`"""
        return f"Bundle.entry[{self.index}].{element}"

    def draft(self) -> Draft:
        """The write that is asked for. Raises BadRequest, Unprocessable."""
        match = _TARGET.fullmatch(self.address)
        if match is None:
            raise Unprocessable(f"{self.method} of this address is not offered in a Bundle", self.at("request.url"))
        resource_type, id = match[1], match[2]
        if self.method == "POST":
            if id or self.query:
                raise BadRequest("a POST goes to a type", self.at("request.url"))
            return self._create(resource_type)
        if (id is None) == (not self.query):
            raise BadRequest(f"{self.method} has an id or conditions", self.at("request.url"))
        resource: Any = {"resourceType": resource_type, "id": id}
        if self.method == "PUT":
            resource = self._content(resource_type)
            if id is not None and resource.get("id") != id:
                raise BadRequest("request.url and resource differ in id", self.at("resource.id"))
        return Draft(
            _INTERACTIONS[self.method],
            resource,
            if_match=self.if_match(),
            criteria=self.query if id is None else None,
            if_none_match=self.method == "PUT" and self.request.get("ifNoneMatch") == "*",
            patch=self._patch() if self.method == "PATCH" else None,
            path=self.at("resource"),
        )

    def if_match(self) -> int | None:
        """The version named by ifMatch. Raises BadRequest."""
        return parse_etag(self.request.get("ifMatch"), self.at("request.ifMatch"))

    def if_none_match(self) -> str | None:
        return self._text("ifNoneMatch")

    def if_modified_since(self) -> datetime | None:
        """The moment of ifModifiedSince, an instant here though a HTTP date in a header; either is read."""
        text = self._text("ifModifiedSince")
        if text is None:
            return None
        try:
            return _aware(text) if text[:4].isdecimal() else parsedate_to_datetime(text)
        except ValueError:
            raise BadRequest("ifModifiedSince is an instant", self.at("request.ifModifiedSince")) from None

    def _create(self, resource_type: str) -> Draft:
        content = self._content(resource_type)
        resource = {name: value for name, value in content.items() if name != "id"}
        criteria = self._text("ifNoneExist")
        if criteria is not None and "?" in criteria:
            criteria = criteria.partition("?")[2]
        return Draft("create", resource, criteria=criteria, path=self.at("resource"))

    def _content(self, resource_type: str) -> dict:
        if not isinstance(self.resource, dict):
            raise BadRequest(f"a {self.method} entry has a resource", self.at("resource"))
        if self.resource.get("resourceType") != resource_type:
            raise BadRequest("request.url and resource differ in type", self.at("request.url"))
        return self.resource

    def _patch(self) -> Any:
        try:
            return patch_in_bundle(self.resource)
        except FhirError as error:
            raise in_bundle(error, self.at("resource")) from None

    def _text(self, name: str) -> str | None:
        value = self.request.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"{name} is a text", self.at(f"request.{name}"))
        return value


def raw_entries(bundle: dict) -> list[dict]:
    """Bundle.entry as it is. Raises BadRequest when that is no list of objects, Unprocessable when it is too long."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("Bundle.entry is a list of objects", "Bundle.entry")
    if len(entries) > MAX_ENTRIES:
        raise Unprocessable(f"a Bundle may have {MAX_ENTRIES} entries", "Bundle.entry")
    return entries


def read_entry(raw: dict, index: int, base_url: str) -> Entry:
    """The entry with its request understood as far as method and URL go. Raises BadRequest, Unprocessable."""
    here = f"Bundle.entry[{index}]"
    request, full_url = raw.get("request"), raw.get("fullUrl")
    if not isinstance(request, dict):
        raise BadRequest("each entry has a request", f"{here}.request")
    method, url = request.get("method"), request.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        raise BadRequest("a request has a method and a url", f"{here}.request")
    if method not in ORDER:
        raise Unprocessable(f"{method[:16]!r} is no method of FHIR", f"{here}.request.method")
    if full_url is not None and not isinstance(full_url, str):
        raise BadRequest("a fullUrl is a text", f"{here}.fullUrl")
    address, _, query = url.removeprefix(base_url).removeprefix("/").partition("?")
    return Entry(index, method, address, query, full_url, request, raw.get("resource"))


def status_line(code: int) -> str:
    """Of Bundle.entry.response.status: `201 Created`."""
    return f"{code} {HTTPStatus(code).phrase}"


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return moment
