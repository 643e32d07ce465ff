"""Access tokens: JWTs signed by us (RFC 9068), issued with a grant, and verified for each request.

A token is good while it has not expired, its grant stands, and its user and client are active. The last two are in
the database; a process keeps what it verified and asks for one number (`AuthStore.generation`) at most every two
seconds to learn whether anything changed. So a revocation or deactivation counts at once in the process that made it,
and at most two seconds later everywhere else.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from fhir_server.access import Access
from fhir_server.errors import NotAuthenticated
from smart_auth import scopes
from smart_auth.access import access_of_client, access_of_user, rights_of_user
from smart_auth.keys import ALGORITHM, KeyRing
from smart_auth.models import NO_CONTEXT, Client, Context, Grant, User
from smart_auth.store import AuthStore

LIFETIME = timedelta(hours=1)
LIFETIME_CLIENT_CREDENTIALS = timedelta(minutes=5)
TYPE = "at+jwt"  # RFC 9068: an id_token can never pass as an access token
_TRUST_S = 2.0
_KEPT = 10_000  # verified tokens a process remembers, about 1 kB each
_MAX_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class _Verified:
    access: Access
    expires: float
    generation: int


class TokenVerifier:
    """Turns a bearer token into an Access. One object a process; thread safe."""

    def __init__(self, store: AuthStore, keys: KeyRing, issuer: str, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Verified] = OrderedDict()
        self._generation = -1
        self._asked_at = 0.0
        self._changes_here = -1

    def access(self, token: str) -> Access:
        """Who calls with this token, and their rights as of now. Raises NotAuthenticated, challenge included."""
        if len(token) > _MAX_LENGTH:
            raise _refusal("this is no token of ours")
        key = sha256(token.encode()).digest()
        now = self._clock().timestamp()
        generation = self._current_generation(now)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        if kept is None or kept.generation != generation:
            kept = self._verify(token, now, generation)
            with self._lock:
                self._kept[key] = kept
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        if kept.expires <= now:
            raise _refusal("the token has expired")
        return kept.access

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that we signed and that has not expired. Raises NotAuthenticated."""
        now = self._clock().timestamp()
        registry = jwt.JWTClaimsRegistry(
            now=int(now),
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._issuer},
            exp={"essential": True},
            sub={"essential": True},
            jti={"essential": True},
            grant={"essential": True},
        )
        try:
            decoded = jwt.decode(token, lambda found: self._key(found.headers()), algorithms=[ALGORITHM])
            if decoded.header.get("typ") != TYPE:
                raise _refusal("this is no access token")
            registry.validate(decoded.claims)
            if not all(isinstance(decoded.claims[name], str) for name in ("sub", "jti", "grant")):
                raise _refusal("the token is none of ours")
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _refusal("the token has expired or is none of ours") from None
        return decoded.claims

    def _key(self, header: dict) -> Any:
        key = self._keys.verifying_key(header.get("kid"))
        if key is None:
            raise _refusal("the token is none of ours")
        return key

    def _verify(self, token: str, now: float, generation: int) -> _Verified:
        claims = self.claims(token)
        grant = self._store.grant(claims["grant"])
        if grant is None or grant.revoked or grant.expires.timestamp() <= now:
            raise _refusal("the token was revoked")
        access = self._access_of_grant(grant, str(claims.get("scope", "")))
        if access is None:
            raise _refusal("the user or client of this token is not active")
        return _Verified(replace(access, token=claims["jti"]), float(claims["exp"]), generation)

    def _access_of_grant(self, grant: Grant, scope: str) -> Access | None:
        # A refresh may have asked for less than was granted.
        kept = scopes.restrict(scopes.parse(scope), scopes.parse(grant.scope))
        granted = scopes.resource_scopes(kept)
        client = self._store.client(grant.client_id) if grant.client_id is not None else None
        if grant.client_id is not None and (client is None or not client.active):
            return None
        kind, _, name = grant.subject.partition(":")
        if kind == "client":
            return access_of_client(client, granted) if client is not None else None
        user = self._store.user(name)
        if user is None or not user.active:
            return None
        own = any(item.word == "fhirUser" for item in kept)
        return access_of_user(user, granted, client_id=grant.client_id, patient=grant.context.patient, own=own)

    def _current_generation(self, now: float) -> int:
        changes_here = self._store.changes_here
        if changes_here != self._changes_here or not 0 <= now - self._asked_at < _TRUST_S:
            generation = self._store.generation()
            self._generation, self._asked_at, self._changes_here = generation, now, changes_here
            return generation
        return self._generation


@dataclass(frozen=True, slots=True)
class Issuer:
    """Makes tokens. `issuer` is the FHIR base URL: iss and aud in one string."""

    store: AuthStore
    keys: KeyRing
    issuer: str
    clock: Callable[[], datetime]

    def issue(
        self,
        subject: str,
        client_id: str | None,
        scope: str,
        lifetime: timedelta,
        context: Context = NO_CONTEXT,
    ) -> str:
        """A signed access token with a grant of its own."""
        now = self.clock().replace(microsecond=0)
        grant = Grant(new_id(), subject, client_id, scope, now, now + lifetime, context)
        self.store.add_grant(grant)
        return self.access_token(grant, scope, lifetime)

    def access_token(self, grant: Grant, scope: str, lifetime: timedelta) -> str:
        """A signed access token of a grant that is recorded. scope: what of the grant it carries."""
        now = self.clock().replace(microsecond=0)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": grant.subject,
            "scope": scope,
            "jti": new_id(),
            "grant": grant.id,
            "iat": int(now.timestamp()),
            "exp": int(min(now + lifetime, grant.expires).timestamp()),
        }
        if grant.client_id is not None:
            claims["client_id"] = grant.client_id
        if grant.context.patient is not None:
            claims["patient"] = grant.context.patient.removeprefix("Patient/")
        return self.sign(claims, TYPE)

    def sign(self, claims: dict[str, Any], typ: str = "JWT") -> str:
        key = self.keys.signing_key()
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": typ}, claims, key, algorithms=[ALGORITHM])

    def issue_for_client(self, client: Client, scope: str, lifetime: timedelta = LIFETIME) -> str:
        """A token for the command line, as a client. Raises ValueError when none of the scopes is registered."""
        granted = scopes.restrict(scopes.parse(scope), scopes.parse(client.scope))
        granted = tuple(item for item in granted if item.scope is not None and item.scope.context == "system")
        return self._issue_some(client.subject, client.client_id, granted, lifetime, None)

    def issue_for_user(
        self, user: User, scope: str, lifetime: timedelta = LIFETIME, patient: str | None = None
    ) -> str:
        """A token for the command line, as a user. Raises ValueError when none of the scopes is theirs to use."""
        rights = tuple(scopes.Granted(str(right), right) for right in rights_of_user(user, patient))
        granted = scopes.restrict(scopes.parse(scope), rights)
        return self._issue_some(user.subject, None, granted, lifetime, patient)

    def _issue_some(
        self,
        subject: str,
        client_id: str | None,
        granted: tuple[scopes.Granted, ...],
        lifetime: timedelta,
        patient: str | None,
    ) -> str:
        if not granted:
            raise ValueError(f"none of these scopes can be granted to {subject}")
        if not timedelta(0) < lifetime <= LIFETIME:
            raise ValueError("a token lives up to an hour")
        return self.issue(subject, client_id, scopes.text(granted), lifetime, Context(patient=patient))


def new_id() -> str:
    """A random id of 192 bits."""
    return token_urlsafe(24)


def _refusal(text: str) -> NotAuthenticated:
    return NotAuthenticated(
        text, headers={"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{text}"'}
    )
