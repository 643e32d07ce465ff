"""Refresh tokens. RFC 6749 section 6, https://hl7.org/fhir/smart-app-launch/app-launch.html#refresh-access-token"""

from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import KeySet

from smart_auth.clients import deactivate_client
from smart_auth.service import AuthService
from smart_auth.users import deactivate_user
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import (
    Clock,
    assert_oauth_error,
    authorization,
    basic,
    bearer,
    consent_form,
    exchange,
    get_code,
    log_in,
)

OFFLINE = "openid fhirUser user/*.rs offline_access"
ONLINE = "openid user/*.rs online_access"


def granted(browser: FlaskClient, http: FlaskClient, scope: str = OFFLINE, user: str = "frida") -> dict:
    return exchange(http, get_code(browser, user, client_id="viewer", scope=scope), client_id="viewer").json


def refresh(http: FlaskClient, token: str, headers: dict | None = None, **differences: str | None) -> Any:
    ordinary: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "viewer"}
    form = {name: value for name, value in (ordinary | differences).items() if value is not None}
    return http.post("/auth/token", data=form, headers=headers)


def works(http: FlaskClient, answer: dict) -> bool:
    return http.get("/fhir/whoami", headers=bearer(answer["access_token"])).status_code == 200


class TestRefreshToken:
    def test_is_for_who_was_granted_lasting_access(self, browser: FlaskClient, http: FlaskClient) -> None:
        assert "refresh_token" not in granted(browser, http, "user/*.rs")
        assert "refresh_token" in granted(browser, http, OFFLINE)
        assert "refresh_token" in granted(browser, http, ONLINE)

    def test_is_not_for_who_was_denied_it(self, browser: FlaskClient, http: FlaskClient) -> None:
        log_in(browser, "frida")
        shown = browser.get("/auth/authorize", query_string=authorization(client_id="viewer", scope=OFFLINE))
        assert "for months" in shown.text
        form = consent_form(shown.text) | {"approve": ["user/*.rs"]}
        code = browser.post("/auth/consent", data=form).location.partition("code=")[2].partition("&")[0]
        assert "refresh_token" not in exchange(http, code, client_id="viewer").json

    def test_gives_a_new_access_token_and_a_new_refresh_token(self, browser: FlaskClient, http: FlaskClient) -> None:
        first = granted(browser, http)
        answer = refresh(http, first["refresh_token"])
        assert answer.headers["Cache-Control"] == "no-store"
        second = answer.json
        assert (second["token_type"], second["expires_in"], second["scope"]) == ("Bearer", 3600, first["scope"])
        assert second["refresh_token"] != first["refresh_token"]
        assert works(http, second)
        assert works(http, refresh(http, second["refresh_token"]).json)

    def test_says_again_who_the_user_is(self, browser: FlaskClient, http: FlaskClient) -> None:
        second = refresh(http, granted(browser, http)["refresh_token"]).json
        keys = KeySet.import_key_set(http.get("/auth/jwks").json)
        claims = jwt.decode(second["id_token"], keys, algorithms=["RS256"]).claims
        assert (claims["sub"], claims["aud"]) == ("user:frida", "viewer")
        assert claims["fhirUser"].endswith("/fhir/Practitioner/frida")
        assert "nonce" not in claims

    def test_keeps_the_patient(self, browser: FlaskClient, http: FlaskClient) -> None:
        first = granted(browser, http, "launch/patient patient/*.rs offline_access", "paul")
        second = refresh(http, first["refresh_token"]).json
        assert first["patient"] == second["patient"] == "p1"
        assert http.get("/fhir/whoami", headers=bearer(second["access_token"])).json["patient"] == "Patient/p1"

    def test_of_a_public_client_needs_no_client_id(self, browser: FlaskClient, http: FlaskClient) -> None:
        assert works(http, refresh(http, granted(browser, http)["refresh_token"], client_id=None).json)

    def test_is_for_its_client_alone(self, browser: FlaskClient, http: FlaskClient, clients: Clients) -> None:
        token = granted(browser, http)["refresh_token"]
        assert_oauth_error(refresh(http, token, client_id="app"), "invalid_grant")
        headers = basic("portal-app", clients.symmetric.secret or "")
        assert_oauth_error(refresh(http, token, headers, client_id=None), "invalid_grant")
        assert works(http, refresh(http, token).json)

    @pytest.mark.parametrize("token", ["", "made-up", "x" * 1000, "\N{PILE OF POO}"])
    @pytest.mark.parametrize("client_id", ["viewer", None])
    def test_that_is_none_of_ours_is_refused(self, http: FlaskClient, token: str, client_id: str | None) -> None:
        answer = refresh(http, token, client_id=client_id)
        assert answer.status_code == 400
        assert answer.json["error"] in ("invalid_grant", "invalid_request")

    def test_may_ask_for_less(self, browser: FlaskClient, http: FlaskClient) -> None:
        first = granted(browser, http)
        second = refresh(http, first["refresh_token"], scope="user/Task.r").json
        assert second["scope"] == "user/Task.r"
        assert http.get("/fhir/whoami", headers=bearer(second["access_token"])).json["scopes"] == ["user/Task.r"]
        assert refresh(http, second["refresh_token"]).json["scope"] == first["scope"], "the grant is as it was"

    @pytest.mark.parametrize("scope", ["user/*.cruds", "user/*.rs launch/patient", "patient/*.rs", "user/*.sr"])
    def test_may_not_ask_for_more(self, browser: FlaskClient, http: FlaskClient, scope: str) -> None:
        assert_oauth_error(refresh(http, granted(browser, http)["refresh_token"], scope=scope), "invalid_scope")


