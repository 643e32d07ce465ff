"""What holds for every page: who gets in, what a page may load, how it refuses, how it hears of news."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from portal.live import TOPICS
from referral.context import Practice
from smart_auth.service import AuthService
from subscriptions.binding import Bindings
from subscriptions.mail import Message
from subscriptions.mail_store import Outbox
from tests.portal.conftest import LIVE, SYSTEM, Person, Referral, create_app
from tests.smart_auth.oauth import Clock

PAGES = ("/", "/desk", "/referrals", "/referrals/x", "/referrals/x/feedback", "/outbox", "/desk/referrals/x/times")
FORMS = (
    "/desk/referrals/x/accept",
    "/desk/referrals/x/decline",
    "/desk/referrals/x/ask",
    "/desk/referrals/x/fail",
    "/desk/referrals/x/book",
    "/desk/requests/x/cancel",
    "/desk/steps/x/seen",
    "/desk/appointments/x/arrived",
    "/referrals/x/withdraw",
    "/referrals/x/rebook",
    "/referrals/x/feedback",
    "/live",
)


class TestDoor:
    @pytest.mark.parametrize("path", PAGES)
    def test_asks_to_log_in(self, app: Flask, path: str) -> None:
        response = app.test_client().get(path, headers={"Accept": "text/html"})
        assert response.status_code == 401
        assert "Log in" in response.text

    @pytest.mark.parametrize("path", FORMS)
    def test_takes_no_form_without_a_log_in(self, app: Flask, path: str) -> None:
        assert app.test_client().post(path).status_code == 401

    @pytest.mark.parametrize("path", FORMS)
    @pytest.mark.parametrize("token", ["", "wrong"])
    def test_takes_no_form_without_its_csrf_token(
        self, person: Callable[[str], Person], path: str, token: str
    ) -> None:
        frida = person("frida")
        frida.send(path, csrf_token=token, version="1")
        assert frida.status == 403

    def test_leads_each_role_to_its_page(self, person: Callable[[str], Person]) -> None:
        assert "<h1>Front desk</h1>" in person("frida").open("/")
        assert "<h1>My referrals</h1>" in person("ruth").open("/")

    @pytest.mark.parametrize("path", ["/desk", "/desk?part=lists", "/outbox", "/desk/referrals/x/times"])
    @pytest.mark.parametrize("name", ["ruth", "adam"])
    def test_keeps_the_practices_pages_to_its_staff(
        self, person: Callable[[str], Person], refer: Callable[..., Referral], name: str, path: str
    ) -> None:
        refer()
        somebody = person(name)
        html = somebody.open(path)
        assert somebody.status == 403
        assert "Muster" not in html

    @pytest.mark.parametrize("path", [path for path in FORMS if path.startswith("/desk")])
    def test_keeps_the_practices_moves_to_its_staff(self, person: Callable[[str], Person], path: str) -> None:
        ruth = person("ruth")
        ruth.open("/referrals")
        ruth.send(path, csrf_token=ruth.csrf, version="1", reason="x", time="x")
        assert ruth.status == 403


class TestHeaders:
    @pytest.mark.parametrize("path", ["/desk", "/referrals", "/outbox", "/referrals/nobody", "/desk?part=lists"])
    def test_keep_a_page_to_itself(self, person: Callable[[str], Person], path: str) -> None:
        headers = person("frida").browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "connect-src 'self' ws://127.0.0.1:8081;" in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"

    def test_fit_what_the_pages_have(self, person: Callable[[str], Person], refer: Callable[..., Referral]) -> None:
        """No inline script or style, which the policy would block, and nothing from elsewhere."""
        refer()
        html = person("frida").open("/desk")
        assert html.count("<script") == 1
        assert '<script type="module" src="/static/portal/portal.js"></script>' in html
        for sign in ("<style", " style=", " onclick=", " onload=", "javascript:", "http://", "https://", "//cdn"):
            assert sign not in html

    @pytest.mark.parametrize("file, kind", [("portal.css", "text/css"), ("portal.js", "text/javascript")])
    def test_let_everybody_have_style_and_script(self, app: Flask, file: str, kind: str) -> None:
        response = app.test_client().get(f"/static/portal/{file}")
        assert response.status_code == 200
        assert response.mimetype == kind


class TestRefusal:
    def test_is_a_page_for_people(self, person: Callable[[str], Person]) -> None:
        frida = person("frida")
        html = frida.open("/referrals/nobody")
        assert frida.status == 404
        assert "<h1>There is nothing here</h1>" in html
        assert "OperationOutcome" not in html

    def test_of_too_much_is_413(self, person: Callable[[str], Person], refer: Callable[..., Referral]) -> None:
        referral = refer()
        frida = person("frida")
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/decline", reason="x" * 600_000)
        assert frida.status == 413

    def test_of_a_form_that_is_out_of_date_says_so(self, person: Callable[[str], Person]) -> None:
        frida = person("frida")
        html = frida.send("/desk/referrals/x/accept", csrf_token="old", version="1")
        assert "load the page again" in html


class TestLive:
    def ask(self, person: Person) -> dict:
        answer = person.browser.post("/live", headers={"X-CSRF-Token": person.csrf})
        assert answer.status_code == 200, answer.text
        return answer.json

    @pytest.mark.parametrize("name", ["frida", "ruth"])
    def test_binds_to_the_users_own_subscriptions(
        self, person: Callable[[str], Person], name: str, bindings: Bindings, practice: Practice
    ) -> None:
        somebody = person(name)
        somebody.open("/")
        answer = self.ask(somebody)
        assert answer["url"] == LIVE
        bound = bindings.find(answer["token"])
        assert bound is not None
        assert bound.subject == f"user:{name}"
        for id in bound.numbers:
            version = practice.repository.read(SYSTEM, "Subscription", id)
            assert version.by == f"user:{name}"
            assert version.scope == (f"@owner/user:{name}",)
            subscription = version.resource()
            assert subscription["channel"]["type"] == "websocket"
            assert subscription["channel"]["_payload"]["extension"][0]["valueCode"] == "empty"
        found = [practice.repository.read(SYSTEM, "Subscription", id).resource()["criteria"] for id in bound.numbers]
        assert sorted(found) == sorted(TOPICS)

    def test_uses_the_same_subscriptions_again_and_renews_them_before_they_end(
        self, person: Callable[[str], Person], practice: Practice, clock: Clock
    ) -> None:
        def subscriptions() -> dict[str, int]:
            found = practice.repository.search(SYSTEM, "Subscription", [("type", "websocket")]).matches
            return {version.id: version.version for version in found}

        frida = person("frida")
        frida.open("/")
        self.ask(frida)
        first = subscriptions()
        assert len(first) == 2
        frida.open("/")
        self.ask(frida)
        assert subscriptions() == first
        clock.forward(hours=11, minutes=30)
        frida = person("frida")
        frida.open("/")
        self.ask(frida)
        assert subscriptions() == dict.fromkeys(first, 2)

    def test_is_not_for_who_may_not_subscribe(self, person: Callable[[str], Person]) -> None:
        adam = person("adam")
        adam.open("/")
        answer = adam.browser.post("/live", headers={"X-CSRF-Token": adam.csrf})
        assert answer.status_code == 403

    def test_page_that_refreshes_itself_does_not_stay_logged_in(
        self, person: Callable[[str], Person], real_clock: Clock
    ) -> None:
        frida = person("frida")
        for _ in range(2):
            real_clock.forward(minutes=7)
            assert frida.browser.get("/desk?part=lists", headers={"X-Background": "1"}).status_code == 200
        real_clock.forward(minutes=2)
        assert frida.browser.get("/desk?part=lists", headers={"X-Background": "1"}).status_code == 401


class TestOutbox:
    def test_shows_the_newest_mail_first(self, person: Callable[[str], Person], outbox: Outbox) -> None:
        for number, minutes in ((1, 0), (2, 5)):
            at = datetime(2027, 3, 1, 8, tzinfo=UTC) + timedelta(minutes=minutes)
            subject = f"There is news on referral LK-{number}"
            outbox.deliver(
                Message(f"s/{number}", "s", number, "office@lakeside.example", subject, "Log in <here>", at)
            )
        html = person("frida").open("/outbox")
        assert html.index("LK-2") < html.index("LK-1")
        assert "Mon 01 Mar 2027, 09:05 CET" in html
        assert "Log in &lt;here&gt;" in html


class TestOpen:
    """`radloop serve --open`: everybody is the practice, and there is no log-in to have a token of."""

    def test_desk_and_its_forms_work(
        self,
        auth: AuthService,
        practice: Practice,
        bindings: Bindings,
        outbox: Outbox,
        refer: Callable[..., Referral],
        react: Callable[[], None],
    ) -> None:
        app = create_app(auth, practice, bindings, outbox, open_access=True)
        referral = refer()
        anybody = Person(app.test_client(), react)
        assert "Muster" in anybody.open("/")
        assert "Log out" not in anybody.html
        anybody.press(f"/desk/referrals/{referral.id}/accept")
        assert "Find a time" in anybody.html
        assert anybody.browser.post("/live").status_code == 200
