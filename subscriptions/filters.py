"""Filters of a Subscription: search criteria, turned once into search keys that a version has or has not.

The text is R4 search syntax as the Backport guide writes it: `name=v`, `name:mod=v`, `Type.name=v` or
`Type?name=v&name=v`. Matching never looks at a resource: a version carries its search keys with it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_plus

import conformance
from conformance import SearchParameter, Topic
from fhir_server.errors import BadRequest
from fhir_server.index.encode import normal
from fhir_server.index.spans import Span
from fhir_server.index.text import bounded
from fhir_server.search.coded import token_key
from fhir_server.search.values import alternatives, date_value, unescape
from fhir_server.validation import ID

MAX_FILTER = 2000  # characters
WRITTEN = "_lastUpdated"  # the one date: of the version itself, so it needs no index
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_VALUES = 100  # alternatives of one filter


class BadFilter(ValueError):
    """A filter that the topic does not offer, or that cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition: a version must have one of `keys`, or none of them when `absent`; or else it must have been
    written at one of `times`, (prefix, span in microseconds since 1970)."""

    parameter: str
    keys: frozenset[str]
    absent: bool = False
    times: tuple[tuple[str, Span], ...] = ()

    def matches(self, keys: Collection[str], at: datetime) -> bool:
        if self.times:
            written = (at - EPOCH) // timedelta(microseconds=1)
            return any(_holds(prefix, span, written) for prefix, span in self.times)
        return self.absent == self.keys.isdisjoint(keys)


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
    parameter = conformance.search_parameters(topic.resource_type)[code]
    if modifier and modifier not in offered and modifier not in parameter.targets:
        raise BadFilter(f"the filter '{code}' has no modifier '{modifier[:40]}' here")
    if modifier == "missing":
        if value not in ("true", "false"):
            raise BadFilter(f"'{code}:missing' is true or false")
        return Clause(code, frozenset({f"+{code}"}), absent=value == "true")
    try:
        values = alternatives(name, value)
        if len(values) > MAX_VALUES:
            raise BadFilter(f"the filter '{code}' takes at most {MAX_VALUES} values")
        if code == WRITTEN:
            return Clause(code, frozenset(), times=tuple(_time(name, one) for one in values))
        keys = {key for one in values for key in _keys(parameter, modifier, one, base_url)}
    except BadRequest as fault:
        raise BadFilter(fault.issues[0].diagnostics if fault.issues else fault.diagnostics) from None
    return Clause(code, frozenset(keys), absent=modifier == "not")


def _keys(parameter: SearchParameter, modifier: str, value: str, base_url: str) -> list[str]:
    """The search keys that a value stands for, as a search for it would look for them."""
    code = parameter.code
    if parameter.type == "token":
        return [token_key(code, code, value)]
    if parameter.type == "uri":
        return [bounded(f"{code}={unescape(value)}")]
    if parameter.type == "reference":
        if modifier == "identifier":
            return [token_key(f"{code}:identifier", f"{code}:identifier", value)]
        target = normal(unescape(value), base_url)
        if ID.fullmatch(target):  # an id alone: of any type that the parameter leads to
            return [f"{code}={type}/{target}" for type in ([modifier] if modifier else parameter.targets)]
        if modifier and not target.startswith(f"{modifier}/"):
            raise BadFilter(f"'{code}:{modifier}' takes a {modifier}")
        return [bounded(f"{code}={target}")]
    raise BadFilter(f"the filter '{code}' is a {parameter.type}, which cannot be filtered by here")


def _time(name: str, value: str) -> tuple[str, Span]:
    prefix, span = date_value(name, value)
    if prefix not in _HOLDS:
        raise BadFilter(f"'{name}' does not take the prefix {prefix} here")
    return prefix, span


def _holds(prefix: str, span: Span, written: int) -> bool:
    return _HOLDS[prefix](*span, written)


# http://hl7.org/fhir/R4/search.html#prefix, for an instant
_HOLDS: Mapping[str, Callable[[int, int, int], bool]] = {
    "eq": lambda start, end, at: start <= at < end,
    "ne": lambda start, end, at: not start <= at < end,
    "gt": lambda _start, end, at: at >= end,
    "sa": lambda _start, end, at: at >= end,
    "ge": lambda start, _end, at: at >= start,
    "lt": lambda start, _end, at: at < start,
    "eb": lambda start, _end, at: at < start,
    "le": lambda _start, end, at: at < end,
}


def matches(clauses: Collection[Clause], keys: Collection[str], at: datetime) -> bool:
    """Whether a version with these search keys, written at that time, meets every clause."""
    return all(clause.matches(keys, at) for clause in clauses)
