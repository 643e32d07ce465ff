"""Programs that register themselves (RFC 7591): off unless the practice wants it, and never with much.

They become apps of users: no backend systems, no `system/` scopes, nothing of the practice's own. With `open`
registration they may only read, and their name says that nobody has checked them; with `token` the administrator who
made the initial access token vouches for them. https://www.rfc-editor.org/rfc/rfc7591
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex, token_urlsafe
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smart_auth import scopes
from smart_auth.clients import Registered, add_client
from smart_auth.jwks import read_jwks
from smart_auth.models import CLIENT_TYPES, Ticket, digest

if TYPE_CHECKING:
    from smart_auth.service import AuthService

OFF, TOKEN, OPEN = "off", "token", "open"
MODES = (OFF, TOKEN, OPEN)
LIFE = timedelta(days=7)  # of an initial access token
MAX_CLIENTS = 1000  # that registered themselves and were not removed
UNCHECKED = " (not checked by the practice)"
_DEFAULT_SCOPE = "openid fhirUser launch/patient patient/*.rs"
_ALLOWED = {
    OPEN: scopes.parse(" ".join((*scopes.WORDS, "user/*.rs", "patient/*.rs"))),
    TOKEN: scopes.parse(" ".join((*scopes.WORDS, "user/*.cruds", "patient/*.cruds"))),
}
_TYPES = {CLIENT_TYPES[name][0]: name for name in ("public", "confidential-symmetric", "confidential-asymmetric")}
_MAX_URIS, _MAX_NAME = 10, 100
_URI = re.compile(r"[!\"$-)+-~]{1,500}", re.ASCII)  # no blank, fragment, or star that somebody may take for a pattern
_KEY_MEMBERS = ("kty", "kid", "use", "alg", "n", "e", "crv", "x", "y")
NAMELESS = "An app without a name"
_FREE, _LONGEST_PAUSE, _MEMORY = 20, timedelta(hours=1), timedelta(hours=24)
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class RegistrationRefused(Exception):
    """error: of RFC 7591 section 3.2.2 or RFC 6750 section 3.1."""

    error: str
    description: str
    status: int = 400


def make_token(service: "AuthService") -> str:
    """An initial access token: lets one program register, within a week."""
    value = token_urlsafe(32)
    service.credentials.add_ticket(Ticket(digest(value), service.clock() + LIFE))
    return value


def register(service: "AuthService", metadata: Mapping[str, Any], token: str, address: str) -> dict[str, Any]:
    """Register a client; the answer of RFC 7591 section 3.2.1. Raises RegistrationRefused.

    token: the bearer token sent, empty without one. address: the network address it comes from.
    """
    if not service.store.begin_attempt(
        f"register-address:{digest(address)}", service.clock(), _FREE, _LONGEST_PAUSE, _MEMORY
    ):
        raise RegistrationRefused("temporarily_unavailable", "too many registrations from here; wait a while", 429)
    ticket = digest(token) if len(token) <= 100 else ""
    if service.registration == TOKEN and not service.credentials.has_ticket(ticket, service.clock()):
        raise RegistrationRefused("invalid_token", "an initial access token of this server is needed", 401)
    wanted = _read(service, metadata)
    if service.store.count_self_registered() >= MAX_CLIENTS:
        raise RegistrationRefused("temporarily_unavailable", "too many programs have registered", 503)
    if service.registration == TOKEN and not service.credentials.take_ticket(ticket, service.clock()):
        raise RegistrationRefused("invalid_token", "the initial access token was used already", 401)
    try:
        return _answer(add_client(service.store, f"app-{token_hex(16)}", **wanted))
    except ValueError as fault:
        raise RegistrationRefused("invalid_client_metadata", str(fault)) from None


def _read(service: "AuthService", metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What `add_client` takes, of what was sent; members not understood are left out (RFC 7591 section 2)."""
    method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
    if not isinstance(method, str) or method not in _TYPES:
        raise _bad(f"token_endpoint_auth_method is one of {', '.join(_TYPES)}")
    allowed = {"grant_types": set(CLIENT_TYPES["public"][1]), "response_types": {"code"}}
    for name, known in allowed.items():
        given = metadata.get(name)
        if given is not None and not (_are_strings(given) and given and set(given) <= known):
            raise _bad(f"{name} is of {', '.join(sorted(known))}")
    return {
        "type": _TYPES[method],
        "scope": _scope(service, metadata.get("scope")),
        "name": _name(service, metadata.get("client_name")),
        "redirect_uris": (uris := _redirect_uris(metadata.get("redirect_uris"))),
        "origins": sorted({_origin(uri) for uri in uris} - {""}) if method == "none" else (),
        "jwks": _jwks(method, metadata),
        "self_registered": True,
    }


