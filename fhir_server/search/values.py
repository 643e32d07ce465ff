"""Values of search parameters: what separates them, and how that is escaped.
https://hl7.org/fhir/R4/search.html#escaping
"""

import re
from decimal import Decimal

from fhir_server.errors import BadRequest, Issue
from fhir_server.index.spans import Span, date_span

MAX_VALUE = 2000  # characters
MAX_ALTERNATIVES = 1000  # values between commas
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


class UnknownParameter(BadRequest):
    """A parameter that is not offered. Lenient handling leaves it out and says so."""

    issue_code = "not-supported"


class TooCostly(BadRequest):
    """A search that would have to look at too much; another parameter narrows it."""

    issue_code = "too-costly"


class TooManyLinked(TooCostly):
    """A link of a chain leads through too many from either end to be followed at once."""


def bad_value(name: str, expected: str) -> BadRequest:
    """A refusal that names the parameter and not the value, which may be a patient's."""
    return BadRequest(issues=[Issue("value", f"{name[:80]!r} takes {expected}")], diagnostics="bad value")


def split(text: str, separator: str) -> list[str]:
    """The parts between separators that are not escaped; escapes are kept."""
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == separator:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def unescape(text: str) -> str:
    """`a\\,b` -> `a,b`"""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def alternatives(name: str, text: str) -> list[str]:
    """The values of which one has to match, still escaped. Raises BadRequest for empty or too many ones."""
    values = split(text, ",")
    if len(values) > MAX_ALTERNATIVES:
        raise bad_value(name, f"at most {MAX_ALTERNATIVES} values")
    if any(not value or len(value) > MAX_VALUE for value in values):
        raise bad_value(name, f"values of 1 to {MAX_VALUE} characters")
    return values


def prefixed(text: str) -> tuple[str, str]:
    """`ge2024` -> (`ge`, `2024`)"""
    return (text[:2], text[2:]) if text[:2] in PREFIXES else ("eq", text)


def date_value(name: str, text: str) -> tuple[str, Span]:
    """The prefix and the span of `ge2024-03`. Raises BadRequest."""
    prefix, written = prefixed(text)
    span = date_span(written.replace(" ", "+"))  # an unescaped + of a zone reads as a space
    if span is None:
        raise bad_value(name, "a date such as 2024, ge2024-03-01 or lt2024-03-01T10:00:00Z")
    return prefix, span


def number_value(name: str, text: str) -> tuple[str, Decimal]:
    """The prefix and the number of `ge5.40`. Raises BadRequest."""
    prefix, written = prefixed(text)
    number = decimal_value(written)
    if number is None:
        raise bad_value(name, "a number such as 5, 5.40 or ge1e-2")
    return prefix, number


def decimal_value(text: str) -> Decimal | None:
    """A number without a prefix; None for anything else."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def implied(value: Decimal) -> tuple[Decimal, Decimal]:
    """What a number means by its digits: 100 is [99.5, 100.5), 100.00 is [99.995, 100.005), 1e2 is [95, 105).

    https://hl7.org/fhir/R4/search.html#number
    """
    exponent = int(value.as_tuple().exponent)
    half = Decimal(5).scaleb(exponent - 1 if exponent <= 0 else exponent - 2)
    return value - half, value + half
