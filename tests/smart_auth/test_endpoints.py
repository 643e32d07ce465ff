"""Introspection (RFC 7662), revocation (RFC 7009), discovery (SMART 2.2, OpenID Connect), keys (RFC 7517)."""

from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from fhir_server.capability import capability_statement
from smart_auth.discovery import oauth_uris, smart_configuration
from smart_auth.service import AuthService
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import (
    FHIR,
    ORIGIN,
    TOKEN,
    Assertions,
    Clock,
    assert_oauth_error,
    basic,
    bearer,
    client_credentials,
    exchange,
    get_code,
)


class TestIntrospection:
    def ask(self, http: FlaskClient, token: str, authentication: dict) -> dict:
        response = http.post("/auth/introspect", data={"token": token, **authentication})
        assert response.status_code == 200, response.text
        assert response.headers["Cache-Control"] == "no-store"
        return response.json

    def test_tells_a_client_about_its_token(self, http: FlaskClient, assertion: Assertions, clock: Clock) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        body = self.ask(http, token, assertion())
        assert body["active"] is True
        assert (body["client_id"], body["sub"], body["scope"]) == ("ehr", "client:ehr", "system/*.rs")
        assert body["exp"] == int(clock().timestamp()) + 300
        assert (body["iss"], body["token_type"]) == (FHIR, "Bearer")

    def test_tells_the_practices_systems_about_all(
        self, browser: FlaskClient, http: FlaskClient, assertion: Assertions
    ) -> None:
        token = exchange(http, get_code(browser, "ruth")).json["access_token"]
        body = self.ask(http, token, assertion("pacs"))
        assert body["fhirUser"] == f"{FHIR}/Practitioner/ruth"
        assert body["sub"] == "user:ruth"

    def test_tells_nothing_about_the_token_of_another(
        self, browser: FlaskClient, http: FlaskClient, assertion: Assertions
    ) -> None:
        token = exchange(http, get_code(browser, "ruth")).json["access_token"]
        assert self.ask(http, token, assertion("ehr")) == {"active": False}

    def test_of_what_is_no_token_is_not_active(self, http: FlaskClient, assertion: Assertions, clock: Clock) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        for other in ("made-up", token + "x", "\0", "é"):
            assert self.ask(http, other, assertion()) == {"active": False}
        assert self.ask(http, token, assertion() | {"token_type_hint": "nonsense"})["active"] is True
        clock.forward(minutes=5)
        assert self.ask(http, token, assertion()) == {"active": False}

    def test_needs_authentication(self, http: FlaskClient, assertion: Assertions) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        for authentication in ({}, {"client_id": "ehr"}, {"client_id": "app"}):
            response = http.post("/auth/introspect", data={"token": token, **authentication})
            assert_oauth_error(response, "invalid_client", 401)

    def test_needs_a_token(self, http: FlaskClient, assertion: Assertions) -> None:
        assert_oauth_error(http.post("/auth/introspect", data=assertion()), "invalid_request")


class TestRevocation:
    def test_ends_a_token_at_once(self, http: FlaskClient, assertion: Assertions) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        assert http.post("/auth/revoke", data={"token": token, **assertion()}).status_code == 200
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401
        assert http.post("/auth/revoke", data={"token": token, **assertion()}).status_code == 200

    def test_by_a_public_client_needs_its_id(self, browser: FlaskClient, http: FlaskClient) -> None:
        token = exchange(http, get_code(browser)).json["access_token"]
        assert_oauth_error(http.post("/auth/revoke", data={"token": token}), "invalid_client", 401)
        assert http.post("/auth/revoke", data={"token": token, "client_id": "app"}).status_code == 200
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401

    def test_of_what_is_no_token_is_fine(self, http: FlaskClient, clients: Clients) -> None:
        headers = basic("portal-app", clients.symmetric.secret or "")
        assert http.post("/auth/revoke", data={"token": "made-up"}, headers=headers).status_code == 200

    def test_of_another_clients_token_is_refused(
        self, browser: FlaskClient, http: FlaskClient, assertion: Assertions
    ) -> None:
        token = exchange(http, get_code(browser)).json["access_token"]
        assert_oauth_error(http.post("/auth/revoke", data={"token": token, **assertion()}), "invalid_grant")
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200


