"""What a ConceptMap says of a code. https://hl7.org/fhir/R4/conceptmap.html"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Read the other way round.
_REVERSED = {"wider": "narrower", "narrower": "wider", "subsumes": "specializes", "specializes": "subsumes"}
NO_MATCH = frozenset({"unmatched", "disjoint"})
MAX_OTHER_MAPS = 5  # that one `unmapped` after the other leads to


@dataclass(frozen=True, slots=True)
class Match:
    """One translation. source: the URL of the map it is from."""

    equivalence: str
    system: str | None
    code: str | None
    display: str | None
    version: str | None
    source: str | None

    @property
    def concept(self) -> dict:
        """As a Coding."""
        members = {"system": self.system, "version": self.version, "code": self.code, "display": self.display}
        return {name: value for name, value in members.items() if value is not None}


def translate(
    concept_map: dict,
    system: str | None,
    code: str,
    target_system: str | None,
    reverse: bool,
    other: Callable[[str], dict | None],
) -> list[Match]:
    """All that the map says of the code. other: finds the map that `unmapped` refers to, by its URL."""
    ways = _backwards if reverse else _forwards
    matches = ways(concept_map, system, code, other, MAX_OTHER_MAPS)
    found = [match for match in matches if target_system in (None, match.system)]
    return list(dict.fromkeys(found))


def fits(concept_map: dict, source: str | None, target: str | None) -> bool:
    """Whether the map is from and to these value sets, as far as they are named."""
    return (source is None or source in _named(concept_map, "source")) and (
        target is None or target in _named(concept_map, "target")
    )


def _named(concept_map: dict, side: str) -> set[str]:
    values = [concept_map.get(f"{side}{kind}") for kind in ("Uri", "Canonical")]
    return {value.partition("|")[0] for value in values if isinstance(value, str)}


def _forwards(
    concept_map: dict, system: str | None, code: str, other: Callable[[str], dict | None], left: int
) -> Iterator[Match]:
    for group in concept_map.get("group", []):
        if system is not None and group.get("source", system) != system:
            continue
        elements = [element for element in group.get("element", []) if element.get("code") == code]
        for element in elements:
            for target in element.get("target", []):
                yield _match(concept_map, group, target.get("equivalence"), target.get("code"), target.get("display"))
        if not elements and "unmapped" in group:
            yield from _unmapped(concept_map, group, system, code, other, left)


def _unmapped(
    concept_map: dict, group: dict, system: str | None, code: str, other: Callable[[str], dict | None], left: int
) -> Iterator[Match]:
    unmapped = group["unmapped"]
    mode = unmapped.get("mode")
    if mode == "provided":
        yield _match(concept_map, group, "equal", code, None)
    elif mode == "fixed":
        yield _match(concept_map, group, "inexact", unmapped.get("code"), unmapped.get("display"))
    elif mode == "other-map" and left and (found := other(unmapped.get("url", ""))) is not None:
        yield from _forwards(found, system, code, other, left - 1)


def _backwards(
    concept_map: dict, system: str | None, code: str, _other: Callable[[str], dict | None], _left: int
) -> Iterator[Match]:
    for group in concept_map.get("group", []):
        if system is not None and group.get("target", system) != system:
            continue
        for element in group.get("element", []):
            for target in element.get("target", []):
                if target.get("code") == code:
                    said = target.get("equivalence", "equivalent")
                    yield Match(
                        _REVERSED.get(said, said),
                        group.get("source"),
                        element.get("code"),
                        element.get("display"),
                        group.get("sourceVersion"),
                        concept_map.get("url"),
                    )


def _match(concept_map: dict, group: dict, equivalence: str | None, code: str | None, display: str | None) -> Match:
    return Match(
        equivalence or "equivalent",
        group.get("target") if code is not None else None,
        code,
        display,
        group.get("targetVersion") if code is not None else None,
        concept_map.get("url"),
    )
