"""How long a worker stays with one job, so that a long one does not keep others waiting."""

import threading
import time

from fhir_server.bulk.jobs import RENEW_EVERY_S

SLICE_S = 20.0


class Turn:
    """One job's turn. Asked in a loop; it says when to note how far the job is, and when to leave it for now."""

    def __init__(self, stop: threading.Event, slice_s: float = SLICE_S, every_s: float = RENEW_EVERY_S) -> None:
        self._stop = stop
        self._every_s = every_s
        self._ends = time.monotonic() + slice_s
        self._noted = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to note how far the job is; always when the turn is over."""
        now = time.monotonic()
        if now - self._noted < self._every_s and not self.is_over():
            return False
        self._noted = now
        return True

    def is_over(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._ends
