"""A CodeSystem as a table of concepts. https://hl7.org/fhir/R4/codesystem.html"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_SELECTABLE = "notSelectable"
# Properties that say that a concept is no longer to be used, and the values that do.
_INACTIVE: Mapping[str, tuple[object, ...]] = {
    "inactive": (True, "true"),
    "status": ("retired", "inactive"),
}


@dataclass(slots=True, eq=False)
class Concept:
    """One concept. properties: as the CodeSystem has them; parents, children: codes, in order."""

    code: str
    display: str | None = None
    definition: str | None = None
    designations: list[dict] = field(default_factory=list)
    properties: list[dict] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)

    def values(self, code: str) -> list[Any]:
        """The values of a property."""
        return [
            value
            for one in self.properties
            if one.get("code") == code
            for name, value in one.items()
            if name.startswith("value")
        ]

    @property
    def abstract(self) -> bool:
        """Whether it is there to group others and not to be chosen itself."""
        return any(value in (True, "true") for value in self.values(NOT_SELECTABLE))

    @property
    def inactive(self) -> bool:
        return any(value in said for code, said in _INACTIVE.items() for value in self.values(code))


class CodeSystem:
    """The concepts of one CodeSystem resource. is_complete: it has all concepts of the system that it defines."""

    def __init__(self, resource: dict) -> None:
        self.resource = resource
        self.url: str = resource.get("url", "")
        self.version: str | None = resource.get("version")
        self.name: str = resource.get("name") or resource.get("title") or self.url
        self.is_complete = resource.get("content") == "complete"
        # Only then does a place in the hierarchy say that one concept is a kind of the other.
        self.is_taxonomy = resource.get("hierarchyMeaning", "is-a") == "is-a"
        self.concepts: dict[str, Concept] = {}
        self._folded: dict[str, str] = {}
        self._add(resource.get("concept", []), None)
        for concept in list(self.concepts.values()):
            self._link(concept)
        if resource.get("caseSensitive") is False:
            self._folded = {code.casefold(): code for code in self.concepts}

    def __len__(self) -> int:
        return len(self.concepts)

    def find(self, code: str) -> Concept | None:
        """The concept of a code, in any case where the system says that case does not matter."""
        return self.concepts.get(code) or self.concepts.get(self._folded.get(code.casefold(), ""))

    def below(self, code: str) -> Iterator[str]:
        """The codes of a concept and of all below it, each once."""
        return self._closure([code], lambda concept: concept.children)

    def above(self, code: str) -> Iterator[str]:
        """The codes of a concept and of all above it, each once."""
        return self._closure([code], lambda concept: concept.parents)

    def subsumes(self, one: str, other: str) -> bool:
        """Whether the first is the second or a kind that the second belongs to."""
        return one == other or (self.is_taxonomy and one in set(self.above(other)))

    def _closure(self, waiting: list[str], onward: Callable[[Concept], list[str]]) -> Iterator[str]:
        seen: set[str] = set()
        queue = deque(waiting)
        while queue:
            code = queue.popleft()
            if code not in seen and code in self.concepts:
                seen.add(code)
                yield code
                queue += onward(self.concepts[code])

    def _add(self, rows: Iterable[dict], parent: str | None) -> None:
        for row in rows:
            if "code" not in row:
                continue  # it has an extension that says why
            concept = self.concepts.setdefault(row["code"], Concept(row["code"]))
            concept.display = row.get("display")
            concept.definition = row.get("definition")
            concept.designations = row.get("designation", [])
            concept.properties = row.get("property", [])
            if parent is not None:
                concept.parents.append(parent)
                self.concepts[parent].children.append(concept.code)
            self._add(row.get("concept", []), concept.code)

    def _link(self, concept: Concept) -> None:
        """The properties `parent` and `child` say the same as nesting does."""
        for parent in concept.values("parent"):
            self._place(parent, concept.code)
        for child in concept.values("child"):
            self._place(concept.code, child)

    def _place(self, parent: str, child: str) -> None:
        if parent in self.concepts and child in self.concepts:
            if parent not in self.concepts[child].parents:
                self.concepts[child].parents.append(parent)
            if child not in self.concepts[parent].children:
                self.concepts[parent].children.append(child)


def display_of(concept: Concept, language: str | None) -> str | None:
    """The display in a language where there is one, or as the code system has it."""
    if language is not None:
        for designation in concept.designations:
            if str(designation.get("language", "")).lower() == language.lower():
                return designation.get("value")
    return concept.display
