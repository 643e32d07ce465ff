"""Passwords: argon2id, and the same time and answer whether a name is unknown, paused or the password wrong."""

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST, LONGEST = 8, 256  # characters (NIST SP 800-63B section 3.1.1); the upper end bounds the work
_AT_ONCE = 4  # each takes 64 MiB with the defaults below


class Passwords:
    """Hashes and verifies. Costs are argon2's (RFC 9106 section 4): memory in KiB, time in passes."""

    def __init__(self, memory_cost: int = 65_536, time_cost: int = 3, parallelism: int = 1) -> None:
        self._hasher = PasswordHasher(time_cost, memory_cost, parallelism)
        self._gate = threading.BoundedSemaphore(_AT_ONCE)
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """Raises ValueError when the password is too short or too long."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
        with self._gate:
            return self._hasher.hash(password)

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password fits. None as hash costs the same time and is always False."""
        with self._gate:
            try:
                fits = self._hasher.verify(password_hash or self._nobody, password[:LONGEST])
            except (VerificationError, InvalidHashError):
                return False
        return fits and password_hash is not None