class TestDiscovery:
    def test_names_what_works(self, http: FlaskClient) -> None:
        response = http.get("/fhir/.well-known/smart-configuration", headers={"Accept": "text/html"})
        assert response.content_type == "application/json"
        configuration = response.json
        assert configuration["issuer"] == FHIR
        assert configuration["token_endpoint"] == TOKEN
        assert configuration["code_challenge_methods_supported"] == ["S256"]
        assert configuration["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]
        assert {"permission-v1", "permission-v2", "permission-patient"} <= set(configuration["capabilities"])
        assert "context-standalone-encounter" not in configuration["capabilities"]
        for name, value in configuration.items():
            if name.endswith(("_endpoint", "_uri", "_bundle")):
                assert value.startswith(f"{ORIGIN}/"), name

    def test_tells_of_the_draft_for_images_where_the_practice_wants_so(self, service: AuthService) -> None:
        """https://build.fhir.org/ig/argonautproject/smart-imaging/"""
        told = smart_configuration(replace(service, imaging_access=True))["capabilities"]
        assert told == [
            *smart_configuration(service)["capabilities"],
            "smart-imaging-access",
            "http://fhir.org/argonaut/smart-imaging/capabilities/app-launch",
            "http://fhir.org/argonaut/smart-imaging/capabilities/backend-services",
        ]

    def test_is_repeated_by_the_capability_statement(self, http: FlaskClient, service: AuthService) -> None:
        uris = oauth_uris(service)
        statement = capability_statement(FHIR, service.clock(), "1", [], uris, lambda _type: [])
        security = statement["rest"][0]["security"]
        assert security["service"][0]["coding"][0] == {
            "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
            "code": "SMART-on-FHIR",
        }
        (extension,) = security["extension"]
        assert extension["url"] == "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
        told = {one["url"]: one["valueUri"] for one in extension["extension"]}
        configuration = http.get("/fhir/.well-known/smart-configuration").json
        assert told == {
            "authorize": configuration["authorization_endpoint"],
            "token": configuration["token_endpoint"],
            "introspect": configuration["introspection_endpoint"],
            "revoke": configuration["revocation_endpoint"],
        }

    def test_names_addresses_that_answer(self, http: FlaskClient) -> None:
        for name, address in http.get("/fhir/.well-known/openid-configuration").json.items():
            if isinstance(address, str) and name != "issuer":
                path = address.removeprefix(ORIGIN)
                assert http.open(path, method="GET").status_code in (200, 400, 401, 405), name

    def test_never_believes_the_host_header(self, http: FlaskClient) -> None:
        headers = {"Host": "evil.example.org", "X-Forwarded-Host": "evil.example.org"}
        for path in ("/fhir/.well-known/smart-configuration", "/auth/login", "/desk"):
            assert "evil" not in http.get(path, headers=headers | {"Accept": "text/html"}).text

    def test_of_openid_adds_what_it_must(self, http: FlaskClient) -> None:
        configuration = http.get("/fhir/.well-known/openid-configuration").json
        assert configuration["subject_types_supported"] == ["public"]
        assert "RS256" in configuration["id_token_signing_alg_values_supported"]


class TestKeys:
    def test_are_public_members_only(self, http: FlaskClient) -> None:
        keys = http.get("/auth/jwks").json["keys"]
        assert [set(key) for key in keys] == [{"kty", "kid", "use", "alg", "n", "e"}]
        assert (keys[0]["alg"], keys[0]["use"]) == ("RS256", "sig")


@pytest.mark.parametrize("path", ["/auth/token", "/auth/introspect", "/auth/revoke"])
def test_errors_are_never_kept_by_caches(http: FlaskClient, path: str) -> None:
    assert_oauth_error(http.post(path), "invalid_request")


def test_the_signing_key_of_a_service_does_not_change(service: AuthService) -> None:
    assert service.keys.jwks() == service.keys.jwks()
