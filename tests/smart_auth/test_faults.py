"""Every fault on the way to a token: the right OAuth error, and neither a code nor a token in the answer.
https://www.rfc-editor.org/rfc/rfc6749#section-5.2, https://hl7.org/fhir/smart-app-launch/app-launch.html
"""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient

from tests.smart_auth.oauth import (
    CALLBACK,
    FHIR,
    Assertions,
    Clock,
    assert_oauth_error,
    authorization,
    client_credentials,
    consent_form,
    exchange,
    get_code,
    log_in,
)

MEMBERS = {"error", "error_description"}  # of an answer; a redirect has the state too
SCOPE = "openid user/Task.rs offline_access"


def assert_nothing_given(response: Any, error: str) -> None:
    """By whichever road the error goes back, it is all that goes."""
    if response.status_code == 302:
        assert response.location.startswith(f"{CALLBACK}?")
        told = parse_qs(urlsplit(response.location).query)
        assert set(told) <= MEMBERS | {"state"}
        assert (told["error"], told["state"]) == ([error], ["s t&te"])
    else:
        assert_oauth_error(response, error, 401 if error == "invalid_client" else 400)
        assert set(response.json) <= MEMBERS


@pytest.mark.parametrize(
    "differences, error",
    [
        ({"aud": "https://other.example.org/fhir"}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"launch": "made-up", "scope": "launch user/Task.rs"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "user/Task.sr"}, "invalid_scope"),
        ({"scope": "user/Task.dus"}, "invalid_scope"),
        ({"scope": "user/Task.rs?authored-on=gt2020"}, "invalid_scope"),
    ],
)
def test_at_the_authorization_endpoint(browser: FlaskClient, differences: dict, error: str) -> None:
    log_in(browser, "frida")
    asked = authorization(**{"client_id": "viewer", **differences})
    assert_nothing_given(browser.get("/auth/authorize", query_string=asked), error)


@pytest.mark.parametrize("redirect_uri", ["https://evil.example.org/", f"{CALLBACK}/", CALLBACK + "?x", None])
def test_a_wrong_redirect_uri_leads_nowhere(browser: FlaskClient, redirect_uri: str | None) -> None:
    log_in(browser, "frida")
    response = browser.get("/auth/authorize", query_string=authorization(redirect_uri=redirect_uri))
    assert (response.status_code, response.headers.get("Location")) == (400, None)
    assert "code=" not in response.text


def test_a_wrong_request_leads_nowhere_on_the_consent_form_either(browser: FlaskClient) -> None:
    log_in(browser, "frida")
    form = consent_form(browser.get("/auth/authorize", query_string=authorization()).text)
    response = browser.post("/auth/consent", data=form | {"redirect_uri": "https://evil.example.org/"})
    assert (response.status_code, response.headers.get("Location")) == (400, None)
    assert_nothing_given(
        browser.post("/auth/consent", data=form | {"aud": "https://other.example.org"}), "invalid_request"
    )
    assert_nothing_given(browser.post("/auth/consent", data=form | {"approve": ["system/*.rs"]}), "access_denied")


class TestCode:
    @pytest.fixture
    def code(self, browser: FlaskClient) -> str:
        return get_code(browser, client_id="viewer", scope=SCOPE)

    def exchange(self, http: FlaskClient, code: str, **differences: str | None) -> Any:
        return exchange(http, code, **{"client_id": "viewer", **differences})

    @pytest.mark.parametrize(
        "differences, error",
        [
            ({"redirect_uri": "https://app.example.org/other"}, "invalid_grant"),
            ({"redirect_uri": None}, "invalid_grant"),
            ({"code_verifier": "w" * 43}, "invalid_grant"),
            ({"code_verifier": None}, "invalid_request"),
            ({"code": "made-up"}, "invalid_grant"),
            ({"client_id": "app"}, "invalid_grant"),
            ({"client_id": "nobody"}, "invalid_client"),
            ({"client_id": None}, "invalid_client"),
            ({"grant_type": "password"}, "unsupported_grant_type"),
            ({"grant_type": None}, "invalid_request"),
        ],
    )
    def test_with_a_wrong_parameter(self, http: FlaskClient, code: str, differences: dict, error: str) -> None:
        assert_nothing_given(self.exchange(http, **{"code": code, **differences}), error)

    def test_past_its_minute(self, http: FlaskClient, code: str, clock: Clock) -> None:
        clock.forward(seconds=61)
        assert_nothing_given(self.exchange(http, code), "invalid_grant")

    def test_replayed(self, http: FlaskClient, code: str) -> None:
        assert "access_token" in self.exchange(http, code).json
        assert_nothing_given(self.exchange(http, code), "invalid_grant")


