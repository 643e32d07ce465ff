"""Where in the index of dates the matches of a date parameter begin.

That index knows where spans begin; where they end is looked at afterwards. Most dates cover a day or less, so that
from when one ends it follows nearly when it begins; the few that cover more are indexed apart (`WIDE`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fhir_server.index.spans import DAY, WIDE, Span
from fhir_server.search.ranges import approximate, date_bounds

_MIN, _MAX = -(2**63), 2**63 - 1  # of a 64-bit number


@dataclass(frozen=True, slots=True)
class Window:
    """exact: what lo and hi of a span must meet. low: no span of a day or less that meets it begins before; high:
    and none at all begins then or later. single: a resource has one such date at most."""

    code: str
    single: bool
    exact: dict
    low: int
    high: int

    @property
    def filter(self) -> dict:
        """What a version must meet."""
        return {"$or": [self._spans(self.code, self.low), self._spans(self.code + WIDE, _MIN)]}

    @property
    def wide(self) -> dict:
        """What a version meets that has a span of more than a day."""
        return {"r": {"$elemMatch": {"p": self.code + WIDE}}}

    @property
    def has_low(self) -> bool:
        return self.low > _MIN

    def _spans(self, name: str, low: int) -> dict:
        begins = ({"$gte": low} if low > _MIN else {}) | ({"$lt": self.high} if self.high < _MAX else {})
        return {"r": {"$elemMatch": {"p": name, **({"lo": begins} if begins else {}), "$and": [self.exact]}}}


def window(code: str, single: bool, asked: Iterable[tuple[str, Span]], now: int) -> Window:
    """The window of the dates that are asked for, of which one must be met."""
    exact, lows, highs = [], [], []
    for prefix, span in asked:
        exact.append(date_bounds(prefix, span, now))
        low, high = _begins(prefix, span, now)
        lows.append(low)
        highs.append(high)
    return Window(code, single, exact[0] if len(exact) == 1 else {"$or": exact}, min(lows), max(highs))


def both(one: Window, other: Window) -> Window:
    """The window of what meets both. For single dates only: of several, each could meet another one."""
    exact = {"$and": [one.exact, other.exact]}
    return Window(one.code, True, exact, max(one.low, other.low), min(one.high, other.high))


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
