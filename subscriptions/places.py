"""Where a Subscription lies, so that those that a version may concern are found without a look at all others.

What a filter asks for is a key, the beginning of a key, or where a range (of a date, a number or a quantity) lies:
between two bounds, above one or below one. Each is a place; what meets the filter is at one of its places. Between
two bounds is told by cells: the line is cut into cells as wide as a power of two, so that an interval that is no
wider lies in two of them, and a value in one for each width in use.
"""

import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, frexp, inf, ldexp
from typing import Any

from fhir_server.index import BASE
from fhir_server.index.spans import WIDE
from fhir_server.search.held import Facts

MAX_BEGINNING = 12  # characters of a text that tell where it lies
PRECISE = 50  # bits of a number of a cell that a float tells apart
LEAST_WIDTH, FAR = -60, 1e200  # so that no number of a cell is too large


@dataclass(frozen=True, slots=True)
class Key:
    """To have this key."""

    key: str


@dataclass(frozen=True, slots=True)
class Beginning:
    """To have a key that begins so."""

    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """To have a range of this parameter that begins in the cell of that number, 2 ** width wide."""

    parameter: str
    width: int
    number: int


@dataclass(frozen=True, slots=True)
class Above:
    """To have a range of this parameter that ends at this or above."""

    parameter: str
    bound: float


@dataclass(frozen=True, slots=True)
class Below:
    """To have a range of this parameter that begins at this or below."""

    parameter: str
    bound: float


Place = Key | Beginning | Cell | Above | Below


def choices(filter: Mapping[str, Any]) -> Iterator[tuple[Place, ...]]:
    """Ways to place who asks for this: whatever meets it is at one of the places, whichever way is taken. There may
    be none, for filters that nearly everything meets."""
    for name, wanted in filter.items():
        if name == "$and":
            for part in wanted:
                yield from choices(part)
        elif name == "$or":
            parts = [next(choices(part), None) for part in wanted]
            found = tuple(place for part in parts if part is not None for place in part)
            if None not in parts and found:
                yield tuple(dict.fromkeys(found))
        elif name == "keys":
            yield from _of_keys(wanted)
        elif name == "r":
            yield from _of_range(wanted["$elemMatch"])


def _of_keys(wanted: Any) -> Iterator[tuple[Place, ...]]:
    if isinstance(wanted, str):
        yield (Key(wanted),)
    elif "$in" in wanted:
        yield tuple(map(Key, sorted(wanted["$in"])))
    elif "$regex" in wanted:
        text = _literal(wanted["$regex"])
        code, equals, _ = text.partition("=")
        if equals:
            yield (Beginning(text[: len(code) + 1 + MAX_BEGINNING]),)


def _literal(pattern: str) -> str:
    """What a pattern surely begins with: `^a=b\\ c.*d` -> `a=b c`"""
    found = re.match(r"\^((?:\\[^\w]|[^\\.^$*+?{}\[\]|()])*)(?![*+?{])", pattern)
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL) if found else ""


def _of_range(bounds: Mapping[str, Any]) -> Iterator[tuple[Place, ...]]:
    parameter = bounds["p"]
    floor_lo, floor_hi, ceiling = _limits(bounds)
    if floor_lo > -inf and ceiling < inf:
        width = _width(floor_lo, ceiling)
        yield tuple(Cell(parameter, width, at) for at in range(_cell(floor_lo, width), _cell(ceiling, width) + 1))
    elif max(floor_lo, floor_hi) > -inf:
        yield (Above(parameter, max(floor_lo, floor_hi)),)
    elif ceiling < inf:
        yield (Below(parameter, ceiling),)
    else:
        yield (Key(f"+{parameter.rstrip(WIDE + BASE)}"),)


def _limits(bounds: Mapping[str, Any]) -> tuple[float, float, float]:
    """lo is at least the first, hi at least the second, and lo at most the third, of whatever meets the bounds."""
    low, high, top = -inf, -inf, inf
    for name, wanted in bounds.items():
        if name == "$and":
            for part in wanted:
                limits = _limits(part)
                low, high, top = max(low, limits[0]), max(high, limits[1]), min(top, limits[2])
        elif name == "$or":
            parts = [_limits(part) for part in wanted]
            # Where lo is at least something, so is hi.
            high = max(high, min(max(part[0], part[1]) for part in parts))
            low, top = max(low, min(part[0] for part in parts)), min(top, max(part[2] for part in parts))
        elif name in ("lo", "hi") and isinstance(wanted, dict):
            least = max((bound for operator, bound in wanted.items() if operator in ("$gt", "$gte")), default=-inf)
            most = min((bound for operator, bound in wanted.items() if operator in ("$lt", "$lte")), default=inf)
            low, high = (max(low, least), high) if name == "lo" else (low, max(high, least))
            top = min(top, most)
    return low, high, top


