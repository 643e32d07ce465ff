"""The pages about Subscriptions in a real browser, while events go to a real endpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from docs.picture import Cast
from radloop.demo.stage import Caller, wait_for
from tests.server import Server
from tests.subscriptions.conftest import a_subscription
from tests.subscriptions.hook_listener import Listener, status_of

pytestmark = pytest.mark.browser

PATIENT_WORDS = ("CT that nobody may read of here", "Task?requester")


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def office(server: Server) -> Caller:
    return server.user("lakeside")


@pytest.fixture
def id(office: Caller, listener: Listener, cast: Cast) -> Iterator[str]:
    """A Subscription of the office that has told of at least three events."""
    subscription = a_subscription(
        "referral-status",
        "Task?requester=Organization/lakeside",
        channel={"endpoint": listener.url, "header": ["Authorization: Bearer very-secret"]},
    )
    id = office.create(subscription)["id"]
    wait_for("the handshake", lambda: office.get(f"Subscription/{id}")["status"] == "active")
    for patient in (2, 3, 4):
        cast.refer(patient, PATIENT_WORDS[0])
    listener.wait_for(lambda it: len(it.events()) >= 3)
    yield id
    office.update(office.get(f"Subscription/{id}") | {"status": "off"})


def card(page: Page, id: str) -> Locator:
    return page.locator(f"#subscription-{id}")


def numbers(listener: Listener) -> list[int]:
    return [number for number, _ in listener.events()]


@pytest.mark.parametrize("user, path", [("lakeside", "/subscriptions"), ("frontdesk", "/admin/subscriptions")])
def test_pause_resume_and_replay(
    visit: Callable[..., Page], cast: Cast, id: str, listener: Listener, office: Caller, user: str, path: str
) -> None:
    page = visit(user, path)
    own = card(page, id)
    expect(own.get_by_text("At work")).to_be_visible()
    expect(own).to_contain_text("rest-hook to 127.0.0.1")

    own.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_contain_text("Paused. Events are kept")
    expect(card(page, id).locator(".badge")).to_have_text("Paused")
    expect(card(page, id)).to_contain_text("by its owner" if user == "lakeside" else "by the practice")
    before = len(numbers(listener))
    cast.refer(0, PATIENT_WORDS[0])
    waiting = card(page, id).locator("dd", has_text="events, kept from number")

    def counted() -> bool:
        page.reload()
        return not waiting.inner_text().startswith("0 of")

    wait_for("the event that waits", counted)
    assert len(numbers(listener)) == before

    card(page, id).get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_contain_text("Resumed")
    listener.wait_for(lambda it: len(it.events()) > before)
    wait_for("the new handshake", lambda: office.get(f"Subscription/{id}")["status"] == "active")
    handshakes = [one for one in listener.bundles() if status_of(one)["type"] == "handshake"]
    assert len(handshakes) == 2

    page.goto(page.url)
    card(page, id).get_by_text("Replay", exact=True).click()
    card(page, id).get_by_label("From event number").fill("2")
    card(page, id).get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status")).to_contain_text("It begins again with that event")
    last = max(numbers(listener))
    again = [*range(2, last + 1)]
    listener.wait_for(lambda it: numbers(it)[-len(again) :] == again)

    page.goto(page.url)
    for words in (*PATIENT_WORDS, "very-secret"):
        assert words not in page.content()


@pytest.mark.parametrize("width", [1280, 320])
def test_the_page_fits_what_a_subscription_has_to_say(
    visit: Callable[..., Page], id: str, width: int, tmp_path: Path
) -> None:
    page = visit("frontdesk", "/admin/subscriptions", viewport={"width": width, "height": 900})
    card(page, id).get_by_text("Replay", exact=True).click()
    expect(card(page, id).get_by_label("From event number")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = card(page, id).evaluate(
        "card => [...card.querySelectorAll('*')].filter(e => !e.closest('.apart')"
        " && e.getBoundingClientRect().right > card.getBoundingClientRect().right + 1).map(e => e.outerHTML)"
    )
    assert outside == []
    shot = tmp_path / f"subscriptions-{width}.png"
    card(page, id).screenshot(path=shot)
    assert shot.stat().st_size > 1000
