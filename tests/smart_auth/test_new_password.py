"""A new password: mailed link, change while logged in, and what ends with the old one. OWASP ASVS 5, 6.2 to 6.4."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server.repository import Repository
from smart_auth import new_password
from smart_auth.models import NO_PASSWORD, User, digest
from smart_auth.new_password import Postman
from smart_auth.service import AuthService
from smart_auth.users import deactivate_user
from tests.smart_auth.conftest import create_app
from tests.smart_auth.oauth import (
    PASSWORD,
    Clock,
    assert_oauth_error,
    authorization,
    bearer,
    exchange,
    get_code,
    hidden,
    log_in,
)

NEW = "another horse"
FORGOTTEN = "/auth/password/forgotten"


@dataclass(frozen=True)
class Letter:
    id: str
    to: str
    subject: str
    body: str

    @property
    def path(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:8080(/auth/password/new/[\w-]{43})\n", self.body)
        assert found, self.body
        return found[1]


class PostBox(list[Letter]):
    """What the practice's mail server took."""

    def __call__(self, id: str, to: str, subject: str, body: str) -> None:
        self.append(Letter(id, to, subject, body))


@pytest.fixture
def post() -> PostBox:
    return PostBox()


@pytest.fixture
def service(service: AuthService, post: PostBox) -> AuthService:
    return replace(service, postman=Postman(post))


@pytest.fixture
def users(users: None, service: AuthService) -> None:
    service.store.set_user("frida", email="Frida@practice.example")
    service.store.set_user("ruth", email="ruth@lakeside.example")


@pytest.fixture
def ask(app: Flask, service: AuthService) -> Iterator[Any]:
    """Ask for a link from a browser of one's own, as a name or an address is typed; the answer once all is done."""

    def asking(who: str, **more: Any) -> Any:
        browser = app.test_client()
        form = {"who": who, "login_token": hidden(browser.get(FORGOTTEN).text, "login_token")}
        answer = browser.post(FORGOTTEN, data=form, **more)
        service.postman.settle()
        return answer

    return asking


def choose(browser: FlaskClient, path: str, password: str = NEW, again: str | None = None) -> Any:
    form = {"login_token": hidden(browser.get(path).text, "login_token"), "password": password}
    return browser.post(path, data=form | {"again": password if again is None else again})


