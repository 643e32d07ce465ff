"""Security keys as second factor. https://www.w3.org/TR/webauthn-3/#sctn-rp-operations"""

import json
from collections.abc import Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import ConsoleMessage, Page, expect
from pymongo.database import Database
from werkzeug.serving import make_server

from docs.picture import chromium
from fhir_server.repository import Repository
from smart_auth import second_factor
from smart_auth.models import SecondFactor
from smart_auth.passwords import Passwords
from smart_auth.service import AuthService, create_service
from smart_auth.users import set_password
from tests.smart_auth.authenticator import SecurityKey, ids_of
from tests.smart_auth.conftest import create_app
from tests.smart_auth.oauth import PASSWORD, SIGNING, Clock, hidden, log_in

LOCAL = "http://localhost:8080"
SECOND, KEYS = "/auth/second-factor", "/auth/keys"


@pytest.fixture
def service(database: Database, clock: Clock, quick_passwords: Passwords) -> AuthService:
    """Reached by a host name, as keys are bound to one."""
    service = create_service(database, clock, LOCAL, quick_passwords)
    service.store.first_signing_key(dict(SIGNING.as_dict(private=True)), clock())
    return service


@pytest.fixture
def key() -> SecurityKey:
    return SecurityKey(LOCAL)


def is_in(browser: FlaskClient) -> bool:
    return browser.get("/desk").status_code == 200


def options_to_add(browser: FlaskClient) -> dict[str, Any]:
    answer = browser.post(f"{KEYS}/begin", data={"csrf_token": browser.get("/form").text})
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json


def send_new(browser: FlaskClient, proof: str, name: str = "blue") -> Any:
    return browser.post(KEYS, data={"csrf_token": browser.get("/form").text, "name": name, "proof": proof})


def options_to_log_in(browser: FlaskClient) -> dict[str, Any]:
    return browser.post(f"{SECOND}/key/begin", data={"pending": hidden(browser.get(SECOND).text, "pending")}).json


def send(browser: FlaskClient, proof: str, **differences: str) -> Any:
    form = {"pending": hidden(browser.get(SECOND).text, "pending"), "proof": proof}
    return browser.post(f"{SECOND}/key", data=form | differences)


@pytest.fixture
def enrolled(browser: FlaskClient, key: SecurityKey) -> SecurityKey:
    """Frida has added a key and logged out."""
    log_in(browser, "frida")
    assert send_new(browser, key.create(options_to_add(browser))).location == KEYS
    browser.post("/auth/logout", data={"csrf_token": browser.get("/form").text})
    return key


@pytest.fixture
def asked(browser: FlaskClient, enrolled: SecurityKey) -> dict[str, Any]:
    """Frida typed her password, and the page asked for her key."""
    assert log_in(browser, "frida", next="/desk?day=today").location == SECOND
    assert not is_in(browser), "the password alone lets nobody in"
    return options_to_log_in(browser)