def _width(low: float, high: float) -> int:
    """Of cells of which the interval lies in two, or three where rounding moves its ends."""
    return max(frexp(high - low)[1], frexp(max(abs(low), abs(high)))[1] - PRECISE, LEAST_WIDTH)


def _cell(value: float, width: int) -> int:
    return floor(ldexp(max(-FAR, min(value, FAR)), -width))


@dataclass(slots=True)
class _Line:
    """Who lies above, or below, a bound of one parameter; in order of the bounds."""

    bounds: list[tuple[float, str]]

    def add(self, bound: float, id: str) -> None:
        insort(self.bounds, (bound, id))

    def remove(self, bound: float, id: str) -> None:
        del self.bounds[bisect_left(self.bounds, (bound, id))]


class Index:
    """Ids at places. Not thread safe."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, None]] = {}
        self._beginnings: dict[str, dict[str, None]] = {}
        self._cells: dict[tuple[str, int, int], dict[str, None]] = {}
        self._above: dict[str, _Line] = {}
        self._below: dict[str, _Line] = {}
        self._lengths: dict[str, Counter[int]] = {}  # code -> of the beginnings in use
        self._widths: dict[str, Counter[int]] = {}  # parameter -> of the cells in use

    @property
    def needs_ranges(self) -> bool:
        """Whether what is found depends on ranges."""
        return any((self._cells, self._above, self._below))

    def add(self, id: str, places: Iterable[Place]) -> None:
        for place in places:
            match place:
                case Key(key):
                    self._keys.setdefault(key, {})[id] = None
                case Beginning(text):
                    if text not in self._beginnings:
                        _count(self._lengths, text.partition("=")[0], len(text), 1)
                    self._beginnings.setdefault(text, {})[id] = None
                case Cell(parameter, width, number):
                    if (parameter, width, number) not in self._cells:
                        _count(self._widths, parameter, width, 1)
                    self._cells.setdefault((parameter, width, number), {})[id] = None
                case Above(parameter, bound):
                    self._above.setdefault(parameter, _Line([])).add(bound, id)
                case Below(parameter, bound):
                    self._below.setdefault(parameter, _Line([])).add(bound, id)

    def remove(self, id: str, places: Iterable[Place]) -> None:
        for place in places:
            match place:
                case Key(key):
                    _drop(self._keys, key, id)
                case Beginning(text):
                    if _drop(self._beginnings, text, id):
                        _count(self._lengths, text.partition("=")[0], len(text), -1)
                case Cell(parameter, width, number):
                    if _drop(self._cells, (parameter, width, number), id):
                        _count(self._widths, parameter, width, -1)
                case Above(parameter, bound):
                    _leave(self._above, parameter, bound, id)
                case Below(parameter, bound):
                    _leave(self._below, parameter, bound, id)

    def crowd(self, places: Sequence[Place]) -> int:
        """How many are at these places, and how many places these are."""
        return sum(1 + self._crowd(place) for place in places)

    def near(self, facts: Facts) -> Iterator[str]:
        """The ids at the places of a version; some more than once."""
        for key in facts.keys:
            if key in self._keys:
                yield from self._keys[key]
            if self._lengths:
                for length in self._lengths.get(key.partition("=")[0], ()):
                    yield from self._beginnings.get(key[:length], ())
        for one in facts.ranges if self.needs_ranges else ():
            parameter = one["p"]
            for width in self._widths.get(parameter, ()):
                yield from self._cells.get((parameter, width, _cell(one["lo"], width)), ())
            if parameter in self._above:
                bounds = self._above[parameter].bounds
                yield from (id for _, id in bounds[: bisect_right(bounds, one["hi"], key=_bound)])
            if parameter in self._below:
                bounds = self._below[parameter].bounds
                yield from (id for _, id in bounds[bisect_left(bounds, one["lo"], key=_bound) :])

    def _crowd(self, place: Place) -> int:
        match place:
            case Key(key):
                return len(self._keys.get(key, ()))
            case Beginning(text):
                return len(self._beginnings.get(text, ()))
            case Cell(parameter, width, number):
                return len(self._cells.get((parameter, width, number), ()))
            case Above(parameter, _):
                return len(self._above[parameter].bounds) if parameter in self._above else 0
            case Below(parameter, _):
                return len(self._below[parameter].bounds) if parameter in self._below else 0


def _drop(places: dict[Any, dict[str, None]], place: Any, id: str) -> bool:
    """Take an id from a place; whether nobody is left there."""
    del places[place][id]
    if places[place]:
        return False
    del places[place]
    return True


def _leave(lines: dict[str, _Line], parameter: str, bound: float, id: str) -> None:
    lines[parameter].remove(bound, id)
    if not lines[parameter].bounds:
        del lines[parameter]


def _count(counted: dict[str, Counter[int]], group: str, value: int, by: int) -> None:
    counter = counted.setdefault(group, Counter())
    counter[value] += by
    if not counter[value]:
        del counter[value]
    if not counter:
        del counted[group]


def _bound(at: tuple[float, str]) -> float:
    return at[0]
