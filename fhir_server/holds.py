"""Holds: what is referred to cannot be deleted at the same moment, whoever is quicker.

A write that refers to a resource and the deletion of that resource touch different documents, so the database alone
would let both commit. They meet here: the targets are spread over buckets, a bucket has a number of slots, each a
document. A write touches one slot, any, of the buckets of its targets, so that writes seldom meet one another; a
deletion touches all slots of its bucket, so it meets every write. It also counts up the bucket's generation. A write
commits only under the generations that it knew before it looked for its targets, so what it saw is still there.

That makes what was seen worth remembering: a target known under the current generation need not be read again, which
pays for the hold. docs/decisions/0011-references-and-deletions.md
"""

import random
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pymongo
from pymongo.client_session import ClientSession
from pymongo.database import Database

from fhir_server.errors import Overtaken

if TYPE_CHECKING:
    from fhir_server.store import VersionStore

BUCKETS = 256
SLOTS = 16
REMEMBERED = 20_000  # targets; 200 bytes each
COLLECTION = "holds"

Target = tuple[str, str]  # (type, id)
Generations = Mapping[int, int]  # bucket -> how many deletions it has seen; those that are not there: none


class Moved(Overtaken):
    """Something in a bucket was deleted since its generation was read; perhaps a target of this write."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What one commit needs to stay, and what it takes away.

    targets: of new references. known: the generations read before the targets were looked for. leaving: what is
    deleted, or hidden from some who could see it. check: called with the store as the transaction sees it, once
    nobody can refer to that any more; raises when somebody does.
    """

    targets: frozenset[Target] = frozenset()
    known: Generations = field(default_factory=dict)
    leaving: frozenset[Target] = frozenset()
    check: Callable[["VersionStore"], None] = lambda _store: None

    def __bool__(self) -> bool:
        return bool(self.targets or self.leaving)


class Holds:
    """The slots of one database, and the targets this process has seen. Thread safe."""

    def __init__(self, database: Database) -> None:
        self._slots = database[COLLECTION]
        self._generations: dict[int, int] = {}
        self._there: frozenset[int] = frozenset()  # buckets whose slots are known to exist
        self._seen: dict[Target, tuple[int, tuple[str, ...]]] = {}  # (generation, scope)

    def generations(self) -> Generations:
        """As they were a while ago: read it before you look for targets."""
        return self._generations

    def seen(self, target: Target, known: Generations) -> tuple[str, ...] | None:
        """The scope that the target had under these generations, when it was there."""
        generation, scope = self._seen.get(target, (-1, ()))
        return scope if generation == known.get(_bucket(target), 0) else None

    def remember(self, target: Target, scope: tuple[str, ...], known: Generations) -> None:
        """The target was there when it was looked for, after these generations were read."""
        if len(self._seen) >= REMEMBERED:
            self._seen = {}
        self._seen[target] = known.get(_bucket(target), 0), scope

    def prepare(self, hold: Hold) -> None:
        """Make the slots that are not there yet; before the transaction, so that it does not meet others who do."""
        missing = {_bucket(target) for target in (*hold.targets, *hold.leaving)} - self._there
        if missing:
            new = [
                pymongo.UpdateOne({"_id": slot}, {"$setOnInsert": {"g": 0, "n": 0}}, upsert=True)
                for slot in _slots(missing)
            ]
            self._slots.bulk_write(new, ordered=False)
            self._there |= missing

    def take(self, hold: Hold, session: ClientSession) -> None:
        """First thing in the transaction, before `hold.check`. Raises Moved when a target may be gone."""
        leaving = {_bucket(target) for target in hold.leaving}
        if leaving:
            every = _slots(leaving)
            taken = self._slots.update_many({"_id": {"$in": every}}, {"$inc": {"g": 1}}, session=session)
            if taken.matched_count < len(every):  # one that is made later would begin at an old generation
                raise Moved("the slots of a bucket were just made")
        buckets = {_bucket(target) for target in hold.targets}
        if buckets:
            slot = random.randrange(SLOTS)  # noqa: S311 - spreads load, no secret
            wanted = [
                {"_id": bucket * SLOTS + slot, "g": hold.known.get(bucket, 0) + (bucket in leaving)}
                for bucket in buckets
            ]
            taken = self._slots.update_many({"$or": wanted}, {"$inc": {"n": 1}}, session=session)
            if taken.matched_count < len(wanted):
                raise Moved("something was deleted at the same time")

    def refresh(self) -> None:
        """Read the generations anew, and trust no longer that slots are there.

        In a transaction: its commit waits until what it read is what a majority has, as reads of targets see it.
        """

        def read(session: ClientSession) -> dict[int, int]:
            found = self._slots.find({"_id": {"$in": _FIRST}}, session=session)
            return {slot["_id"] // SLOTS: slot["g"] for slot in found}

        with self._slots.database.client.start_session() as session:
            self._generations, self._there = session.with_transaction(read), frozenset()


_FIRST = [bucket * SLOTS for bucket in range(BUCKETS)]  # all slots of a bucket have the same generation


def _bucket(target: Target) -> int:
    return zlib.crc32("/".join(target).encode()) % BUCKETS


def _slots(buckets: Iterable[int]) -> list[int]:
    return [bucket * SLOTS + slot for bucket in sorted(buckets) for slot in range(SLOTS)]
