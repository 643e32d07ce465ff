"""Where another server's endpoints are: SMART App Launch 2.2 (well-known, else metadata), OpenID Discovery."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from joserfc.jwk import KeySet

from smart_auth.jwks import read_jwks
from smart_auth.outside.calls import NoAnswer, get_json
from smart_auth.outside.servers import EHR, Server

_KEPT_S = 300.0
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """issuer: of the id_tokens, as the server says. jwks: where its keys are; empty when it says no users' names."""

    authorization: str
    token: str
    issuer: str
    jwks: str


class Discovery:
    """Reads what the servers publish, and keeps it for five minutes. Thread safe."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    def endpoints(self, server: Server) -> Endpoints:
        """Raises NoAnswer."""
        found = self._cached(f"endpoints {server.name}", lambda: _endpoints(server))
        assert isinstance(found, Endpoints)  # noqa: S101
        return found

    def keys(self, server: Server, *, anew: bool = False) -> KeySet:
        """The keys that sign its id_tokens. anew: do not believe what is kept. Raises NoAnswer."""
        address = self.endpoints(server).jwks
        if not address:
            raise NoAnswer("it publishes no keys, so it cannot say who its users are")
        found = self._cached(f"keys {server.name}", lambda: _keys(address), anew)
        assert isinstance(found, KeySet)  # noqa: S101
        return found

    def _cached(self, name: str, read: Callable[[], Any], anew: bool = False) -> Any:
        now = self._clock().timestamp()
        with self._lock:
            kept = self._kept.get(name)
        if kept is not None and not anew and 0 <= now - kept[0] < _KEPT_S:
            return kept[1]
        found = read()
        with self._lock:
            self._kept[name] = (now, found)
        return found


def _endpoints(server: Server) -> Endpoints:
    if server.kind != EHR:
        document = get_json(f"{server.issuer.rstrip('/')}/.well-known/openid-configuration")
        if _text(document, "issuer") != server.issuer:
            raise NoAnswer("it names another issuer than the one set up")
        return _from_document(document)
    try:
        return _from_document(get_json(f"{server.issuer}/.well-known/smart-configuration"))
    except NoAnswer:
        uris = _oauth_uris(get_json(f"{server.issuer}/metadata"))
        return Endpoints(_address(uris, "authorize"), _address(uris, "token"), *_identity(server.issuer))


def _identity(issuer: str) -> tuple[str, str]:
    """Issuer and keys of the id_tokens of an EHR without a smart-configuration, as SMART 1 has it; else empty."""
    try:
        document = get_json(f"{issuer}/.well-known/openid-configuration")
        return _text(document, "issuer"), _address(document, "jwks_uri")
    except NoAnswer:
        return "", ""


def _from_document(document: Any) -> Endpoints:
    return Endpoints(
        _address(document, "authorization_endpoint"),
        _address(document, "token_endpoint"),
        _text(document, "issuer"),
        _address(document, "jwks_uri") if _text(document, "jwks_uri") else "",
    )


def _oauth_uris(statement: Any) -> dict[str, Any]:
    try:
        security = statement["rest"][0]["security"]["extension"]
        uris = next(one["extension"] for one in security if one.get("url") == _OAUTH_URIS)
        return {one["url"]: one["valueUri"] for one in uris}
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration):
        raise NoAnswer("it does not say where to log in") from None


def _keys(address: str) -> KeySet:
    try:
        return read_jwks(get_json(address))
    except ValueError:
        raise NoAnswer("its keys cannot be read") from None


def _text(document: Any, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else ""


def _address(document: Any, name: str) -> str:
    value = _text(document, name)
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment:
        raise NoAnswer(f"its {name} is no address")
    return value
