"""Where in the index of dates the matches of a date parameter begin.

That index knows where spans begin; where they end is looked at afterwards. Most dates cover a day or less, so that
from when one ends it follows nearly when it begins; the few that cover more are indexed apart (`WIDE`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fhir_server.index.spans import DAY, WIDE, Span
from fhir_server.search.ranges import approximate, date_bounds

_MIN, _MAX = -(2**63), 2**63 - 1  # of a 64-bit number
_NOTHING = (_MAX, _MIN)


@dataclass(frozen=True, slots=True)
class Window:
    """exact: what lo and hi of a span must meet. low: no span of a day or less that meets it begins before; high:
    and none at all begins then or later. sure: [low, high) in which whatever begins meets it, wherever it ends.
    single: a resource has one such date at most."""

    code: str
    single: bool
    exact: dict
    low: int
    high: int
    sure: Span = _NOTHING

    @property
    def filter(self) -> dict:
        """What a version must meet."""
        return {"$or": [self._spans(self.code, self.low), self._spans(self.code + WIDE, _MIN)]}

    @property
    def beside(self) -> dict:
        """As `filter`, for versions that another index finds: where the one date begins mostly is enough."""
        low, high = self.sure
        if not self.single or low >= high:
            return self.filter
        return {"$or": [{f"s.{self.code}": _between(low, high)}, *self.filter["$or"]]}

    @property
    def wide(self) -> dict:
        """What a version meets that has a span of more than a day."""
        return {"r": {"$elemMatch": {"p": self.code + WIDE}}}

    @property
    def has_low(self) -> bool:
        return self.low > _MIN

    def _spans(self, name: str, low: int) -> dict:
        begins = _between(low, self.high)
        return {"r": {"$elemMatch": {"p": name, **({"lo": begins} if begins else {}), "$and": [self.exact]}}}


def window(code: str, single: bool, asked: Iterable[tuple[str, Span]], now: int) -> Window:
    """The window of the dates that are asked for, of which one must be met."""
    windows = [
        Window(code, single, date_bounds(prefix, span, now), *_begins(prefix, span, now), _sure(prefix, span))
        for prefix, span in asked
    ]
    if len(windows) == 1:
        return windows[0]
    exact = {"$or": [one.exact for one in windows]}
    return Window(code, single, exact, min(one.low for one in windows), max(one.high for one in windows))


def both(one: Window, other: Window) -> Window:
    """The window of what meets both. For single dates only: of several, each could meet another one."""
    exact = {"$and": [one.exact, other.exact]}
    sure = max(one.sure[0], other.sure[0]), min(one.sure[1], other.sure[1])
    return Window(one.code, True, exact, max(one.low, other.low), min(one.high, other.high), sure)


def _between(low: int, high: int) -> dict:
    return ({"$gte": low} if low > _MIN else {}) | ({"$lt": high} if high < _MAX else {})


def _sure(prefix: str, span: Span) -> Span:
    """[low, high) in which whatever begins meets this, since it ends later than it begins."""
    start, end = span
    rows = {
        "ne": (_MIN, start),
        "gt": (end, _MAX),
        "lt": (_MIN, start),
        "ge": (start, _MAX),
        "le": (_MIN, start),
        "sa": (end, _MAX),
    }
    return rows.get(prefix, _NOTHING)


def _begins(prefix: str, span: Span, now: int) -> Span:
    """[low, high) in which a span of a day or less begins that meets this; wider ones begin before `high` too."""
    start, end = span
    rows = {
        "eq": (start, end),
        "ne": (_MIN, _MAX),
        "gt": (end - DAY, _MAX),
        "lt": (_MIN, start),
        "ge": (start - DAY, _MAX),
        "le": (_MIN, end),
        "sa": (end, _MAX),
        "eb": (_MIN, start),
    }
    if prefix == "ap":
        start, end = approximate(span, now)
        return start - DAY, end
    return rows[prefix]
