"""Versions in MongoDB. With `holds`, `lease` and `stream`, the only module of fhir_server that knows pymongo.

One collection a resource type, one document a version, unique on (id, version). Only the newest version
carries search keys, so an update is one transaction: insert the new version, take the keys off the old one.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pymongo
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.database import Database
from pymongo.errors import ConnectionFailure, DuplicateKeyError, ExecutionTimeout

from fhir_server.access import AUDIT_TRAIL
from fhir_server.broad import Broad
from fhir_server.errors import Overtaken
from fhir_server.holds import Generations, Hold, Holds, Moved, Target
from fhir_server.totals import Totals
from fhir_server.version import Version

PREFIX = "versions_"
SEARCH_TIMEOUT_MS = 20_000
MAX_PAGE_BYTES = 64 * 1024 * 1024
PROBE_MS = 200  # to find out which index is worth using
WALK_BATCH = 200
REPLY = 10_000  # documents of a reply, which has 16 MB at most
_FETCHED = 50  # versions of a page that are fetched at once
WITHOUT_KEYS = {"keys": 0, "r": 0, "s": 0, "g": 0}
ABSENT_S = 5.0  # how long a type without versions is taken for such; first ones of another process come unhinted
LARGE_COMMIT = 50  # entries; such transactions pass a gate, because many at once starve the cache
_ENVELOPE = ("id", "v", "n", "lu", "by", "op", "scope")
_EPOCH_US = 1_577_836_800_000_000  # 2020-01-01 in microseconds


class VersionTaken(Overtaken):
    """Somebody else committed this version of the resource first."""


class ScopeMoved(Overtaken):
    """Since the version that is replaced was read, somebody else was let see it."""


class GuardTaken(Overtaken):
    """Somebody else committed a conditional create with the same criteria first."""


@dataclass(frozen=True, slots=True)
class Change:
    """One version to commit.

    previous: the version whose search keys it takes over; None for the first. seen_by: the scope of that one, as it
    was when this one was made from it. layout: what the keys, ranges and sorts were made by (Entry.layout).
    """

    version: Version
    ranges: list[dict] = field(default_factory=list)
    sorts: dict[str, Any] = field(default_factory=dict)
    previous: int | None = None
    seen_by: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True, slots=True)
class Guard:
    """Holds the place of one conditional create: criteria -> the id it made. `replaces` is a stale holder's id."""

    criteria: str
    id: str
    replaces: str | None = None


@dataclass(slots=True)
class Page:
    """Versions in order. cut: there may be more, but these are as much as should be in memory or looked at at once.

    reached: what was looked at last, where that is not the last one of them.
    """

    versions: list[Version] = field(default_factory=list)
    cut: bool = False
    reached: Version | None = None


