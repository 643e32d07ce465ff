"""The worker's part: types whose resources are not indexed as wanted, one after another, bit by bit."""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

from fhir_server.errors import TooLarge
from fhir_server.index import Indexer
from fhir_server.index.active import Added
from fhir_server.lease import DURATION_S, Lease
from fhir_server.reindex.parameters import Parameters
from fhir_server.reindex.state import IndexState, Stored, TypeState
from fhir_server.store import VersionStore

log = logging.getLogger(__name__)

PAUSE_S = 1.0
# A process that does not know yet of a new parameter may still be committing: a second until it knows, and a minute
# that a transaction can take in MongoDB. Only then is what it wrote looked for.
GRACE = timedelta(seconds=65)
MAX_BATCH = 200
MAX_BATCH_BYTES = 16 * 1024 * 1024


class Reindexer:
    """Any number of these may run; one at a time works, under a lease, and another goes on where it died."""

    def __init__(
        self,
        store: VersionStore,
        parameters: Parameters,
        base_url: str,
        grace: timedelta = GRACE,
        lease_s: float = DURATION_S,
    ) -> None:
        self._store, self._parameters, self._grace = store, parameters, grace
        self._state = IndexState(store.database)
        self._lease = Lease(store.database, "reindex", lease_s)
        self._indexer = Indexer(base_url)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; survives outages of MongoDB."""
        while not stop.is_set():
            try:
                if not self.run_next(stop):
                    stop.wait(PAUSE_S)
            except PyMongoError as error:
                log.warning("indexing waits for MongoDB: %s", type(error).__name__)
                stop.wait(PAUSE_S)
        self._lease.release()

    def run_next(self, stop: threading.Event) -> bool:
        """Bring the next type on; False when nothing can be done just now."""
        states = self._state.all()
        if not self._waiting(states) or not self._lease.hold():
            return False
        self._parameters.forget()
        states = self._state.all()
        return any(self._bring_on(type, states.get(type, TypeState()), stop) for type in self._waiting(states))

    def waiting(self) -> dict[str, TypeState]:
        """The types that are not indexed as wanted yet, and how far they are."""
        self._parameters.forget()
        states = self._state.all()
        return {type: states.get(type, TypeState()) for type in self._waiting(states)}

    def _waiting(self, states: dict[str, TypeState]) -> list[str]:
        current = self._parameters.current()
        return [
            type
            for type in sorted(current.by_type)
            if (state := states.get(type, TypeState())).closed
            or state.layout != current.of(type).layout
            or state.ready != current.of(type).sources
        ]

    def _bring_on(self, resource_type: str, state: TypeState, stop: threading.Event) -> bool:
        """Whether there was something to do."""
        added = self._parameters.current().of(resource_type)
        if state.wanted != added.layout:
            self._state.begin(resource_type, added.layout)
            state = TypeState(
                state.layout, state.ready, state.rebuilds, state.closed, added.layout, datetime.now(UTC)
            )
        elif state.failure:
            return False
        if self._pass(resource_type, state, stop):
            return self._end(resource_type, state, added)
        return True

    def _pass(self, resource_type: str, state: TypeState, stop: threading.Event) -> bool:
        """Index what is stale, from where the pass had come to. Whether its end was reached."""
        for batch in _batches(self._state.stale(resource_type, state.wanted, state.position)):
            now = self._parameters.current()
            if stop.is_set() or not self._lease.hold() or now.of(resource_type).layout != state.wanted:
                return False
            try:
                with now.applied():
                    entries = [(stored, self._indexer.index(stored.version.resource())) for stored in batch]
            except TooLarge:
                self._state.fail(resource_type, "a resource would have more to find it by than can be stored")
                log.error("indexing of %s cannot go on: a resource is too large for it", resource_type)
                return False
            self._state.replace(resource_type, entries)
            self._state.note(resource_type, state.wanted, batch[-1].version.number, len(batch))
        return True

    def _end(self, resource_type: str, state: TypeState, added: Added) -> bool:
        """End the pass if all is as wanted; else look again, later when others may still be writing as before."""
        changed = added.sources != state.ready
        if changed and state.begun is not None and datetime.now(UTC) - state.begun < self._grace:
            return False
        if self._state.count(resource_type, state.wanted) < self._state.count(resource_type):
            self._state.note(resource_type, state.wanted, position=0, more=0)
            return True
        self._state.finish(resource_type, state.wanted, added.sources)
        self._parameters.forget()
        return True


def _batches(found: Iterator[Stored]) -> Iterator[list[Stored]]:
    """No more than should be in memory at once."""
    batch: list[Stored] = []
    size = 0
    for stored in found:
        batch.append(stored)
        size += len(stored.version.body or b"")
        if len(batch) == MAX_BATCH or size > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def wait_until_done(
    reindexer: Reindexer, stop: threading.Event, pause_s: float = PAUSE_S
) -> Iterator[dict[str, TypeState]]:
    """Work, or watch another worker do it, until nothing waits; how far it is, each time something was done."""
    while waiting := reindexer.waiting():
        yield waiting
        if not reindexer.run_next(stop):
            time.sleep(pause_s)