class TestForgotten:
    @pytest.mark.parametrize("who", ["frida", " FRIDA ", "frida@practice.example", "FRIDA@PRACTICE.EXAMPLE"])
    def test_a_link_goes_to_the_registered_address(self, ask: Any, post: PostBox, who: str) -> None:
        assert ask(who).status_code == 200
        assert [letter.to for letter in post] == ["Frida@practice.example"]
        assert "frida" not in post[0].body, "who reads the mail on its way learns no log-in"

    def test_the_link_changes_the_password(self, ask: Any, post: PostBox, browser: FlaskClient) -> None:
        ask("frida")
        assert choose(browser, post[0].path).status_code == 200
        assert log_in(browser, "frida").status_code == 401
        assert log_in(browser, "frida", NEW).status_code == 303

    def test_the_page_is_the_same_whoever_is_asked_for(self, ask: Any, post: PostBox, service: AuthService) -> None:
        deactivate_user(service.store, "ruth")
        service.store.add_user(User("from-elsewhere", NO_PASSWORD, email="e@practice.example"))
        service.store.add_user(User("twin1", NO_PASSWORD, email="twin@practice.example"))
        service.store.add_user(User("twin2", NO_PASSWORD, email="twin@practice.example"))
        there = re.sub(r'value="[\w-]{43}"', "", ask("frida").text)
        for who in (
            "nobody",
            "adam",
            "ruth",
            "from-elsewhere",
            "twin@practice.example",
            "no@where",
            "",
            "\0$ne",
            "x" * 999,
        ):
            answer = ask(who)
            assert (answer.status_code, re.sub(r'value="[\w-]{43}"', "", answer.text)) == (200, there), who
        assert len(post) == 1

    def test_nothing_of_the_account_is_looked_at_before_the_answer(
        self, app: Flask, service: AuthService, post: PostBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        browser = app.test_client()
        token = hidden(browser.get(FORGOTTEN).text, "login_token")
        waiting: list[Any] = []
        monkeypatch.setattr(Postman, "later", lambda _self, work: waiting.append(work))
        monkeypatch.setattr(type(service.store), "user", lambda *_: pytest.fail("looked up"))
        monkeypatch.setattr(type(service.store), "users_by_email", lambda *_: pytest.fail("looked up"))
        assert browser.post(FORGOTTEN, data={"who": "frida", "login_token": token}).status_code == 200
        monkeypatch.undo()
        waiting[0](post)
        assert len(post) == 1

    def test_one_person_gets_few_mails(self, ask: Any, post: PostBox, clock: Clock) -> None:
        for number in range(8):
            ask("frida", environ_base={"REMOTE_ADDR": f"192.0.2.{number}"})
        assert len(post) == 3
        clock.forward(seconds=2)
        ask("frida")
        assert len(post) == 4

    def test_one_address_asks_for_few_people(self, ask: Any, post: PostBox) -> None:
        for number in range(20):
            ask(f"nobody{number}")
        ask("frida")
        assert post == []
        ask("frida", environ_base={"REMOTE_ADDR": "192.0.2.7"})
        assert len(post) == 1

    def test_only_from_our_own_page(self, app: Flask, service: AuthService, post: PostBox) -> None:
        assert app.test_client().post(FORGOTTEN, data={"who": "frida"}).status_code == 403
        service.postman.settle()
        assert post == []

    def test_without_a_mail_server_says_whom_to_ask(self, service: AuthService, repository: Repository) -> None:
        html = create_app(replace(service, postman=Postman()), repository).test_client().get(FORGOTTEN).text
        assert "Ask the practice" in html
        assert "<form" not in html

    def test_a_mail_server_that_fails_fails_nobody(
        self, service: AuthService, users: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(**_: str) -> None:
            raise OSError("frida@practice.example refused")

        broken = replace(service, postman=Postman(lambda *_, **__: refuse()))
        new_password.ask(broken, "frida", "192.0.2.1")
        broken.postman.settle()
        assert "OSError" in caplog.text
        assert "frida" not in caplog.text


class TestLink:
    def test_is_good_once(self, ask: Any, post: PostBox, browser: FlaskClient) -> None:
        ask("frida")
        choose(browser, post[0].path)
        assert browser.get(post[0].path).status_code == 404
        token = hidden(browser.get("/auth/login").text, "login_token")
        form = {"login_token": token, "password": "third horse", "again": "third horse"}
        assert browser.post(post[0].path, data=form).status_code == 404
        assert log_in(browser, "frida", NEW).status_code == 303

    def test_is_not_used_up_by_looking(self, ask: Any, post: PostBox, browser: FlaskClient) -> None:
        ask("frida")
        for _ in range(3):
            page = browser.get(post[0].path)
            assert page.status_code == 200
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["Cache-Control"] == "no-store"

    def test_is_good_for_half_an_hour(self, ask: Any, post: PostBox, browser: FlaskClient, clock: Clock) -> None:
        ask("frida")
        clock.forward(minutes=31)
        assert browser.get(post[0].path).status_code == 404

    def test_goes_with_the_others_of_its_user(self, ask: Any, post: PostBox, browser: FlaskClient) -> None:
        ask("frida")
        ask("frida")
        ask("ruth")
        choose(browser, post[0].path)
        assert [browser.get(letter.path).status_code for letter in post[:3]] == [404, 404, 200]

    def test_of_a_user_deactivated_meanwhile_is_none(
        self, ask: Any, post: PostBox, browser: FlaskClient, service: AuthService
    ) -> None:
        ask("frida")
        deactivate_user(service.store, "frida")
        assert browser.get(post[0].path).status_code == 404

    def test_is_kept_as_a_digest_only(self, ask: Any, post: PostBox, database: Database) -> None:
        ask("frida")
        token = post[0].path.rpartition("/")[2]
        kept = list(database["auth_resets"].find())
        assert [one["_id"] for one in kept] == [digest(token)]
        assert token not in str(kept)
        assert token not in post[0].id, "which mail servers and the front desk see"

    @pytest.mark.parametrize("token", ["x", "x" * 43, "x" * 5000, "%00", "..%2f..%2fauth"])
    def test_that_is_none_of_ours(self, browser: FlaskClient, token: str) -> None:
        assert browser.get(f"/auth/password/new/{token}").status_code == 404

    @pytest.mark.parametrize("password, again", [("short", None), ("x" * 257, None), (NEW, NEW + "!"), ("", "")])
    def test_stays_good_after_a_password_that_is_refused(
        self, ask: Any, post: PostBox, browser: FlaskClient, password: str, again: str | None
    ) -> None:
        ask("frida")
        answer = choose(browser, post[0].path, password, again)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert choose(browser, post[0].path).status_code == 200

    def test_takes_no_form_of_another_page(self, ask: Any, post: PostBox, app: Flask, browser: FlaskClient) -> None:
        ask("frida")
        form = {"password": NEW, "again": NEW}
        assert app.test_client().post(post[0].path, data=form).status_code == 403
        assert log_in(browser, "frida").status_code == 303

    def test_waits_while_too_many_log_in(
        self, ask: Any, post: PostBox, browser: FlaskClient, service: AuthService
    ) -> None:
        ask("frida")
        places = [service.passwords.place() for _ in range(4)]
        for place in places:
            place.__enter__()
        answer = choose(browser, post[0].path)
        for place in places:
            place.__exit__(None, None, None)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert choose(browser, post[0].path).status_code == 200

    def test_lifts_the_pause_after_wrong_passwords(self, ask: Any, post: PostBox, browser: FlaskClient) -> None:
        for _ in range(7):
            log_in(browser, "frida", "wrong")
        ask("frida")
        choose(browser, post[0].path)
        assert log_in(browser, "frida", NEW).status_code == 303


class TestChange:
    def change(self, browser: FlaskClient, present: str = PASSWORD, password: str = NEW, **more: str) -> Any:
        form = {"csrf_token": browser.get("/form").text, "present": present, "password": password, "again": password}
        return browser.post("/auth/password", data=form | more)

    def test_leaves_one_logged_in_here_alone(self, browser: FlaskClient, app: Flask) -> None:
        elsewhere = app.test_client()
        log_in(elsewhere, "frida")
        log_in(browser, "frida")
        before = browser.get_cookie("radloop")
        assert self.change(browser).status_code == 303
        assert before and browser.get_cookie("radloop") not in (None, before)
        assert browser.get("/desk").status_code == 200
        assert elsewhere.get("/desk").status_code == 401
        assert log_in(elsewhere, "frida").status_code == 401
        assert log_in(elsewhere, "frida", NEW).status_code == 303

    def test_is_told_to_the_registered_address(
        self, browser: FlaskClient, post: PostBox, service: AuthService
    ) -> None:
        log_in(browser, "frida")
        self.change(browser)
        service.postman.settle()
        assert [(letter.to, letter.subject) for letter in post] == [
            ("Frida@practice.example", "Your password was changed")
        ]
        assert NEW not in post[0].body

    @pytest.mark.parametrize(
        "present, password, more",
        [("wrong", NEW, {}), ("", NEW, {}), (PASSWORD, "short", {}), (PASSWORD, NEW, {"again": "another"})],
    )
    def test_that_is_refused_changes_nothing(
        self, browser: FlaskClient, present: str, password: str, more: dict[str, str]
    ) -> None:
        log_in(browser, "frida")
        answer = self.change(browser, present, password, **more)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert log_in(browser, "frida").status_code == 303

    def test_lets_nobody_guess_at_an_open_page(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        for _ in range(6):
            self.change(browser, "wrong")
        assert self.change(browser).status_code == 422

    def test_needs_a_log_in_and_its_form(self, browser: FlaskClient) -> None:
        assert browser.post("/auth/password", data={"present": PASSWORD}).status_code == 401
        log_in(browser, "frida")
        assert browser.post("/auth/password", data={"present": PASSWORD}).status_code == 403

    def test_is_not_for_who_logs_in_elsewhere(self, browser: FlaskClient, service: AuthService) -> None:
        log_in(browser, "frida")
        service.store._users.update_one({"_id": "frida"}, {"$set": {"password_hash": NO_PASSWORD}})
        page = browser.get("/auth/password")
        assert "another server" in page.text
        assert "<form" not in page.text
        assert self.change(browser).status_code == 200
        user = service.store.user("frida")
        assert user and user.password_hash == NO_PASSWORD


class TestWhatEnds:
    """With a deactivation, and with a new password, all ends at once that the old one began."""

    @pytest.fixture(params=["deactivated", "link"])
    def end(self, request: pytest.FixtureRequest, service: AuthService) -> Any:
        def by_link() -> None:
            user = service.store.user("frida")
            assert user
            token = new_password.hand_over(service, user).rpartition("/")[2]
            assert new_password.use_link(service, token, NEW)

        return by_link if request.param == "link" else lambda: deactivate_user(service.store, "frida")

    def test_sessions(self, browser: FlaskClient, end: Any) -> None:
        log_in(browser, "frida")
        assert browser.get("/desk").status_code == 200
        end()
        assert browser.get("/desk").status_code == 401

    def test_tokens_and_refresh_tokens(self, browser: FlaskClient, http: FlaskClient, clients: Any, end: Any) -> None:
        scope = "openid offline_access user/Task.rs"
        code = get_code(browser, client_id="viewer", scope=scope)
        tokens = exchange(http, code, client_id="viewer").json
        assert http.get("/fhir/whoami", headers=bearer(tokens["access_token"])).status_code == 200
        end()
        assert http.get("/fhir/whoami", headers=bearer(tokens["access_token"])).status_code == 401
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "viewer"}
        assert_oauth_error(http.post("/auth/token", data=form), "invalid_grant")

    def test_codes_not_used_yet(self, browser: FlaskClient, http: FlaskClient, end: Any) -> None:
        code = get_code(browser)
        end()
        assert_oauth_error(exchange(http, code), "invalid_grant")

    def test_consent_pages_that_are_open(self, browser: FlaskClient, end: Any) -> None:
        log_in(browser, "frida")
        shown = browser.get("/auth/authorize", query_string=authorization())
        end()
        form = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', shown.text))
        answer = browser.post("/auth/consent", data=form | {"approve": "user/Task.rs", "decision": "allow"})
        assert "code=" not in (answer.location or "")

    def test_log_ins_that_wait_for_a_code(
        self, browser: FlaskClient, service: AuthService, repository: Repository, end: Any
    ) -> None:
        strict = create_app(replace(service, second_factor_required=True), repository).test_client()
        assert log_in(strict, "frida").location == "/auth/second-factor"
        end()
        assert strict.get("/auth/second-factor").status_code == 401