class WriteNumbers:
    """64-bit numbers ordered by time, unique in this process, and (nearly) so among processes: microseconds
    since 2020 in the upper 51 bits, 12 random bits below. The store's unique `_id` catches the rest."""

    def __init__(self, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._now_us = now_us
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        number = (self._now_us() - _EPOCH_US) << 12 | int.from_bytes(os.urandom(2)) & 0xFFF
        with self._lock:
            self._last = max(number, self._last + 1)
            return self._last

    @staticmethod
    def at(moment: datetime) -> int:
        """The smallest number that a write at this moment could have."""
        return (int(moment.timestamp() * 1_000_000) - _EPOCH_US) << 12


class VersionStore:
    """Every version of every resource."""

    def __init__(self, database: Database, sort_parameters: Mapping[str, Iterable[str]] | None = None) -> None:
        self.database = database
        self._sort_parameters = sort_parameters or {}
        self._ready: dict[str, frozenset[str]] = {}  # type -> names of its indexes, once they are there
        self._absent: dict[str, float] = {}  # type -> until when it need not be looked for again
        self._gate = threading.BoundedSemaphore(2)  # a process; two processes make the four that were measured
        self.numbers = WriteNumbers()
        self.holds = Holds(database)
        self._session: ClientSession | None = None  # of the transaction that queries see the store in
        self._totals = Totals(database, self._versions)
        self._broad = Broad()

    # Reading

    def newest(self, resource_type: str, id: str) -> Version | None:
        """The newest version, a deletion included; None when the id was never used."""
        for document in self._versions(resource_type).find({"id": id}).sort("v", -1).limit(1):
            return version_of(resource_type, document)
        return None

    def version(self, resource_type: str, id: str, version: int) -> Version | None:
        document = self._versions(resource_type).find_one({"id": id, "v": version})
        return version_of(resource_type, document) if document else None

    def versions_many(self, references: Iterable[tuple[str, str, int]]) -> list[Version]:
        """These versions, by (type, id, number of the version), in no order; missing ones left out."""
        by_type: dict[str, list[dict]] = {}
        for resource_type, id, number in references:
            by_type.setdefault(resource_type, []).append({"id": id, "v": number})
        return [
            version_of(resource_type, document)
            for resource_type, wanted in by_type.items()
            for document in self._versions(resource_type).find({"$or": wanted})
        ]

    def created_as(self, resource_type: str, created: int) -> Version | None:
        """The current (not deleted) version of the resource with this number of creation, `Version.created`."""
        document = self._versions(resource_type).find_one({"keys": "*", "n": created})
        return version_of(resource_type, document) if document else None

    def newest_many(self, references: Iterable[tuple[str, str]]) -> list[Version]:
        """The current (not deleted) versions of the given (type, id) pairs, in no order; missing ones left out."""
        return [
            version_of(resource_type, document)
            for resource_type, ids in _by_type(references).items()
            for document in self._find(resource_type, {"id": {"$in": ids}, "keys": "*"}, "id_v")
        ]

    def newest_in_one(self, references: Iterable[tuple[str, str]]) -> Iterator[Version]:
        """As `newest_many`, in one query for all types, and no more than a reply (16 MB) in memory at once."""
        parts = [
            (resource_type, _current_of(resource_type, ids)) for resource_type, ids in _by_type(references).items()
        ]
        if not parts:
            return
        (first, pipeline), *others = parts
        for resource_type, more in others:
            pipeline = [*pipeline, {"$unionWith": {"coll": PREFIX + resource_type, "pipeline": more}}]
        for document in self._aggregate(first, pipeline):
            yield version_of(document["type"], document)

    def glance(self, references: Iterable[tuple[str, str]], small: int) -> list[Version]:
        """As `newest_many`, but bodies of `small` bytes or more are left out (None)."""
        body = {"$cond": [{"$lt": [{"$binarySize": "$body"}, small]}, "$body", "$$REMOVE"]}
        return self._glance(references, dict.fromkeys((*_ENVELOPE, "keys"), 1) | {"body": body})

    def _glance(self, references: Iterable[tuple[str, str]], shown: dict) -> list[Version]:
        return [
            version_of(resource_type, document)
            for resource_type, ids in _by_type(references).items()
            for document in self._find(resource_type, {"id": {"$in": ids}, "keys": "*"}, "id_v", shown)
        ]

    def generations(self) -> Generations:
        """What `there` and a later `Hold` go by: read it before anything that a commit relies on."""
        return self.holds.generations()

    def there(
        self, targets: Iterable[Target], may: Callable[[tuple[str, ...]], bool], known: Generations
    ) -> set[Target]:
        """Those of the targets that exist under a scope that `may` be seen.

        As they are, or as they were under the generations: a commit with a `Hold` under the same ones finds out
        whether that still is so.
        """
        targets = set(targets)
        found = {target for target in targets if (scope := self.holds.seen(target, known)) is not None and may(scope)}
        for version in self.scopes(targets - found):
            target = version.resource_type, version.id
            self.holds.remember(target, version.scope, known)
            if may(version.scope):
                found.add(target)
        return found

    def scope_of(self, target: Target, known: Generations) -> tuple[str, ...] | None:
        """The scope of a current resource; None when it is not there. As it is, or was under the generations: who
        could see something then still can, unless these have moved."""
        scope = self.holds.seen(target, known)
        if scope is None:
            for version in self.scopes([target]):
                scope = version.scope
                self.holds.remember(target, scope, known)
        return scope

    def shown(self, target: Target, keys: set[str], known: Generations) -> None:
        """A commit under these generations gave the target these keys in addition."""
        scope = self.holds.seen(target, known)
        if scope is not None:
            self.holds.remember(target, tuple(sorted(keys.union(scope))), known)

    def scopes(self, references: Iterable[tuple[str, str]]) -> list[Version]:
        """As `newest_many`, but with nothing to rely on except type, id and scope."""
        return self._glance(references, dict.fromkeys(_ENVELOPE, 1))

    def used(self, references: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the (type, id) pairs that have versions, deletions included."""
        return {
            (resource_type, document["id"])
            for resource_type, ids in _by_type(references).items()
            for document in self._find(resource_type, {"id": {"$in": ids}}, "id_v", {"_id": 0, "id": 1})
        }

    def history(
        self,
        resource_type: str,
        id: str | None,
        filter: dict | None = None,
        limit: int = 100,
        *,
        oldest_first: bool = False,
    ) -> list[Version]:
        """Versions of one resource, or of a type when id is None, newest first."""
        query: dict = dict(filter or {})
        order = [("_id" if id is None else "v", 1 if oldest_first else -1)]
        if id is not None:
            query["id"] = id
        found = self._versions(resource_type).find(query, max_time_ms=SEARCH_TIMEOUT_MS).sort(order).limit(limit)
        return [version_of(resource_type, document) for document in found]

    def followed_by(self, versions: Iterable[Version], moment: datetime) -> set[tuple[str, str, int]]:
        """(type, id, version) of those that had another version after them by that moment."""
        by_type: dict[str, list[dict]] = {}
        for version in versions:
            by_type.setdefault(version.resource_type, []).append({"id": version.id, "v": version.version + 1})
        return {
            (resource_type, document["id"], document["v"] - 1)
            for resource_type, successors in by_type.items()
            for document in self._versions(resource_type).find(
                {"$or": successors, "lu": {"$lte": moment}}, {"id": 1, "v": 1}, max_time_ms=SEARCH_TIMEOUT_MS
            )
        }

    def page(
        self,
        resource_type: str,
        filter: dict,
        sort: list[tuple[str, int]],
        limit: int,
        hint: str | None = None,
    ) -> list[Version]:
        """Current versions that match, in order. `hint` names an index."""
        found = self._find(resource_type, filter, hint).sort(sort).limit(limit)
        return [version_of(resource_type, document) for document in found]

    def bounded_page(
        self,
        resource_type: str,
        filter: dict,
        sort: list[tuple[str, int]],
        limit: int,
        hint: str | None = None,
    ) -> Page:
        """As `page`, but no more than can be in memory at once."""
        return _bounded(resource_type, self._find(resource_type, filter, hint).sort(sort).limit(limit))

    def reckoned_page(
        self, resource_type: str, filter: dict, stages: list[dict], limit: int, hint: str | None = None
    ) -> Page:
        """Current versions that match, in the order that the aggregation stages put them in; as `bounded_page`."""
        pipeline: list[dict] = [
            {"$match": filter},
            {"$unset": "body"},
            *stages,
            {"$limit": limit},
            {"$project": {"_id": 1}},
        ]
        numbers = [found["_id"] for found in self._aggregate(resource_type, pipeline, hint)]

        def in_order() -> Iterator[Mapping[str, Any]]:
            for at in range(0, len(numbers), _FETCHED):
                wanted = numbers[at : at + _FETCHED]
                found = {one["_id"]: one for one in self._find(resource_type, {"_id": {"$in": wanted}}, None)}
                yield from (found[number] for number in wanted if number in found)

        return _bounded(resource_type, in_order())

    def walk(
        self, resource_type: str, filter: dict, sort: list[tuple[str, int]], hint: str | None = None
    ) -> Iterator[Version]:
        """Current versions that match, in order and without their keys, for as long as it takes to go through them.

        No more than a reply of the server (16 MB) is in memory at once.
        """
        found = self._versions(resource_type).find(filter, WITHOUT_KEYS, batch_size=WALK_BATCH, allow_disk_use=True)
        if hint and self.has_index(resource_type, hint):
            found = found.hint(hint)
        for document in found.sort(sort):
            yield version_of(resource_type, document)

    def deletions(self, resource_type: str, filter: dict, after: int) -> Iterator[Version]:
        """Deletions with a higher write number that match and were not undone, in that order."""
        query = {"_id": {"$gt": after}, "op": "delete", **filter}
        for document in self._versions(resource_type).find(query, batch_size=WALK_BATCH).sort("_id", 1):
            newest = self.newest(resource_type, document["id"])
            if newest is not None and newest.number == document["_id"]:
                yield newest

    def ids(self, resource_type: str, filter: dict, limit: int, hint: str | None = None) -> list[str]:
        """Ids of current versions that match."""
        found = self._find(resource_type, filter, hint, {"id": 1, "_id": 0}).limit(limit)
        return [document["id"] for document in found]

    def key_tails(
        self, resource_type: str, filter: dict, prefix: str, limit: int, hint: str | None = None
    ) -> set[str]:
        """What follows the prefix in the search keys of current versions that match; stops once `limit` are found."""
        begins = {"$eq": [{"$substrCP": ["$$key", 0, len(prefix)]}, prefix]}
        only = {"_id": 0, "keys": {"$filter": {"input": "$keys", "as": "key", "cond": begins}}}
        tails: set[str] = set()
        for document in self._find(resource_type, filter, hint, only):
            tails.update(key.removeprefix(prefix) for key in document["keys"])
            if len(tails) >= limit:
                break
        return tails

    def count(
        self,
        resource_type: str,
        filter: dict,
        limit: int | None = None,
        hint: str | None = None,
        timeout_ms: int = SEARCH_TIMEOUT_MS,
    ) -> int:
        options: dict = {"maxTimeMS": timeout_ms}
        if limit:
            options["limit"] = limit
        if hint and self.has_index(resource_type, hint):
            options["hint"] = hint
        return self._versions(resource_type).count_documents(filter, **options)

    def total(self, resource_type: str) -> int:
        """How many current resources of the type there are."""
        return self._totals.of(resource_type, WriteNumbers.at)

    def count_up_to(self, resource_type: str, filter: dict, limit: int, hint: str) -> int:
        """How many match, but no more than `limit`; `limit` also when that cannot be told in PROBE_MS.

        For a minute a filter is remembered that was met by so many. The command counts in an index in half the time
        of an aggregation; it may see what is not yet a majority's, so what it says is never part of an answer.
        """
        asked = f"{resource_type} {hint} {filter}"
        if self._broad.reaches(asked, limit):
            return limit
        try:
            counted = self._probe(resource_type, filter, limit, hint)
        except ExecutionTimeout:
            return limit
        if counted == limit:
            self._broad.remember(asked, limit)
        return counted

    def _probe(self, resource_type: str, filter: dict, limit: int, hint: str) -> int:
        command: dict = {"query": filter, "limit": limit, "maxTimeMS": PROBE_MS}
        if self.has_index(resource_type, hint):
            command["hint"] = hint
        database = self.database
        try:
            told = database.command(
                "count", PREFIX + resource_type, read_preference=database.read_preference, **command
            )
        except ConnectionFailure:  # the driver tries an aggregation again, and a command not
            return self.count(resource_type, filter, limit, hint, PROBE_MS)
        return int(told["n"])

    def walked_page(
        self,
        resource_type: str,
        bounds: dict,
        filter: dict,
        sort: list[tuple[str, int]],
        limit: int,
        walked: int,
        hint: str,
    ) -> Page | None:
        """As `bounded_page`, by looking at no more than the first `walked` within the bounds; None where these do not
        fill it, also when that cannot be told in PROBE_MS."""
        first: list[dict] = [{"$match": bounds}, {"$sort": dict(sort)}, {"$limit": walked}]
        pipeline = [*first, {"$match": filter}, {"$limit": limit}]
        try:
            page = _bounded(resource_type, self._aggregate(resource_type, pipeline, hint, PROBE_MS))
        except ExecutionTimeout:
            return None
        return page if page.cut or len(page.versions) == limit else None

    def matching(self, documents: list[dict], filter: dict) -> set[int]:
        """The places of those of the documents, which need not be stored, that meet the filter."""
        listed = [{**document, "at": at} for at, document in enumerate(documents)]
        pipeline: list[dict] = [{"$documents": {"$literal": listed}}, {"$match": filter}, {"$project": {"at": 1}}]
        return {found["at"] for found in self.database.aggregate(pipeline, maxTimeMS=SEARCH_TIMEOUT_MS)}

    def has_index(self, resource_type: str, name: str) -> bool:
        """Whether the type's collection is there and has that index."""
        if resource_type not in self._ready and time.monotonic() >= self._absent.get(resource_type, 0.0):
            if self.database.list_collection_names(filter={"name": PREFIX + resource_type}):
                self._prepare(resource_type)
            else:
                self._absent[resource_type] = time.monotonic() + ABSENT_S
        return name in self._ready.get(resource_type, ())

    def types(self) -> list[str]:
        """The resource types that have versions."""
        names = self.database.list_collection_names(filter={"name": {"$regex": f"^{PREFIX}"}})
        return sorted(name.removeprefix(PREFIX) for name in names)

    def types_of_data(self) -> list[str]:
        """Those types, without the audit trail, which is about the others and nothing that anything follows."""
        return [name for name in self.types() if name != AUDIT_TRAIL]

    def since(self, number: int, limit: int = 500, types: Sequence[str] | None = None) -> Iterator[Version]:
        """All versions (of all types, or of these) with a higher write number, in that order. For catching up."""
        while True:
            batch: list[Version] = []
            for resource_type in self.types_of_data() if types is None else types:
                found = self._versions(resource_type).find({"_id": {"$gt": number}}).sort("_id", 1).limit(limit)
                batch += [version_of(resource_type, document) for document in found]
            batch.sort(key=lambda version: version.number)
            yield from batch[:limit]
            if not batch:
                return
            number = batch[:limit][-1].number

    def numbers_since(self, types: Sequence[str], number: int, limit: int = 200) -> tuple[int, ...]:
        """The newest write numbers of these types above this one, newest first, at most `limit` of each type."""
        newest: list[Mapping[str, Any]] = [
            {"$match": {"_id": {"$gt": number}}},
            {"$sort": {"_id": -1}},
            {"$limit": limit},
            {"$project": {"_id": 1}},
        ]
        others: list[Mapping[str, Any]] = [
            {"$unionWith": {"coll": PREFIX + resource_type, "pipeline": newest}} for resource_type in types[1:]
        ]
        found = self._versions(types[0]).aggregate([*newest, *others])
        return tuple(document["_id"] for document in found)

    def guard(self, criteria: str) -> str | None:
        """The id made by the last conditional create with these criteria."""
        document = self.database["guards"].find_one({"_id": criteria})
        return document["id"] if document else None

    # Writing

    def commit(
        self,
        changes: list[Change],
        guards: Iterable[Guard] = (),
        grants: Mapping[tuple[str, str], set[str]] | None = None,
        hold: Hold | None = None,
        also: Callable[[ClientSession], None] | None = None,
    ) -> None:
        """Commit all or nothing. grants: (type, id) -> scope keys that its newest version gets in addition.

        also: what else belongs to the same transaction; it may be done more than once.

        Raises VersionTaken, ScopeMoved, GuardTaken or Moved when somebody else was quicker; nothing is written then.
        """
        for resource_type in {change.version.resource_type for change in changes}:
            self._prepare(resource_type)
        guards, grants, hold = list(guards), grants or {}, hold or Hold()
        try:
            alone = not guards and not grants and not hold and also is None
            if len(changes) == 1 and changes[0].previous is None and alone:
                self._insert(changes, None)
                return
            self.holds.prepare(hold)
            if len(changes) > LARGE_COMMIT:
                with self._gate:
                    self._transact(changes, guards, grants, hold, also)
            else:
                self._transact(changes, guards, grants, hold, also)
        except Moved:
            self.holds.refresh()
            raise
        except DuplicateKeyError as error:
            if "guards" in str(error.details.get("errmsg", "") if error.details else error):
                raise GuardTaken("the same conditional create was committed by another request") from None
            raise VersionTaken("another request changed this resource at the same time") from None

    def expunge(self, resource_type: str, id: str, up_to: int, *, guards: bool) -> int:
        """Delete the versions up to this number for good; how many there were. guards: and the criteria of the
        conditional creates that made the resource."""

        def work(session: ClientSession) -> int:
            if guards:
                of_type = {"$regex": rf"\|{re.escape(resource_type)}\?"}
                self.database["guards"].delete_many({"id": id, "_id": of_type}, session=session)
            self._totals.forget(resource_type, session)
            gone = self._versions(resource_type).delete_many({"id": id, "v": {"$lte": up_to}}, session=session)
            return gone.deleted_count

        with self.database.client.start_session() as session:
            return session.with_transaction(work)

    def _transact(
        self,
        changes: list[Change],
        guards: list[Guard],
        grants: Mapping[tuple[str, str], set[str]],
        hold: Hold,
        also: Callable[[ClientSession], None] | None,
    ) -> None:
        def work(session: ClientSession) -> None:
            if also is not None:
                also(session)
            self.holds.take(hold, session)
            if hold.leaving:
                hold.check(self._inside(session))
            for guard in guards:
                self._hold(guard, session)
            self._insert(changes, session)
            for change in changes:
                if change.previous is not None:
                    version = change.version
                    replaced = self._versions(version.resource_type).update_one(
                        {"id": version.id, "v": change.previous, "scope": list(change.seen_by)},
                        {"$unset": {"keys": "", "r": "", "s": "", "g": ""}},
                        session=session,
                    )
                    if not replaced.matched_count:
                        raise ScopeMoved(f"{version.reference} was shown to others at the same time")
            for (resource_type, id), keys in grants.items():
                self._versions(resource_type).update_one(
                    {"id": id, "keys": "*"},
                    {"$addToSet": {"keys": {"$each": sorted(keys)}, "scope": {"$each": sorted(keys)}}},
                    session=session,
                )

        with self.database.client.start_session() as session:
            session.with_transaction(work)

    def _hold(self, guard: Guard, session: ClientSession) -> None:
        guards = self.database["guards"]
        if guard.replaces is None:
            guards.insert_one({"_id": guard.criteria, "id": guard.id}, session=session)
            return
        replaced = guards.update_one(
            {"_id": guard.criteria, "id": guard.replaces}, {"$set": {"id": guard.id}}, session=session
        )
        if not replaced.matched_count:
            raise GuardTaken("the same conditional create was committed by another request")

    def _insert(self, changes: list[Change], session: ClientSession | None) -> None:
        by_type: dict[str, list[dict]] = {}
        for change in changes:
            by_type.setdefault(change.version.resource_type, []).append(document_of(change))
        for resource_type, documents in by_type.items():
            if len(documents) == 1:
                self._versions(resource_type).insert_one(documents[0], session=session)
                continue
            try:
                self._versions(resource_type).insert_many(documents, session=session)
            except pymongo.errors.BulkWriteError as error:
                details = error.details["writeErrors"][0]
                if details["code"] == 11000:
                    raise DuplicateKeyError(details["errmsg"], 11000, details) from None
                raise

    def _versions(self, resource_type: str) -> Collection:
        return self.database[PREFIX + resource_type]

    def _inside(self, session: ClientSession) -> "VersionStore":
        """The current versions as this transaction sees them."""
        inside = copy(self)
        inside._session = session
        return inside

    def _find(self, resource_type: str, filter: dict, hint: str | None, projection: dict | None = None) -> Cursor:
        cursor = self._versions(resource_type).find(
            filter, projection, max_time_ms=SEARCH_TIMEOUT_MS, batch_size=REPLY, session=self._session
        )
        # MongoDB refuses a hint that names no index, as before a type's first write.
        return cursor.hint(hint) if hint and self.has_index(resource_type, hint) else cursor

    def _aggregate(
        self, resource_type: str, pipeline: list[dict], hint: str | None = None, timeout_ms: int = SEARCH_TIMEOUT_MS
    ) -> Iterator[Mapping[str, Any]]:
        options: dict = {"hint": hint} if hint and self.has_index(resource_type, hint) else {}
        options |= {"maxTimeMS": timeout_ms, "batchSize": REPLY, "allowDiskUse": True}
        return self._versions(resource_type).aggregate(pipeline, **options)

    def _prepare(self, resource_type: str) -> None:
        """Make the type's indexes before its first write; a collection cannot get them inside a transaction."""
        if resource_type in self._ready:
            return
        indexes = self._indexes(resource_type)
        self._versions(resource_type).create_indexes(indexes)
        self._ready[resource_type] = frozenset(index.document["name"] for index in indexes)

    def _indexes(self, resource_type: str) -> list[pymongo.IndexModel]:
        current = {"keys": {"$exists": True}}
        indexes = [
            pymongo.IndexModel([("id", 1), ("v", -1)], unique=True, name="id_v"),
            pymongo.IndexModel([("keys", 1), ("n", -1)], name="k", partialFilterExpression=current),
            pymongo.IndexModel([("r.p", 1), ("r.lo", 1)], name="r", partialFilterExpression={"r": {"$exists": True}}),
            pymongo.IndexModel([("lu", -1), ("n", -1)], name="lu", partialFilterExpression=current),
        ]
        indexes += [
            pymongo.IndexModel(
                [(f"s.{code}", -1), ("n", -1)],
                name=f"s.{code}",
                partialFilterExpression={f"s.{code}": {"$exists": True}},
            )
            for code in self._sort_parameters.get(resource_type, ())
        ]
        return indexes


def _bounded(resource_type: str, documents: Iterable[Mapping[str, Any]]) -> Page:
    """As many of the versions as should be in memory at once."""
    page, size = Page(), 0
    for document in documents:
        version = version_of(resource_type, document)
        size += len(version.body or b"")
        if page.versions and size > MAX_PAGE_BYTES:
            page.cut = True
            break
        page.versions.append(version)
    return page


def _by_type(references: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    by_type: dict[str, list[str]] = {}
    for resource_type, id in references:
        by_type.setdefault(resource_type, []).append(id)
    return by_type


def _current_of(resource_type: str, ids: list[str]) -> list[dict]:
    """A pipeline to the current versions of these ids. An expression finds no index, which leaves that of ids."""
    current = {"$expr": {"$in": ["*", {"$ifNull": ["$keys", []]}]}}
    return [{"$match": {"id": {"$in": ids}, **current}}, {"$set": {"type": resource_type}}]


def document_of(change: Change) -> dict:
    """The MongoDB document of a version."""
    version = change.version
    document: dict[str, Any] = {
        "_id": version.number,
        "id": version.id,
        "v": version.version,
        "n": version.created,
        "lu": version.last_updated,
        "by": version.by,
        "op": version.op,
        "scope": list(version.scope),
    }
    if version.body is not None:
        document["body"] = version.body
        document["keys"] = list(version.keys)
        document["g"] = change.layout
        if change.ranges:
            document["r"] = change.ranges
        if change.sorts:
            document["s"] = change.sorts
    return document


def version_of(resource_type: str, document: Mapping[str, Any]) -> Version:
    """The version in a MongoDB document."""
    return Version(
        resource_type,
        document["id"],
        document["v"],
        document["_id"],
        document["n"],
        document["lu"].replace(tzinfo=UTC),  # it is; the driver says so by a type of its own
        document["by"],
        document["op"],
        document.get("body"),
        tuple(document["scope"]),
        tuple(document.get("keys", ())),
    )
