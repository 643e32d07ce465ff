"""The client's side of SMART: a backend service with its key, and an app that a user logs in to."""

import base64
import hashlib
import html
import re
import secrets
import time
import uuid
from urllib.parse import parse_qs, urljoin, urlsplit

import requests
from joserfc import jwt
from joserfc.jwk import ECKey

from radloop.demo.stage import StepFailed, patiently

RENEW_BEFORE_S = 60


class BackendToken:
    """A token by client_credentials with private_key_jwt, renewed before it ends."""

    def __init__(self, origin: str, client_id: str, key: dict, scope: str) -> None:
        self._endpoint = f"{origin}/auth/token"
        self._client_id = client_id
        self._key = key
        self._scope = scope
        self._token = ""
        self._ends = 0.0

    def __call__(self) -> str:
        if time.monotonic() > self._ends - RENEW_BEFORE_S:
            answer = patiently(self._ask)
            self._token = answer["access_token"]
            self._ends = time.monotonic() + answer["expires_in"]
        return self._token

    def _ask(self) -> dict:
        answer = requests.post(self._endpoint, data=self.form(), timeout=30)
        answer.raise_for_status()
        return answer.json()

    def form(self) -> dict[str, str]:
        """A token request, with an assertion of its own."""
        now = int(time.time())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._endpoint,
            "iat": now,
            "exp": now + 240,
            "jti": uuid.uuid4().hex,
        }
        header = {"alg": "ES384", "kid": self._key["kid"], "typ": "JWT"}
        return {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jwt.encode(header, claims, ECKey.import_key(self._key), algorithms=["ES384"]),
        }


class AppToken:
    """A token by authorization code with PKCE; the user's browser is played by filling in its forms."""

    def __init__(self, origin: str, client_id: str, redirect_uri: str, user: str, password: str, scope: str) -> None:
        self._origin = origin
        self._client_id = client_id
        self._redirect_uri = redirect_uri
        self._user = user
        self._password = password
        self._scope = scope
        self._token = ""
        self._ends = 0.0

    def __call__(self) -> str:
        if time.monotonic() > self._ends - RENEW_BEFORE_S:
            answer = patiently(self._log_in)
            self._token = answer["access_token"]
            self._ends = time.monotonic() + answer["expires_in"]
        return self._token

    def _log_in(self) -> dict:
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._scope,
            "state": state,
            "aud": f"{self._origin}/fhir",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        landed = self.landed(f"{self._origin}/auth/authorize", query)
        if landed.get("state") != [state] or "code" not in landed:
            raise StepFailed(f"the log-in of {self._user} ended with {landed.get('error', ['no code'])[0]}")
        form = {
            "grant_type": "authorization_code",
            "code": landed["code"][0],
            "redirect_uri": self._redirect_uri,
            "client_id": self._client_id,
            "code_verifier": verifier,
        }
        answer = requests.post(f"{self._origin}/auth/token", data=form, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def landed(self, address: str, query: dict[str, str] | None = None) -> dict[str, list[str]]:
        """The query of the redirect back to the app, once the user has logged in and consented at that address."""
        browser = requests.Session()
        page = browser.get(address, params=query, timeout=30)
        page.raise_for_status()
        return self._walk(browser, page)

    def _walk(self, browser: requests.Session, page: requests.Response) -> dict[str, list[str]]:
        """Fill in the log-in and the consent form; the query of the redirect back to the app."""
        for _ in range(4):
            action, fields = _form(page.text)
            fields |= {"name": self._user, "password": self._password} if "password" in fields else {}
            page = browser.post(urljoin(page.url, action), data=fields, timeout=30, allow_redirects=False)
            while page.is_redirect:
                target = urljoin(page.url, page.headers["Location"])
                if target.startswith(self._redirect_uri):
                    return parse_qs(urlsplit(target).query)
                page = browser.get(target, timeout=30, allow_redirects=False)
            if page.status_code >= 500:
                page.raise_for_status()
        raise StepFailed(f"the log-in of {self._user} did not lead back to the app")


def _form(page: str) -> tuple[str, dict[str, list[str] | str]]:
    """Action and fields of the page's form: values as they stand, boxes as they are ticked."""
    form = re.search(r"<form\b([^>]*)>(.*?)</form>", page, re.DOTALL)
    if not form:
        raise StepFailed("a page of the log-in has no form")
    fields: dict[str, list[str] | str] = {}
    for tag in re.findall(r"<(?:input|button)\b[^>]*>", form[2]):
        attributes = {name: html.unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        name, kind = attributes.get("name"), attributes.get("type", "text")
        if not name or (kind in ("checkbox", "radio") and not re.search(r"\bchecked\b", tag)):
            continue
        if kind == "checkbox":
            values = fields.setdefault(name, [])
            if isinstance(values, list):
                values.append(attributes.get("value", "on"))
        else:
            fields.setdefault(name, attributes.get("value", ""))  # of several buttons, the first
    action = re.search(r'action="([^"]*)"', form[1])
    return html.unescape(action[1]) if action else "", fields