def _redirect_uris(given: object) -> tuple[str, ...]:
    """https, loopback, or the private scheme of a native app (RFC 8252 section 7), each exact."""
    if not _are_strings(given) or not 0 < len(given) <= _MAX_URIS:  # type: ignore[arg-type]
        raise RegistrationRefused("invalid_redirect_uri", f"redirect_uris has 1 to {_MAX_URIS} addresses")
    for uri in given:  # type: ignore[attr-defined]
        try:
            parts = urlsplit(uri)
            host, _port = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        native = "." in parts.scheme
        safe = parts.scheme == "https" or (parts.scheme == "http" and host is not None and _is_loopback(host))
        exact = _URI.fullmatch(uri) and parts.username is None
        if not exact or not (native or (safe and host)):
            raise RegistrationRefused(
                "invalid_redirect_uri", "a redirect URI is https, or http on loopback, and exact"
            )
    return tuple(given)  # type: ignore[arg-type]


def _scope(service: "AuthService", given: object) -> str:
    if given is not None and not isinstance(given, str):
        raise _bad("scope is a string")
    granted = scopes.restrict(scopes.parse(given or _DEFAULT_SCOPE), _ALLOWED[service.registration])
    if not granted:
        raise _bad("none of these scopes can be granted to a program that registers itself")
    return scopes.text(granted)


def _name(service: "AuthService", given: object) -> str:
    """What users read when they are asked to let it in: one line, and in `open` registration a warning with it."""
    given = NAMELESS if given is None else given
    if not isinstance(given, str) or not given.strip() or len(given) > _MAX_NAME or _INVISIBLE.search(given):
        raise _bad(f"client_name has 1 to {_MAX_NAME} characters, all of them to be seen")
    return given.strip() + (UNCHECKED if service.registration == OPEN else "")


def _jwks(method: str, metadata: Mapping[str, Any]) -> dict | None:
    """Keys by value: an address would have this server call whatever a stranger names."""
    if "jwks_uri" in metadata:
        raise _bad("keys are given by value, as jwks")
    if method != "private_key_jwt":
        return None
    try:
        found = read_jwks(metadata.get("jwks")).as_dict(private=False)["keys"]
        return {
            "keys": [{name: key[name] for name in _KEY_MEMBERS if isinstance(key.get(name), str)} for key in found]
        }
    except ValueError as fault:
        raise _bad(str(fault)) from None


def _answer(registered: Registered) -> dict[str, Any]:
    client = registered.client
    answer: dict[str, Any] = {
        "client_id": client.client_id,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "token_endpoint_auth_method": CLIENT_TYPES[client.type][0],
        "grant_types": list(CLIENT_TYPES[client.type][1]),
        "response_types": ["code"],
        "scope": client.scope,
    }
    if client.jwks is not None:
        answer["jwks"] = client.jwks
    if registered.secret is not None:
        answer |= {"client_secret": registered.secret, "client_secret_expires_at": 0}
    return answer


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _are_strings(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(one, str) for one in given)


def _bad(description: str) -> RegistrationRefused:
    return RegistrationRefused("invalid_client_metadata", description)
