"""Filters of a Subscription: search criteria, each made once into what a version must meet.

The text is R4 search syntax as the Backport guide writes it: `name=v`, `name:mod=v`, `Type.name=v` or
`Type?name=v&name=v`. A filter means what a search by it means: it is the search's own condition, held against what a
version is found by.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from conformance import Topic
from fhir_server.errors import BadRequest
from fhir_server.index import CONTENT, TEXT, official_rules
from fhir_server.search.condition import condition
from fhir_server.search.held import Facts, Holds, NotHeld, held
from fhir_server.search.terms import Asked
from fhir_server.search.words import worded

MAX_FILTER = 2000  # characters
WRITTEN = "_lastUpdated"  # of the version itself, so it needs no index
WORDS = (TEXT, CONTENT)  # parameters that look at no element
RANGED = ("date", "number", "quantity", "composite")  # types of parameters whose values are ranges
MAX_VALUES = 100  # alternatives of one filter


class BadFilter(ValueError):
    """A filter that the topic does not offer, or that cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition on a version. filter: as a search has it, or one that every match meets too; holds: decides.
    by_ranges: whether it looks at ranges."""

    parameter: str
    filter: Mapping[str, Any]
    holds: Holds = field(compare=False)
    by_ranges: bool = False


def parse(text: str, topic: Topic, base_url: str) -> list[Clause]:
    """The clauses of one filter text, all of which must hold. Raises BadFilter."""
    if len(text) > MAX_FILTER:
        raise BadFilter(f"a filter may have {MAX_FILTER} characters")
    return [_clause(name, value, topic, base_url) for name, value in _pairs(text, topic)]


def _pairs(text: str, topic: Topic) -> Iterator[tuple[str, str]]:
    head, mark, query = text.partition("?")
    if mark and "=" not in head:
        _check_type(head, topic)
    else:
        query = text
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        name = unquote_plus(name).strip()
        resource_type, dot, rest = name.partition(".")
        if dot:
            _check_type(resource_type, topic)
            name = rest
        if not equals or not name or not value:
            raise BadFilter(f"'{part[:80]}' is not of the form name=value")
        yield name, unquote_plus(value)


def _check_type(resource_type: str, topic: Topic) -> None:
    if resource_type != topic.resource_type:
        raise BadFilter(f"this topic is about {topic.resource_type}, not '{resource_type[:40]}'")


def _clause(name: str, value: str, topic: Topic, base_url: str) -> Clause:
    code, _, modifier = name.partition(":")
    offered = topic.filters.get(code)
    if offered is None:
        raise BadFilter(f"'{code[:40]}' is no filter here; there are {', '.join(sorted(topic.filters))}")
    try:
        if code in WORDS:
            if modifier:
                raise BadFilter(f"the filter '{code}' has no modifiers")
            wanted = worded(code, value).filter
            return Clause(code, wanted, held(wanted))
        rule = official_rules(topic.resource_type)[code]
        if modifier and modifier not in offered and modifier not in rule.parameter.targets:
            raise BadFilter(f"the filter '{code}' has no modifier '{modifier[:40]}' here")
        asked = Asked(topic.resource_type, rule, modifier, value, base_url)
        if len(asked.values) > MAX_VALUES:
            raise BadFilter(f"the filter '{code}' takes at most {MAX_VALUES} values")
        return _of(asked)
    except BadRequest as fault:
        raise BadFilter(fault.issues[0].diagnostics if fault.issues else fault.diagnostics) from None
    except NotHeld:
        raise BadFilter(f"the filter '{code}' needs a query, and none is made for a Subscription") from None


def _of(asked: Asked) -> Clause:
    code, wanted = asked.parameter.code, condition(asked).filter
    holds, by_ranges = held(wanted), asked.parameter.type in RANGED and asked.modifier != "missing"
    if asked.parameter.type in ("date", "composite") and "ap" in asked.value:
        # How near a date is depends on how long ago it is when that is asked.
        there = {} if code == WRITTEN else {"keys": f"+{code}"}
        return Clause(code, there, lambda facts: held(condition(asked).filter)(facts), by_ranges)
    return Clause(code, wanted, holds, by_ranges)


def matches(clauses: Collection[Clause], facts: Facts) -> bool:
    """Whether a version meets every clause."""
    return all(clause.holds(facts) for clause in clauses)
