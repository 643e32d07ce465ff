"""SMART backend services: client_credentials with private_key_jwt. RFC 7523, SMART App Launch 2.2."""

import base64
import hmac
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from flask import Flask
from flask.testing import FlaskClient

from smart_auth.clients import add_client, deactivate_client
from smart_auth.service import AuthService
from tests.smart_auth.oauth import (
    EC,
    FHIR,
    FOREIGN,
    JWKS,
    RSA,
    TOKEN,
    Assertions,
    Clock,
    assert_oauth_error,
    bearer,
    client_credentials,
)


class TestToken:
    @pytest.mark.parametrize("key, alg", [(RSA, "RS384"), (EC, "ES384")])
    def test_is_given_for_a_signed_assertion(
        self, http: FlaskClient, assertion: Assertions, key: Any, alg: str
    ) -> None:
        response = client_credentials(http, assertion(key=key, alg=alg))
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Pragma"] == "no-cache"
        assert response.json["expires_in"] == 300
        assert response.json["scope"] == "system/*.rs"
        assert "refresh_token" not in response.json
        seen = http.get("/fhir/whoami", headers=bearer(response.json["access_token"])).json
        assert seen["subject"] == "client:ehr"
        assert seen["audience"] == ["@Organization/o1", "@any", "@owner/client:ehr"]

    def test_of_the_practices_own_system_sees_all(self, http: FlaskClient, assertion: Assertions) -> None:
        token = client_credentials(http, assertion("pacs"), "system/*.cruds").json["access_token"]
        assert http.get("/fhir/whoami", headers=bearer(token)).json["audience"] is None

    def test_ends_after_five_minutes(self, http: FlaskClient, assertion: Assertions, clock: Clock) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        clock.forward(seconds=299)
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        clock.forward(seconds=1)
        response = http.get("/fhir/whoami", headers=bearer(token))
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]

    def test_carries_issuer_audience_and_scope(self, http: FlaskClient, assertion: Assertions, service: Any) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        claims = service.verifier.claims(token)
        assert (claims["iss"], claims["aud"], claims["sub"]) == (FHIR, FHIR, "client:ehr")
        assert (claims["client_id"], claims["scope"]) == ("ehr", "system/*.rs")
        assert claims["exp"] - claims["iat"] == 300


class TestScope:
    @pytest.mark.parametrize(
        "asked, granted",
        [
            ("system/*.rs", "system/*.rs"),
            ("system/*.cruds", "system/*.rs system/Task.cu"),
            ("system/Task.cruds", "system/Task.crus"),
            ("system/Task.dus system/Task.r", "system/Task.r"),
            ("system/Task.read user/*.rs nonsense", "system/Task.read"),
        ],
    )
    def test_is_what_is_asked_and_registered(
        self, http: FlaskClient, assertion: Assertions, asked: str, granted: str
    ) -> None:
        assert client_credentials(http, assertion(), asked).json["scope"] == granted

    @pytest.mark.parametrize(
        "asked", [None, "", "system/Task.dus", "user/*.rs", "openid", "system/Patient.d", "system/*.rs?code=x"]
    )
    def test_of_which_nothing_is_left_is_invalid(
        self, http: FlaskClient, assertion: Assertions, asked: str | None
    ) -> None:
        assert_oauth_error(client_credentials(http, assertion(), asked), "invalid_scope")


