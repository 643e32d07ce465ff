"""The door: what is public, what needs a token, what needs a log-in. RFC 6750, SMART App Launch 2.2."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import OctKey
from pymongo.database import Database

from fhir_server.repository import Repository
from smart_auth import guard
from smart_auth.clients import activate_client, add_client, deactivate_client
from smart_auth.service import AuthService, create_service
from smart_auth.users import activate_user, deactivate_user, set_password
from tests.smart_auth.conftest import Clients, create_app
from tests.smart_auth.oauth import (
    FHIR,
    FOREIGN,
    ORIGIN,
    SIGNING,
    Clock,
    assert_outcome,
    bearer,
    log_in,
)


@pytest.fixture
def token(service: AuthService, app: Flask) -> str:
    """An ordinary access token of a referring physician."""
    ruth = service.store.user("ruth")
    assert ruth is not None
    return service.issuer.issue_for_user(ruth, "user/Task.rs")


class TestWithoutToken:
    @pytest.mark.parametrize(
        "path",
        [
            "/fhir/metadata",
            "/fhir/.well-known/smart-configuration",
            "/fhir/.well-known/openid-configuration",
            "/auth/jwks",
            "/auth/login",
            "/auth/static/auth.css",
        ],
    )
    def test_the_public_addresses_are_open(self, http: FlaskClient, path: str) -> None:
        assert http.get(path).status_code == 200

    @pytest.mark.parametrize(
        "path",
        [
            "/fhir/whoami",
            "/fhir",
            "/fhir/",
            "/fhir/nowhere",
            "/fhir/metadata/",
            "/fhir/metadata/x",
            "//fhir/metadata",
            "/fhir/../auth/x",
            "/fhirx",
            "/dicomweb/whoami",
            "/wado",
            "/desk",
            "/",
            "/nowhere",
            "/health",
            "/staticx",
            "/auth",
        ],
    )
    def test_everything_else_is_401(self, http: FlaskClient, path: str) -> None:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
            response = http.open(path, method=method)
            assert_outcome(response, 401, "login")
            assert response.headers["WWW-Authenticate"] == "Bearer"

    def test_data_is_401_for_browsers_too(self, browser: FlaskClient) -> None:
        assert_outcome(browser.get("/fhir/whoami", headers={"Accept": "text/html"}), 401, "login")

    def test_a_page_is_the_log_in_form_that_leads_back_to_it(self, browser: FlaskClient) -> None:
        response = browser.get("/desk?day=today&x=a%20b", headers={"Accept": "text/html,*/*"})
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert 'name="next" value="/desk?day=today&amp;x=a%20b"' in response.text
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


class TestToken:
    def test_opens_data_and_pages(self, http: FlaskClient, token: str) -> None:
        for path in ("/fhir/whoami", "/dicomweb/whoami", "/wado", "/desk"):
            response = http.get(path, headers=bearer(token))
            assert response.status_code == 200, path
            assert response.json["subject"] == "user:ruth"
        assert http.post("/fhir/whoami", headers=bearer(token)).status_code == 200, "a token needs no CSRF token"

    @pytest.mark.parametrize(
        "header", ["Bearer", "Bearer ", "Basic eDp5", "Token x", "Bearer x y", "Bearer é", "Bearer \N{DEGREE SIGN}"]
    )
    def test_of_another_shape_is_401(self, http: FlaskClient, header: str) -> None:
        assert_outcome(http.get("/fhir/whoami", headers={"Authorization": header}), 401, "login")

    def test_of_huge_size_is_401(self, http: FlaskClient) -> None:
        assert_outcome(http.get("/fhir/whoami", headers=bearer("x" * 50_000)), 401, "login")

    def test_in_the_query_is_not_read(self, http: FlaskClient, token: str) -> None:
        assert http.get("/fhir/whoami", query_string={"access_token": token}).status_code == 401

    def test_past_its_hour_is_401(self, http: FlaskClient, token: str, clock: Clock) -> None:
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        clock.forward(hours=1)
        response = http.get("/fhir/whoami", headers=bearer(token))
        assert_outcome(response, 401, "login")
        assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]

    def claims(self, service: AuthService, token: str, **differences: Any) -> dict:
        changed = service.verifier.claims(token) | differences
        return {name: value for name, value in changed.items() if value is not None}

    @pytest.mark.parametrize(
        "differences",
        [
            {"iss": "https://evil.example.org/fhir"},
            {"iss": f"{FHIR}/"},
            {"iss": None},
            {"aud": "https://evil.example.org/fhir"},
            {"aud": ORIGIN},
            {"aud": None},
            {"exp": 1},
            {"exp": None},
            {"exp": "never"},
            {"grant": None},
            {"grant": "made-up"},
            {"grant": {"$ne": None}},
            {"sub": None},
            {"sub": {"$ne": None}},
            {"jti": None},
        ],
    )
    def test_with_other_claims_is_401_even_if_signed_by_us(
        self, http: FlaskClient, service: AuthService, token: str, differences: dict
    ) -> None:
        forged = service.issuer.sign(self.claims(service, token, **differences), "at+jwt")
        assert_outcome(http.get("/fhir/whoami", headers=bearer(forged)), 401, "login")

    def test_gives_no_more_than_its_grant_whatever_it_claims(
        self, http: FlaskClient, service: AuthService, token: str
    ) -> None:
        claims = self.claims(service, token, scope="system/*.cruds user/*.cruds", sub="client:pacs", client_id="pacs")
        seen = http.get("/fhir/whoami", headers=bearer(service.issuer.sign(claims, "at+jwt"))).json
        assert (seen["subject"], seen["scopes"]) == ("user:ruth", ["user/Task.rs"])

    def test_of_another_type_is_401(self, http: FlaskClient, service: AuthService, token: str) -> None:
        forged = service.issuer.sign(self.claims(service, token), "JWT")
        assert_outcome(http.get("/fhir/whoami", headers=bearer(forged)), 401, "login")

    def test_of_a_foreign_key_is_401(self, http: FlaskClient, service: AuthService, token: str) -> None:
        claims = self.claims(service, token)
        for kid in (SIGNING.kid, FOREIGN.kid, "unknown"):
            header = {"alg": "RS256", "kid": kid, "typ": "at+jwt"}
            forged = jwt.encode(header, claims, FOREIGN, algorithms=["RS256"])
            assert_outcome(http.get("/fhir/whoami", headers=bearer(forged)), 401, "login")

    def test_signed_with_our_public_key_as_if_it_were_a_secret_is_401(
        self, http: FlaskClient, service: AuthService, token: str
    ) -> None:
        secret = json.dumps(http.get("/auth/jwks").json["keys"][0]).encode()
        header = {"alg": "HS256", "kid": SIGNING.kid, "typ": "at+jwt"}
        key = OctKey.import_key(base64.urlsafe_b64encode(secret))
        forged = jwt.encode(header, self.claims(service, token), key, algorithms=["HS256"])
        assert_outcome(http.get("/fhir/whoami", headers=bearer(forged)), 401, "login")

    @pytest.mark.parametrize("alg", ["none", "NONE", "None"])
    def test_without_signature_is_401(self, http: FlaskClient, token: str, alg: str) -> None:
        header = json.dumps({"alg": alg, "kid": SIGNING.kid, "typ": "at+jwt"}).encode()
        body = token.split(".")[1]
        for signature in ("", token.split(".")[2]):
            forged = f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.{body}.{signature}"
            assert_outcome(http.get("/fhir/whoami", headers=bearer(forged)), 401, "login")

    def test_changed_by_one_letter_is_401(self, http: FlaskClient, token: str) -> None:
        header, body, signature = token.split(".")
        other = "A" if signature[20] != "A" else "B"
        forged = f"{header}.{body}.{signature[:20]}{other}{signature[21:]}"
        assert_outcome(http.get("/fhir/whoami", headers=bearer(forged)), 401, "login")

    def test_of_another_server_is_401(self, http: FlaskClient, mongo_client: Any, clock: Clock, token: str) -> None:
        elsewhere: Database = mongo_client["test_elsewhere"]
        try:
            other = create_service(elsewhere, clock, ORIGIN)
            forged = other.issuer.issue("user:ruth", None, "user/*.rs", timedelta(hours=1))
            assert_outcome(http.get("/fhir/whoami", headers=bearer(forged or "")), 401, "login")
        finally:
            mongo_client.drop_database("test_elsewhere")


class TestDeactivation:
    def test_of_a_user_ends_their_tokens_at_once_and_for_good(
        self, http: FlaskClient, service: AuthService, token: str
    ) -> None:
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        deactivate_user(service.store, "ruth")
        assert_outcome(http.get("/fhir/whoami", headers=bearer(token)), 401, "login")
        activate_user(service.store, "ruth")
        assert_outcome(http.get("/fhir/whoami", headers=bearer(token)), 401, "login")

    def test_counts_in_other_processes_after_two_seconds(
        self, http: FlaskClient, database: Database, clock: Clock, service: AuthService, token: str
    ) -> None:
        elsewhere = create_service(database, clock, ORIGIN, service.passwords)
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        deactivate_user(elsewhere.store, "ruth")
        clock.forward(seconds=2)
        assert_outcome(http.get("/fhir/whoami", headers=bearer(token)), 401, "login")

    def test_of_a_client_ends_its_tokens(self, http: FlaskClient, service: AuthService, clients: Clients) -> None:
        token = service.issuer.issue_for_client(clients.office.client, "system/*.rs")
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        deactivate_client(service.store, "ehr")
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401
        activate_client(service.store, "ehr")
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401

    def test_of_a_user_ends_their_session(self, browser: FlaskClient, service: AuthService) -> None:
        log_in(browser, "frida")
        assert browser.get("/desk").status_code == 200
        deactivate_user(service.store, "frida")
        assert browser.get("/desk").status_code == 401

    def test_is_not_needed_for_a_new_password_to_end_sessions_and_tokens(
        self, browser: FlaskClient, http: FlaskClient, service: AuthService, token: str
    ) -> None:
        log_in(browser, "ruth")
        set_password(service.store, service.passwords, "ruth", "another password")
        assert browser.get("/desk").status_code == 401
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401


class TestRolesThatChange:
    def test_narrow_the_tokens_that_are_out(
        self, http: FlaskClient, service: AuthService, database: Database
    ) -> None:
        frida = service.store.user("frida")
        assert frida is not None
        token = service.issuer.issue_for_user(frida, "user/*.cruds")
        assert http.get("/fhir/whoami", headers=bearer(token)).json["audience"] is None
        database["auth_users"].update_one({"_id": "frida"}, {"$set": {"roles": ["admin"]}})
        database["auth_state"].update_one({"_id": "state"}, {"$inc": {"generation": 1}}, upsert=True)
        service.store.changes_here += 1
        seen = http.get("/fhir/whoami", headers=bearer(token)).json
        assert seen["audience"] == ["@any", "@audit"]
        assert "user/Patient.cruds" not in seen["scopes"]


class TestSession:
    def test_opens_pages_with_all_the_users_rights(self, browser: FlaskClient) -> None:
        log_in(browser, "ruth")
        seen = browser.get("/desk").json
        assert seen["subject"] == "user:ruth"
        assert seen["client"] is None
        assert seen["audience"] == ["@Organization/o1", "@any", "@owner/user:ruth"]
        assert {"user/*.rs", "user/Task.cu"} <= set(seen["scopes"])

    @pytest.mark.parametrize("path", ["/fhir/whoami", "/dicomweb/whoami", "/wado"])
    def test_opens_no_data(self, browser: FlaskClient, path: str) -> None:
        log_in(browser, "frida")
        assert_outcome(browser.get(path), 401, "login")

    def test_needs_the_csrf_token_for_what_changes_something(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        token = browser.get("/form").text
        assert_outcome(browser.post("/desk"), 403, "forbidden")
        assert_outcome(browser.post("/desk", data={"csrf_token": "x"}), 403, "forbidden")
        assert_outcome(browser.post("/desk", headers={"X-CSRF-Token": "é"}), 403, "forbidden")
        assert browser.post("/desk", data={"csrf_token": token}).status_code == 200
        assert browser.post("/desk", headers={"X-CSRF-Token": token}).status_code == 200
        cross_site = {"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"}
        assert_outcome(browser.post("/desk", headers=cross_site), 403, "forbidden")

    def test_takes_no_large_form_since_it_is_read_for_its_token(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        token = browser.get("/form").text
        assert browser.post("/desk", data={"csrf_token": token, "x": "x" * 200_000}).status_code == 413

    def test_has_a_csrf_token_of_its_own(self, app: Flask) -> None:
        first, second = app.test_client(), app.test_client()
        log_in(first, "frida")
        log_in(second, "frida")
        stolen = second.get("/form").text
        assert_outcome(first.post("/desk", data={"csrf_token": stolen}), 403, "forbidden")

    def test_does_not_stand_in_for_a_bad_token(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        assert_outcome(browser.get("/desk", headers=bearer("made.up.token")), 401, "login")


class TestOpenAccess:
    def test_lets_everybody_in(self, service: AuthService, repository: Repository) -> None:
        everybody = create_app(service, repository, open_access=True).test_client()
        for path in ("/fhir/whoami", "/desk"):
            assert everybody.get(path).json == {
                "subject": "system:open",
                "scopes": ["system/*.cruds", "system/AuditEvent.rs"],
                "audience": None,
                "client": None,
                "patient": None,
            }
        assert everybody.post("/desk").status_code == 200

    def test_but_no_page_of_another_site(self, service: AuthService, repository: Repository) -> None:
        everybody = create_app(service, repository, open_access=True).test_client()
        assert_outcome(everybody.post("/desk", headers={"Sec-Fetch-Site": "cross-site"}), 403, "forbidden")


class TestMorePublicAddresses:
    def test_are_named_by_path_or_prefix(self, service: AuthService, repository: Repository) -> None:
        visitor = create_app(service, repository, public_paths=["/form"], public_prefixes=["/open/"]).test_client()
        assert visitor.get("/form").status_code == 200
        assert visitor.get("/open/nowhere").status_code == 404
        assert visitor.get("/form/x").status_code == 401

    def test_a_prefix_cannot_open_its_neighbours(self, service: AuthService) -> None:
        with pytest.raises(ValueError, match="ends in /"):
            guard.install(Flask("x"), service, public_prefixes=["/s"])


class TestCors:
    """SMART 2.2: any origin for what is public, the client's registered origins for data and tokens."""

    @pytest.mark.parametrize("path", ["/fhir/metadata", "/fhir/.well-known/smart-configuration", "/auth/jwks"])
    def test_any_origin_reads_public_documents(self, http: FlaskClient, path: str) -> None:
        response = http.get(path, headers={"Origin": "https://anybody.example.org"})
        assert response.headers["Access-Control-Allow-Origin"] == "*"

    @pytest.mark.parametrize("path", ["/fhir/whoami", "/auth/token", "/dicomweb/whoami"])
    def test_a_registered_origin_may_ask_before_it_calls(self, http: FlaskClient, path: str) -> None:
        headers = {"Access-Control-Request-Method": "POST"}
        asked = http.options(path, headers=headers | {"Origin": "https://app.example.org"})
        assert asked.status_code == 204
        assert asked.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
        assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in asked.headers
        other = http.options(path, headers=headers | {"Origin": "https://evil.example.org"})
        assert "Access-Control-Allow-Origin" not in other.headers
        assert other.headers["Vary"] == "Origin"

    def test_a_registered_origin_reads_answers_and_refusals(self, http: FlaskClient, token: str) -> None:
        for headers in ({}, bearer(token)):
            response = http.get("/fhir/whoami", headers={"Origin": "https://app.example.org", **headers})
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
            exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
            assert {"ETag", "Location", "Last-Modified", "Content-Location", "X-Request-Id"} <= exposed

    @pytest.mark.parametrize(
        ("origin", "policy"),
        [
            ("https://app.example.org", "cross-origin"),
            ("https://evil.example.org", "same-origin"),
            (None, "same-origin"),
        ],
    )
    def test_a_viewer_that_isolates_itself_may_embed_images(
        self, http: FlaskClient, token: str, origin: str | None, policy: str
    ) -> None:
        headers = bearer(token) | ({"Origin": origin} if origin else {})
        response = http.get("/dicomweb/whoami", headers=headers)
        assert response.headers["Cross-Origin-Resource-Policy"] == policy
        assert "Origin" in response.headers["Vary"]

    def test_a_viewer_may_ask_for_pieces(self, http: FlaskClient, token: str) -> None:
        origin = {"Origin": "https://app.example.org"}
        asked = http.options("/dicomweb/whoami", headers=origin | {"Access-Control-Request-Method": "GET"})
        assert "Range" in asked.headers["Access-Control-Allow-Headers"]
        exposed = http.get("/dicomweb/whoami", headers=origin | bearer(token)).headers[
            "Access-Control-Expose-Headers"
        ]
        assert "Content-Range" in exposed

    def test_an_origin_counts_at_once_in_every_process(
        self, app: Flask, service: AuthService, repository: Repository, clock: Clock
    ) -> None:
        new, ended = "https://new.example.org", "https://app.example.org"
        processes = [app.test_client(), create_app(service, repository).test_client()]

        def allowed(origin: str) -> list[bool]:
            answers = [http.post("/auth/token", headers={"Origin": origin}) for http in processes]
            return ["Access-Control-Allow-Origin" in answer.headers for answer in answers]

        assert allowed(new) == [False, False]
        add_client(
            service.store, "new", type="public", scope="openid", redirect_uris=[f"{new}/callback"], origins=[new]
        )
        assert allowed(new) == [True, True]
        assert allowed(ended) == [True, True]
        deactivate_client(service.store, "app")
        clock.forward(seconds=10)
        assert allowed(ended) == [False, False]

    def test_pages_are_for_no_other_origin(self, http: FlaskClient) -> None:
        response = http.get("/auth/login", headers={"Origin": "https://app.example.org"})
        assert "Cross-Origin-Resource-Policy" not in response.headers
        assert "Access-Control-Allow-Origin" not in response.headers


def test_a_verified_token_costs_one_query_in_two_seconds(
    service: AuthService, token: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.verifier.access(token)
    queries: list[str] = []
    for name in ("generation", "grant", "user", "client", "signing_keys"):
        method = getattr(service.store, name)
        monkeypatch.setattr(
            service.store, name, lambda *given, n=name, ask=method: (queries.append(n), ask(*given))[1]
        )
    for _ in range(100):
        service.verifier.access(token)
    assert queries == []
    clock.forward(seconds=2)
    for _ in range(100):
        service.verifier.access(token)
    assert queries == ["generation"]