class TestAssertion:
    @pytest.fixture
    def faulty(self, assertion: Assertions, clock: Clock) -> Callable[[str], dict]:
        def faulty(fault: str) -> dict:
            now = int(clock().timestamp())
            if fault == "expired":
                return assertion(exp=now - 1)
            if fault == "too long a life":
                return assertion(exp=now + 3600)
            if fault == "another audience":
                return assertion(aud=FHIR)
            if fault == "unknown kid":
                return assertion(header={"kid": "unknown"})
            made = assertion()
            body = made["client_assertion"].split(".")[1]
            header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "rsa-1"}).encode()).rstrip(b"=")
            return made | {"client_assertion": f"{header.decode()}.{body}."}

        return faulty

    @pytest.mark.parametrize("fault", ["expired", "too long a life", "another audience", "unknown kid", "alg none"])
    def test_with_a_fault(self, http: FlaskClient, faulty: Callable[[str], dict], fault: str) -> None:
        assert_nothing_given(client_credentials(http, faulty(fault)), "invalid_client")

    def test_replayed(self, http: FlaskClient, assertion: Assertions) -> None:
        made = assertion()
        assert "access_token" in client_credentials(http, made).json
        assert_nothing_given(client_credentials(http, made), "invalid_client")

    @pytest.mark.parametrize("scope", ["system/Task.sr", "system/Task.dus", "user/Task.rs", "", None])
    def test_for_scopes_that_cannot_be_granted(
        self, http: FlaskClient, assertion: Assertions, scope: str | None
    ) -> None:
        assert_nothing_given(client_credentials(http, assertion(), scope), "invalid_scope")


class TestRefreshToken:
    @pytest.fixture
    def token(self, browser: FlaskClient, http: FlaskClient) -> str:
        code = get_code(browser, client_id="viewer", scope=SCOPE)
        return exchange(http, code, client_id="viewer").json["refresh_token"]

    def refresh(self, http: FlaskClient, token: str, **differences: str) -> Any:
        ordinary = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "viewer"}
        return http.post("/auth/token", data=ordinary | differences)

    @pytest.mark.parametrize(
        "differences, error",
        [
            ({"refresh_token": "made-up"}, "invalid_grant"),
            ({"client_id": "app"}, "invalid_grant"),
            ({"client_id": "nobody"}, "invalid_client"),
            ({"scope": "user/Task.sr"}, "invalid_scope"),
            ({"scope": "user/Task.cruds"}, "invalid_scope"),
            ({"scope": "user/Task.rs?code=x user/Patient.rs"}, "invalid_scope"),
        ],
    )
    def test_with_a_wrong_parameter(self, http: FlaskClient, token: str, differences: dict, error: str) -> None:
        assert_nothing_given(self.refresh(http, token, **differences), error)

    def test_past_its_end(self, http: FlaskClient, token: str, clock: Clock) -> None:
        clock.forward(days=101)
        assert_nothing_given(self.refresh(http, token), "invalid_grant")

    def test_replayed(self, http: FlaskClient, token: str, clock: Clock) -> None:
        assert "access_token" in self.refresh(http, token).json
        clock.forward(seconds=31)
        assert_nothing_given(self.refresh(http, token), "invalid_grant")

    def test_may_ask_for_some_of_what_it_was_granted(self, http: FlaskClient, token: str) -> None:
        assert self.refresh(http, token, scope="user/Task.rs?code=x").json["scope"] == "user/Task.rs?code=x"
