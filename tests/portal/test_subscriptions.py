"""Pages about Subscriptions, and the page that confirms a mail address."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask import Flask

from conformance import CANONICAL
from fhir_server.access import Access
from portal.live import REASON
from referral.context import Practice
from smart_auth.access import access_of_user
from smart_auth.service import AuthService
from subscriptions.addresses import Addresses
from subscriptions.mail_store import MongoAddresses, Outbox
from subscriptions.profile import FILTER_CRITERIA, PAYLOAD_CONTENT, SUBSCRIPTION_PROFILE
from subscriptions.store import Arrived, Happening, State, SubscriptionStore
from tests.portal.conftest import Person
from tests.smart_auth.oauth import ORIGIN

AT = datetime(2027, 3, 1, 7, 30, tzinfo=UTC)
SECRET_FILTER = "patient:identifier=urn:mrn|MRN-4711"


def access_of(auth: AuthService, name: str) -> Access:
    user = auth.store.user(name)
    assert user is not None
    return access_of_user(user)


@pytest.fixture
def store(practice: Practice) -> SubscriptionStore:
    store = SubscriptionStore(practice.repository.store.database)
    store.prepare()
    return store


@pytest.fixture
def subscribe(practice: Practice, auth: AuthService, store: SubscriptionStore) -> Callable[..., str]:
    """A Subscription of a user with three events, two of them delivered, as the worker would have it."""

    def subscribe(name: str, reason: str = "news") -> str:
        access = access_of(auth, name)
        subscription = {
            "resourceType": "Subscription",
            "meta": {"profile": [SUBSCRIPTION_PROFILE]},
            "status": "requested",
            "reason": reason,
            "criteria": f"{CANONICAL}/SubscriptionTopic/referral-status",
            "_criteria": {"extension": [{"url": FILTER_CRITERIA, "valueString": SECRET_FILTER}]},
            "channel": {
                "type": "websocket",
                "payload": "application/fhir+json",
                "_payload": {"extension": [{"url": PAYLOAD_CONTENT, "valueCode": "empty"}]},
            },
        }
        version = practice.repository.create(access, subscription).version
        topic = subscription["criteria"]
        store.record([State(version.id, 1, version.number, topic, access.subject, "websocket", "requested")])
        for number in (1, 2, 3):
            store.append([Happening("Task/9", number, "update", AT, [version.id])])
        store.advance([Arrived(version.id, 2, AT, 0)])
        return version.id

    return subscribe


def status(practice: Practice, id: str) -> dict:
    return practice.repository.read(Access.system("test"), "Subscription", id).resource()


class TestOwn:
    def test_shows_ones_own_and_how_they_stand(
        self, person: Callable[[str], Person], subscribe: Callable[..., str]
    ) -> None:
        own, other = subscribe("ruth"), subscribe("otto")
        html = person("ruth").open("/subscriptions")
        assert own in html
        assert other not in html
        assert "Referral status" in html
        assert "1 of 3 events, kept from number 1 on" in html
        assert "8:30" in html  # Zurich's
        assert "MRN-4711" not in html

    def test_leaves_out_those_that_keep_pages_up_to_date(
        self, person: Callable[[str], Person], subscribe: Callable[..., str]
    ) -> None:
        id = subscribe("ruth", reason=REASON)
        assert id not in person("ruth").open("/subscriptions")

    def test_pause_then_resume(
        self, person: Callable[[str], Person], subscribe: Callable[..., str], practice: Practice
    ) -> None:
        id, ruth = subscribe("ruth"), person("ruth")
        ruth.open("/subscriptions")
        assert "Paused. Events are kept" in ruth.press("/pause")
        assert (status(practice, id)["status"], status(practice, id)["error"]) == ("error", "paused by its owner")
        assert "Resumed" in ruth.press("/resume")
        assert status(practice, id)["status"] == "requested"
        assert "error" not in status(practice, id)

    def test_replay_from_a_number(
        self, person: Callable[[str], Person], subscribe: Callable[..., str], store: SubscriptionStore
    ) -> None:
        id, ruth = subscribe("ruth"), person("ruth")
        ruth.open("/subscriptions")
        assert "begins again" in ruth.press("/replay", number="2")
        assert store.state(id).delivered == 1

    @pytest.mark.parametrize("number, code", [
        ("", 400), ("-1", 400), ("x", 400), ("9" * 30, 400), ("\u0663", 400), ("0", 422), ("3", 422), ("99", 422),
    ])  # fmt: skip
    def test_replay_of_what_cannot_be_is_refused(
        self, person: Callable[[str], Person], subscribe: Callable[..., str], store: SubscriptionStore,
        number: str, code: int,
    ) -> None:  # fmt: skip
        id, ruth = subscribe("ruth"), person("ruth")
        ruth.open("/subscriptions")
        ruth.press("/replay", number=number)
        assert ruth.status == code
        assert store.state(id).delivered == 2

    @pytest.mark.parametrize("move", ["pause", "resume", "replay"])
    def test_other_offices_cannot_be_reached(
        self, person: Callable[[str], Person], subscribe: Callable[..., str], practice: Practice, move: str
    ) -> None:
        subscribe("ruth")
        other, ruth = subscribe("otto"), person("ruth")
        ruth.open("/subscriptions")
        ruth.send(f"/subscriptions/{other}/{move}", csrf_token=ruth.csrf, number="1")
        assert ruth.status == 404
        ruth.send(f"/subscriptions/{other}/{move}", number="1")
        assert ruth.status == 403  # no CSRF token
        assert status(practice, other)["status"] == "requested"


class TestEverybodys:
    @pytest.mark.parametrize("name", ["adam", "frida"])
    def test_administrators_and_staff_see_all_but_nothing_that_they_tell(
        self, person: Callable[[str], Person], subscribe: Callable[..., str], practice: Practice, name: str
    ) -> None:
        ids = [subscribe("ruth"), subscribe("otto")]
        somebody = person(name)
        html = somebody.open("/admin/subscriptions")
        assert all(id in html for id in ids)
        assert "user:ruth" in html
        assert "MRN-4711" not in html
        assert "Task/9" not in html
        assert "Paused" in somebody.press(f"/{ids[0]}/pause")
        assert status(practice, ids[0])["error"] == "paused by the practice"
        assert somebody.html.count("<h1>All Subscriptions</h1>") == 1

    def test_others_do_not(self, person: Callable[[str], Person]) -> None:
        ruth = person("ruth")
        ruth.open("/admin/subscriptions")
        assert ruth.status == 403

    def test_an_administrator_is_led_to_it(self, person: Callable[[str], Person]) -> None:
        assert 'href="/admin/subscriptions"' in person("adam").open("/")


class TestMailAddress:
    @pytest.fixture
    def link(self, practice: Practice, outbox: Outbox) -> str:
        addresses = Addresses(MongoAddresses(practice.repository.store.database), outbox, ORIGIN)
        assert not addresses.ready("user:ruth", "office@lakeside.example", "s/1")
        found = re.search(r"/mail/confirm/\S+", outbox.list()[0].body)
        assert found
        return found[0]

    def test_is_confirmed_by_the_button_without_a_log_in_and_not_by_looking(
        self, app: Flask, practice: Practice, link: str
    ) -> None:
        known = MongoAddresses(practice.repository.store.database)
        stranger = Person(app.test_client(), lambda: None)
        assert "office@lakeside.example" in stranger.open(link)
        assert not known.is_verified("user:ruth", "office@lakeside.example")
        assert "Thank you" in stranger.press(link)
        assert known.is_verified("user:ruth", "office@lakeside.example")
        assert "not good any more" in stranger.open(link)
        assert stranger.status == 404

    def test_the_address_of_the_page_goes_nowhere_else(self, app: Flask, link: str) -> None:
        headers = app.test_client().get(link).headers
        assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")

    def test_another_link_is_not_good(self, app: Flask) -> None:
        assert app.test_client().post("/mail/confirm/guessed").status_code == 404
