"""AuditEvents in MongoDB. What is stored together is a link of a chain, so that nothing is taken out unseen.

The one module of the trail that knows pymongo. Lines become, in one transaction, AuditEvents beside the versions of
other types, a link of the chain, and how far their file has been stored: after a crash nothing is stored twice and
nothing is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from pymongo.client_session import ClientSession

from fhir_server import fhir_json
from fhir_server.access import AUDIT_SCOPE, AUDIT_TRAIL
from fhir_server.errors import Overtaken
from fhir_server.index import Indexer
from fhir_server.prepare import instant
from fhir_server.reindex.parameters import Parameters
from fhir_server.store import PREFIX, Change, VersionStore
from fhir_server.version import Version

BY = "system:audit"
START = "0" * 64  # what the first link is linked to
ATTEMPTS = 5  # at storing a batch while other machines store theirs
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Link:
    """What was stored together. previous, hash: hexadecimal SHA-256. numbers: of the versions, in their order."""

    number: int
    previous: str
    hash: str
    numbers: tuple[int, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Lost:
    """A part of a file of lines that made no AuditEvent, kept as it is. torn: what a killed process was writing."""

    spool: str
    offset: int
    text: bytes
    torn: bool
    at: datetime


class AuditStore:
    """The AuditEvents of all machines. Thread safe."""

    def __init__(
        self, store: VersionStore, parameters: Parameters, base_url: str, now: Callable[[], datetime]
    ) -> None:
        self._store, self._parameters, self._now = store, parameters, now
        self._indexer = Indexer(base_url)
        database = store.database
        self._links, self._spools, self._lost = (
            database["audit_links"],
            database["audit_spools"],
            database["audit_lost"],
        )
        self._versions = database[PREFIX + AUDIT_TRAIL]

    def position(self, spool: str) -> int:
        """Up to where the file of this name has been stored."""
        found = self._spools.find_one({"_id": spool})
        return found["offset"] if found else 0

    def append(self, spool: str, begin: int, end: int, events: Iterable[dict], lost: Iterable[Lost] = ()) -> int:
        """Store what the lines of a file between two places tell; how many AuditEvents are new.

        Those whose id is known are left out. Raises Overtaken when somebody else is storing this file.
        """
        named, lost = {str(event["id"]): event for event in events}, list(lost)
        for attempt in range(1, ATTEMPTS + 1):
            if self.position(spool) != begin:
                raise Overtaken("another worker stores this file")
            known = {id for _, id in self._store.used((AUDIT_TRAIL, id) for id in named)}
            changes = self._changes(event for id, event in named.items() if id not in known)
            try:
                self._store.commit(
                    changes,
                    also=lambda session, changes=changes: self._note(  # type: ignore[misc]
                        session, spool, begin, end, changes, lost
                    ),
                )
            except Overtaken:
                if attempt == ATTEMPTS:
                    raise
                continue
            return len(changes)
        raise AssertionError("unreachable")

    def forget(self, spool: str) -> None:
        """The file is stored and gone."""
        self._spools.delete_one({"_id": spool})

    # For the proof

    def links(self) -> Iterator[Link]:
        """The chain from its beginning."""
        for one in self._links.find().sort("_id", 1):
            yield Link(one["_id"], one["previous"], one["hash"], tuple(one["numbers"]), one["at"])

    def bodies(self, link: Link) -> dict[int, bytes]:
        """The AuditEvents of a link as they are stored now, by number."""
        found: dict[int, bytes] = {}
        for at in range(0, len(link.numbers), _CHUNK):
            query = {"_id": {"$in": link.numbers[at : at + _CHUNK]}}
            found |= {one["_id"]: one.get("body", b"") for one in self._versions.find(query, {"body": 1})}
        return found

    def count(self) -> int:
        """All versions of AuditEvents, whoever stored them."""
        return self._versions.count_documents({})

    def lost(self) -> list[Lost]:
        """What made no AuditEvent, the oldest first."""
        found = self._lost.find().sort("at", 1)
        return [Lost(one["spool"], one["offset"], one["text"], one["torn"], one["at"]) for one in found]

    def _changes(self, events: Iterable[dict]) -> list[Change]:
        now = self._now()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        with self._parameters.current().applied():
            return [self._change(event, now) for event in events]

    def _change(self, event: dict, now: datetime) -> Change:
        number = self._store.numbers.next()
        meta = {**event.get("meta", {}), "versionId": "1", "lastUpdated": instant(now)}
        resource = {"resourceType": AUDIT_TRAIL, "id": event["id"], "meta": meta} | {
            name: value for name, value in event.items() if name not in ("resourceType", "id", "meta")
        }
        entry, scope = self._indexer.index(resource), (AUDIT_SCOPE,)
        keys, body = ("*", *scope, *entry.keys), fhir_json.dumps(resource)
        version = Version(AUDIT_TRAIL, event["id"], 1, number, number, now, BY, "create", body, scope, keys)
        return Change(version, entry.ranges, entry.sorts, layout=entry.layout)

    def _note(
        self, session: ClientSession, spool: str, begin: int, end: int, changes: list[Change], lost: list[Lost]
    ) -> None:
        """In the transaction: the file is stored up to there, and what was stored is the next link of the chain."""
        place = {"$set": {"offset": end, "at": self._now()}}
        if begin:
            moved = self._spools.update_one({"_id": spool, "offset": begin}, place, session=session).matched_count
            if not moved:
                raise Overtaken("another worker stores this file")
        else:
            self._spools.insert_one({"_id": spool, **place["$set"]}, session=session)
        if lost:
            self._lost.insert_many([{name: getattr(one, name) for name in _LOST} for one in lost], session=session)
        if not changes:
            return
        last = self._links.find_one(sort=[("_id", -1)], session=session) or {"_id": 0, "hash": START}
        link = {
            "_id": last["_id"] + 1,
            "previous": last["hash"],
            "hash": link_hash(last["hash"], (change.version.body or b"" for change in changes)),
            "numbers": [change.version.number for change in changes],
            "at": changes[0].version.last_updated,
        }
        self._links.insert_one(link, session=session)


_LOST = ("spool", "offset", "text", "torn", "at")


def link_hash(previous: str, bodies: Iterable[bytes]) -> str:
    """The hash of a link: of that before it, and of what each of its AuditEvents is, in order."""
    digest = sha256(previous.encode())
    for body in bodies:
        digest.update(sha256(body).digest())
    return digest.hexdigest()
