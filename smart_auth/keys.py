"""Our signing key: made at the first start, kept in the database, the same for all processes. RS256 (RFC 7518)."""

import threading
from collections.abc import Callable
from datetime import datetime

from joserfc.errors import InvalidKeyIdError
from joserfc.jwk import KeySet, RSAKey

from smart_auth.store import AuthStore

ALGORITHM = "RS256"
_BITS = 2048
_REREAD_AFTER_S = 2.0  # for a kid we do not know: anybody can send one, so not at each


class KeyRing:
    """The keys of this server, read once a process; a kid not known yet has them read again."""

    def __init__(self, store: AuthStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._read_at = 0.0

    def signing_key(self) -> RSAKey:
        """The newest key, private part included. Makes the first one if there is none."""
        key = self._all().keys[-1]
        assert isinstance(key, RSAKey)  # noqa: S101 (we make no others)
        return key

    def verifying_key(self, kid: object) -> RSAKey | None:
        """The key of that id; None when it is none of ours."""
        if not isinstance(kid, str):
            return None
        for keys in (self._all, self._reread):
            try:
                key = keys().get_by_kid(kid)
            except InvalidKeyIdError:
                continue
            assert isinstance(key, RSAKey)  # noqa: S101
            return key
        return None

    def jwks(self) -> dict:
        """The JWKS document (RFC 7517): public members only."""
        return dict(self._all().as_dict(private=False, use="sig", alg=ALGORITHM))

    def _all(self) -> KeySet:
        if self._keys is None:
            with self._lock:
                if self._keys is None:
                    self._keys = self._read() or self._make()
        return self._keys

    def _reread(self) -> KeySet:
        now = self._clock().timestamp()
        with self._lock:
            if abs(now - self._read_at) >= _REREAD_AFTER_S:
                self._keys = self._read() or self._keys
        return self._all()

    def _make(self) -> KeySet:
        key = RSAKey.generate_key(_BITS, private=True, auto_kid=True)
        self._store.first_signing_key(dict(key.as_dict(private=True)), self._clock())
        keys = self._read()
        if keys is None:
            raise RuntimeError("the signing key was stored and is not there")
        return keys

    def _read(self) -> KeySet | None:
        self._read_at = self._clock().timestamp()
        stored = self._store.signing_keys()
        return KeySet([RSAKey.import_key(jwk) for jwk in stored]) if stored else None
