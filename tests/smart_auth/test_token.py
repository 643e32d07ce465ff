"""Token endpoint, authorization code grant. RFC 6749 sections 4.1.3 and 5, RFC 7636, SMART 2.2."""

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import KeySet

from smart_auth.models import digest
from smart_auth.service import AuthService
from smart_auth.users import deactivate_user
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import (
    CALLBACK,
    FHIR,
    FOREIGN,
    Assertions,
    Clock,
    assert_oauth_error,
    assert_outcome,
    basic,
    bearer,
    exchange,
    get_code,
)


class TestPublicClient:
    def test_gets_a_token_for_code_and_verifier(self, browser: FlaskClient, http: FlaskClient) -> None:
        response = exchange(http, get_code(browser, "ruth", scope="openid user/Task.rs user/ServiceRequest.write"))
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Pragma"] == "no-cache"
        assert response.content_type == "application/json"
        granted = response.json
        assert granted["token_type"] == "Bearer"
        assert granted["expires_in"] == 3600
        # a referring office creates and changes orders, and deletes none
        assert granted["scope"] == "openid user/Task.rs user/ServiceRequest.cu"
        assert "refresh_token" not in granted
        seen = http.get("/fhir/whoami", headers=bearer(granted["access_token"])).json
        assert seen == {
            "subject": "user:ruth",
            "client": "app",
            "scopes": ["user/Task.rs", "user/ServiceRequest.cu"],
            "audience": ["@Organization/o1", "@any", "@owner/user:ruth"],
            "patient": None,
        }

    def test_asking_in_v1_form_is_answered_in_v1_form(self, browser: FlaskClient, http: FlaskClient) -> None:
        code = get_code(browser, scope="user/Task.read user/Patient.*")
        assert exchange(http, code).json["scope"] == "user/Task.read user/Patient.*"

    @pytest.mark.parametrize(
        "differences, error",
        [
            ({"code": "made-up"}, "invalid_grant"),
            ({"code": None}, "invalid_request"),
            ({"code_verifier": "w" * 43}, "invalid_grant"),
            ({"code_verifier": None}, "invalid_request"),
            ({"code_verifier": "short"}, "invalid_request"),
            ({"redirect_uri": "https://app.example.org/other"}, "invalid_grant"),
            ({"redirect_uri": None}, "invalid_grant"),
            ({"grant_type": None}, "invalid_request"),
            ({"grant_type": "password"}, "unsupported_grant_type"),
            ({"grant_type": 'p"\N{PILE OF POO}'}, "unsupported_grant_type"),
            ({"grant_type": "refresh_token"}, "invalid_request"),
        ],
    )
    def test_gets_none_with_a_fault(
        self, browser: FlaskClient, http: FlaskClient, differences: dict, error: str
    ) -> None:
        code = get_code(browser)
        assert_oauth_error(exchange(http, **{"code": code, **differences}), error)

    @pytest.mark.parametrize("client_id", [None, "nobody", "\N{PILE OF POO}", "x" * 500])
    def test_that_is_not_known_gets_none(
        self, browser: FlaskClient, http: FlaskClient, client_id: str | None
    ) -> None:
        assert_oauth_error(exchange(http, get_code(browser), client_id=client_id), "invalid_client", 401)

    def test_gets_none_for_a_code_past_its_minute(
        self, browser: FlaskClient, http: FlaskClient, clock: Clock
    ) -> None:
        code = get_code(browser)
        clock.forward(seconds=61)
        assert_oauth_error(exchange(http, code), "invalid_grant")

    def test_gets_none_for_the_code_of_another_client(
        self, browser: FlaskClient, http: FlaskClient, clients: Clients
    ) -> None:
        code = get_code(browser)
        secret = clients.symmetric.secret or ""
        response = exchange(http, code, headers=basic("portal-app", secret), client_id=None)
        assert_oauth_error(response, "invalid_grant")
        assert exchange(http, code).status_code == 200, "the attempt of another client spoils nothing"

    def test_gets_none_for_a_user_deactivated_meanwhile(
        self, browser: FlaskClient, http: FlaskClient, service: AuthService
    ) -> None:
        code = get_code(browser)
        deactivate_user(service.store, "frida")
        assert_oauth_error(exchange(http, code), "invalid_grant")

    def test_may_not_put_parameters_into_the_query_or_give_them_twice(
        self, browser: FlaskClient, http: FlaskClient
    ) -> None:
        query = {"grant_type": "authorization_code", "code": get_code(browser), "client_id": "app"}
        assert_oauth_error(http.post("/auth/token", query_string=query), "invalid_request")
        twice = {"grant_type": ["authorization_code", "authorization_code"], "client_id": "app"}
        assert_oauth_error(http.post("/auth/token", data=twice), "invalid_request")

    def test_may_not_send_json(self, http: FlaskClient) -> None:
        assert_oauth_error(http.post("/auth/token", json={"grant_type": "authorization_code"}), "invalid_request")

    def test_may_not_send_a_large_form(self, http: FlaskClient) -> None:
        assert http.post("/auth/token", data={"grant_type": "x" * 200_000}).status_code == 413


