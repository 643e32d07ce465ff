"""The worker's part: lines become AuditEvents within about a second, and files whose writer is gone are removed."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pymongo.errors import PyMongoError

from fhir_server.audit import spool
from fhir_server.audit.event import BadLine, from_line
from fhir_server.audit.resource import Observer, audit_events
from fhir_server.audit.store import AuditStore, Lost
from fhir_server.errors import Overtaken

log = logging.getLogger(__name__)

PAUSE_S = 0.5
BATCH_BYTES = 128 * 1024  # of lines: some hundred events
PATIENCE = 9  # times as long as storing a batch took, until the next one: a tenth of a processor and of the disk
LOCK = "worker.lock"


class Ingester:
    """Stores what the files of one folder tell. Of the workers of a machine one at a time does."""

    def __init__(
        self,
        store: AuditStore,
        folder: Path,
        observer: Observer,
        now: Callable[[], datetime],
        pause_s: float = PAUSE_S,
    ) -> None:
        self._store, self._folder, self._observer, self._now = store, folder, observer, now
        self._pause_s = pause_s

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; survives outages of MongoDB, while lines wait on disk."""
        while not stop.is_set():
            with self._alone() as alone:
                while alone and not stop.is_set():
                    self._round(stop)
                    stop.wait(self._pause_s)
            stop.wait(self._pause_s)

    def catch_up(self) -> int:
        """Store all there is; how many AuditEvents it made. What another worker stores meanwhile is left to it."""
        with self._alone() as alone:
            return self._round(threading.Event()) if alone else 0

    def behind(self) -> int:
        """Bytes of lines that are not stored yet."""
        waiting = ((path, self._store.position(path.name)) for path in spool.spools(self._folder))
        return sum(max(0, path.stat().st_size - position) for path, position in waiting if path.exists())

    def _round(self, stop: threading.Event) -> int:
        made = 0
        try:
            for path in spool.spools(self._folder):
                made += self._take(path, stop)
        except PyMongoError as error:
            log.warning("the audit trail waits for MongoDB: %s", type(error).__name__)
        except Overtaken:
            log.warning("the audit trail is stored by another worker as well")
        return made

    def _take(self, path: Path, stop: threading.Event) -> int:
        """Store the lines of a file, and remove it when it gets no more."""
        made, position = 0, self._store.position(path.name)
        while not stop.is_set():
            begun = time.monotonic()
            chunk = spool.read(path, position, BATCH_BYTES)
            events, lost = self._events(path.name, position, chunk)
            if chunk.lines or lost:
                made += self._store.append(path.name, position, chunk.end + len(chunk.rest), events, lost)
            position = chunk.end + len(chunk.rest)
            if chunk.over:
                path.unlink(missing_ok=True)
                self._store.forget(path.name)
                break
            if not chunk.lines:
                break
            # What waits on disk is safe, and others wait for answers.
            stop.wait(PATIENCE * (time.monotonic() - begun))
        return made

    def _events(self, name: str, begin: int, chunk: spool.Chunk) -> tuple[list[dict], list[Lost]]:
        events: list[dict] = []
        lost: list[Lost] = []
        for line in chunk.lines:
            if line:
                try:
                    events += audit_events(from_line(line), self._observer)
                except BadLine as error:
                    log.error("the audit trail has a line that cannot be read: %s at %d, %s", name, begin, error)
                    lost.append(Lost(name, begin, line, torn=False, at=self._now()))
            begin += len(line) + 1
        if chunk.rest:
            lost.append(Lost(name, begin, chunk.rest, torn=True, at=self._now()))
        return events, lost

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other worker of this machine is at it, for as long as this lasts."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield spool.take_lock(file)
        finally:
            os.close(file)
