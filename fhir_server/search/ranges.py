"""How a prefix compares spans: one row for each row of https://hl7.org/fhir/R4/search.html#prefix

A date is [lo, hi) and so is what is asked for, [start, end). A stored number is [lo, hi], ends included; what is
asked for is [start, end) by its digits for eq, ne and ap, and the number itself for the others.
"""

from collections.abc import Callable
from decimal import Decimal

from fhir_server.errors import BadRequest
from fhir_server.index.spans import Span
from fhir_server.search.values import implied

APPROXIMATELY = Decimal("0.1")
LO, HI = "lo", "hi"


def date_bounds(prefix: str, span: Span, now: int, position: str = "") -> dict:
    """What the stored lo and hi must meet. now: microseconds since 1970."""
    lo, hi = LO + position, HI + position
    start, end = approximate(span, now) if prefix == "ap" else span
    rows: dict[str, dict] = {
        "eq": {lo: {"$gte": start, "$lt": end}, hi: {"$lte": end}},
        "ne": {"$or": [{lo: {"$lt": start}}, {hi: {"$gt": end}}]},
        "gt": {hi: {"$gt": end}},
        "lt": {lo: {"$lt": start}},
        "ge": {"$or": [{hi: {"$gt": end}}, {lo: {"$gte": start}}]},
        "le": {lo: {"$lt": end}, "$or": [{lo: {"$lt": start}}, {hi: {"$lte": end}}]},
        "sa": {lo: {"$gte": end}},
        "eb": {hi: {"$lte": start}},
        "ap": {lo: {"$lt": end}, hi: {"$gt": start}},
    }
    return rows[prefix]


def approximate(span: Span, now: int) -> Span:
    """The span and a tenth of the time between it and now on either side."""
    margin = abs(now - sum(span) // 2) // 10
    return span[0] - margin, span[1] + margin


def number_bounds(
    prefix: str, value: Decimal, position: str = "", convert: Callable[[Decimal], float] = float
) -> dict:
    """What the stored lo and hi must meet. convert: to the unit that they are in."""
    lo, hi = LO + position, HI + position
    low, high = implied(value)
    if prefix == "ap":
        margin = abs(value) * APPROXIMATELY
        low, high = min(low, value - margin), max(high, value + margin)
    try:
        start, exact, end = (convert(bound) for bound in (low, value, high))
    except OverflowError:
        raise BadRequest("a quantity is larger than any that could be stored") from None
    rows: dict[str, dict] = {
        "eq": {lo: {"$gte": start}, hi: {"$lt": end}},
        "ne": {"$or": [{lo: {"$lt": start}}, {hi: {"$gte": end}}]},
        "gt": {hi: {"$gt": exact}},
        "lt": {lo: {"$lt": exact}},
        "ge": {hi: {"$gte": exact}},
        "le": {lo: {"$lte": exact}},
        "sa": {lo: {"$gt": exact}},
        "eb": {hi: {"$lt": exact}},
        "ap": {lo: {"$lte": end}, hi: {"$gte": start}},
    }
    return rows[prefix]
