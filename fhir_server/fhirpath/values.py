"""Comparing and computing in FHIRPath. https://hl7.org/fhirpath/N1/#operations"""

from collections.abc import Sequence
from decimal import Decimal, DivisionByZero, InvalidOperation
from typing import Any

from fhir_server.fhirpath.nodes import Node
from fhir_server.index.spans import date_span

MOMENTS = frozenset({"date", "dateTime", "instant"})
_LARGEST = 10**28  # numbers beyond are nothing


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def number(node: Node) -> Decimal | int | None:
    """The number of a node; None for none, or for one beyond what is computed with."""
    value = node.value
    if isinstance(value, dict) and node.type in ("Quantity", "Age", "Count", "Duration", "Distance", "Money"):
        value = value.get("value")
    if not is_number(value) or not -_LARGEST < value < _LARGEST:
        return None
    return Decimal(str(value)) if isinstance(value, float) else value


def made(value: Decimal | int) -> list[Node]:
    """A computed number; nothing when it is too large."""
    if not -_LARGEST < value < _LARGEST:
        return []
    return [Node(value, "integer" if isinstance(value, int) else "decimal")]


def equal(one: Node, other: Node) -> bool | None:
    """`=` of two items; None when it cannot be told."""
    first, second = one.value, other.value
    if is_number(first) and is_number(second):
        return bool(number(one) == number(other))
    if isinstance(first, str) and isinstance(second, str) and (one.type in MOMENTS or other.type in MOMENTS):
        return _same_moment(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return same(first, second)
    return type(first) is type(second) and first == second


def same(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(value, second[name]) for name, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if is_number(first) and is_number(second):
        return Decimal(str(first)) == Decimal(str(second))
    return type(first) is type(second) and bool(first == second)


def equivalent(one: Node, other: Node) -> bool:
    """`~`: strings whatever their case and spaces, codings by system and code."""
    if isinstance(one.value, str) and isinstance(other.value, str):
        return " ".join(one.value.lower().split()) == " ".join(other.value.lower().split())
    if isinstance(one.value, dict) and isinstance(other.value, dict) and one.type == other.type == "Coding":
        return all(one.value.get(name) == other.value.get(name) for name in ("system", "code"))
    return bool(equal(one, other))


def compare(one: Node, other: Node) -> int | None:
    """Below, at or above 0 as one is before, at or after the other; None when that cannot be told."""
    first, second = number(one), number(other)
    if first is not None and second is not None:
        if isinstance(one.value, dict) and isinstance(other.value, dict):
            units = [{value.get("code") or value.get("unit")} for value in (one.value, other.value)]
            if units[0] != units[1]:
                return None
        return (first > second) - (first < second)
    if not isinstance(one.value, str) or not isinstance(other.value, str):
        return None
    if one.type in MOMENTS or other.type in MOMENTS:
        spans = date_span(one.value), date_span(other.value)
        if spans[0] is None or spans[1] is None:
            return None
        if spans[0][1] <= spans[1][0]:
            return -1
        if spans[0][0] >= spans[1][1]:
            return 1
        return 0 if spans[0] == spans[1] else None
    return (one.value > other.value) - (one.value < other.value)


def compute(operator: str, one: Node, other: Node) -> list[Node]:
    """`+ - * / div mod` of two numbers, `+` of two strings; nothing where there is no result."""
    if operator == "+" and isinstance(one.value, str) and isinstance(other.value, str):
        return [Node(one.value + other.value, "string")]
    first, second = number(one), number(other)
    if first is None or second is None or isinstance(one.value, dict) or isinstance(other.value, dict):
        return []
    try:
        if operator == "/":
            return made(Decimal(first) / Decimal(second))
        if operator in ("div", "mod"):
            whole = int(Decimal(first) / Decimal(second))
            return made(whole if operator == "div" else first - whole * second)
        return made({"+": first + second, "-": first - second, "*": first * second}[operator])
    except (InvalidOperation, DivisionByZero, ZeroDivisionError):
        return []


def text(node: Node) -> str | None:
    """As toString() has it; None for what has no text."""
    value = node.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return format(value, "f") if isinstance(value, Decimal) else str(value) if is_number(value) else None


def distinct(nodes: Sequence[Node]) -> list[Node]:
    found: list[Node] = []
    for node in nodes:
        if not any(equal(node, other) for other in found):
            found.append(node)
    return found


def _same_moment(first: str, second: str) -> bool | None:
    if len(first) != len(second) and ("T" in first) != ("T" in second):
        return None
    one, other = date_span(first), date_span(second)
    if one is None or other is None:
        return first == second
    if one == other:
        return True
    return False if one[1] <= other[0] or other[1] <= one[0] else None
