"""Where CodeSystems, ValueSets and ConceptMaps come from: the store first, then the R4 definitions shipped with us.

Definitions are nobody's secret: every caller sees those in the store (`conformance.access_rules`), and what one draws
on is read as the server itself.
"""

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from conformance import terminology
from fhir_server.access import Access
from fhir_server.terminology.code_system import CodeSystem
from fhir_server.version import Version

if TYPE_CHECKING:
    from fhir_server.repository import Repository

READER = Access.system("terminology")
MAX_VERSIONS = 50  # resources with one canonical URL
MAX_MAPS = 200  # ConceptMaps looked at where none is named
_KEPT_CONCEPTS = 50_000  # of code systems compiled and kept; about 30 MB


class Terminology:
    """Finds definitions by canonical URL. Thread safe."""

    def __init__(self, repository: "Repository") -> None:
        self.repository = repository
        self._compiled: OrderedDict[tuple[str, str], CodeSystem] = OrderedDict()
        self._lock = Lock()

    def value_set(self, url: str, version: str | None = None) -> dict | None:
        """The ValueSet with this URL (which may end in `|version`); of several the one created last."""
        found = self._find("ValueSet", url, version)
        return found.resource() if isinstance(found, Version) else found

    def concept_map(self, url: str, version: str | None = None) -> dict | None:
        found = self._find("ConceptMap", url, version)
        return found.resource() if isinstance(found, Version) else found

    def structure_definition(self, url: str, version: str | None = None) -> dict | None:
        found = self._find("StructureDefinition", url, version)
        return found.resource() if isinstance(found, Version) else found

    def code_system(self, url: str, version: str | None = None) -> CodeSystem | None:
        """As `value_set`, compiled; None also for a supplement, which is no code system of its own."""
        url, _, named = url.partition("|")
        found = self._find("CodeSystem", url, version or named or None)
        if found is None:
            return None
        compiled = self.compiled(found) if isinstance(found, Version) else self._kept(("r4", url), found)
        return compiled if compiled.resource.get("content") != "supplement" else None

    def compiled(self, version: Version) -> CodeSystem:
        """The code system of a stored version."""
        return self._kept(("store", f"{version.versioned_reference} {version.number}"), version)

    def concept_maps(self, system: str, reverse: bool) -> list[dict]:
        """All that may map codes of the system; reverse: that may map to them."""
        parameter = "target-system" if reverse else "source-system"
        query = [(parameter, _escaped(system)), ("_count", str(MAX_MAPS))]
        stored = [
            found.resource() for found in self.repository.search(READER, "ConceptMap", query, strict=True).matches
        ]
        known = {one.get("url") for one in stored}
        return stored + [one for one in terminology.r4_definitions("ConceptMap") if one["url"] not in known]

    def _find(self, resource_type: str, url: str, version: str | None) -> Version | dict | None:
        url, _, named = url.partition("|")
        version = version or named or None
        if not url:
            return None
        query = [("url", _escaped(url)), ("_count", str(MAX_VERSIONS))]
        if version is not None:
            query.append(("version", _escaped(version)))
        stored = self.repository.search(READER, resource_type, query, strict=True).matches
        if stored:
            return stored[0]
        shipped = terminology.r4_definition(resource_type, url)
        return shipped if shipped is not None and version in (None, shipped.get("version")) else None

    def _kept(self, name: tuple[str, str], source: Version | dict) -> CodeSystem:
        with self._lock:
            if name in self._compiled:
                self._compiled.move_to_end(name)
                return self._compiled[name]
        compiled = CodeSystem(source.resource() if isinstance(source, Version) else source)
        with self._lock:
            self._compiled[name] = compiled
            while len(self._compiled) > 1 and sum(map(len, self._compiled.values())) > _KEPT_CONCEPTS:
                self._compiled.popitem(last=False)
        return compiled


def _escaped(value: str) -> str:
    """A value as a search parameter has it. https://hl7.org/fhir/R4/search.html#escaping"""
    for sign in ("\\", ",", "|", "$"):
        value = value.replace(sign, f"\\{sign}")
    return value
