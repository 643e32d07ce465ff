"""Programs that register themselves. https://www.rfc-editor.org/rfc/rfc7591"""

import re
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.repository import Repository
from smart_auth import registration
from smart_auth.clients import remove_client
from smart_auth.registration import OPEN, TOKEN, UNCHECKED, make_token
from smart_auth.service import AuthService
from tests.smart_auth.conftest import create_app
from tests.smart_auth.oauth import (
    CALLBACK,
    FHIR,
    JWKS,
    ORIGIN,
    Assertions,
    Clock,
    assert_oauth_error,
    authorization,
    basic,
    bearer,
    exchange,
    get_code,
    log_in,
)

REGISTER = "/auth/register"
APP = {
    "client_name": "Chart viewer",
    "redirect_uris": [CALLBACK],
    "token_endpoint_auth_method": "none",
    "scope": "openid fhirUser offline_access user/*.cruds patient/*.rs",
}


@pytest.fixture
def vouched(service: AuthService, repository: Repository, users: None) -> Flask:
    return create_app(replace(service, registration=TOKEN), repository)


@pytest.fixture
def wide_open(service: AuthService, repository: Repository, users: None) -> Flask:
    return create_app(replace(service, registration=OPEN), repository)


def register(app: Flask, token: str | None = None, **differences: Any) -> Any:
    metadata = {name: value for name, value in (APP | differences).items() if value is not None}
    return app.test_client().post(REGISTER, json=metadata, headers=bearer(token) if token else {})


def assert_refused(response: Any, error: str, status: int = 400) -> None:
    assert_oauth_error(response, error, status)
    assert "client_id" not in response.json


class TestOff:
    def test_it_is_not_there_and_not_told_of(self, app: Flask) -> None:
        browser = app.test_client()
        assert register(app).status_code in (404, 405)
        for name in ("smart-configuration", "openid-configuration"):
            assert "registration_endpoint" not in browser.get(f"/fhir/.well-known/{name}").json


class TestOn:
    def test_it_is_told_of(self, vouched: Flask) -> None:
        for name in ("smart-configuration", "openid-configuration"):
            found = vouched.test_client().get(f"/fhir/.well-known/{name}").json
            assert found["registration_endpoint"] == f"{ORIGIN}{REGISTER}"
            assert found["issuer"] == FHIR

    def test_a_public_app_registers_and_is_used(self, vouched: Flask, service: AuthService) -> None:
        answer = register(vouched, make_token(service))
        assert answer.status_code == 201
        assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
        assert "client_secret" not in answer.json
        assert answer.json["client_name"] == "Chart viewer"
        assert answer.json["scope"] == APP["scope"]
        id = answer.json["client_id"]
        browser, http = vouched.test_client(), vouched.test_client(use_cookies=False)
        code = get_code(browser, client_id=id, scope="openid user/Task.rs")
        token = exchange(http, code, client_id=id).json["access_token"]
        assert http.get("/fhir/whoami", headers=bearer(token)).json["client"] == id

    def test_an_app_with_a_secret(self, vouched: Flask, service: AuthService) -> None:
        answer = register(vouched, make_token(service), token_endpoint_auth_method=None).json
        assert answer["token_endpoint_auth_method"] == "client_secret_basic", "the default of RFC 7591"
        assert answer["client_secret_expires_at"] == 0
        code = get_code(vouched.test_client(), client_id=answer["client_id"], scope="user/Task.rs")
        http = vouched.test_client(use_cookies=False)
        wrong = exchange(http, code, basic(answer["client_id"], "guess"), client_id=None)
        assert_oauth_error(wrong, "invalid_client", 401)
        right = exchange(http, code, basic(answer["client_id"], answer["client_secret"]), client_id=None)
        assert right.status_code == 200

    def test_an_app_with_keys(self, vouched: Flask, service: AuthService, assertion: Assertions) -> None:
        answer = register(vouched, make_token(service), token_endpoint_auth_method="private_key_jwt", jwks=JWKS).json
        code = get_code(vouched.test_client(), client_id=answer["client_id"], scope="user/Task.rs")
        form = assertion(answer["client_id"])
        http = vouched.test_client(use_cookies=False)
        assert exchange(http, code, client_id=None, **form).status_code == 200

    def test_what_is_not_understood_is_left_out(self, vouched: Flask, service: AuthService) -> None:
        more = {
            "logo_uri": "https://x.example/l.png",
            "practice": True,
            "organization": "Organization/o1",
            "$where": 1,
        }
        answer = register(vouched, make_token(service), **more)
        assert answer.status_code == 201
        assert not more.keys() & answer.json.keys()
        client = service.store.client(answer.json["client_id"])
        assert client and not client.practice
        assert client.organization is None

    def test_its_origin_may_call_at_once_from_a_browser(self, vouched: Flask, service: AuthService) -> None:
        http = vouched.test_client(use_cookies=False)
        origin = {"Origin": "https://app.example.org"}
        assert "Access-Control-Allow-Origin" not in http.post("/auth/token", headers=origin).headers
        register(vouched, make_token(service))
        assert http.post("/auth/token", headers=origin).headers["Access-Control-Allow-Origin"] == origin["Origin"]


