"""The practice's clock: the real time, or, in a demonstration, the real time moved by an offset."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pymongo.database import Database

FRESH_S = 0.5  # an offset set elsewhere is noticed after at most this

Clock = Callable[[], datetime]


def real_clock() -> datetime:
    return datetime.now(UTC)


class DemoClock:
    """The time that the practice's rules go by; its offset is kept in the database, so that all processes agree.

    Leases, tokens and `meta.lastUpdated` always go by the real time.
    """

    def __init__(self, database: Database) -> None:
        self._settings = database["demo"]
        self._offset = timedelta()
        self._read = float("-inf")

    def __call__(self) -> datetime:
        now = time.monotonic()
        if now - self._read > FRESH_S:
            if self._read > float("-inf"):
                self._read = now  # who asks meanwhile, and there may be thousands, goes by what is known
            stored = self._settings.find_one({"_id": "clock"}) or {}
            self._offset = timedelta(seconds=stored.get("offset_s", 0))
            self._read = now
        return real_clock() + self._offset

    def move(self, offset: timedelta) -> None:
        """Set the offset to the real time."""
        self._settings.update_one({"_id": "clock"}, {"$set": {"offset_s": offset.total_seconds()}}, upsert=True)
        self._read = float("-inf")