class TestLogIn:
    def test_with_password_and_key_lets_in_to_where_one_was_going(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any], clock: Clock
    ) -> None:
        assert ids_of(asked, "allowCredentials") == [enrolled.id]
        response = send(browser, enrolled.get(asked))
        assert (response.status_code, response.location) == (303, "/desk?day=today")
        assert is_in(browser)
        assert f"last used {clock():%Y-%m-%d}" in browser.get(KEYS).text

    def test_with_a_key_of_nobody_or_somebody_else_does_not(
        self, browser: FlaskClient, app: Flask, asked: dict[str, Any]
    ) -> None:
        ruths, ruth = SecurityKey(LOCAL), app.test_client()
        log_in(ruth, "ruth")
        assert send_new(ruth, ruths.create(options_to_add(ruth))).status_code == 303
        assert send(browser, ruths.get(asked)).status_code == 401
        assert send(browser, SecurityKey(LOCAL).get(options_to_log_in(browser))).status_code == 401
        assert not is_in(browser)

    def test_with_the_id_of_a_key_and_a_foreign_signature_does_not(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any]
    ) -> None:
        forged = SecurityKey(LOCAL, id=enrolled.id)
        response = send(browser, forged.get(asked))
        assert response.status_code == 401
        assert 'role="alert"' in response.text
        assert not is_in(browser)

    def test_takes_each_proof_once(
        self, browser: FlaskClient, app: Flask, enrolled: SecurityKey, asked: dict[str, Any]
    ) -> None:
        proof = enrolled.get(asked)
        assert send(browser, proof).status_code == 303
        thief = app.test_client()
        log_in(thief, "frida")
        assert send(thief, proof).status_code == 401
        assert not is_in(thief)

    def test_notices_a_copied_key_by_its_count(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any]
    ) -> None:
        enrolled.uses = 7
        assert send(browser, enrolled.get(asked)).status_code == 303
        enrolled.uses = 3
        log_in(browser, "frida")
        assert send(browser, enrolled.get(options_to_log_in(browser))).status_code == 401

    def test_of_another_page_does_not(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any]
    ) -> None:
        enrolled.origin = "https://radloop.evil.example"
        assert send(browser, enrolled.get(asked)).status_code == 401
        enrolled.origin = LOCAL
        fresh = options_to_log_in(browser)
        assert send(browser, enrolled.get(fresh | {"rpId": "evil.example"})).status_code == 401
        assert send(browser, enrolled.get(options_to_log_in(browser)), pending="x" * 43).status_code == 403
        assert not is_in(browser)

    def test_needs_a_touch(self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any]) -> None:
        assert send(browser, enrolled.get(asked, flags=0)).status_code == 401

    def test_waits_five_minutes(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any], clock: Clock
    ) -> None:
        clock.forward(seconds=299)
        log_in(browser, "frida")
        clock.forward(seconds=2)
        assert send(browser, enrolled.get(asked)).status_code == 401
        assert send(browser, enrolled.get(options_to_log_in(browser))).status_code == 303

    def test_takes_no_challenge_of_another_purpose(
        self, browser: FlaskClient, app: Flask, enrolled: SecurityKey, asked: dict[str, Any]
    ) -> None:
        assert send(browser, enrolled.get(asked)).status_code == 303
        to_add, other = options_to_add(browser), app.test_client()
        log_in(other, "frida")
        assert (
            send(other, enrolled.get(options_to_log_in(other) | {"challenge": to_add["challenge"]})).status_code
            == 401
        )

    def test_that_is_no_proof_is_refused(self, browser: FlaskClient, asked: dict[str, Any]) -> None:
        inner = ("{}", '{"clientDataJSON": 5}', '{"clientDataJSON": "eyJ9"}', '{"clientDataJSON": "\\ud800"}')
        whole = [f'{{"response": {one}}}' for one in inner]
        for proof in ("", "{", "[]", "null", "[" * 5000, "x" * 20_001, "\u00e9", *whole):
            assert send(browser, proof).status_code == 401, proof[:40]
        assert not is_in(browser)

    @pytest.mark.parametrize("name", ["id", "rawId", "type", "response", "authenticatorData", "signature"])
    def test_a_proof_with_an_odd_member_is_refused(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any], name: str
    ) -> None:
        for odd in (None, 5, "", "\u00e9", "AAAA", {"$ne": 1}):
            proof = json.loads(enrolled.get(options_to_log_in(browser)))
            (proof if name in proof else proof["response"])[name] = odd
            assert send(browser, json.dumps(proof)).status_code == 401, odd
        assert not is_in(browser)

    def test_or_with_a_code_where_both_are_set_up(
        self, browser: FlaskClient, enrolled: SecurityKey, service: AuthService, clock: Clock
    ) -> None:
        secret = pyotp.random_base32()
        service.credentials.set_second_factor(SecondFactor("frida", secret, (), 0))
        log_in(browser, "frida")
        page = browser.get(SECOND).text
        assert "Use your security key" in page
        form = {"pending": hidden(page, "pending"), "code": pyotp.TOTP(secret).at(clock())}
        assert browser.post(SECOND, data=form).status_code == 303
        assert is_in(browser)

    def test_offers_no_code_and_no_secret_to_who_has_a_key_alone(
        self, browser: FlaskClient, asked: dict[str, Any]
    ) -> None:
        page = browser.get(SECOND).text
        assert 'name="code"' not in page
        assert "Key:" not in page
        form = {"pending": hidden(page, "pending"), "code": "000000"}
        assert browser.post(SECOND, data=form).status_code == 401

    def test_outlives_a_new_password(self, browser: FlaskClient, enrolled: SecurityKey, service: AuthService) -> None:
        set_password(service.store, service.passwords, "frida", "another horse")
        assert log_in(browser, "frida", "another horse").location == SECOND