class TestToken:
    def test_is_needed(self, vouched: Flask) -> None:
        for token in (None, "x" * 43, "x" * 5000):
            response = register(vouched, token)
            assert_refused(response, "invalid_token", 401)
            assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'

    def test_is_good_once(self, vouched: Flask, service: AuthService) -> None:
        token = make_token(service)
        assert register(vouched, token).status_code == 201
        assert_refused(register(vouched, token), "invalid_token", 401)

    def test_is_good_for_a_week(self, vouched: Flask, service: AuthService, clock: Clock) -> None:
        token = make_token(service)
        clock.forward(days=7, seconds=1)
        assert_refused(register(vouched, token), "invalid_token", 401)

    def test_is_not_used_up_by_a_mistake(self, vouched: Flask, service: AuthService) -> None:
        token = make_token(service)
        assert register(vouched, token, redirect_uris=[]).status_code == 400
        assert register(vouched, token, scope="system/*.rs").status_code == 400
        assert register(vouched, token).status_code == 201


class TestLimits:
    @pytest.mark.parametrize(
        "uris",
        [
            None,
            [],
            "https://app.example.org/",
            [7],
            ["http://app.example.org/"],
            ["https://app.example.org/#x"],
            ["https://*.example.org/"],
            ["https://user@app.example.org/"],
            ["https:///callback"],
            ["https://[x/"],
            ["javascript:alert(1)"],
            ["data:text/html,x"],
            ["/callback"],
            ["https://app.example.org/\u00e9"],
            ["https://app.example.org/ x"],
            ["https://app.example.org/" + "x" * 500],
            ["https://app.example.org/"] * 11,
        ],
    )
    def test_redirect_uris_that_are_refused(self, wide_open: Flask, uris: Any) -> None:
        assert_refused(register(wide_open, redirect_uris=uris), "invalid_redirect_uri")

    @pytest.mark.parametrize(
        "uri", ["http://127.0.0.1:3000/cb", "http://localhost/cb", "http://[::1]:80/cb", "org.example.app:/cb"]
    )
    def test_redirect_uris_of_native_apps_are_taken(self, wide_open: Flask, uri: str) -> None:
        assert register(wide_open, redirect_uris=[uri]).json["redirect_uris"] == [uri]

    @pytest.mark.parametrize(
        "differences",
        [
            {"token_endpoint_auth_method": "client_secret_post"},
            {"token_endpoint_auth_method": 1},
            {"token_endpoint_auth_method": ["none"]},
            {"grant_types": ["client_credentials"]},
            {"grant_types": "authorization_code"},
            {"grant_types": [["authorization_code"]]},
            {"grant_types": []},
            {"response_types": ["token"]},
            {"scope": "system/*.rs"},
            {"scope": "nonsense"},
            {"scope": ["openid"]},
            {"client_name": ""},
            {"client_name": "x" * 101},
            {"client_name": "two\nlines"},
            {"client_name": "\u202egnorw"},
            {"client_name": {"a": 1}},
            {"token_endpoint_auth_method": "private_key_jwt"},
            {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}},
            {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{"kty": "RSA", "kid": "1"}]}},
            {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://169.254.169.254/"},
            {"jwks_uri": "https://app.example.org/jwks"},
        ],
    )
    def test_metadata_that_is_refused(self, wide_open: Flask, differences: dict) -> None:
        assert_refused(register(wide_open, **differences), "invalid_client_metadata")

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b'"x"', b'{"client_name": "\\ud800"}', b"[" * 5000, b'{"a": NaN}', b"\xff"],
    )
    def test_a_body_that_is_no_metadata(self, wide_open: Flask, body: bytes) -> None:
        http = wide_open.test_client()
        assert_refused(http.post(REGISTER, data=body, content_type="application/json"), "invalid_client_metadata")

    def test_a_body_of_another_kind_or_size(self, wide_open: Flask) -> None:
        http = wide_open.test_client()
        assert_refused(http.post(REGISTER, data=APP), "invalid_client_metadata")
        assert register(wide_open, client_name="x" * 40_000).status_code == 413

    def test_system_scopes_are_left_out(self, vouched: Flask, service: AuthService) -> None:
        answer = register(vouched, make_token(service), scope="system/*.cruds user/Task.rs launch/patient")
        assert answer.json["scope"] == "user/Task.rs launch/patient"

    def test_without_scopes_it_may_read_one_patient(self, wide_open: Flask) -> None:
        assert register(wide_open, scope=None).json["scope"] == "openid fhirUser launch/patient patient/*.rs"

    def test_nobody_registers_by_the_hundred(self, wide_open: Flask, clock: Clock) -> None:
        for _ in range(20):
            assert register(wide_open).status_code == 201
        response = register(wide_open)
        assert_refused(response, "temporarily_unavailable", 429)
        assert response.headers["Retry-After"] == "60"
        clock.forward(seconds=2)
        assert register(wide_open).status_code == 201

    def test_there_is_an_end_to_it(self, wide_open: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registration, "MAX_CLIENTS", 1)
        assert register(wide_open).status_code == 201
        assert_refused(register(wide_open), "temporarily_unavailable", 503)


