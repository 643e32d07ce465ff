"""The words that invariants are made of, after those of FHIRPath."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Literal

from fhir_server.index.spans import date_span

Verdict = Literal[True] | str
Invariant = Callable[[dict], Verdict]
HERE = ""  # the element itself


def has(element: dict, name: str) -> bool:
    """Whether the element is there; with extensions alone it is there too."""
    return name in element or f"_{name}" in element


def has_choice(element: dict, name: str) -> bool:
    """Whether a `name[x]` is there, of whatever type."""
    size = len(name)
    return any(key.lstrip("_").startswith(name) and key.lstrip("_")[size : size + 1].isupper() for key in element)


def holds(condition: bool, path: str = HERE) -> Verdict:
    return True if condition else path


def needs(name: str, other: str) -> Invariant:
    """Where `name` is, `other` is too."""
    return lambda element: holds(not has(element, name) or has(element, other), name)


def excludes(name: str, other: str) -> Invariant:
    """Where `name` is, `other` is not."""
    return lambda element: holds(not (has(element, name) and has(element, other)), name)


def any_of(*names: str) -> Invariant:
    """At least one of them is there; `x[x]` is a choice."""
    return lambda element: holds(count(element, *names) > 0)


def one_of(*names: str) -> Invariant:
    """Exactly one of them is there."""
    return lambda element: holds(count(element, *names) == 1)


def count(element: dict, *names: str) -> int:
    """How many of these elements are there."""
    return sum(
        has_choice(element, name.removesuffix("[x]")) if name.endswith("[x]") else has(element, name)
        for name in names
    )


def items(element: dict, name: str) -> list:
    """The repetitions of an element; none when it is missing or no list."""
    found = element.get(name)
    return found if isinstance(found, list) else []


def codings(concept: Any) -> Iterator[tuple[Any, Any]]:
    """(system, code) of each coding of a CodeableConcept, or of a list of them."""
    for each in concept if isinstance(concept, list) else [concept]:
        if isinstance(each, dict):
            for coding in items(each, "coding"):
                yield coding.get("system"), coding.get("code")


def has_coding(concept: Any, system: str, *codes: str) -> bool:
    return any(found == system and code in codes for found, code in codings(concept))


def distinct(values: Iterable[Hashable]) -> bool:
    found = list(values)
    return len(found) == len(set(found))


def not_after(earlier: str, later: str) -> bool:
    """Whether the one date can be before or at the other, as exactly as they are written."""
    first, second = date_span(earlier), date_span(later)
    return first is None or second is None or first[0] < second[1]


def number(value: Any) -> Decimal:
    """A JSON number. Raises TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError("a number is expected")
    return Decimal(str(value)) if isinstance(value, float) else Decimal(value)
