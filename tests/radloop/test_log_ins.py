"""Log-ins in the whole app: counted by the browser's address, mail by the practice's server, metadata."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

import portal.admin_audit
import smart_auth.audit
from radloop.parts import Parts, create_parts, mail_of
from radloop.settings import Settings
from radloop.web import create_app
from smart_auth.passwords import Passwords
from smart_auth.users import add_user
from tests.smart_auth.oauth import PASSWORD, hidden, log_in
from tests.subscriptions.smtp_server import MailServer


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.close()


@pytest.fixture
def parts(database: Database, tmp_path: Path, mail_server: MailServer) -> Iterator[Parts]:
    settings = {
        "RADLOOP_DATA_DIR": str(tmp_path),
        "RADLOOP_PROXIES": "1",
        "RADLOOP_CLIENT_REGISTRATION": "token",
        "RADLOOP_SMTP_HOST": "127.0.0.1",
        "RADLOOP_SMTP_PORT": str(mail_server.port),
        "RADLOOP_SMTP_SECURITY": "none",
        "RADLOOP_SMTP_FROM": "radiology@practice.example",
    }
    made = create_parts(Settings.from_env(settings), database)
    parts = replace(made, auth=replace(made.auth, passwords=Passwords(memory_cost=64, time_cost=1)))
    add_user(
        parts.auth.store,
        parts.auth.passwords,
        "frida",
        PASSWORD,
        roles=["front-desk"],
        email="frida@practice.example",
    )
    yield parts
    parts.imaging.close()


@pytest.fixture
def browser(parts: Parts) -> FlaskClient:
    return create_app(parts).test_client()


def test_behind_a_proxy_the_browsers_address_counts(browser: FlaskClient, parts: Parts) -> None:
    def guess(name: str, password: str, forwarded: str) -> int:
        return int(log_in(browser, name, password, headers={"X-Forwarded-For": forwarded}).status_code)

    for number in range(52):  # the last address is the proxy's own word; those before are the browser's
        assert guess(f"name{number}", "wrong", f"198.51.100.{number}, 192.0.2.1") == 401
    assert guess("frida", PASSWORD, "192.0.2.1") == 401
    assert guess("frida", PASSWORD, "192.0.2.2") == 303


def test_a_link_for_a_new_password_goes_by_the_practices_mail_server(
    browser: FlaskClient, parts: Parts, mail_server: MailServer
) -> None:
    token = hidden(browser.get("/auth/password/forgotten").text, "login_token")
    browser.post("/auth/password/forgotten", data={"who": "frida", "login_token": token})
    parts.auth.postman.settle()
    [mail] = mail_server.mails
    assert mail_server.recipients == ["frida@practice.example"]
    assert mail["Subject"] == "Choose a new password"
    link = re.search(r"http://127\.0\.0\.1:8080(/auth/password/new/[\w-]{43})", mail.get_content())
    assert link
    assert "Choose a new password" in browser.get(link[1]).text
    kept = parts.subscriptions.outbox.list()
    assert [(one.to, one.body) for one in kept] == [("frida@practice.example", "")], "the front desk reads these"
    assert link[1].rpartition("/")[2] not in str(kept)


def test_without_a_mail_server_there_are_no_links_to_be_read_in_the_outbox(database: Database) -> None:
    assert mail_of(Settings(), database) is None


def test_the_address_of_registration_is_told_where_it_is_on(browser: FlaskClient) -> None:
    security = browser.get("/fhir/metadata").json["rest"][0]["security"]
    told = {one["url"]: one["valueUri"] for one in security["extension"][0]["extension"]}
    assert told["register"] == "http://127.0.0.1:8080/auth/register"
    assert browser.post("/auth/register", json={}).status_code == 401


def test_what_the_audit_trail_knows_as_pages_are_pages(browser: FlaskClient) -> None:
    audited = {*smart_auth.audit.ENDPOINTS, *portal.admin_audit.ENDPOINTS} - {"smart_auth.register"}  # which is off
    assert audited <= {rule.endpoint for rule in browser.application.url_map.iter_rules()}
