"""The portal in a real browser: live, with the keyboard, on a narrow screen, without script."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect

from docs.picture import CT, Cast
from radloop.demo.players import Referral

pytestmark = pytest.mark.browser

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def known(cast: Cast) -> Referral:
    """A referral that is on the desk before any page is opened."""
    return cast.refer(2, "CT of the known patient", "urgent")


@pytest.fixture(scope="session")
def complete(cast: Cast) -> Referral:
    """One with its report."""
    referral = cast.refer(0, "CT abdomen with contrast")
    cast.arrive(referral, cast.book(referral, CT))
    cast.complete(referral, 0)
    return referral


def live(page: Page) -> Page:
    """The page, once it hears of news."""
    expect(page.locator("#live")).to_have_text("Live")
    return page


class TestLive:
    def test_a_new_referral_appears_without_loading_the_page_again(
        self, visit: Visit, cast: Cast, known: Referral
    ) -> None:
        page = live(visit("frontdesk"))
        expect(page.get_by_text("CT of the known patient")).to_be_visible()
        page.evaluate("window.stays = true")
        cast.refer(3, "MR that comes later", "stat")
        expect(page.get_by_text("MR that comes later")).to_be_visible()
        assert page.evaluate("window.stays")
        expect(page.locator("#news")).to_contain_text("incoming")

    def test_the_office_sees_its_time_line_grow(self, visit: Visit, cast: Cast) -> None:
        referral = cast.refer(4, "CT of the office")
        page = live(visit("lakeside", f"/referrals/{referral.task.partition('/')[2]}"))
        expect(page.locator(".words")).to_have_text("Received by the practice")
        cast.accept(referral)
        expect(page.locator(".words")).to_have_text("Accepted")
        expect(page.locator(".line")).to_contain_text("Accepted, awaiting scheduling")
        expect(page.locator("#news")).to_have_text("Accepted")

    def test_what_somebody_types_stays_where_it_is(self, visit: Visit, cast: Cast, known: Referral) -> None:
        page = live(visit("frontdesk"))
        known_card = page.locator(".card", has_text="CT of the known patient")
        known_card.get_by_text("Decline", exact=True).click()
        field = known_card.get_by_label("Why, and what the office can do instead")
        field.fill("No free")
        field.press("Home")
        cast.refer(5, "US while somebody types", "stat")
        expect(page.get_by_text("US while somebody types")).to_be_visible()
        expect(field).to_be_focused()
        expect(field).to_have_value("No free")
        page.keyboard.type("Sorry: ")
        expect(field).to_have_value("Sorry: No free")

    def test_the_focus_stays_on_its_button(self, visit: Visit, cast: Cast, known: Referral) -> None:
        page = live(visit("frontdesk"))
        id = f"accept-{known.task.partition('/')[2]}"
        page.locator(f"#{id}").focus()
        cast.refer(6, "US beside the focus", "stat")
        expect(page.get_by_text("US beside the focus")).to_be_visible()
        assert page.evaluate("document.activeElement.id") == id

    def test_after_a_lost_connection_it_catches_up(self, visit: Visit, cast: Cast) -> None:
        page = live(visit("frontdesk"))
        sockets: list[WebSocketRoute] = []
        lost = True

        def through(socket: WebSocketRoute) -> None:
            sockets.append(socket)
            if lost and len(sockets) > 1:
                socket.close(code=1011)
            else:
                socket.connect_to_server()

        page.route_web_socket(lambda url: "/ws/" in url, through)
        page.reload()
        live(page)
        sockets[0].close(code=1011)
        expect(page.locator("#live")).to_have_text("Connection lost, trying again …")
        cast.refer(7, "MR in the dark", "asap")
        lost = False
        live(page)
        expect(page.get_by_text("MR in the dark")).to_be_visible()

    def test_after_its_token_has_ended_it_binds_anew(self, visit: Visit) -> None:
        page = live(visit("frontdesk"))
        sockets: list[WebSocketRoute] = []

        def through(socket: WebSocketRoute) -> None:
            sockets.append(socket)
            socket.connect_to_server()

        page.route_web_socket(lambda url: "/ws/" in url, through)
        page.reload()
        live(page)
        with page.expect_response(lambda answer: answer.url.endswith("/live")):
            sockets[0].close(code=4401)
        live(page)

    def test_a_log_in_that_has_ended_leads_to_the_log_in(self, visit: Visit, known: Referral) -> None:
        page = live(visit("frontdesk"))
        page.context.clear_cookies()
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.get_by_label("Password")).to_be_visible()
        expect(page.get_by_text("CT of the known patient")).to_have_count(0)

    @pytest.fixture(autouse=True)
    def _expected(self, request: pytest.FixtureRequest, trouble: list[str]) -> object:
        """The browser itself logs an answer of 401 as an error; in the last test it is what is asked for."""
        yield
        if "log_in" in request.node.name:
            trouble[:] = [text for text in trouble if "401" not in text]


class TestWithoutScript:
    def test_the_desk_works(self, visit: Visit, cast: Cast) -> None:
        cast.refer(8, "CT without script")
        page = visit("frontdesk", java_script_enabled=False)
        expect(page.locator("#live")).to_be_hidden()
        page.locator(".card", has_text="CT without script").get_by_role("button", name="Accept").click()
        expect(page.locator(".notice")).to_contain_text("Accepted.")
        page.locator(".card", has_text="CT without script").get_by_role("link", name="Find a time").click()
        page.get_by_label("Computed tomography").check()
        page.get_by_role("button", name="Show free times").click()
        page.locator("button[name=time]").first.click()
        expect(page.locator(".notice")).to_contain_text("The appointment is set")

    def test_an_office_refers(self, visit: Visit) -> None:
        page = visit("lakeside", "/refer", java_script_enabled=False)
        for label, text in (
            ("Family name", "Muster"),
            ("Given name", "Pat"),
            ("Date of birth", "1970-05-17"),
            ("Phone", "+1-555-0199"),
            ("Exam, with side and contrast", "MR of the left knee"),
            ("Reason in words", "Pain"),
        ):
            page.get_by_label(label).fill(text)
        page.get_by_label("female", exact=True).check()
        page.get_by_label("Routine").check()
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".notice")).to_contain_text("on its way to the practice")


class TestKeyboard:
    def test_the_first_stop_skips_to_the_content(self, visit: Visit) -> None:
        page = visit("frontdesk")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"

    def test_every_stop_is_seen(self, visit: Visit, known: Referral) -> None:
        page = visit("frontdesk")
        for _ in range(12):
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", page.evaluate("document.activeElement.outerHTML")


class TestLook:
    @pytest.fixture
    def paths(self, complete: Referral, known: Referral) -> dict[str, list[str]]:
        done, open_ = (referral.task.partition("/")[2] for referral in (complete, known))
        return {
            "frontdesk": [
                "/desk?done=accepted",
                "/referrals",
                "/outbox",
                "/admin/subscriptions",
                f"/desk/referrals/{open_}/times?service=service-ct",
            ],
            "lakeside": [
                "/referrals",
                f"/referrals/{done}",
                f"/referrals/{done}/feedback",
                "/refer",
                "/subscriptions",
            ],
        }

    @pytest.mark.parametrize("user", ["frontdesk", "lakeside"])
    def test_fits_320_pixels(self, visit: Visit, paths: dict[str, list[str]], user: str) -> None:
        page = visit(user, viewport={"width": 320, "height": 640})
        origin = "/".join(page.url.split("/")[:3])
        for path in paths[user]:
            page.goto(f"{origin}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("user", ["frontdesk", "lakeside"])
    def test_has_the_contrast_of_wcag_aa(
        self, visit: Visit, paths: dict[str, list[str]], user: str, scheme: str
    ) -> None:
        page = visit(user, color_scheme=scheme)
        origin = "/".join(page.url.split("/")[:3])
        for path in paths[user]:
            page.goto(f"{origin}{path}")
            assert page.evaluate(CONTRAST) == [], path

    @pytest.mark.parametrize("user", ["frontdesk", "lakeside"])
    def test_has_one_main_heading_and_names_for_all_fields(
        self, visit: Visit, paths: dict[str, list[str]], user: str
    ) -> None:
        page = visit(user)
        origin = "/".join(page.url.split("/")[:3])
        for path in paths[user]:
            page.goto(f"{origin}{path}")
            assert page.locator("h1").count() == 1, path
            assert page.get_by_role("main").count() == 1, path
            nameless = "input:not([type=hidden]), textarea, select"
            assert (
                page.locator(nameless).evaluate_all("fields => fields.filter(f => !f.labels.length).length") == 0
            ), path
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
            assert len(ids) == len(set(ids)), path
