"""Our signing keys: the first made at the first start, kept in the database, the same for all processes. RS256.

A new key is published at once and signs ten minutes later, when everybody who keeps our JWKS has it; an old one is
published until nothing that it signed can be good any more.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from joserfc.errors import InvalidKeyIdError
from joserfc.jwk import KeySet, RSAKey

from smart_auth.store import AuthStore, SigningKey

ALGORITHM = "RS256"
PUBLISHED_BEFORE = timedelta(minutes=10)
PUBLISHED_AFTER = timedelta(hours=2)  # tokens live for one
_BITS = 2048
_REREAD_AFTER_S = 2.0  # for a kid we do not know: anybody can send one, so not at each
_TRUST_S = 60.0  # in what was read


@dataclass(frozen=True, slots=True)
class _Keys:
    published: KeySet
    signs_from: tuple[datetime, ...]


class KeyRing:
    """The keys of this server, read once a minute; a kid not known yet has them read again."""

    def __init__(self, store: AuthStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: _Keys | None = None
        self._read_at = 0.0

    def signing_key(self) -> RSAKey:
        """The newest key whose time has come, private part included. Makes the first one if there is none."""
        keys, now = self._all(), self._clock()
        due = [key for key, begins in zip(keys.published.keys, keys.signs_from, strict=True) if begins <= now]
        key = due[-1] if due else keys.published.keys[0]
        assert isinstance(key, RSAKey)  # noqa: S101 (we make no others)
        return key

    def verifying_key(self, kid: object) -> RSAKey | None:
        """The key of that id; None when it is none of ours."""
        if not isinstance(kid, str):
            return None
        for keys in (self._all, self._reread):
            try:
                key = keys().published.get_by_kid(kid)
            except InvalidKeyIdError:
                continue
            assert isinstance(key, RSAKey)  # noqa: S101
            return key
        return None

    def jwks(self) -> dict:
        """The JWKS document (RFC 7517): public members only."""
        return dict(self._all().published.as_dict(private=False, use="sig", alg=ALGORITHM))

    def rotate(self) -> str:
        """Add a key that signs ten minutes from now, and drop those whose time is over; the new key's id.

        Raises ValueError when somebody else did so at the same time.
        """
        self.signing_key()
        now, stored = self._clock(), self._store.signing_keys()
        ends = [key.signs_from for key in stored[1:]]  # a key signs until the next one does
        kept = [key for key, end in zip(stored, ends, strict=False) if now < end + PUBLISHED_AFTER] + stored[-1:]
        key = RSAKey.generate_key(_BITS, private=True, auto_kid=True)
        added = SigningKey(dict(key.as_dict(private=True)), now + PUBLISHED_BEFORE)
        if not self._store.set_signing_keys([*kept, added], instead_of=stored):
            raise ValueError("the keys were changed by somebody else at the same time; look at them and try again")
        with self._lock:
            self._keys = self._read()
        return str(key.kid)

    def _all(self) -> _Keys:
        keys = self._keys
        if keys is None or not 0 <= self._clock().timestamp() - self._read_at < _TRUST_S:
            with self._lock:
                keys = self._keys = self._read() or self._make()
        return keys

    def _reread(self) -> _Keys:
        now = self._clock().timestamp()
        with self._lock:
            if abs(now - self._read_at) >= _REREAD_AFTER_S:
                self._keys = self._read() or self._keys
        return self._all()

    def _make(self) -> _Keys:
        key = RSAKey.generate_key(_BITS, private=True, auto_kid=True)
        self._store.first_signing_key(dict(key.as_dict(private=True)), self._clock())
        keys = self._read()
        if keys is None:
            raise RuntimeError("the signing key was stored and is not there")
        return keys

    def _read(self) -> _Keys | None:
        self._read_at = self._clock().timestamp()
        stored = self._store.signing_keys()
        if not stored:
            return None
        published = KeySet([RSAKey.import_key(key.jwk) for key in stored])
        return _Keys(published, tuple(key.signs_from for key in stored))
