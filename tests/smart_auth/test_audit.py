"""Log-ins, tokens, consent and changes of log-ins are in the audit trail. DICOM PS3.15 section A.5.3"""

import pytest
from flask import Flask
from flask.testing import FlaskClient

import fhir_server.http
from fhir_server.audit.service import Audit
from fhir_server.repository import Repository
from smart_auth import audit as auth_audit
from smart_auth import guard
from smart_auth.routes import create_blueprint
from smart_auth.service import AuthService
from tests.auditor import Audited
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import (
    PASSWORD,
    Assertions,
    authorization,
    client_credentials,
    consent_form,
    exchange,
    get_code,
    hidden,
    log_in,
)


@pytest.fixture
def browser(service: AuthService, repository: Repository, audit: Audit, users: None, clients: Clients) -> FlaskClient:
    app = Flask("audited")
    fhir_server.http.install(app)
    auth_audit.install(app, audit.trail, service)
    guard.install(app, service)
    app.register_blueprint(create_blueprint(service, repository, "Organization/practice"))
    return app.test_client()


def told(event: dict) -> tuple[str, str, str]:
    """(subtype, outcome, what is said of it)"""
    (said,) = (one["description"] for one in event["entity"] if "description" in one)
    return event["subtype"][0]["code"], event["outcome"], said


def person(event: dict) -> str | None:
    return event["agent"][-1].get("altId")


def test_log_in_and_log_out(browser: FlaskClient, service: AuthService, audited: Audited) -> None:
    log_in(browser, "frida")
    csrf = hidden(browser.get("/auth/apps").text, "csrf_token")
    assert browser.post("/auth/logout", data={"csrf_token": csrf}).status_code == 303
    found = audited()
    assert [told(event) for event in found] == [("110122", "0", "log-in by password"), ("110123", "0", "log-out")]
    assert [person(event) for event in found] == ["user:frida"] * 2
    assert found[0]["agent"][-1]["who"] == {"reference": "Practitioner/frida"}


def test_a_failed_log_in_names_who_exists_and_nothing_else_that_was_typed(
    browser: FlaskClient, audited: Audited
) -> None:
    assert log_in(browser, "frida", "not the password").status_code == 401
    assert log_in(browser, "my-secret-typed-too-early", "x").status_code == 401
    found = audited()
    assert sorted(told(event) for event in found) == [
        ("110122", "4", "log-in by password"),
        ("110122", "4", "log-in by password of frida"),
    ]
    assert "my-secret" not in str(found) and "not the password" not in str(found)
    assert [person(event) for event in found] == [None, None]


def test_consent_token_refresh_and_revocation(browser: FlaskClient, audited: Audited) -> None:
    asked = {"client_id": "viewer", "scope": "openid fhirUser user/Task.rs offline_access"}
    code = get_code(browser, **asked)
    tokens = exchange(browser, code, client_id="viewer").json
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "viewer"}
    refreshed = browser.post("/auth/token", data=form).json
    form = {"token": refreshed["refresh_token"], "client_id": "viewer"}
    assert browser.post("/auth/revoke", data=form).status_code == 200
    found = audited()
    assert [told(event) for event in found[1:]] == [
        ("110135", "0", "access of viewer agreed to"),
        ("ITI-71", "0", "token by authorization_code"),
        ("ITI-71", "0", "token by refresh_token"),
        ("110135", "0", "token revoked"),
    ]
    assert [person(event) for event in found[1:4]] == ["user:frida"] * 3
    assert all(event["agent"][0]["who"] == {"identifier": {"value": "viewer"}} for event in found[2:])
    assert not any(secret in str(found) for secret in (code, tokens["access_token"], refreshed["refresh_token"]))
    assert found[2]["agent"][-1]["policy"] != found[3]["agent"][-1]["policy"]


def test_a_refused_consent(browser: FlaskClient, audited: Audited) -> None:
    log_in(browser, "frida")
    shown = browser.get("/auth/authorize", query_string=authorization())
    browser.post("/auth/consent", data=consent_form(shown.text) | {"decision": "deny"})
    assert told(audited()[-1]) == ("110135", "0", "access of app refused")


def test_a_system_gets_a_token_and_is_refused_one(
    browser: FlaskClient, assertion: Assertions, audited: Audited
) -> None:
    assert client_credentials(browser, assertion()).status_code == 200
    assert client_credentials(browser, assertion(aud="https://elsewhere.example.org")).status_code == 401
    granted, refused = audited()
    assert told(granted) == ("ITI-71", "0", "token by client_credentials")
    assert granted["agent"][0]["who"] == {"identifier": {"value": "ehr"}}
    assert (told(refused), refused["outcomeDesc"]) == (
        ("ITI-71", "4", "token by client_credentials"),
        "invalid_client",
    )


def test_a_password_is_changed_and_access_taken_back(browser: FlaskClient, audited: Audited) -> None:
    get_code(browser)
    csrf = hidden(browser.get("/auth/apps").text, "csrf_token")
    assert browser.post("/auth/apps", data={"csrf_token": csrf, "client_id": "app"}).status_code == 200
    new = "a new and long pass phrase"
    form = {"csrf_token": csrf, "present": PASSWORD, "password": new, "again": new}
    assert browser.post("/auth/password", data=form).status_code == 303
    assert [told(event) for event in audited()[2:]] == [
        ("110135", "0", "access of app taken back"),
        ("110137", "0", "own password changed"),
    ]


def test_nobody_comes_in_while_the_trail_cannot_be_written_but_everybody_out(
    browser: FlaskClient, service: AuthService, audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    log_in(browser, "frida")
    csrf = hidden(browser.get("/auth/apps").text, "csrf_token")
    other = browser.application.test_client()
    with monkeypatch.context() as patched:
        patched.setattr("fhir_server.audit.spool.os.write", full)
        for _ in range(2):
            refused = log_in(other, "ruth")
            assert refused.status_code == 503 and "Set-Cookie" not in refused.headers
        browser.post("/auth/logout", data={"csrf_token": csrf})
    assert browser.get("/auth/apps").status_code == 401
    assert [person(event) for event in audited()] == ["user:frida"]
