"""What conditions of a search are made of. https://hl7.org/fhir/R4/search.html#modifiers"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from conformance import SearchParameter
from fhir_server.elements import is_primitive
from fhir_server.errors import BadRequest
from fhir_server.index import Rule
from fhir_server.search.values import alternatives
from fhir_server.search.window import Window

KEYS, RANGES, UPDATED = "k", "r", "lu"  # indexes of the store
MAX_SCANS = 100  # values of a parameter that each take a scan of their own


@dataclass(frozen=True, slots=True)
class Condition:
    """What a version must meet. index: the one that finds the versions that do; None where none helps.

    window: of a date, where its matches begin.
    """

    filter: dict
    index: str | None = None
    window: Window | None = None

    def found_by(self, index: str) -> dict:
        """The filter, for versions that this index finds."""
        return self.filter if self.window is None or index == self.index else self.window.beside


class Vocabulary(Protocol):
    """What is known of codes: for the modifiers `:in`, `:not-in`, `:below` and `:above`."""

    def members(self, value_set: str) -> Collection[tuple[str, str]]:
        """(system, code) of a value set, by its URL or as `ValueSet/id`. Raises FhirError when they are unknown."""

    def below(self, system: str, code: str) -> Collection[str]:
        """The code and those that it subsumes. Raises FhirError for a system that is not loaded."""

    def above(self, system: str, code: str) -> Collection[str]:
        """The code and those that subsume it. Raises FhirError for a system that is not loaded."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One parameter of a search on one type: `code:modifier=value`."""

    resource_type: str
    rule: Rule
    modifier: str
    value: str
    base_url: str
    vocabulary: Vocabulary | None = None

    @property
    def parameter(self) -> SearchParameter:
        return self.rule.parameter

    @property
    def name(self) -> str:
        return f"{self.parameter.code}:{self.modifier}" if self.modifier else self.parameter.code

    @property
    def values(self) -> list[str]:
        return alternatives(self.name, self.value)

    @property
    def paths(self) -> list[list[str]]:
        """The elements that the parameter looks at, below the resource, where its expression is a plain path."""
        return [path.split(".")[1:] for path in self.parameter.expression.split(" | ")]

    @property
    def is_plain(self) -> bool:
        """Whether all that it looks at are primitive values, such as codes without a system beside them."""
        return all(is_primitive(self.resource_type, path) for path in self.paths)


def having(keys: Iterable[str]) -> Condition:
    """To have one of these keys."""
    keys = list(dict.fromkeys(keys))
    return Condition({"keys": keys[0] if len(keys) == 1 else {"$in": keys}}, KEYS)


def lacking(keys: Iterable[str]) -> Condition:
    """To have none of these keys."""
    return Condition({"keys": {"$nin": list(dict.fromkeys(keys))}})


def any_of(filters: list[dict], index: str | None) -> Condition:
    """To meet one of these filters, each of which takes a scan of its own."""
    if len(filters) > MAX_SCANS:
        raise BadRequest(f"of dates, numbers and texts a parameter may have {MAX_SCANS} values")
    return Condition(filters[0] if len(filters) == 1 else {"$or": filters}, index)
