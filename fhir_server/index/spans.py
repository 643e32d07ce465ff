"""Dates, numbers and quantities as spans. https://hl7.org/fhir/R4/search.html#prefix

A date is [lo, hi) in microseconds since 1970, as wide as it is written; a number is [lo, hi], both ends included.
"""

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from math import isinf
from typing import Any

from fhir_server.index import ucum

DAY = 86_400_000_000  # microseconds
WIDE = "~"  # after the parameter's name in the range of a date that covers more than a day
EARLIEST, LATEST = -(2**62), 2**62  # open ends
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAYS = date.max.toordinal() + 1 - _EPOCH_DAY  # the day after 9999-12-31
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,12}))?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)
_MINUTE, _SECOND = 60_000_000, 1_000_000

Span = tuple[int, int]


def date_span(text: str) -> Span | None:
    """[lo, hi) of a date, dateTime or instant; None for anything else. Without a zone it is UTC."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day = int(match[1]), match[2], match[3]
    if year == 0:
        return None
    if month is None:
        return _month(year, 1) * DAY, _month(year, 13) * DAY
    if not 1 <= int(month) <= 12:
        return None
    first, following = _month(year, int(month)), _month(year, int(month) + 1)
    if day is None:
        return first * DAY, following * DAY
    if not 1 <= int(day) <= following - first:
        return None
    lo = (first + int(day) - 1) * DAY
    if match[4] is None:
        return lo, lo + DAY
    return _time(lo, match)


def _time(midnight: int, match: re.Match) -> Span | None:
    hour, minute, second, fraction = int(match[4]), int(match[5]), match[6], match[7]
    if hour > 23 or minute > 59 or (second and int(second) > 60):
        return None
    lo, width = midnight + hour * 60 * _MINUTE + minute * _MINUTE, _MINUTE
    if second:
        lo, width = lo + int(second) * _SECOND, _SECOND
    if fraction:
        digits = fraction[:6]
        width = max(10 ** (6 - len(digits)), 1)
        lo += int(digits) * width
    zone = match[8]
    if zone and zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[4:])
        if hours > 14 or minutes > 59:
            return None
        lo -= (hours * 60 + minutes) * _MINUTE * (1 if zone[0] == "+" else -1)
    return lo, lo + width


def _month(year: int, month: int) -> int:
    """The first day of the month as days since 1970; month 13 is the January after."""
    if month == 13:
        year, month = year + 1, 1
    return _DAYS if year > 9999 else date(year, month, 1).toordinal() - _EPOCH_DAY


def date_spans(value: Any) -> Iterator[Span]:
    """The span of a date, dateTime, instant, Period or Timing; nothing for other content."""
    if isinstance(value, str):
        span = date_span(value)
        if span:
            yield span
    elif isinstance(value, dict):
        span = _timing(value) if "event" in value or "repeat" in value else _period(value)
        if span:
            yield span


def _period(value: dict) -> Span | None:
    start, end = _written(value.get("start")), _written(value.get("end"))
    if start is None and end is None:
        return None
    lo, hi = start[0] if start else EARLIEST, end[1] if end else LATEST
    return (lo, hi) if lo <= hi else (hi, lo)  # a period that ends before it starts still covers something


def _timing(value: dict) -> Span | None:
    """The outer limits of a Timing; when within them is not looked at."""
    events = value.get("event")
    spans = [span for event in events if (span := _written(event))] if isinstance(events, list) else []
    repeat = value.get("repeat")
    bounds = repeat.get("boundsPeriod") if isinstance(repeat, dict) else None
    if isinstance(bounds, dict) and (span := _period(bounds)):
        spans.append(span)
    return (min(lo for lo, _ in spans), max(hi for _, hi in spans)) if spans else None


def _written(value: Any) -> Span | None:
    return date_span(value) if isinstance(value, str) else None


def number(value: Any) -> float | None:
    """A JSON number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        return float(Decimal(value)) if isinstance(value, int) else float(value)
    except (OverflowError, InvalidOperation):
        return None


def number_spans(value: Any) -> Iterator[tuple[float, float]]:
    """[lo, hi] of a number, Quantity, Money, Range or SampledData; nothing for other content."""
    plain = number(value)
    if plain is not None:
        yield plain, plain
    elif isinstance(value, dict):
        span = _sampled(value) if "origin" in value else _range(value) if "value" not in value else _quantity(value)
        if span:
            yield span


def _quantity(value: dict) -> tuple[float, float] | None:
    amount = number(value.get("value"))
    if amount is None:
        return None
    comparator = value.get("comparator")
    lo = float("-inf") if comparator in ("<", "<=") else amount
    hi = float("inf") if comparator in (">", ">=") else amount
    return lo, hi


def _range(value: dict) -> tuple[float, float] | None:
    low, high = (
        number(end.get("value")) if isinstance(end, dict) else None for end in (value.get("low"), value.get("high"))
    )
    if low is None and high is None:
        return None
    return float("-inf") if low is None else low, float("inf") if high is None else high


def _sampled(value: dict) -> tuple[float, float] | None:
    """The bounds of the values of a SampledData. https://hl7.org/fhir/R4/datatypes.html#SampledData"""
    origin = value["origin"]
    zero = number(origin.get("value")) if isinstance(origin, dict) else None
    factor = number(value.get("factor", 1))
    data = value.get("data")
    if zero is None or factor is None or not isinstance(data, str):
        return None
    samples = [zero + factor * float(sample) for sample in data.split() if _DECIMAL.fullmatch(sample)]
    return (min(samples), max(samples)) if samples else None


_DECIMAL = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


def base_spans(value: Any) -> Iterator[tuple[float, float, str]]:
    """[lo, hi] of a quantity in base units of UCUM, and their dimension; nothing for other units."""
    if not isinstance(value, dict):
        return
    for part in ("origin", "low", "high"):
        if isinstance(value.get(part), dict):
            system, code = value[part].get("system"), value[part].get("code")
            break
    else:
        system, code = value.get("system"), value.get("code")
    scale = ucum.scale(code) if system == ucum.SYSTEM and isinstance(code, str) else None
    if scale is None:
        return
    for span in number_spans(value):
        try:
            low, high = (end if isinf(end) else scale.base(Decimal(repr(end))) for end in span)
        except OverflowError:
            continue
        yield low, high, scale.dimension


def near_spans(value: Any) -> Iterator[tuple[float, float]]:
    """(latitude, longitude) of a Location.position in degrees; nothing for a place that is not on earth."""
    if isinstance(value, dict):
        latitude, longitude = number(value.get("latitude")), number(value.get("longitude"))
        if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180:
            yield latitude, longitude


def units(value: Any) -> list[str]:
    """What the unit of a Quantity can be searched by: `system|code`, `|code` and `|unit`, as token keys."""
    if not isinstance(value, dict):
        return []
    for part in ("origin", "low", "high"):
        if isinstance(value.get(part), dict):
            return units(value[part])
    if isinstance(value.get("currency"), str):
        return [f"urn:iso:std:iso:4217|{value['currency']}", f"|{value['currency']}"]
    system, code, unit = value.get("system"), value.get("code"), value.get("unit")
    found = []
    if isinstance(code, str):
        found.append(f"|{code}")
        if isinstance(system, str):
            found.append(f"{system}|{code}")
    if isinstance(unit, str) and unit != code:
        found.append(f"|{unit}")
    return found
