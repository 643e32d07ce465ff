"""Invariants of every resource: what may be contained, and how. https://hl7.org/fhir/R4/domainresource.html"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fhir_server.validation.invariants.terms import Invariant, Verdict, has


def _no_contained(broken: Callable[[dict], str | None]) -> Invariant:
    """No contained resource is broken; `broken` gives the path inside it."""

    def check(resource: dict) -> Verdict:
        for index, contained in enumerate(resource.get("contained", ())):
            path = broken(contained)
            if path is not None:
                return f"contained[{index}].{path}" if path else f"contained[{index}]"
        return True

    return check


def _dom_4(contained: dict) -> str | None:
    meta = contained.get("meta", {})
    found = [name for name in ("versionId", "lastUpdated") if has(meta, name)]
    return f"meta.{found[0]}" if found else None


def _dom_3(resource: dict) -> Verdict:
    """What is contained is referred to from around it, or refers to what is around it."""
    if "contained" not in resource:
        return True
    used = {text for text in _texts(resource) if text.startswith("#")}
    for index, contained in enumerate(resource["contained"]):
        if f"#{contained.get('id')}" not in used and "#" not in set(_texts(contained)):
            return f"contained[{index}]"
    return True


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)


INVARIANTS: Mapping[str, Invariant] = {
    "dom-2": _no_contained(lambda contained: "contained" if "contained" in contained else None),
    "dom-3": _dom_3,
    "dom-4": _no_contained(_dom_4),
    "dom-5": _no_contained(lambda contained: "meta.security" if has(contained.get("meta", {}), "security") else None),
}