class TestKeys:
    def test_are_listed_by_their_names_and_removed(self, browser: FlaskClient, enrolled: SecurityKey) -> None:
        log_in(browser, "frida")
        send(browser, enrolled.get(options_to_log_in(browser)))
        page = browser.get(KEYS).text
        assert "<h2>blue</h2>" in page
        form = {"csrf_token": browser.get("/form").text, "id": hidden(page, "id")}
        assert browser.post(f"{KEYS}/remove", data={"id": form["id"]}).status_code == 403
        assert browser.post(f"{KEYS}/remove", data=form).status_code == 303
        assert "You have none" in browser.get(KEYS).text
        browser.post("/auth/logout", data={"csrf_token": form["csrf_token"]})
        assert log_in(browser, "frida").location == "/desk"

    def test_of_others_are_not_removed(
        self, browser: FlaskClient, enrolled: SecurityKey, service: AuthService
    ) -> None:
        [kept] = service.credentials.passkeys_of("frida")
        log_in(browser, "ruth")
        browser.post(f"{KEYS}/remove", data={"csrf_token": browser.get("/form").text, "id": kept.id})
        assert service.credentials.passkeys_of("frida") == [kept]

    def test_are_not_added_twice(self, browser: FlaskClient, enrolled: SecurityKey, service: AuthService) -> None:
        log_in(browser, "ruth")
        assert send_new(browser, enrolled.create(options_to_add(browser))).status_code == 422
        log_in(browser, "frida")
        send(browser, enrolled.get(options_to_log_in(browser)))
        options = options_to_add(browser)
        assert ids_of(options, "excludeCredentials") == [enrolled.id], "so that the browser does not offer it"
        assert send_new(browser, enrolled.create(options)).status_code == 422
        assert len(service.credentials.passkeys_of("frida")) == 1

    def test_are_ten_at_most_each_with_a_name(self, browser: FlaskClient, service: AuthService) -> None:
        log_in(browser, "frida")
        for _ in range(10):
            assert send_new(browser, SecurityKey(LOCAL).create(options_to_add(browser)), name=" ").status_code == 303
        assert send_new(browser, SecurityKey(LOCAL).create(options_to_add(browser))).status_code == 422
        names = [key.name for key in service.credentials.passkeys_of("frida")]
        assert sorted(names, key=lambda name: int(name[4:])) == [f"Key {number}" for number in range(1, 11)]

    def test_of_another_page_or_challenge_are_not_added(
        self, browser: FlaskClient, app: Flask, key: SecurityKey, service: AuthService
    ) -> None:
        log_in(browser, "frida")
        assert (
            send_new(browser, SecurityKey("https://evil.example").create(options_to_add(browser))).status_code == 422
        )
        used = key.create(options_to_add(browser))
        ruth = app.test_client()
        log_in(ruth, "ruth")
        assert send_new(ruth, used).status_code == 422, "the challenge was frida's"
        assert send_new(browser, used).status_code == 422, "and is used up"
        for proof in ("", "{", "[" * 5000, key.get({"rpId": "localhost", "challenge": "AAAA"})):
            assert send_new(browser, proof).status_code == 422
        assert service.credentials.passkeys_of("frida") == []

    def test_need_a_log_in_and_its_form(self, browser: FlaskClient) -> None:
        assert browser.get(KEYS).status_code == 401
        assert browser.post(KEYS).status_code == 401
        assert browser.post(f"{KEYS}/begin").status_code == 403
        assert browser.post(f"{KEYS}/remove").status_code == 401
        assert browser.post(f"{SECOND}/key/begin").status_code == 403
        log_in(browser, "frida")
        for path in (KEYS, f"{KEYS}/begin", f"{KEYS}/remove"):
            assert browser.post(path).status_code == 403

    def test_are_not_offered_where_an_address_has_no_name(
        self, database: Database, clock: Clock, service: AuthService, repository: Repository, users: None
    ) -> None:
        auth = create_service(database, clock, "http://127.0.0.1:8080", service.passwords)
        browser = create_app(auth, repository).test_client()
        log_in(browser, "frida")
        assert "IP address" in browser.get(KEYS).text
        assert browser.post(f"{KEYS}/begin", data={"csrf_token": browser.get("/form").text}).status_code == 403


class TestInsteadOfCodes:
    """Who has to have a second factor and has none yet may add a key at once."""

    @pytest.fixture
    def strict(self, service: AuthService, repository: Repository, users: None) -> FlaskClient:
        return create_app(replace(service, second_factor_required=True), repository).test_client()

    def add(self, browser: FlaskClient, key: SecurityKey, **differences: str) -> Any:
        form = {"pending": hidden(browser.get(SECOND).text, "pending")}
        options = browser.post(f"{SECOND}/new-key/begin", data=form).json
        return browser.post(f"{SECOND}/new-key", data=form | {"proof": key.create(options)} | differences)

    def test_a_key_is_added_at_the_log_in_and_asked_for_at_the_next(
        self, strict: FlaskClient, key: SecurityKey
    ) -> None:
        assert log_in(strict, "frida", next="/desk?x").location == SECOND
        assert (self.add(strict, key).location, is_in(strict)) == ("/desk?x", True)
        log_in(strict, "frida")
        assert "Key:" not in strict.get(SECOND).text
        assert send(strict, key.get(options_to_log_in(strict))).status_code == 303

    def test_what_is_no_key_lets_nobody_in(self, strict: FlaskClient, key: SecurityKey) -> None:
        log_in(strict, "frida")
        assert self.add(strict, SecurityKey("https://evil.example")).status_code == 422
        assert self.add(strict, key, pending="x").status_code == 403
        assert not is_in(strict)

    def test_who_has_one_adds_none_with_the_password_alone(
        self, browser: FlaskClient, enrolled: SecurityKey, asked: dict[str, Any], service: AuthService
    ) -> None:
        form = {"pending": hidden(browser.get(SECOND).text, "pending")}
        assert browser.post(f"{SECOND}/new-key/begin", data=form).status_code == 403
        proof = SecurityKey(LOCAL).create({"rp": {"id": "localhost"}, "challenge": asked["challenge"]})
        assert browser.post(f"{SECOND}/new-key", data=form | {"proof": proof}).status_code == 403
        assert len(service.credentials.passkeys_of("frida")) == 1