class TestOpen:
    def test_it_may_only_be_let_read(self, wide_open: Flask) -> None:
        assert register(wide_open).json["scope"] == "openid fhirUser offline_access user/*.rs patient/*.rs"

    def test_users_are_told_that_nobody_checked_it(self, wide_open: Flask) -> None:
        answer = register(wide_open, client_name="Radloop").json
        assert answer["client_name"] == f"Radloop{UNCHECKED}"
        browser = wide_open.test_client()
        log_in(browser, "frida")
        query = authorization(client_id=answer["client_id"], scope="user/Task.rs")
        assert f"Radloop{UNCHECKED}" in browser.get("/auth/authorize", query_string=query).text

    def test_without_a_name_it_has_one_all_the_same(self, wide_open: Flask) -> None:
        assert re.match(r"\w.+checked", register(wide_open, client_name=None).json["client_name"])


class TestRemoval:
    def test_ends_its_tokens_and_forgets_it(self, vouched: Flask, service: AuthService) -> None:
        id = register(vouched, make_token(service)).json["client_id"]
        http = vouched.test_client(use_cookies=False)
        code = get_code(vouched.test_client(), client_id=id, scope="user/Task.rs")
        token = exchange(http, code, client_id=id).json["access_token"]
        assert remove_client(service.store, id)
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401
        assert service.store.client(id) is None
        assert not remove_client(service.store, id)

    def test_is_not_for_what_a_person_registered(self, app: Flask, http: FlaskClient, service: AuthService) -> None:
        assert not remove_client(service.store, "app")
        assert service.store.client("app") is not None
