"""Clients' public keys: by value, or fetched from the URL they registered (SMART 2.2, asymmetric clients)."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, import_key

from fhir_server import fhir_json
from fhir_server.errors import BadRequest
from smart_auth.models import Client

MAX_BYTES = 64 * 1024
TIMEOUT_S = (3.05, 5)  # to connect, to read
_DEADLINE_S = 8.0  # for the whole answer, however slowly its bytes drip
_LONGEST_S, _SHORTEST_S, _DEFAULT_S = 3600, 10, 300  # how long an answer is kept; Cache-Control decides in between
_MAX_AGE = re.compile(r"max-age=(\d{1,9})", re.ASCII)


class JwksUnavailable(Exception):
    """The client's keys could not be had. The text is ours and names no address."""


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: KeySet
    fetched: float
    until: float


def read_jwks(value: Any) -> KeySet:
    """The public RSA and EC keys of a JWKS document; private members are dropped. Raises ValueError."""
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= 100:
        raise ValueError('a JWKS is {"keys": [...]} with 1 to 100 keys')
    keys: list[Key] = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC"):
            continue  # RFC 7517 section 5: a key type we do not use does not spoil the set
        if not isinstance(entry.get("kid"), str):
            raise ValueError("each key of a JWKS for SMART has a kid")
        try:
            keys.append(import_key(import_key(entry).as_dict(private=False)))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"a key of the JWKS cannot be read: {type(error).__name__}") from None
    if not keys:
        raise ValueError("the JWKS has no RSA or EC key")
    return KeySet(keys)


class ClientKeys:
    """Finds the key that signed an assertion. Keeps fetched documents in this process."""

    def __init__(
        self, clock: Callable[[], datetime], fetch: Callable[[str], tuple[bytes, str]] | None = None
    ) -> None:
        """fetch: gets the document at a URL and its Cache-Control, or raises JwksUnavailable."""
        self._clock = clock
        self._get = fetch or fetch_document
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def find(self, client: Client, kid: object) -> Key | None:
        """The client's key of that id, its JWKS fetched once more if it is not in the copy we keep.

        Raises JwksUnavailable.
        """
        if not isinstance(kid, str):
            return None
        if client.jwks is not None:
            return _by_kid(read_jwks(client.jwks), kid)
        if client.jwks_uri is None:
            return None
        now = self._clock().timestamp()
        kept = self._kept.get(client.jwks_uri)
        if kept is None or not kept.fetched <= now < kept.until:
            return _by_kid(self._fetch(client.jwks_uri, now), kid)
        key = _by_kid(kept.keys, kid)
        if key is None and now - kept.fetched >= _SHORTEST_S:  # a made-up kid is no means to have us fetch at will
            key = _by_kid(self._fetch(client.jwks_uri, now), kid)
        return key

    def _fetch(self, url: str, now: float) -> KeySet:
        body, cache_control = self._get(url)
        try:
            keys = read_jwks(fhir_json.loads(body))
        except (ValueError, BadRequest):
            raise JwksUnavailable("the client's JWKS cannot be read") from None
        found = _MAX_AGE.search(cache_control)
        keep_s = min(max(int(found[1]) if found else _DEFAULT_S, _SHORTEST_S), _LONGEST_S)
        with self._lock:
            self._kept[url] = _Kept(keys, now, now + keep_s)
        return keys


def fetch_document(url: str) -> tuple[bytes, str]:
    """The document at a registered URL and its Cache-Control. Raises JwksUnavailable.

    No redirects (they would lead elsewhere than registered), no credentials from a .netrc, bounded time and size.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise JwksUnavailable("the client's JWKS is not at an http(s) address")
    deadline = time.monotonic() + _DEADLINE_S
    try:
        with requests.get(
            url,
            timeout=TIMEOUT_S,
            stream=True,
            allow_redirects=False,
            auth=lambda request: request,
            headers={"Accept": "application/json"},
        ) as answer:
            if answer.status_code != 200:
                raise JwksUnavailable(f"the client's JWKS address answers {answer.status_code}")
            body = b""
            for chunk in answer.iter_content(8192):
                body += chunk
                if len(body) > MAX_BYTES or time.monotonic() > deadline:
                    raise JwksUnavailable("the client's JWKS is too large or too slow")
            return body, answer.headers.get("Cache-Control", "")
    except (requests.RequestException, UnicodeError) as error:
        raise JwksUnavailable(f"the client's JWKS cannot be fetched: {type(error).__name__}") from None


def _by_kid(keys: KeySet, kid: str) -> Key | None:
    return next((key for key in keys.keys if key.kid == kid), None)
