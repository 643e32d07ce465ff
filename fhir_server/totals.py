"""How many resources of a type there are, exactly, without counting them all and at no cost to writes.

A counter would be written by every create, from every process, and make each of them a transaction. Instead the
versions themselves are the count: it is what it was up to a write number, and what was created less what was deleted
since. What is noted lies so far back that no write with a lower number can still come; a reader brings it forward.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

SLACK = timedelta(minutes=10)  # from when a write gets its number until it is committed for sure
EVERY = timedelta(minutes=1)


class Totals:
    """Notes one document a type: {upto: write number, count, epoch}. epoch changes when versions are expunged."""

    def __init__(self, database: Database, versions: Callable[[str], Collection]) -> None:
        self._database = database
        self._notes = database["totals"]
        self._versions = versions

    def of(self, resource_type: str, number_at: Callable[[datetime], int]) -> int:
        """The number of current resources. number_at: the smallest write number of a time."""
        until = number_at(datetime.now(UTC) - SLACK)
        # All of it as of one moment, whatever is committed or expunged meanwhile.
        with self._database.client.start_session(snapshot=True) as session:
            note = self._notes.find_one({"_id": resource_type}, session=session)
            if note is None or "upto" not in note:
                every = self._all(resource_type, session)
                _, later = self._since(resource_type, until, until, session)
                count = every - later
            else:
                if until - note["upto"] < number_at(datetime.now(UTC)) - number_at(datetime.now(UTC) - EVERY):
                    until = note["upto"]
                earlier, later = self._since(resource_type, note["upto"], until, session)
                count = note["count"] + earlier
        if note is None or note.get("upto") != until:
            self._note(resource_type, note, until, count)
        return count + later

    def forget(self, resource_type: str, session: ClientSession) -> None:
        """Versions are expunged in this transaction: what was noted may have counted them."""
        change = {"$inc": {"epoch": 1}, "$unset": {"upto": "", "count": ""}}
        self._notes.update_one({"_id": resource_type}, change, upsert=True, session=session)

    def _all(self, resource_type: str, session: ClientSession) -> int:
        counted: list[dict] = [{"$match": {"keys": "*"}}, {"$count": "n"}]
        return next(iter(self._versions(resource_type).aggregate(counted, session=session)), {"n": 0})["n"]

    def _since(self, resource_type: str, after: int, until: int, session: ClientSession) -> tuple[int, int]:
        """Created less deleted: after the number `after` up to `until`, and later than that."""
        change = {"$switch": {"branches": [_case("create", 1), _case("delete", -1)], "default": 0}}
        summed = {"_id": {"$gt": ["$_id", until]}, "n": {"$sum": change}}
        pipeline: list[dict] = [{"$match": {"_id": {"$gt": after}}}, {"$group": summed}]
        found = {one["_id"]: one["n"] for one in self._versions(resource_type).aggregate(pipeline, session=session)}
        return found.get(False, 0), found.get(True, 0)

    def _note(self, resource_type: str, before: dict[str, Any] | None, until: int, count: int) -> None:
        """Unless it was noted, or became void, in the meantime."""
        values = {"upto": until, "count": count}
        if before is not None:
            self._notes.update_one(before, {"$set": values})
            return
        try:
            self._notes.insert_one({"_id": resource_type, "epoch": 0, **values})
        except DuplicateKeyError:
            pass  # another reader, or an expunge, was quicker


def _case(op: str, change: int) -> dict:
    return {"case": {"$eq": ["$op", op]}, "then": change}