class TestCodeUsedTwice:
    """RFC 6749 section 4.1.2: deny, and revoke what the first use produced."""

    def test_is_denied_and_ends_the_first_token(self, browser: FlaskClient, http: FlaskClient) -> None:
        code = get_code(browser)
        token = exchange(http, code).json["access_token"]
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        assert_oauth_error(exchange(http, code), "invalid_grant")
        assert_outcome(http.get("/fhir/whoami", headers=bearer(token)), 401, "login")

    def test_is_noticed_after_its_minute_too(self, browser: FlaskClient, http: FlaskClient, clock: Clock) -> None:
        code = get_code(browser)
        token = exchange(http, code).json["access_token"]
        clock.forward(minutes=30)
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        assert_oauth_error(exchange(http, code), "invalid_grant")
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401

    def test_by_several_at_once_leaves_at_most_one_token_which_is_revoked(
        self, browser: FlaskClient, app: Flask
    ) -> None:
        code = get_code(browser)
        answers: list[Any] = []
        start = threading.Barrier(4)

        def run() -> None:
            start.wait()
            answers.append(exchange(app.test_client(), code))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tokens = [answer.json["access_token"] for answer in answers if answer.status_code == 200]
        assert len(answers) == 4
        assert len(tokens) <= 1
        for token in tokens:
            assert app.test_client().get("/fhir/whoami", headers=bearer(token)).status_code == 401

    def test_is_no_longer_taken_when_its_grant_was_revoked_first(
        self, browser: FlaskClient, http: FlaskClient, service: AuthService, clock: Clock
    ) -> None:
        code = get_code(browser)
        stored = service.store.code(digest(code))
        assert stored is not None
        service.store.revoke_grant(stored.grant, clock())
        assert_oauth_error(exchange(http, code), "invalid_grant")


