"""Log-in, lock-out, sessions, log-out. OWASP ASVS 5 chapters 6 and 7."""

import re
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server.repository import Repository
from smart_auth.models import digest
from smart_auth.service import AuthService, create_service
from smart_auth.users import deactivate_user
from tests.smart_auth.conftest import create_app
from tests.smart_auth.oauth import PASSWORD, Clock, assert_outcome, hidden, log_in

SORRY = "Name and password do not fit"


class TestPassword:
    def test_lets_in_and_leads_to_where_one_was_going(self, browser: FlaskClient) -> None:
        response = log_in(browser, "frida", next="/desk?day=today")
        assert (response.status_code, response.location) == (303, "/desk?day=today")
        assert browser.get("/desk").json["subject"] == "user:frida"

    @pytest.mark.parametrize("name", ["FRIDA", "  frida "])
    def test_goes_with_the_name_however_it_is_typed(self, browser: FlaskClient, name: str) -> None:
        assert log_in(browser, name).status_code == 303

    @pytest.mark.parametrize(
        "name, password",
        [
            ("frida", "wrong"),
            ("frida", ""),
            ("frida", PASSWORD + " "),
            ("frida", "x" * 10_000),
            ("nobody", PASSWORD),
            ("", PASSWORD),
            ("\0$ne", PASSWORD),
            ("x" * 10_000, PASSWORD),
        ],
    )
    def test_that_does_not_fit_gets_one_answer(self, browser: FlaskClient, name: str, password: str) -> None:
        response = log_in(browser, name, password)
        assert response.status_code == 401
        assert SORRY in response.text
        assert "radloop=" not in str(response.headers)
        assert browser.get("/desk").status_code == 401

    def test_of_a_deactivated_user_gets_the_same_answer(self, browser: FlaskClient, service: AuthService) -> None:
        deactivate_user(service.store, "frida")
        response = log_in(browser, "frida")
        assert response.status_code == 401
        assert SORRY in response.text

    def test_costs_the_same_work_for_unknown_users(
        self, browser: FlaskClient, service: AuthService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verify = service.passwords.verify
        seen: list[bool] = []

        def counted(password_hash: str | None, password: str) -> bool:
            seen.append(verify(password_hash, password))
            return seen[-1]

        monkeypatch.setattr(service.passwords, "verify", counted)
        for name in ("frida", "nobody", "adam"):
            log_in(browser, name, "wrong")
        assert seen == [False, False, False]

    def test_is_never_shown_again(self, browser: FlaskClient) -> None:
        assert "wrong secret" not in log_in(browser, "frida", "wrong secret").text


class TestLockOut:
    def test_pauses_an_account_even_for_the_right_password(self, browser: FlaskClient, clock: Clock) -> None:
        for _ in range(6):
            assert log_in(browser, "frida", "wrong").status_code == 401
        assert SORRY in log_in(browser, "frida").text
        clock.forward(seconds=2)
        assert log_in(browser, "frida").status_code == 303

    def test_grows_with_each_attempt(self, browser: FlaskClient, clock: Clock) -> None:
        for _ in range(6):
            log_in(browser, "frida", "wrong")
        for pause in (1, 2, 4, 8, 16, 32):
            clock.forward(seconds=pause)
            log_in(browser, "frida", "wrong")  # counted, and pauses twice as long
        clock.forward(seconds=33)
        assert log_in(browser, "frida").status_code == 401
        clock.forward(seconds=64)
        assert log_in(browser, "frida").status_code == 303

    def test_stays_below_a_quarter_of_an_hour(self, service: AuthService, clock: Clock) -> None:
        day = timedelta(days=1)
        for _ in range(60):
            assert service.store.begin_attempt("k", clock(), 5, timedelta(minutes=15), day)
            clock.forward(minutes=15)

    def test_is_forgotten_after_a_log_in(self, browser: FlaskClient) -> None:
        for _ in range(3):
            for _ in range(4):
                log_in(browser, "frida", "wrong")
            assert log_in(browser, "frida").status_code == 303

    def test_of_one_account_leaves_the_others(self, browser: FlaskClient) -> None:
        for _ in range(8):
            log_in(browser, "frida", "wrong")
        assert log_in(browser, "ruth").status_code == 303

    def test_does_not_count_log_ins_from_an_office_of_many(self, browser: FlaskClient) -> None:
        for _ in range(70):
            assert log_in(browser, "frida").status_code == 303

    def test_counts_wrong_passwords_between_right_ones(self, browser: FlaskClient, clock: Clock) -> None:
        for number in range(60):
            log_in(browser, f"nobody{number}", "wrong")
            if number < 40:
                log_in(browser, "frida")
        assert log_in(browser, "frida").status_code == 401

    def test_treats_unknown_names_alike(self, browser: FlaskClient, database: Database) -> None:
        for _ in range(8):
            log_in(browser, "nobody", "wrong")
        kept = database["auth_attempts"].find_one({"_id": f"name:{digest('nobody')}"})
        assert kept is not None
        assert kept["failures"] == 5, "the fifth pauses, the rest are not even counted"
        assert "nobody" not in str(kept), "what was typed as a name may be a password"

    def test_pauses_an_address_that_tries_many_names(self, browser: FlaskClient, clock: Clock) -> None:
        for number in range(52):
            log_in(browser, f"name{number}", "wrong")
        assert log_in(browser, "frida").status_code == 401
        elsewhere = log_in(browser, "frida", environ_base={"REMOTE_ADDR": "192.0.2.7"})
        assert elsewhere.status_code == 303

    def test_lets_nobody_guess_in_parallel(self, service: AuthService, clock: Clock) -> None:
        allowed = [
            service.store.begin_attempt("k", clock(), 5, timedelta(minutes=15), timedelta(hours=1)) for _ in range(20)
        ]
        assert allowed == [True] * 5 + [False] * 15


class TestNext:
    """No open redirect: whatever `next` says, one stays here."""

    @pytest.mark.parametrize(
        "wanted",
        [
            "https://evil.example.org/",
            "//evil.example.org/",
            "/\\evil.example.org/",
            "\\\\evil.example.org/",
            "/\t/evil.example.org/",
            "/\n/evil.example.org",
            " //evil.example.org",
            "javascript:alert(1)",
            "evil.example.org",
            "http:evil",
            "/x\r\nSet-Cookie: a=b",
            "/é",
            "",
            "/" + "x" * 9000,
        ],
    )
    def test_to_elsewhere_becomes_the_front_page(self, browser: FlaskClient, wanted: str) -> None:
        assert log_in(browser, "frida", next=wanted).location == "/"
        asked = browser.get("/auth/login", query_string={"next": wanted})
        assert hidden(asked.text, "next") == "/"

    @pytest.mark.parametrize("wanted", ["/", "/desk", "/desk?a=b&c=%2F%2Fd", "/a//b", "/?next=//evil"])
    def test_within_is_kept(self, browser: FlaskClient, wanted: str) -> None:
        assert log_in(browser, "frida", next=wanted).location == wanted


class TestLoginForm:
    def test_is_taken_only_from_our_own_page(self, app: Flask) -> None:
        form = {"name": "frida", "password": PASSWORD, "next": "/"}
        stranger = app.test_client()
        assert stranger.post("/auth/login", data=form).status_code == 403
        assert stranger.post("/auth/login", data=form | {"login_token": "x" * 43}).status_code == 403
        assert stranger.get("/desk").status_code == 401

    def test_keeps_its_token_in_every_tab(self, browser: FlaskClient) -> None:
        first = hidden(browser.get("/auth/login").text, "login_token")
        assert hidden(browser.get("/auth/login").text, "login_token") == first

    def test_escapes_what_was_typed(self, browser: FlaskClient) -> None:
        page = log_in(browser, '"><script>alert(1)</script>', "wrong").text
        assert "<script" not in page

    def test_can_be_used_without_a_mouse_or_sight(self, browser: FlaskClient) -> None:
        page = browser.get("/auth/login").text
        assert '<html lang="en">' in page
        assert 'name="viewport"' in page
        for id in re.findall(r'<input id="(\w+)"', page):
            assert f'<label for="{id}">' in page
        assert 'role="alert"' in log_in(browser, "frida", "wrong").text


class TestSession:
    def cookie(self, response: object) -> str:
        found = [value for name, value in response.headers if name == "Set-Cookie" and "radloop=" in value]  # type: ignore[attr-defined]
        assert len(found) == 1
        return found[0]

    def test_cookie_is_for_this_server_and_no_script(self, browser: FlaskClient) -> None:
        cookie = self.cookie(log_in(browser, "frida"))
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie, "over http the browser would not send it back"

    def test_cookie_is_secure_over_https(
        self, database: Database, clock: Clock, service: AuthService, repository: Repository, users: None
    ) -> None:
        auth = create_service(database, clock, "https://radloop.example.org", service.passwords)
        secure = create_app(auth, repository)
        response = log_in(secure.test_client(), "frida", base_url="https://radloop.example.org")
        cookies = [value for name, value in response.headers if name == "Set-Cookie"]
        assert any(value.startswith("__Host-radloop=") for value in cookies)
        for value in cookies:
            assert {"Secure", "HttpOnly", "Path=/"} <= set(value.split("; ")) or "Max-Age=0" in value
            assert "Domain" not in value

    def test_id_is_kept_as_a_digest_only(self, browser: FlaskClient, database: Database) -> None:
        id = self.cookie(log_in(browser, "frida")).split(";")[0].partition("=")[2]
        assert database["auth_sessions"].find_one({"_id": digest(id)}) is not None
        assert id not in str(list(database["auth_sessions"].find()))

    def test_id_changes_at_a_log_in_and_the_old_one_ends(self, browser: FlaskClient, app: Flask) -> None:
        first = self.cookie(log_in(browser, "frida")).split(";")[0].partition("=")[2]
        second = self.cookie(log_in(browser, "frida")).split(";")[0].partition("=")[2]
        assert first != second
        thief = app.test_client()
        thief.set_cookie("radloop", first)
        assert thief.get("/desk").status_code == 401

    def test_id_is_never_one_that_the_browser_brought(self, browser: FlaskClient, app: Flask) -> None:
        browser.set_cookie("radloop", "planted")
        assert self.cookie(log_in(browser, "frida")).startswith("radloop=planted") is False
        attacker = app.test_client()
        attacker.set_cookie("radloop", "planted")
        assert attacker.get("/desk").status_code == 401

    def test_ends_after_a_quarter_of_an_hour_without_a_sign_of_life(self, browser: FlaskClient, clock: Clock) -> None:
        log_in(browser, "frida")
        clock.forward(minutes=14)
        assert browser.get("/desk").status_code == 200
        clock.forward(minutes=14)
        assert browser.get("/desk").status_code == 200
        clock.forward(minutes=15)
        assert browser.get("/desk").status_code == 401

    def test_is_not_kept_alive_by_a_page_that_refreshes_itself(self, browser: FlaskClient, clock: Clock) -> None:
        log_in(browser, "frida")
        clock.forward(minutes=14)
        assert browser.get("/desk", headers={"X-Background": "1"}).status_code == 200
        clock.forward(minutes=1)
        assert browser.get("/desk", headers={"X-Background": "1"}).status_code == 401

    def test_ends_after_twelve_hours_whatever_happens(self, browser: FlaskClient, clock: Clock) -> None:
        log_in(browser, "frida")
        for _ in range(71):
            clock.forward(minutes=10)
            assert browser.get("/desk").status_code == 200
        clock.forward(minutes=10)
        assert browser.get("/desk").status_code == 401

    def test_ends_with_the_log_out_on_the_server_too(self, browser: FlaskClient, app: Flask) -> None:
        id = self.cookie(log_in(browser, "frida")).split(";")[0].partition("=")[2]
        token = browser.get("/form").text
        assert_outcome(browser.post("/auth/logout"), 403, "forbidden")
        assert browser.get("/desk").status_code == 200
        assert browser.post("/auth/logout", data={"csrf_token": token}).status_code == 303
        assert browser.get("/desk").status_code == 401
        thief = app.test_client()
        thief.set_cookie("radloop", id)
        assert thief.get("/desk").status_code == 401

    def test_cannot_be_ended_by_a_link(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        assert browser.get("/auth/logout").status_code == 405
        assert browser.get("/desk").status_code == 200
