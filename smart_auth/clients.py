"""Registration of clients: EHR systems, SMART apps, our own programs. https://hl7.org/fhir/smart-app-launch/"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from secrets import token_urlsafe
from urllib.parse import urlsplit

from smart_auth import scopes
from smart_auth.jwks import read_jwks
from smart_auth.models import CLIENT_TYPES, Client, digest
from smart_auth.store import AuthStore
from smart_auth.users import REFERENCE

# No `%` or `:`: clients differ in how they encode these for HTTP Basic (SMART 2.2, client-confidential-symmetric).
CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}", re.ASCII)
_URI = re.compile(r"[!-~]{1,2000}", re.ASCII)
_ASYMMETRIC = ("confidential-asymmetric", "backend")


@dataclass(frozen=True, slots=True)
class Registered:
    """A new client, and its secret if it has one. The secret is shown now or never: we keep only its digest."""

    client: Client
    secret: str | None


def add_client(
    store: AuthStore,
    client_id: str,
    *,
    type: str,
    scope: str,
    name: str = "",
    redirect_uris: Collection[str] = (),
    launch_uris: Collection[str] = (),
    origins: Collection[str] = (),
    jwks: dict | None = None,
    jwks_uri: str | None = None,
    organization: str | None = None,
    practice: bool = False,
    self_registered: bool = False,
) -> Registered:
    """Register a client. Raises ValueError (AlreadyThere when the id is taken) with what is wrong.

    type: public | confidential-symmetric | confidential-asymmetric | backend. scope: all it may ever be granted,
    space separated. jwks or jwks_uri: its public keys, for the asymmetric types. organization: the referring office
    whose data a backend sees; practice: it sees all, as the practice's own systems do. self_registered: by itself.
    """
    if type not in CLIENT_TYPES:
        raise ValueError(f"unknown client type {type!r}; types are {', '.join(CLIENT_TYPES)}")
    if not CLIENT_ID.fullmatch(client_id):
        raise ValueError("a client id has 1 to 128 of A-Z, a-z, 0-9 and . _ ~ -, beginning with a letter or digit")
    _check_scope(type, scope)
    _check_addresses(type, redirect_uris, launch_uris, origins)
    if organization is not None and not (REFERENCE.fullmatch(organization) and organization[:13] == "Organization/"):
        raise ValueError("the organization is given as Organization/<id>")
    if (jwks is None) + (jwks_uri is None) != (1 if type in _ASYMMETRIC else 2):
        raise ValueError(f"keys are given as JWKS or as its URL for {' and '.join(_ASYMMETRIC)}, else not")
    if jwks_uri is not None and urlsplit(jwks_uri).scheme not in ("http", "https"):
        raise ValueError("the JWKS is at an http(s) address")
    secret = token_urlsafe(32) if type == "confidential-symmetric" else None
    client = Client(
        client_id=client_id,
        type=type,
        name=name or client_id,
        scope=scopes.text(scopes.parse(scope)),
        redirect_uris=tuple(redirect_uris),
        launch_uris=tuple(launch_uris),
        origins=tuple(origins),
        jwks=dict(read_jwks(jwks).as_dict(private=False)) if jwks is not None else None,
        jwks_uri=jwks_uri,
        organization=organization,
        practice=practice,
        secret_digest=digest(secret) if secret is not None else None,
        self_registered=self_registered,
    )
    store.add_client(client)
    return Registered(client, secret)


def deactivate_client(store: AuthStore, client_id: str) -> bool:
    """End a client's tokens and grant it no more. False when there is no such client."""
    return store.set_client(client_id, active=False)


def remove_client(store: AuthStore, client_id: str) -> bool:
    """End a client's tokens and forget it; only one that registered itself. False when there is no such client."""
    client = store.client(client_id)
    return client is not None and client.self_registered and store.remove_client(client_id)


def activate_client(store: AuthStore, client_id: str) -> bool:
    """Let a deactivated client in again."""
    return store.set_client(client_id, active=True)


def _check_scope(type: str, scope: str) -> None:
    contexts = {"system"} if type == "backend" else {"user", "patient"}
    for word in scope.split():
        parsed = scopes.parse(word)
        if not parsed:
            raise ValueError(f"{word!r} is no scope that this server can grant")
        resource_scope = parsed[0].scope
        if resource_scope is None:
            if type == "backend":
                raise ValueError(f"a backend has no user, so {word!r} has no meaning for it")
        elif resource_scope.context not in contexts:
            raise ValueError(f"{word!r} is not for a client of type {type}")
    if not scope.split():
        raise ValueError("a client needs at least one scope")


def _check_addresses(
    type: str, redirect_uris: Collection[str], launch_uris: Collection[str], origins: Collection[str]
) -> None:
    if bool(redirect_uris) == (type == "backend"):
        raise ValueError("an app needs at least one redirect URI, a backend has none")
    for uri in (*redirect_uris, *launch_uris):
        parts = urlsplit(uri)
        # Private schemes of native apps (RFC 8252 section 7.1) have a dot; `javascript:` and `data:` do not.
        web = parts.scheme in ("http", "https") and bool(parts.netloc)
        if not (web or "." in parts.scheme) or parts.fragment or not _URI.fullmatch(uri):
            raise ValueError(f"{uri!r} is no absolute http(s) or app address without a fragment")
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
            raise ValueError(f"{origin!r} is no origin such as https://app.example.org")
