"""The order of matches, and where a page goes on: keyset paging. https://hl7.org/fhir/R4/search.html#sort

A position is (value, n) of a match at the edge of a page; links carry it sealed. Matches without the sort value come
last.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.index import Indexer, rules
from fhir_server.paging import PARAMETER
from fhir_server.search import sorting
from fhir_server.search.sorting import Sorting, parse_sort
from fhir_server.search.terms import KEYS, RANGES, UPDATED, Condition
from fhir_server.search.values import bad_value
from fhir_server.version import Version

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999 = 253_370_764_800_000  # in milliseconds
_POSITION = re.compile(r"(\d{1,19})(?:\.([A-Za-z0-9\-.]{1,64}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """The last match of a page; value None: it has none, and neither have those that follow. A tuple: the values of
    the rules of a Sorting."""

    value: Any
    n: int


@dataclass(frozen=True, slots=True)
class Part:
    """Matches in one order. field: of the stored document; index: the one in this order; direction: 1 or -1."""

    field: str
    index: str
    direction: int
    conditions: tuple[Condition, ...] = ()
    valued: bool = True
    backward: bool = False

    @property
    def turned(self) -> "Part":
        """The same matches, the last one first."""
        return replace(self, direction=-self.direction, backward=not self.backward)

    @property
    def sort(self) -> list[tuple[str, int]]:
        if self.field == "id":
            return [("id", self.direction)]
        # The same direction for both, so that an index serves either when read backwards.
        return [(name, self.direction) for name in dict.fromkeys((self.field, "n"))]

    def behind(self, position: Position) -> list[Condition] | None:
        """What the matches of this part behind the position meet; None when there can be none."""
        beyond = "$lt" if self.direction < 0 else "$gt"
        if self.field == "n":
            # Those without a value come after all that have one.
            if self.valued or position.value is None:
                return [Condition({"n": {beyond: position.n}})]
            return None if self.backward else []
        if position.value is None:
            return [] if self.backward else None
        up_to = {self.field: {f"{beyond}e": position.value}}
        following = {"$or": [{self.field: {beyond: position.value}}, {"n": {beyond: position.n}}]}
        return [Condition(up_to), Condition(following)]


@dataclass(frozen=True, slots=True)
class Order:
    """code: the parameter to sort by; None: by creation. direction: 1 or -1."""

    code: str | None
    direction: int

    def parts(self, conditions: Sequence[Condition] = ()) -> list[Part]:
        """In which parts the matches of these conditions come: those without the value after those that have it.

        Where a condition on the same date says so, the index in this order is read from there on only.
        """
        if self.code is None:
            return [Part("n", KEYS, self.direction)]
        if self.code in _FIELDS:
            return [Part(*_FIELDS[self.code], self.direction)]
        field = f"s.{self.code}"
        windows = (one.window for one in conditions if one.window and one.window.code == self.code)
        window = next(windows, None)
        if window is None:
            valued = Part(field, field, self.direction, (Condition({field: {"$exists": True}}),))
            return [valued, Part("n", KEYS, self.direction, (Condition({field: {"$exists": False}}),), valued=False)]
        if not window.has_low:
            return [Part(field, field, self.direction, (Condition({field: {"$lt": window.high}}),))]
        early = (Condition({field: {"$lt": window.low}}), Condition(window.wide, RANGES))
        within = (Condition({field: {"$gte": window.low, "$lt": window.high}}),)
        parts = [Part(field, field, self.direction, early), Part(field, field, self.direction, within)]
        return parts[:: self.direction]


_FIELDS = {"_lastUpdated": ("lu", UPDATED), "_id": ("id", "id_v")}
NEWEST_CREATED = Order(None, -1)


def parse(resource_type: str, text: str) -> Order | Sorting:
    """The order that `_sort` asks for. Raises BadRequest."""
    code, direction = (text[1:], -1) if text.startswith("-") else (text, 1)
    return Order(code, direction) if code in sortable(resource_type) else parse_sort(resource_type, text)


def sortable(resource_type: str) -> list[str]:
    """What has an order stored: ids and dates of which a resource has one at most."""
    dates = [code for code, rule in rules(resource_type).items() if rule.single]
    return ["_id", *sorted(dates)]


def position_of(order: Order | Sorting, version: Version, indexer: Indexer) -> Position:
    """Where the page after this version goes on."""
    if isinstance(order, Sorting):
        return Position(order.values_of(version, indexer), version.created)
    value: Any = None
    if order.code == "_id":
        value = version.id
    elif order.code == "_lastUpdated":
        value = version.last_updated
    elif order.code is not None:
        value = indexer.sort_value(version.resource(), order.code)
    return Position(value, version.created)


def written(position: Position) -> str:
    """The position as a link carries it: `n`, or `n.value`."""
    value = position.value
    if isinstance(value, tuple):
        return sorting.written(value, position.n)
    if isinstance(value, datetime):
        value = (value - _EPOCH) // timedelta(milliseconds=1)
    return str(position.n) if value is None else f"{position.n}.{value}"


def parse_position(order: Order | Sorting, text: str) -> Position:
    """Raises BadRequest unless `written` could have written this for the order."""
    if isinstance(order, Sorting):
        return Position(*order.parse_position(text))
    match = _POSITION.fullmatch(text)
    value = _value(order, match[2]) if match else None
    if match is None or (value is None) != (match[2] is None) or (value is None and order.code in _FIELDS):
        raise bad_value(PARAMETER, "what the links of a page say")
    n = int(match[1])
    if n >= 2**63:
        raise bad_value(PARAMETER, "what the links of a page say")
    return Position(value, n)


def _value(order: Order, text: str | None) -> Any:
    """None where the order can have no such value."""
    if text is None or order.code is None:
        return None
    if order.code == "_id":
        return text
    if not re.fullmatch(r"-?\d{1,18}|-?[1-4]\d{18}", text, re.ASCII):
        return None
    if order.code == "_lastUpdated":
        return _EPOCH + timedelta(milliseconds=int(text)) if 0 <= int(text) < _YEAR_9999 else None
    return int(text)