class TestConfidentialClient:
    def code(self, browser: FlaskClient, client_id: str) -> str:
        return get_code(browser, client_id=client_id)

    def test_with_its_secret_gets_a_token(self, browser: FlaskClient, http: FlaskClient, clients: Clients) -> None:
        headers = basic("portal-app", clients.symmetric.secret or "")
        response = exchange(http, self.code(browser, "portal-app"), headers=headers, client_id=None)
        assert response.status_code == 200

    def test_may_percent_encode_its_credentials(
        self, browser: FlaskClient, http: FlaskClient, clients: Clients
    ) -> None:
        secret = "".join(f"%{ord(letter):02x}" for letter in clients.symmetric.secret or "")
        headers = basic("portal%2Dapp", secret)
        response = exchange(http, self.code(browser, "portal-app"), headers=headers, client_id=None)
        assert response.status_code == 200

    @pytest.mark.parametrize(
        "authorization",
        [
            basic("portal-app", "wrong"),
            basic("portal-app", ""),
            basic("nobody", "x"),
            basic("app", "x"),
            {"Authorization": "Basic /w=="},
            {"Authorization": "Basic &&&"},
            {"Authorization": "Basic"},
        ],
    )
    def test_with_other_credentials_gets_none(
        self, browser: FlaskClient, http: FlaskClient, authorization: dict
    ) -> None:
        response = exchange(http, self.code(browser, "portal-app"), headers=authorization, client_id=None)
        assert_oauth_error(response, "invalid_client", 401)
        assert response.headers["WWW-Authenticate"].startswith("Basic")

    @pytest.mark.parametrize("client_id", ["portal-app", "ehr-app"])
    def test_cannot_act_as_a_public_one(self, browser: FlaskClient, http: FlaskClient, client_id: str) -> None:
        response = exchange(http, self.code(browser, client_id), client_id=client_id)
        assert_oauth_error(response, "invalid_client", 401)
        assert "WWW-Authenticate" not in response.headers

    def test_cannot_put_its_secret_into_the_form(
        self, browser: FlaskClient, http: FlaskClient, clients: Clients
    ) -> None:
        code, secret = self.code(browser, "portal-app"), clients.symmetric.secret
        response = exchange(http, code, client_id="portal-app", client_secret=secret)
        assert_oauth_error(response, "invalid_client", 401)

    def test_with_a_signed_assertion_gets_a_token(
        self, browser: FlaskClient, http: FlaskClient, assertion: Assertions
    ) -> None:
        code = self.code(browser, "ehr-app")
        assert exchange(http, code, client_id=None, **assertion("ehr-app")).status_code == 200

    def test_with_an_assertion_of_a_foreign_key_gets_none(
        self, browser: FlaskClient, http: FlaskClient, assertion: Assertions
    ) -> None:
        code = self.code(browser, "ehr-app")
        response = exchange(http, code, client_id=None, **assertion("ehr-app", key=FOREIGN))
        assert_oauth_error(response, "invalid_client", 401)

    def test_in_two_ways_at_once_gets_none(
        self, browser: FlaskClient, http: FlaskClient, clients: Clients, assertion: Assertions
    ) -> None:
        headers = basic("portal-app", clients.symmetric.secret or "")
        code = self.code(browser, "ehr-app")
        response = exchange(http, code, headers=headers, client_id=None, **assertion("ehr-app"))
        assert_oauth_error(response, "invalid_request")


class TestIdToken:
    """https://openid.net/specs/openid-connect-core-1_0.html#IDToken"""

    def claims(self, browser: FlaskClient, http: FlaskClient, **differences: str | None) -> dict:
        granted = exchange(http, get_code(browser, **differences)).json
        keys = KeySet.import_key_set(http.get("/auth/jwks").json)
        decoded = jwt.decode(granted["id_token"], keys, algorithms=["RS256"])
        assert decoded.header["kid"]
        return decoded.claims

    def test_says_who_logged_in(self, browser: FlaskClient, http: FlaskClient, clock: Clock) -> None:
        claims = self.claims(browser, http, nonce="n-1")
        now = int(clock().timestamp())
        assert claims["iss"] == FHIR
        assert claims["aud"] == "app"
        assert claims["sub"] == "user:frida"
        assert claims["fhirUser"] == f"{FHIR}/Practitioner/frida"
        assert claims["nonce"] == "n-1"
        assert (claims["iat"], claims["exp"]) == (now, now + 3600)

    def test_says_no_more_than_asked(self, browser: FlaskClient, http: FlaskClient) -> None:
        claims = self.claims(browser, http, scope="openid user/Task.rs")
        assert "fhirUser" not in claims
        assert "nonce" not in claims

    def test_is_only_for_who_asks_openid(self, browser: FlaskClient, http: FlaskClient) -> None:
        assert "id_token" not in exchange(http, get_code(browser, scope="user/Task.rs")).json

    def test_opens_no_door(self, browser: FlaskClient, http: FlaskClient) -> None:
        id_token = exchange(http, get_code(browser)).json["id_token"]
        assert_outcome(http.get("/fhir/whoami", headers=bearer(id_token)), 401, "login")


def test_no_token_code_or_secret_is_logged(
    browser: FlaskClient, http: FlaskClient, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = clients.symmetric.secret or ""
    code = get_code(browser, client_id="portal-app")
    granted = exchange(http, code, headers=basic("portal-app", secret), client_id=None).json
    exchange(http, code, headers=basic("portal-app", secret), client_id=None)
    written = "\n".join(f"{record.getMessage()} {record.args}" for record in caplog.records)
    assert not any(word in written for word in (secret, code, granted["access_token"], "correct horse", CALLBACK))