class TestRotation:
    def test_an_old_token_used_late_ends_the_grant(
        self, browser: FlaskClient, http: FlaskClient, clock: Clock
    ) -> None:
        first = granted(browser, http)
        second = refresh(http, first["refresh_token"]).json
        clock.forward(seconds=31)
        assert_oauth_error(refresh(http, first["refresh_token"]), "invalid_grant")
        assert not works(http, second)
        assert_oauth_error(refresh(http, second["refresh_token"]), "invalid_grant")

    def test_a_client_whose_answer_was_lost_may_ask_again(self, browser: FlaskClient, http: FlaskClient) -> None:
        first = granted(browser, http)
        refresh(http, first["refresh_token"])
        assert works(http, refresh(http, first["refresh_token"]).json)


class TestEnd:
    def test_of_offline_access_is_months_away_and_not_at_log_out(
        self, browser: FlaskClient, http: FlaskClient, clock: Clock
    ) -> None:
        first = granted(browser, http)
        browser.post("/auth/logout", data={"csrf_token": browser.get("/form").text})
        clock.forward(days=95)
        second = refresh(http, first["refresh_token"]).json
        assert works(http, second)
        clock.forward(days=95)
        assert works(http, refresh(http, second["refresh_token"]).json), "each use begins the months anew"
        clock.forward(days=101)
        assert_oauth_error(refresh(http, second["refresh_token"]), "invalid_grant")

    def test_of_online_access_is_the_log_out(self, browser: FlaskClient, http: FlaskClient) -> None:
        first = granted(browser, http, ONLINE)
        second = refresh(http, first["refresh_token"]).json
        assert works(http, second)
        browser.post("/auth/logout", data={"csrf_token": browser.get("/form").text})
        assert_oauth_error(refresh(http, second["refresh_token"]), "invalid_grant")

    def test_of_online_access_is_the_end_of_the_log_in(
        self, browser: FlaskClient, http: FlaskClient, clock: Clock
    ) -> None:
        first = granted(browser, http, ONLINE)
        clock.forward(minutes=16)
        assert_oauth_error(refresh(http, first["refresh_token"]), "invalid_grant")

    def test_comes_with_the_user_and_the_client(
        self, browser: FlaskClient, http: FlaskClient, service: AuthService
    ) -> None:
        first, second = granted(browser, http), granted(browser, http, user="ruth")
        deactivate_user(service.store, "frida")
        assert_oauth_error(refresh(http, first["refresh_token"]), "invalid_grant")
        deactivate_client(service.store, "viewer")
        assert_oauth_error(refresh(http, second["refresh_token"]), "invalid_client", 401)

    @pytest.mark.parametrize("which", ["access_token", "refresh_token"])
    def test_comes_with_the_revocation_of_either(self, browser: FlaskClient, http: FlaskClient, which: str) -> None:
        first = granted(browser, http)
        assert http.post("/auth/revoke", data={"token": first[which], "client_id": "viewer"}).status_code == 200
        assert not works(http, first)
        assert_oauth_error(refresh(http, first["refresh_token"]), "invalid_grant")

    def test_is_not_at_the_word_of_another_client(self, browser: FlaskClient, http: FlaskClient) -> None:
        first = granted(browser, http)
        answer = http.post("/auth/revoke", data={"token": first["refresh_token"], "client_id": "app"})
        assert_oauth_error(answer, "invalid_grant")
        assert works(http, first)


def test_a_refresh_token_opens_no_door(browser: FlaskClient, http: FlaskClient) -> None:
    token = granted(browser, http)["refresh_token"]
    assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401
