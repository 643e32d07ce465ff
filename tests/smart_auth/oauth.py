"""Helpers that speak OAuth to the app under test, and the keys and addresses its clients use."""

import base64
import hashlib
import html as entities
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

ORIGIN = "http://127.0.0.1:8080"
FHIR = f"{ORIGIN}/fhir"
TOKEN = f"{ORIGIN}/auth/token"
CALLBACK = "https://app.example.org/callback"
PASSWORD = "correct horse"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()

RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"}, private=True)
EC = ECKey.generate_key("P-384", {"kid": "ec-1"}, private=True)
SIGNING = RSAKey.generate_key(2048, private=True, auto_kid=True)
FOREIGN = RSAKey.generate_key(2048, {"kid": "rsa-1"}, private=True)
JWKS = KeySet([RSA, EC]).as_dict(private=False)
_numbers = itertools.count(1)


class Clock:
    """The time, which a test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def hidden(html: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, f"the page has no field {name}"
    return found[1]


def log_in(browser: FlaskClient, name: str, password: str = PASSWORD, next: str = "/desk", **more: Any) -> Any:
    token = hidden(browser.get("/auth/login", **more).text, "login_token")
    form = {"name": name, "password": password, "next": next, "login_token": token}
    return browser.post("/auth/login", data=form, **more)


def authorization(**differences: str | None) -> dict[str, str]:
    """The parameters of an ordinary authorization request, but for the differences (None leaves one out)."""
    ordinary: dict[str, str | None] = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": CALLBACK,
        "scope": "openid fhirUser user/Task.rs",
        "state": "s t&te",
        "aud": FHIR,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in (ordinary | differences).items() if value is not None}


def answer(response: Any) -> dict[str, str]:
    """What a redirect to the client carries."""
    assert response.status_code == 302, response.text
    assert response.location.startswith(f"{CALLBACK}?"), response.location
    return {name: values[0] for name, values in parse_qs(urlsplit(response.location).query).items()}


def consent_form(html: str) -> dict[str, Any]:
    fields = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', html)
    approved = [entities.unescape(value) for value in re.findall(r'name="approve" value="([^"]*)"', html)]
    return {name: entities.unescape(value) for name, value in fields} | {"approve": approved, "decision": "allow"}


def get_code(browser: FlaskClient, user: str = "frida", **differences: str | None) -> str:
    """Log in, agree to all that is asked, and return the code."""
    log_in(browser, user)
    shown = browser.get("/auth/authorize", query_string=authorization(**differences))
    assert shown.status_code == 200, shown.text
    return answer(browser.post("/auth/consent", data=consent_form(shown.text)))["code"]


def exchange(http: FlaskClient, code: str, headers: dict | None = None, **differences: str | None) -> Any:
    ordinary: dict[str, str | None] = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "client_id": "app",
    }
    form = {name: value for name, value in (ordinary | differences).items() if value is not None}
    return http.post("/auth/token", data=form, headers=headers)


@dataclass
class Assertions:
    """Makes client assertions as an EHR would, each with a jti of its own."""

    clock: Callable[[], datetime]

    def __call__(
        self, client_id: str = "ehr", key: Any = RSA, alg: str = "RS384", header: Any = None, **claims: Any
    ) -> dict:
        now = int(self.clock().timestamp())
        ordinary = {
            "iss": client_id,
            "sub": client_id,
            "aud": TOKEN,
            "exp": now + 240,
            "jti": f"jti-{next(_numbers)}",
        }
        claims = {name: value for name, value in (ordinary | claims).items() if value is not None}
        assertion = jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, claims, key, algorithms=[alg])
        return {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }


def client_credentials(http: FlaskClient, authentication: dict, scope: str | None = "system/*.rs") -> Any:
    form = {"grant_type": "client_credentials", **authentication}
    return http.post("/auth/token", data=form | ({"scope": scope} if scope is not None else {}))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def assert_oauth_error(response: Any, error: str, status: int = 400) -> None:
    """RFC 6749 section 5.2, with the headers SMART wants on every answer."""
    assert (response.status_code, response.json.get("error")) == (status, error), response.text
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Pragma"] == "no-cache"


def assert_outcome(response: Any, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.json["resourceType"] == "OperationOutcome"
    assert response.json["issue"][0]["code"] == code