class TestLoss:
    def test_an_administrator_lets_in_by_password_alone(
        self, browser: FlaskClient, enrolled: SecurityKey, service: AuthService
    ) -> None:
        assert second_factor.users_with_one(service) == {"frida"}
        assert second_factor.forget(service, "frida")
        assert not second_factor.forget(service, "frida")
        assert log_in(browser, "frida").location == "/desk"

    def test_a_log_in_begun_before_sets_nothing_up_beside_the_key(
        self, app: Flask, browser: FlaskClient, key: SecurityKey, service: AuthService
    ) -> None:
        thief = app.test_client()
        log_in(browser, "frida")
        log_in(thief, "frida")
        thief.post(f"{SECOND}/set-up", data={"csrf_token": thief.get("/form").text})
        assert "Key:" in thief.get(SECOND).text
        assert send_new(browser, key.create(options_to_add(browser))).status_code == 303
        assert thief.get(SECOND).status_code == 401


def _icon(message: ConsoleMessage) -> bool:
    """Browsers ask for one at the root, where this small server has none."""
    return message.location["url"].endswith("/favicon.ico")


@pytest.mark.browser
class TestInTheBrowser:
    """Chromium with an authenticator of its own making."""

    @pytest.fixture
    def page(
        self, database: Database, clock: Clock, quick_passwords: Passwords, repository: Repository
    ) -> Iterator[Page]:
        server = make_server("127.0.0.1", 0, lambda *call: app(*call), threaded=True)
        origin = f"http://localhost:{server.server_port}"
        service = create_service(database, clock, origin, quick_passwords)
        service.store.first_signing_key(dict(SIGNING.as_dict(private=True)), clock())
        set_password(service.store, quick_passwords, "frida", PASSWORD)
        app = create_app(service, repository)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            with chromium() as browser:
                page = browser.new_page(base_url=origin, viewport={"width": 320, "height": 700})
                page.set_default_timeout(15_000)
                yield page
        except FileNotFoundError as missing:
            pytest.skip(str(missing))
        finally:
            server.shutdown()

    def log_in(self, page: Page) -> None:
        page.goto("/auth/login?next=/auth/keys")
        page.get_by_label("Name").fill("frida")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()

    def test_a_key_is_added_used_and_removed(self, users: None, page: Page) -> None:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" and not _icon(message) else None,
        )
        devices = page.context.new_cdp_session(page)
        devices.send("WebAuthn.enable")
        kind = {"protocol": "ctap2", "transport": "usb", "hasUserVerification": False, "isUserVerified": False}
        device = devices.send("WebAuthn.addVirtualAuthenticator", {"options": kind})["authenticatorId"]

        self.log_in(page)
        page.get_by_label("Name, to know it by").fill("blue key")
        page.get_by_role("button", name="Add a key").click()
        expect(page.get_by_role("heading", name="blue key")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.context.clear_cookies()

        self.log_in(page)
        expect(page.get_by_role("heading", level=1)).to_have_text("Show that it is you")
        expect(page.get_by_label("Code")).to_have_count(0)
        page.get_by_role("button", name="Use your security key").click()
        expect(page.get_by_text("last used")).to_be_visible()
        page.context.clear_cookies()
        assert errors == []

        [credential] = devices.send("WebAuthn.getCredentials", {"authenticatorId": device})["credentials"]
        devices.send(
            "WebAuthn.removeCredential",
            {"authenticatorId": device, "credentialId": credential["credentialId"]},
        )
        self.log_in(page)
        devices.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": device})
        page.get_by_role("button", name="Use your security key").click()
        devices.send("WebAuthn.addVirtualAuthenticator", {"options": kind})
        expect(page.get_by_role("alert")).to_have_text("No key answered. Try again.")
        expect(page.get_by_role("button", name="Use your security key")).to_be_enabled()
