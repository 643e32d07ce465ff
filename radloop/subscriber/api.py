"""The FHIR API as a client sees it: JSON in and out, a token from the environment, and refusals that say why."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from fhir_server import fhir_json
from fhir_server.errors import BadRequest

SERVER, TOKEN, CLIENT_ID, KEY_FILE, SCOPE = (
    "FHIR_SERVER",
    "FHIR_TOKEN",
    "FHIR_CLIENT_ID",
    "FHIR_CLIENT_KEY_FILE",
    "FHIR_SCOPE",
)
USUAL_SCOPE = "system/Subscription.cruds system/*.rs"
ALGORITHMS = {"EC": "ES384", "RSA": "RS384"}  # what SMART asks every server to take
TIMEOUT_S = 30
RENEW_BEFORE_S = 60
AWAY = (429, 502, 503, 504)  # statuses of a server that will answer later

TokenSource = Callable[[], str]


class Refused(ValueError):
    """The server says no, in its own words."""


class Away(Exception):
    """The server does not answer just now."""


class Api:
    """base: the FHIR base. token: gives the access token to send, None where none is needed."""

    def __init__(self, base: str, token: TokenSource | None) -> None:
        if not base.startswith(("http://", "https://")):
            raise Refused(f"the server's address begins with https:// (or http://), not as '{base[:80]}' does")
        self.base = base.rstrip("/")
        self._token = token
        self._http = requests.Session()

    def call(self, method: str, path: str, body: dict | None = None, query: Mapping[str, str] | None = None) -> dict:
        """The JSON of the answer, {} for none. Raises Refused or Away."""
        headers = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        data = None if body is None else fhir_json.dumps(body)
        answer = _asked(self._http, method, f"{self.base}/{path}", headers=headers, data=data, params=query)
        if not answer.ok:
            raise Refused(f"{method} {path} was answered {answer.status_code}: {_outcome(answer)}")
        return _object(answer) if answer.content else {}


def token_source(environ: Mapping[str, str], base: str) -> TokenSource | None:
    """From the environment: a token as it is, or a client that asks for one with its private key. Raises Refused."""
    given, client, file = environ.get(TOKEN), environ.get(CLIENT_ID), environ.get(KEY_FILE)
    if given and (client or file):
        raise Refused(f"{TOKEN} or {CLIENT_ID} with {KEY_FILE}, not both")
    if given:
        return lambda: given
    if bool(client) != bool(file):
        raise Refused(f"{CLIENT_ID} and {KEY_FILE} go together")
    if not client or not file:
        return None
    return ClientToken(base, client, Path(file), environ.get(SCOPE) or USUAL_SCOPE)


class ClientToken:
    """A backend service's token, renewed before it ends. http://hl7.org/fhir/smart-app-launch/backend-services.html

    key_file: its private key as a JWK.
    """

    def __init__(self, base: str, client_id: str, key_file: Path, scope: str) -> None:
        self._base = base.rstrip("/")
        self._client_id = client_id
        self._scope = scope
        try:
            row = json.loads(key_file.read_text())
            self._algorithm = row.get("alg") or ALGORITHMS[row["kty"]]
            self._key = ECKey.import_key(row) if row["kty"] == "EC" else RSAKey.import_key(row)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, JoseError) as fault:
            raise Refused(f"{KEY_FILE} {key_file} has no private key as a JWK (EC or RSA): {fault}") from None
        self._token, self._ends = "", 0.0

    def __call__(self) -> str:
        if time.monotonic() > self._ends - RENEW_BEFORE_S:
            known = _asked(requests.Session(), "GET", f"{self._base}/.well-known/smart-configuration")
            if not known.ok or not isinstance(endpoint := _object(known).get("token_endpoint"), str):
                raise Refused(f"{self._base} does not say where tokens are asked for")
            answer = _asked(requests.Session(), "POST", endpoint, data=self._form(endpoint))
            said = _object(answer)
            if not answer.ok or not isinstance(said.get("access_token"), str):
                reason = said.get("error_description") or said.get("error") or "no reason"
                raise Refused(f"the server gives client {self._client_id} no token: {reason}")
            self._token = said["access_token"]
            self._ends = time.monotonic() + int(said.get("expires_in", 300))
        return self._token

    def _form(self, endpoint: str) -> dict[str, str]:
        now = int(time.time())
        who = {"iss": self._client_id, "sub": self._client_id, "aud": endpoint}
        claims = who | {"iat": now, "exp": now + 240, "jti": uuid.uuid4().hex}
        header = {"alg": self._algorithm, "typ": "JWT"} | ({"kid": self._key.kid} if self._key.kid else {})
        return {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jwt.encode(header, claims, self._key, algorithms=[self._algorithm]),
        }


def _asked(http: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
    """The answer; a redirect is one too, so a token goes nowhere else. Raises Away, Refused for a bad address."""
    try:
        answer = http.request(method, url, timeout=TIMEOUT_S, allow_redirects=False, **options)
    except (requests.ConnectionError, requests.Timeout) as fault:
        raise Away(f"{url.partition('?')[0]} does not answer ({type(fault).__name__})") from None
    except requests.RequestException as fault:
        raise Refused(f"{url.partition('?')[0]} cannot be asked: {fault}") from None
    if answer.status_code in AWAY:
        raise Away(f"the server answers {answer.status_code} just now")
    return answer


def _object(answer: requests.Response) -> dict:
    try:
        found = fhir_json.loads(answer.content)
    except BadRequest:
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{answer.url.partition('?')[0]} did not answer in JSON: is that the FHIR base of a server?")
    return found


def _outcome(answer: requests.Response) -> str:
    """What the OperationOutcome says, with the elements it names."""
    issues = _object(answer).get("issue")
    told = []
    for issue in issues if isinstance(issues, list) else ():
        text = issue.get("diagnostics") or issue.get("details", {}).get("text") or issue.get("code", "")
        where = ", ".join(issue.get("expression", []))
        told.append(f"{text} ({where})" if where else str(text))
    return "; ".join(told) or answer.reason
