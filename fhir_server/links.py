"""What the entries of a Bundle refer to one another by, turned into references of this server.
https://hl7.org/fhir/R4/http.html#trules
"""

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fhir_server import references
from fhir_server.access import Access
from fhir_server.conditional import match_one
from fhir_server.entry import Entry
from fhir_server.errors import BadRequest, PreconditionFailed, Unprocessable
from fhir_server.prepare import Draft
from fhir_server.references import Resolve

if TYPE_CHECKING:
    from fhir_server.repository import Repository

Reference = tuple[str, str]  # (type, id)

_RESTFUL = re.compile(r"(https?://.+/)[A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_PARTS = re.compile(r"(?P<url>[^|#]*?)(?P<version>/_history/[A-Za-z0-9\-.]{1,64})?(?P<rest>[|#].*)?", re.DOTALL)
_UNRESOLVED = ("urn:uuid:", "urn:oid:")


class Links:
    """Resolves the links in the drafts of one Bundle."""

    def __init__(
        self, repository: "Repository", access: Access, entries: list[Entry], drafts: dict[int, Draft]
    ) -> None:
        """Raises BadRequest when two entries have the same fullUrl."""
        self._repository, self._access, self._drafts = repository, access, drafts
        self._full_urls: dict[str, int] = {}
        self._roots: dict[int, str] = {}
        for entry in entries:
            if entry.full_url is None or entry.index not in drafts or entry.method == "DELETE":
                continue
            if entry.full_url in self._full_urls:
                raise BadRequest("two entries have this fullUrl", entry.at("fullUrl"))
            self._full_urls[entry.full_url] = entry.index
            if match := _RESTFUL.fullmatch(entry.full_url):
                self._roots[entry.index] = match[1]

    def resolve(self, placed: dict[int, Reference]) -> None:
        """Rewrite the drafts, now that it is known where each will be."""
        conditions = _Conditions(self._repository, self._access, self._drafts, placed)
        for index, draft in self._drafts.items():
            if draft.interaction == "delete" or draft.existing is not None or draft.twin is not None:
                continue
            path = f"Bundle.entry[{index}].resource"
            draft.resource = references.rewrite(draft.resource, self._resolver(index, placed))
            for where, element in references.each(draft.resource, path):
                criteria = references.conditional(element["reference"])
                if criteria is not None:
                    element["reference"] = conditions.meet(*criteria, f"{where}.reference")
                elif element["reference"].startswith(_UNRESOLVED):
                    raise Unprocessable("no entry of the Bundle has this fullUrl", f"{where}.reference")

    def _resolver(self, index: int, placed: dict[int, Reference]) -> Resolve:
        """For the resource of one entry: a relative link is one to a neighbour under the same root."""
        root, targets = self._roots.get(index), self._full_urls

        def resolve(text: str) -> str | None:
            match = _PARTS.fullmatch(text)
            if match is None:
                return None
            target = targets.get(match["url"])
            if target is None and root is not None and references.RELATIVE.fullmatch(match["url"]):
                target = targets.get(root + match["url"])
            if target is None:
                return None
            version = match["version"] or ""
            if version and self._drafts[target].interaction == "create":
                version = f"/_history/{self._version(target)}"
            return "/".join(placed[target]) + version + (match["rest"] or "")

        return resolve

    def _version(self, index: int) -> int:
        """The version that a create will be, or found."""
        existing = self._drafts[index].existing
        return existing.version if existing else 1


class _Conditions:
    """Resolves conditional references, by what is stored and by what the same Bundle writes; each only once."""

    def __init__(
        self, repository: "Repository", access: Access, drafts: dict[int, Draft], placed: dict[int, Reference]
    ) -> None:
        self._repository, self._access = repository, access
        self._written = {
            placed[index]: draft
            for index, draft in drafts.items()
            if draft.interaction != "delete" and draft.existing is None and draft.twin is None
        }
        self._deleted = {placed[index] for index, draft in drafts.items() if draft.interaction == "delete"}
        self._keys: dict[Reference, frozenset[str]] = {}
        self._met: dict[tuple[str, str], str] = {}

    def meet(self, resource_type: str, query: str, path: str) -> str:
        """The reference. Raises PreconditionFailed unless exactly one resource meets the conditions."""
        known = self._met.get((resource_type, query))
        if known is not None:
            return known
        without = self._written.keys() | self._deleted
        stored = match_one(self._repository, self._access, resource_type, query, path, without)
        found = {stored.reference} if stored else set()
        wanted = {f"{name}={value}" for name, value in parse_qsl(query, keep_blank_values=True)}
        for key, draft in self._written.items():
            if key[0] == resource_type and wanted <= self._keys_of(key, draft):
                found.add("/".join(key))
        if len(found) != 1:
            several = "more than one resource" if found else "no resource"
            raise PreconditionFailed(f"the conditional reference matches {several}", path)
        self._met[resource_type, query] = found.pop()
        return self._met[resource_type, query]

    def _keys_of(self, key: Reference, draft: Draft) -> frozenset[str]:
        """The search keys that the draft will have; conditions on tokens and the like are among them as they are."""
        if key not in self._keys:
            entry = self._repository.indexer.index({**draft.resource, "id": key[1]})
            self._keys[key] = frozenset(entry.keys)
        return self._keys[key]
