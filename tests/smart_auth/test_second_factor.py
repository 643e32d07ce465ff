"""Codes of an authenticator app at log-in (RFC 6238), and recovery codes."""

import re
from dataclasses import replace
from typing import Any

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.repository import Repository
from smart_auth.service import AuthService
from smart_auth.users import deactivate_user
from tests.smart_auth.conftest import create_app
from tests.smart_auth.oauth import Clock, hidden, log_in

SECOND = "/auth/second-factor"


def code_at(secret: str, clock: Clock) -> str:
    return pyotp.TOTP(secret).at(clock())


def send(browser: FlaskClient, code: str, **differences: str) -> Any:
    form = {"pending": hidden(browser.get(SECOND).text, "pending"), "code": code}
    return browser.post(SECOND, data=form | differences)


def is_in(browser: FlaskClient) -> bool:
    return browser.get("/desk").status_code == 200


@pytest.fixture
def enrolled(browser: FlaskClient, clock: Clock) -> tuple[str, list[str]]:
    """Frida has set codes up and logged out: her app's secret and her recovery codes."""
    log_in(browser, "frida")
    csrf = hidden(browser.get("/auth/apps").text, "csrf_token")
    assert browser.post(f"{SECOND}/set-up", data={"csrf_token": csrf}).location == SECOND
    page = browser.get(SECOND).text
    assert "<svg" in page
    secret = re.search(r"Key: <code>(\w+)</code>", page)
    assert secret
    shown = send(browser, code_at(secret[1], clock))
    codes = re.findall(r"<li><code>([\w-]+)</code>", shown.text)
    assert len(codes) == 8
    browser.post("/auth/logout", data={"csrf_token": browser.get("/form").text})
    clock.forward(seconds=30)
    return secret[1], codes


class TestLogIn:
    def test_with_password_and_code_lets_in_to_where_one_was_going(
        self, browser: FlaskClient, enrolled: tuple, clock: Clock
    ) -> None:
        response = log_in(browser, "frida", next="/desk?day=today")
        assert response.location == SECOND
        assert not is_in(browser), "the password alone lets nobody in"
        response = send(browser, code_at(enrolled[0], clock))
        assert (response.status_code, response.location) == (303, "/desk?day=today")
        assert is_in(browser)

    @pytest.mark.parametrize("code", ["000000", "", "12345", "1234567", "abcdef", "\N{ARABIC-INDIC DIGIT ONE}" * 6])
    def test_with_a_wrong_code_does_not(self, browser: FlaskClient, enrolled: tuple, code: str) -> None:
        log_in(browser, "frida")
        response = send(browser, code)
        assert response.status_code == 401
        assert "not right" in response.text
        assert not is_in(browser)

    def test_takes_each_code_once(self, browser: FlaskClient, app: Flask, enrolled: tuple, clock: Clock) -> None:
        log_in(browser, "frida")
        code = code_at(enrolled[0], clock)
        assert send(browser, code).status_code == 303
        other = app.test_client()
        log_in(other, "frida")
        assert send(other, code).status_code == 401

    @pytest.mark.parametrize("seconds, good", [(-30, True), (30, True), (-90, False), (90, False)])
    def test_allows_for_a_clock_half_a_minute_off(
        self, browser: FlaskClient, enrolled: tuple, clock: Clock, seconds: int, good: bool
    ) -> None:
        clock.forward(seconds=120)
        log_in(browser, "frida")
        code = pyotp.TOTP(enrolled[0]).at(clock(), counter_offset=seconds // 30)
        assert (send(browser, code).status_code == 303) == good

    def test_takes_each_recovery_code_once(self, browser: FlaskClient, app: Flask, enrolled: tuple) -> None:
        recovery = enrolled[1][3]
        log_in(browser, "frida")
        assert send(browser, recovery.lower()).status_code == 303
        other = app.test_client()
        log_in(other, "frida")
        assert send(other, recovery).status_code == 401

    def test_pauses_after_five_wrong_codes(self, browser: FlaskClient, enrolled: tuple, clock: Clock) -> None:
        log_in(browser, "frida")
        for _ in range(6):
            send(browser, "000000")
        assert send(browser, code_at(enrolled[0], clock)).status_code == 401
        clock.forward(seconds=2)
        assert send(browser, code_at(enrolled[0], clock)).status_code == 303

    def test_waits_five_minutes_for_the_code(self, browser: FlaskClient, enrolled: tuple, clock: Clock) -> None:
        log_in(browser, "frida")
        pending = hidden(browser.get(SECOND).text, "pending")
        clock.forward(seconds=301)
        assert browser.get(SECOND).status_code == 401
        code = code_at(enrolled[0], clock)
        assert browser.post(SECOND, data={"pending": pending, "code": code}).status_code == 401
        assert not is_in(browser)

    def test_takes_no_form_of_another_page(self, browser: FlaskClient, enrolled: tuple, clock: Clock) -> None:
        log_in(browser, "frida")
        assert send(browser, code_at(enrolled[0], clock), pending="x" * 43).status_code == 403
        assert not is_in(browser)

    def test_of_a_user_deactivated_meanwhile_ends(
        self, browser: FlaskClient, enrolled: tuple, clock: Clock, service: AuthService
    ) -> None:
        log_in(browser, "frida")
        deactivate_user(service.store, "frida")
        assert browser.get(SECOND).status_code == 401

    def test_of_others_is_as_it_was(self, browser: FlaskClient, enrolled: tuple) -> None:
        assert log_in(browser, "ruth").location == "/desk"
        assert is_in(browser)


class TestSetUp:
    def test_needs_a_code_that_proves_it_worked(self, browser: FlaskClient, service: AuthService) -> None:
        log_in(browser, "frida")
        csrf = hidden(browser.get("/auth/apps").text, "csrf_token")
        browser.post(f"{SECOND}/set-up", data={"csrf_token": csrf})
        assert send(browser, "000000").status_code == 401
        assert service.credentials.second_factor("frida") is None

    def test_needs_the_form_s_token(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        assert browser.post(f"{SECOND}/set-up").status_code == 403

    def test_of_who_has_one_asks_for_its_code_and_shows_no_secret(
        self, browser: FlaskClient, enrolled: tuple, clock: Clock
    ) -> None:
        log_in(browser, "frida")
        send(browser, code_at(enrolled[0], clock))
        assert "takes a code" in browser.get("/auth/apps").text
        csrf = browser.get("/form").text
        browser.post(f"{SECOND}/set-up", data={"csrf_token": csrf})
        assert "Key:" not in browser.get(SECOND).text

    def test_keeps_no_recovery_code_as_it_is(self, service: AuthService, enrolled: tuple) -> None:
        assert not set(enrolled[1]) & set(str(service.credentials.second_factor("frida")).split("'"))


class TestRequired:
    @pytest.fixture
    def strict(self, service: AuthService, repository: Repository, users: None) -> FlaskClient:
        return create_app(replace(service, second_factor_required=True), repository).test_client()

    @pytest.mark.parametrize("name, needs", [("frida", True), ("adam", True), ("ruth", False), ("paul", False)])
    def test_leads_the_practice_s_staff_to_set_it_up(self, strict: FlaskClient, name: str, needs: bool) -> None:
        response = log_in(strict, name)
        assert (response.location == SECOND) == needs
        assert is_in(strict) != needs


def test_no_page_without_a_password_first(browser: FlaskClient) -> None:
    for method in ("GET", "POST"):
        assert browser.open(SECOND, method=method).status_code == 401
