"""The trail of one process: events go to disk before whatever they are about is answered."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fhir_server.audit.event import Event, to_line
from fhir_server.audit.spool import Spool
from fhir_server.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_AFTER_S = "30"
MINUTE_MS = 60_000
_REMEMBERED = 20_000  # events of this minute that are not to be repeated
_NAMES = uuid.UUID("0d1bfb0e-4f0f-4c12-9d5c-6f5b7c9ad0b4")


class NotAudited(Unavailable):
    """What happened cannot be recorded, so it is not told."""


class Trail:
    """Records events; thread safe. Where none can be recorded nothing is answered: `ready` before, `record` after."""

    def __init__(self, folder: Path) -> None:
        """folder: of the files, on a disk of this machine."""
        self._spool = Spool(folder)
        self._works = True
        self._minute: int = 0
        self._said: set[str] = set()

    def record(self, *events: Event) -> None:
        """Write the events, together. Raises NotAudited when they cannot be: what they are about is not told."""
        self._append(b"".join(map(to_line, events)))

    def record_once(self, event: Event, *key: str, complete: Callable[[Event], Event] | None = None) -> None:
        """As `record`, once a minute for what has the same key, in whatever process it is seen.

        complete: adds what takes time to find out, when the event is recorded at all.
        """
        minute = event.at // MINUTE_MS
        if minute != self._minute or len(self._said) > _REMEMBERED:
            self._minute, self._said = minute, set()
        id = str(uuid.uuid5(_NAMES, "\n".join((str(minute), event.kind, *key))))
        if id not in self._said:
            self.record(replace(complete(event) if complete else event, id=id))
            self._said.add(id)

    def ready(self) -> None:
        """Raises NotAudited while the last events could not be written and another still cannot: do nothing then."""
        if not self._works:
            self._append(b"\n")

    def close(self) -> None:
        self._spool.close()

    def _append(self, lines: bytes) -> None:
        try:
            self._spool.append(lines)
        except OSError as error:
            if self._works:
                log.error("the audit trail cannot be written, so nothing is answered: %s", error.strerror or error)
            self._works = False
            raise NotAudited(
                "the audit trail cannot be written just now, and nothing is answered without it",
                headers={"Retry-After": RETRY_AFTER_S},
            ) from None
        self._works = True
