"""What a search looks for, held against one resource that need not be stored, without asking the database.

A filter is taken as `fhir_server.search.condition` makes it, so what meets it here is what the database would find.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Holds = Callable[["Facts"], bool]


class NotHeld(ValueError):
    """A filter that the database alone can answer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a version is found by: its keys, its ranges as `fhir_server.index.Entry` has them, when it was written."""

    keys: Collection[str]  # a set, for most is asked of it
    ranges: Sequence[Mapping[str, Any]] = field(default=())
    written: datetime | None = None


def held(filter: Mapping[str, Any]) -> Holds:
    """Whether a version meets the filter. Raises NotHeld."""
    parts = [_part(name, wanted) for name, wanted in filter.items()]
    return parts[0] if len(parts) == 1 else lambda facts: all(part(facts) for part in parts)


def _part(name: str, wanted: Any) -> Holds:
    if name in ("$and", "$or"):
        parts = [held(one) for one in wanted]
        return (
            (lambda facts: all(part(facts) for part in parts))
            if name == "$and"
            else lambda facts: any(part(facts) for part in parts)
        )
    if name == "keys":
        return _of_keys(wanted)
    if name == "r" and isinstance(wanted, dict) and wanted.keys() == {"$elemMatch"}:
        span = _span(wanted["$elemMatch"])
        return lambda facts: any(span(one) for one in facts.ranges)
    if name == "lu":
        within = _value(wanted)
        return lambda facts: facts.written is not None and within(facts.written)
    raise NotHeld(f"{name} is no part of a filter that can be held against a resource alone")


def _of_keys(wanted: Any) -> Holds:
    """`keys` is an array, of which an element must be as wanted; none, for `$ne` and `$nin`."""
    if isinstance(wanted, str):
        return lambda facts: wanted in facts.keys
    ((operator, operand),) = wanted.items()
    if operator in ("$in", "$nin"):
        several = frozenset(operand)
        if operator == "$in":
            return lambda facts: not several.isdisjoint(facts.keys)
        return lambda facts: several.isdisjoint(facts.keys)
    if operator == "$ne":
        return lambda facts: operand not in facts.keys
    if operator == "$regex":
        found = re.compile(operand, re.ASCII).search
        return lambda facts: any(found(key) for key in facts.keys)
    raise NotHeld(f"{operator} of keys")


def _span(bounds: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether one range meets all of these bounds."""
    parts = [_bound(name, wanted) for name, wanted in bounds.items()]
    return lambda one: all(part(one) for part in parts)


def _bound(name: str, wanted: Any) -> Callable[[Mapping[str, Any]], bool]:
    if name in ("$and", "$or"):
        parts = [_span(one) for one in wanted]
        every = name == "$and"
        return lambda one: all(part(one) for part in parts) if every else any(part(one) for part in parts)
    meets = _value(wanted)

    def met(one: Mapping[str, Any]) -> bool:
        value = one.get(name)
        return any(map(meets, value)) if isinstance(value, list) else value is not None and meets(value)

    return met


def _value(wanted: Any) -> Callable[[Any], bool]:
    """Whether one value is as wanted: the same, or within what operators say."""
    if not isinstance(wanted, dict):
        return lambda value: bool(value == wanted)
    parts = [_operator(operator, operand) for operator, operand in wanted.items()]
    return parts[0] if len(parts) == 1 else lambda value: all(part(value) for part in parts)


def _operator(operator: str, operand: Any) -> Callable[[Any], bool]:
    if operator not in _OPERATORS:
        raise NotHeld(f"{operator} of a value")
    if operator == "$regex":
        operand = re.compile(operand, re.ASCII)
    compare = _OPERATORS[operator]
    return lambda value: bool(compare(value, operand))


_OPERATORS: Mapping[str, Callable[[Any, Any], object]] = {
    "$gt": lambda value, bound: value > bound,
    "$gte": lambda value, bound: value >= bound,
    "$lt": lambda value, bound: value < bound,
    "$lte": lambda value, bound: value <= bound,
    "$in": lambda value, several: value in several,
    "$regex": lambda value, pattern: pattern.search(value),
}
