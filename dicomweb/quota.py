"""How much the images of the practice may take."""

import threading
import time

from dicomweb.store import DicomStore

FULL = "the images of this practice take all the room that they may have"
MEASURED_S = 10.0  # so long a measure is gone by before another one


class Quota:
    """Counts what is stored against a limit. Thread safe.

    What another process stores is seen when it is measured anew, so several together may pass the limit by what
    they take in MEASURED_S. It is never refused without measuring: what was deleted meanwhile makes room at once.
    """

    def __init__(self, store: DicomStore, limit: int) -> None:
        """limit: bytes, more than 0."""
        self.limit = limit
        self._store = store
        self._lock = threading.Lock()
        self._used = 0
        self._taken = 0  # by what is being stored
        self._good_until = 0.0

    def take(self, size: int) -> bool:
        """Count an object of that many bytes, which is stored next; False where there is no room for it."""
        with self._lock:
            if time.monotonic() >= self._good_until or self._exceeded_by(size):
                self._used = self._store.used()
                self._good_until = time.monotonic() + MEASURED_S
            if self._exceeded_by(size):
                return False
            self._taken += size
            return True

    def settle(self, size: int) -> None:
        """What was taken is stored by now; or is not, which the next measure shows."""
        with self._lock:
            self._taken -= size
            self._used += size

    def _exceeded_by(self, size: int) -> bool:
        return self._used + self._taken + size > self.limit