def _compact(header: dict, claims: Any, sign: Callable[[bytes], bytes]) -> str:
    """A JWT by hand, as no honest library would make it."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    text = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(sign(text))).decode()


def _rs384(text: bytes) -> bytes:
    return RSA.private_key.sign(text, padding.PKCS1v15(), hashes.SHA384())  # type: ignore[union-attr]


class TestAssertion:
    @pytest.mark.parametrize(
        "differences",
        [
            {"key": FOREIGN},
            {"alg": "RS256"},
            {"alg": "PS384"},
            {"header": {"kid": "unknown"}},
            {"header": {"jku": "https://evil.example.org/jwks"}},
            {"key": EC, "alg": "ES384", "header": {"kid": "rsa-1"}},
            {"aud": FHIR},
            {"aud": TOKEN + "/"},
            {"aud": None},
            {"aud": {"$ne": None}},
            {"iss": "pacs"},
            {"iss": None},
            {"sub": None},
            {"sub": 7},
            {"sub": "nobody", "iss": "nobody"},
            {"exp": None},
            {"exp": "soon"},
            {"exp": float("nan")},
            {"exp": float("inf")},
            {"exp": True},
            {"jti": None},
            {"jti": ""},
            {"jti": {"$gt": ""}},
            {"iat": 9_999_999_999},
            {"nbf": 9_999_999_999},
        ],
    )
    def test_with_a_fault_is_no_authentication(
        self, http: FlaskClient, assertion: Assertions, differences: dict
    ) -> None:
        assert_oauth_error(client_credentials(http, assertion(**differences)), "invalid_client", 401)

    @pytest.mark.parametrize("seconds", [-3600, -1, 0, 331, 3600])
    def test_lives_five_minutes_at_most(
        self, http: FlaskClient, assertion: Assertions, clock: Clock, seconds: int
    ) -> None:
        exp = int(clock().timestamp()) + seconds
        assert_oauth_error(client_credentials(http, assertion(exp=exp)), "invalid_client", 401)

    @pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "é.é.é", "eyJhbGciOiJSUzM4NCJ9..", "[" * 20_000])
    def test_that_is_no_jwt_is_no_authentication(self, http: FlaskClient, assertion: Assertions, text: str) -> None:
        form = assertion() | {"client_assertion": text}
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    def forged(self, assertion: Assertions, header: dict, sign: Callable[[bytes], bytes], **claims: Any) -> dict:
        honest = assertion(**claims)
        body = honest["client_assertion"].split(".")[1]
        ordinary = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return honest | {"client_assertion": _compact({"kid": "rsa-1"} | header, ordinary, sign)}

    def test_made_by_hand_but_right_works(self, http: FlaskClient, assertion: Assertions) -> None:
        form = self.forged(assertion, {"alg": "RS384"}, _rs384)
        assert client_credentials(http, form).status_code == 200

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", 'x"\N{PILE OF POO}', 7, None, ["RS384"], {}])
    @pytest.mark.parametrize("signature", [b"", b"x"])
    def test_without_signature_is_no_authentication(
        self, http: FlaskClient, assertion: Assertions, alg: Any, signature: bytes
    ) -> None:
        form = self.forged(assertion, {"alg": alg}, lambda _: signature)
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    @pytest.mark.parametrize(
        "header", [{"kid": None}, {"kid": 7}, {"kid": "\ud800"}, {"crit": ["exp"]}, {"crit": 7}, {"b64": False}]
    )
    def test_with_a_strange_header_is_no_authentication(
        self, http: FlaskClient, assertion: Assertions, header: dict
    ) -> None:
        form = self.forged(assertion, {"alg": "RS384"} | header, _rs384)
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    @pytest.mark.parametrize("claims", [[], "x", None, 7, {"sub": "\ud800", "iss": "\ud800"}, {"sub": "\0"}])
    def test_with_strange_claims_is_no_authentication(
        self, http: FlaskClient, assertion: Assertions, claims: Any
    ) -> None:
        form = assertion() | {"client_assertion": _compact({"alg": "RS384", "kid": "rsa-1"}, claims, _rs384)}
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    def test_signed_with_the_public_key_as_if_it_were_a_secret_is_no_authentication(
        self, http: FlaskClient, assertion: Assertions
    ) -> None:
        for secret in (RSA.as_pem(private=False), json.dumps(RSA.as_dict(private=False)).encode()):
            for alg, hash_name in (("HS384", "sha384"), ("HS256", "sha256"), ("RS384", "sha384")):
                form = self.forged(
                    assertion, {"alg": alg}, lambda text, k=secret, h=hash_name: hmac.digest(k, text, h)
                )
                assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    def test_whose_jti_is_odd_text_works_once(self, http: FlaskClient, assertion: Assertions) -> None:
        form = assertion(jti="\0$gt \N{PILE OF POO}" * 100)
        assert client_credentials(http, form).status_code == 200
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    def test_needs_the_right_type(self, http: FlaskClient, assertion: Assertions) -> None:
        form = assertion() | {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    def test_may_carry_headers_we_do_not_know_and_an_audience_in_a_list(
        self, http: FlaskClient, assertion: Assertions
    ) -> None:
        form = assertion(header={"typ": "JWT", "x5t#S256": "abc"}, aud=[TOKEN, "https://other.example.org"])
        assert client_credentials(http, form).status_code == 200

    def test_works_once(self, http: FlaskClient, assertion: Assertions) -> None:
        form = assertion()
        assert client_credentials(http, form).status_code == 200
        assert_oauth_error(client_credentials(http, form), "invalid_client", 401)

    def test_works_once_whatever_else_it_says(self, http: FlaskClient, assertion: Assertions) -> None:
        assert client_credentials(http, assertion(jti="same")).status_code == 200
        again = client_credentials(http, assertion(jti="same", note="another", key=EC, alg="ES384"))
        assert_oauth_error(again, "invalid_client", 401)
        assert client_credentials(http, assertion("pacs", jti="same")).status_code == 200, "another client's jti"

    def test_works_once_among_many_at_once(self, app: Flask, assertion: Assertions) -> None:
        form, statuses, start = assertion(), [], threading.Barrier(6)

        def run() -> None:
            start.wait()
            statuses.append(client_credentials(app.test_client(), form).status_code)

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 401, 401, 401, 401, 401]

    def test_that_failed_leaves_its_jti_unused(self, http: FlaskClient, assertion: Assertions) -> None:
        client_credentials(http, assertion(jti="kept", key=FOREIGN))
        assert client_credentials(http, assertion(jti="kept")).status_code == 200


class TestWho:
    @pytest.mark.parametrize("client_id", ["app", "portal-app"])
    def test_is_no_backend_gets_none(self, http: FlaskClient, assertion: Assertions, client_id: str) -> None:
        assert_oauth_error(client_credentials(http, assertion(client_id)), "invalid_client", 401)
        assert_oauth_error(client_credentials(http, {"client_id": client_id}), "invalid_client", 401)

    def test_is_an_app_with_keys_gets_none(self, http: FlaskClient, assertion: Assertions) -> None:
        response = client_credentials(http, assertion("ehr-app"), "user/*.rs")
        assert_oauth_error(response, "unauthorized_client")

    def test_was_deactivated_gets_none_and_loses_its_token(
        self, http: FlaskClient, assertion: Assertions, service: AuthService
    ) -> None:
        token = client_credentials(http, assertion()).json["access_token"]
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200
        deactivate_client(service.store, "ehr")
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 401
        assert_oauth_error(client_credentials(http, assertion()), "invalid_client", 401)

    def test_has_neither_organization_nor_practice_sees_only_the_catalogue(
        self, http: FlaskClient, assertion: Assertions, service: AuthService
    ) -> None:
        add_client(service.store, "stray", type="backend", scope="system/*.rs", jwks=JWKS)
        token = client_credentials(http, assertion("stray")).json["access_token"]
        assert http.get("/fhir/whoami", headers=bearer(token)).json["audience"] == ["@any"]
