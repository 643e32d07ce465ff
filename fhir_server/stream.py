"""The one event stream: every committed version, in commit order, from where the consumer stopped.

MongoDB's change stream over the inserts of versions. A consumer's place is stored after its work, so after a
crash some versions come again: handlers must be idempotent. One worker at a time runs a consumer (lease).
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from fhir_server.access import AUDIT_TRAIL
from fhir_server.at_hand import AtHand
from fhir_server.lease import Lease
from fhir_server.store import PREFIX, VersionStore, WriteNumbers
from fhir_server.version import Version

log = logging.getLogger(__name__)

# The audit trail follows from what is done; nothing follows from it.
_FOLLOWED = {"$regex": f"^{PREFIX}(?!{AUDIT_TRAIL}$)"}
ATTEMPTS = 3  # at one version that its handler cannot take, before it is recorded and passed
PAUSE_S = 0.5  # after an outage, and between attempts
SAVE_EVERY_S = 0.2
MOST_TOGETHER = 64  # versions between two looks at the lease
AWAIT_MS = 500  # for the next version; also how long a consumer takes to stop
HISTORY_LOST = {136, 286, 280}  # capped position lost, change stream history lost, fatal error
OVERLAP = timedelta(minutes=5)  # versions read again when catching up, for writes that committed out of order

Handle = Callable[[Version], None]
HandleTogether = Callable[[Sequence[Version]], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that a consumer could not take and has passed over. error: the class of what went wrong."""

    consumer: str
    version: str
    error: str
    at: datetime


def failures(database: Database) -> list[Failure]:
    """What consumers have passed over, the oldest first."""
    found = database["consumer_failures"].find().sort("at", 1)
    return [Failure(one["consumer"], one["version"], one["error"].partition(":")[0], one["at"]) for one in found]


def pipeline(types: Sequence[str] | None = None) -> list[dict]:
    """Of the change stream: the versions of these types; of all but the audit trail, when none are named."""
    collections = _FOLLOWED if types is None else {"$in": [PREFIX + type for type in types]}
    return [{"$match": {"operationType": "insert", "ns.coll": collections}}]


def follow(
    database: Database,
    consumer: str,
    handle: Handle,
    stop: threading.Event,
    begin: Callable[[], None] = lambda: None,
    together: HandleTogether | None = None,
    types: Sequence[str] | None = None,
) -> None:
    """Call `handle` for each committed version until `stop` is set; survives outages of MongoDB.

    types: that the handler does something about; others don't even come here.
    begin: called each time before following begins, so also when another worker may have followed in between.
    together: does the same for several versions that are at hand, in order; what it fails on goes to `handle` one by
    one, the whole of it.
    A version whose handler fails `ATTEMPTS` times is kept in `consumer_failures` for an operator to see.
    """
    lease = Lease(database, f"consumer:{consumer}")
    while not stop.is_set():
        try:
            if not lease.hold():
                stop.wait(PAUSE_S)
                continue
            begin()
            _Consumer(database, consumer, handle, together, stop, lease, types).run()
        except PyMongoError as error:
            log.warning("consumer %s waits for MongoDB: %s", consumer, type(error).__name__)
            stop.wait(PAUSE_S)
    try:
        lease.release()
    except PyMongoError:
        log.warning("consumer %s leaves its lease to run out", consumer)


def await_earlier_writes(database: Database, session: ClientSession) -> None:
    """Return once all that was being written when a change stream of this session began can be read.

    A stream begins after the newest time that the server has given out. A write may have been given its time before
    that and not be committed yet: it is not in the stream, and without waiting it could not be read either.
    """
    newest = session.cluster_time
    if newest is not None:
        session.advance_operation_time(newest["clusterTime"])
    database["consumers"].find_one({}, session=session)


class _Consumer:
    def __init__(
        self,
        database: Database,
        name: str,
        handle: Handle,
        together: HandleTogether | None,
        stop: threading.Event,
        lease: Lease,
        types: Sequence[str] | None,
    ) -> None:
        self._database = database
        self._name = name
        self._handle = handle
        self._together = together
        self._stop = stop
        self._lease = lease
        self._types = types
        self._saved = time.monotonic()

    def run(self) -> None:
        place = self._database["consumers"].find_one({"_id": self._name}) or {}
        try:
            with self._session() as session, self._watch(place.get("token"), session) as stream:
                # At the first start, what was there before the stream began comes first.
                if "token" in place or self._catch_up(0, stream, session):
                    self._follow(stream)
        except OperationFailure as error:
            if error.code not in HISTORY_LOST:
                raise
            log.warning("consumer %s was away longer than the oplog reaches; reading versions instead", self._name)
            last = place.get("at", datetime.fromtimestamp(0, UTC)) - OVERLAP
            with self._session() as session, self._watch(None, session) as stream:
                self._catch_up(max(0, WriteNumbers.at(last)), stream, session)

    def _session(self) -> ClientSession:
        return self._database.client.start_session(causal_consistency=True)

    def _watch(self, token: dict | None, session: ClientSession) -> ChangeStream:
        return self._database.watch(
            pipeline(self._types), resume_after=token, max_await_time_ms=AWAIT_MS, session=session
        )

    def _catch_up(self, number: int, stream: ChangeStream, session: ClientSession) -> bool:
        """Take the versions with higher write numbers; False when stopped before their end."""
        await_earlier_writes(self._database, session)
        for version in VersionStore(self._database).since(number, types=self._types):
            if self._stop.is_set() or not self._lease.hold():
                return False
            self._take(version)
        self._save(stream.resume_token)
        return True

    def _follow(self, stream: ChangeStream) -> None:
        token = stream.resume_token
        with AtHand(stream) as at_hand:
            while not self._stop.is_set() and self._lease.hold():
                reads = at_hand.take(MOST_TOGETHER if self._together else 1)
                versions = [read.version for read in reads if read.version is not None]
                self._take_together(versions)
                token = reads[-1].token
                if not versions or time.monotonic() - self._saved > SAVE_EVERY_S:
                    self._save(token)
        self._save(token)

    def _take_together(self, versions: Sequence[Version]) -> None:
        if self._together is not None and len(versions) > 1:
            try:
                self._together(versions)
                return
            except PyMongoError:
                raise
            except Exception as error:
                # Which of them it was shows when each is taken alone.
                log.warning(
                    "consumer %s takes %d versions alone: %s", self._name, len(versions), type(error).__name__
                )
        for version in versions:
            self._take(version)

    def _take(self, version: Version) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._handle(version)
                return
            except PyMongoError:
                raise  # an outage: come back to this version when MongoDB is there again
            except Exception as error:
                # Class and lines only: an error's text may carry patient data.
                lines = "".join(traceback.format_tb(error.__traceback__))
                log.error(
                    "consumer %s, %s: %s\n%s",
                    self._name,
                    version.versioned_reference,
                    type(error).__name__,
                    lines,
                )
                if attempt == ATTEMPTS:
                    self._record(version, error)
                self._stop.wait(PAUSE_S * attempt)

    def _record(self, version: Version, error: Exception) -> None:
        failure = {
            "_id": f"{self._name}:{version.versioned_reference}",
            "consumer": self._name,
            "version": version.versioned_reference,
            "error": f"{type(error).__name__}: {error}",
            "at": datetime.now(UTC),
        }
        self._database["consumer_failures"].replace_one({"_id": failure["_id"]}, failure, upsert=True)

    def _save(self, token: object) -> None:
        place = {"token": token, "at": datetime.now(UTC)}
        self._database["consumers"].update_one({"_id": self._name}, {"$set": place}, upsert=True)
        self._saved = time.monotonic()
