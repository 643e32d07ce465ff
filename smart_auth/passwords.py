"""Passwords: argon2id, and the same time and answer whether a name is unknown, paused or the password wrong.

A hash takes 64 MiB and most of a tenth of a second of a core. However many people log in, or guess, at once: each
process hashes one password at a time, in a thread that yields to all others, and few wait for it. The rest are
refused at once, so that the threads that answer requests, the memory and the cores stay with the data.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fhir_server.errors import Unavailable

SHORTEST, LONGEST = 8, 256  # characters (NIST SP 800-63B section 3.1.1); the upper end bounds the work
RETRY_AFTER_S = 2
_PLACES = 4  # a quarter of the threads that answer requests, as they are set up
_PATIENCE_S = 30.0  # on a machine whose cores are all wanted by others
_NICER = 5  # a third of the weight of a thread that answers requests

T = TypeVar("T")


class Busy(Unavailable):
    """More people log in right now than can be answered soon."""

    def __init__(self) -> None:
        super().__init__(
            "too many log-ins at once; try again in a few seconds", headers={"Retry-After": str(RETRY_AFTER_S)}
        )


class Passwords:
    """Hashes and verifies. Costs are argon2's (RFC 9106 section 4): memory in KiB, time in passes.

    places: how many requests at once may be about a password, the one whose turn it is included.
    """

    def __init__(
        self, memory_cost: int = 65_536, time_cost: int = 3, parallelism: int = 1, places: int = _PLACES
    ) -> None:
        self._hasher = PasswordHasher(time_cost, memory_cost, parallelism)
        self._places = threading.BoundedSemaphore(places)
        self._pool = ThreadPoolExecutor(1, "argon2", _yield_to_others)
        self._nobody = self._hasher.hash("nobody has this password")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who hash or verify; to be had before anything is read or written. Raises Busy."""
        if not self._places.acquire(blocking=False):
            raise Busy
        try:
            yield
        finally:
            self._places.release()

    def hash(self, password: str) -> str:
        """Raises ValueError when the password is too short or too long, Busy."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
        return self._in_turn(lambda: self._hasher.hash(password))

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password fits. None as hash costs the same time and is always False. Raises Busy."""
        try:
            fits = self._in_turn(lambda: self._hasher.verify(password_hash or self._nobody, password[:LONGEST]))
        except (VerificationError, InvalidHashError):
            return False
        return fits and password_hash is not None

    def _in_turn(self, work: Callable[[], T]) -> T:
        done = self._pool.submit(work)
        try:
            return done.result(_PATIENCE_S)
        except TimeoutError:
            done.cancel()
            raise Busy from None


def _yield_to_others() -> None:
    """Let this thread have a core when no other wants it (Linux has a niceness a thread, not only a process)."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + _NICER))
