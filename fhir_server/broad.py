"""Filters that are known to be met by many, so that they are not counted again before each search that has them."""

import time

REMEMBERED_S = 60.0
_MOST = 2_000  # filters; the longest is as long as `_LONGEST`
_LONGEST = 1_000  # characters: a longer one lists values, and hardly comes again


class Broad:
    """How many met a filter at least, a while ago. Thread safe: what is lost to a race is counted again."""

    def __init__(self) -> None:
        self._met: dict[str, tuple[int, float]] = {}  # filter -> (how many at least, until when that is believed)

    def reaches(self, filter: str, limit: int) -> bool:
        """Whether so many are known to meet it."""
        met, until = self._met.get(filter, (0, 0.0))
        return limit <= met and time.monotonic() < until

    def remember(self, filter: str, met: int) -> None:
        if len(filter) > _LONGEST:
            return
        if len(self._met) >= _MOST:
            self._met = {}
        self._met[filter] = met, time.monotonic() + REMEMBERED_S
