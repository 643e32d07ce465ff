"""A subscriber's program against the FHIR API: what it asks for is what comes, and what is wrong is refused by name.
http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from pymongo.database import Database

from fhir_server.access import Access
from fhir_server.search.request import MAX_COUNT as MOST_FOUND
from subscriptions import profile
from subscriptions.capability import FHIR_TYPES, topic_resources
from subscriptions.outgoing import Outgoing
from tests.subscriptions.conftest import (
    LAKESIDE,
    TOPICS,
    World,
    a_plain_subscription,
    a_subscription,
    a_websocket_subscription,
    eventually,
    make_world,
)
from tests.subscriptions.hook_listener import Listener, events_of, ok, status, status_of
from tests.subscriptions.test_definition import FAULTS, with_channel

PUBLISHER = Access.system("conformance")
JSON = {"Content-Type": "application/fhir+json"}


@pytest.fixture
def api(world: World, web: str) -> str:
    world.start()
    return f"http://{web}/fhir"


def subscribe(api: str, subscription: dict) -> str:
    answer = requests.post(f"{api}/Subscription", json=subscription, headers=JSON, timeout=30)
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "requested"
    return answer.json()["id"]


def now(api: str, id: str) -> dict:
    return requests.get(f"{api}/Subscription/{id}", timeout=30).json()


def is_now(api: str, id: str, wanted: str) -> None:
    eventually(lambda: now(api, id)["status"] == wanted)


def setting(url: str, **value: int) -> dict:
    return {"url": url, **value}


class TestSettings:
    def test_the_timeout_is_the_longest_wait_for_one_delivery_and_each_subscription_has_its_own(
        self, world: World, api: str, listener: Listener
    ) -> None:
        """Of two Subscriptions to one slow endpoint, that with the short timeout fails, and the other one goes on."""
        release = threading.Event()

        def slow(handler: BaseHTTPRequestHandler) -> None:
            if handler.headers["X-Wait"] == "yes":
                release.wait(30)
            ok(handler)

        listener.answer = slow
        ids = {}
        for seconds in (1, 30):
            subscription = a_subscription(
                channel={"endpoint": listener.url, "header": ["X-Wait: yes"]},
                extensions=(setting(profile.TIMEOUT, valueUnsignedInt=seconds),),
            )
            ids[seconds] = subscribe(api, subscription)
        is_now(api, ids[1], "error")
        assert "error" in now(api, ids[1])
        assert now(api, ids[30])["status"] == "requested"  # it still waits
        release.set()
        is_now(api, ids[30], "active")

    def test_no_bundle_holds_more_events_than_max_count(self, world: World, api: str, listener: Listener) -> None:
        gate = threading.Event()

        def first_waits(handler: BaseHTTPRequestHandler) -> None:
            if len(listener.bodies) == 2:  # the first event, after the handshake
                gate.wait(30)
            ok(handler)

        listener.answer = first_waits
        extensions = (setting(profile.MAX_COUNT, valuePositiveInt=2),)
        id = subscribe(api, a_subscription(channel={"endpoint": listener.url}, extensions=extensions))
        is_now(api, id, "active")
        for _ in range(6):
            world.task()
        eventually(lambda: world.store.last_number(id) == 6)
        gate.set()
        listener.wait_for(lambda it: len(it.events()) == 6)
        sizes = [len(events_of(bundle)) for bundle in listener.bundles()]
        assert max(sizes) == 2
        assert [number for number, _ in listener.events()] == [1, 2, 3, 4, 5, 6]

    def test_a_heartbeat_comes_after_the_period_of_silence(self, api: str, listener: Listener) -> None:
        extensions = (setting(profile.HEARTBEAT_PERIOD, valueUnsignedInt=1),)
        id = subscribe(api, a_subscription(channel={"endpoint": listener.url}, extensions=extensions))
        listener.wait_for(lambda it: [status_of(one)["type"] for one in it.bundles()][-1:] == ["heartbeat"])
        heartbeat = status_of(listener.bundles()[-1])
        assert heartbeat["subscription"]["reference"].endswith(f"/Subscription/{id}")
        assert heartbeat["status"] == "active"

    def test_at_its_end_it_is_off_and_nothing_more_comes(self, world: World, api: str, listener: Listener) -> None:
        end = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
        id = subscribe(api, a_subscription(channel={"endpoint": listener.url}, end=end))
        is_now(api, id, "active")
        world.clock.ahead = timedelta(hours=2)
        world.task()
        is_now(api, id, "off")
        assert listener.events() == []

    def test_what_was_sent_is_what_is_kept(self, api: str) -> None:
        extensions = (
            setting(profile.HEARTBEAT_PERIOD, valueUnsignedInt=86_400),
            setting(profile.TIMEOUT, valueUnsignedInt=60),
            setting(profile.MAX_COUNT, valuePositiveInt=20),
        )
        sent = a_subscription("referral-status", "Task?status=accepted,rejected", extensions=extensions)
        kept = now(api, subscribe(api, sent))
        assert kept["channel"] == sent["channel"]
        assert kept["_criteria"] == sent["_criteria"]


class TestRefusals:
    def test_every_fault_is_answered_by_an_outcome_that_names_its_element(self, web: str) -> None:
        for subscription, element, code in FAULTS:
            answer = requests.post(f"http://{web}/fhir/Subscription", json=subscription, headers=JSON, timeout=30)
            assert answer.status_code in (400, 422), (element, answer.status_code, answer.text)
            outcome = answer.json()
            assert outcome["resourceType"] == "OperationOutcome"
            named = [text for issue in outcome["issue"] for text in issue.get("expression", [])]
            # What is no Subscription of R4 at all is refused by its structure, before the guide's rules.
            assert any(element.startswith(text) or text.startswith(element) for text in named), (element, named)
            assert answer.status_code == 400 or code in [issue["code"] for issue in outcome["issue"]]

    @pytest.mark.parametrize("endpoint", [
        "https://10.1.2.3/hook", "https://169.254.169.254/latest/meta-data", "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/", "https://localhost./hook", "https://0x7f000002/", "https://2130706434/",
        "https://0177.0.0.2/", "https://127.2/",
    ])  # fmt: skip
    def test_a_private_address_is_refused_however_it_is_written(self, web: str, endpoint: str) -> None:
        answer = requests.post(
            f"http://{web}/fhir/Subscription", json=with_channel(endpoint=endpoint), headers=JSON, timeout=30
        )
        assert answer.status_code == 422, answer.text
        assert answer.json()["issue"][0]["expression"] == ["Subscription.channel.endpoint"]

    @pytest.mark.parametrize("channel, element", [
        ({"type": "sms"}, "type"), ({"payload": "text/csv"}, "payload"), ({"header": ["Host: a"]}, "header[0]"),
        ({"endpoint": "https://192.168.0.1/"}, "endpoint"),
    ])  # fmt: skip
    def test_plain_criteria_pass_the_same_guards(self, web: str, channel: dict, element: str) -> None:
        subscription = a_plain_subscription("Task?authored-on=gt2026", **channel)
        answer = requests.post(f"http://{web}/fhir/Subscription", json=subscription, headers=JSON, timeout=30)
        assert answer.status_code == 422, answer.text
        assert answer.json()["issue"][0]["expression"] == [f"Subscription.channel.{element}"]


class TestContained:
    """Endpoints that turn bad after their Subscription was taken."""

    def refused(self, api: str, listener: Listener) -> str:
        id = subscribe(api, a_subscription(channel={"endpoint": listener.url}))
        is_now(api, id, "error")
        return now(api, id)["error"]

    def test_a_redirect_to_a_private_address_is_not_followed(self, api: str, listener: Listener) -> None:
        inside = Listener()
        try:
            listener.answer = status(307, Location=inside.url)
            assert self.refused(api, listener) == "the endpoint answered 307"
            assert inside.calls == []
        finally:
            inside.close()

    def test_headers_without_end_are_cut(self, api: str, listener: Listener) -> None:
        listener.answer = status(200, **{f"X-{n}": "y" * 1000 for n in range(80)})
        self.refused(api, listener)

    def test_an_answer_without_end_is_taken_as_far_as_four_kilobytes(self, api: str, listener: Listener) -> None:
        written = []

        def endless(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            try:
                while True:
                    written.append(handler.wfile.write(b"x" * 65_536))
            except OSError:
                pass

        listener.answer = endless
        id = subscribe(api, a_subscription(channel={"endpoint": listener.url}))
        is_now(api, id, "active")
        assert sum(written) < 64 * 1024 * 1024  # what the sockets hold, and no more

    @pytest.fixture
    def moving(self, database: Database) -> Iterator[tuple[World, list[str]]]:
        """A server for which a name leads to addresses that can be changed."""
        addresses = ["93.184.216.34"]
        world = make_world(database, {LAKESIDE.subject: LAKESIDE}, outgoing=Outgoing(resolve=lambda *_: addresses))
        yield world, addresses
        world.stop()

    def test_a_name_that_leads_to_another_address_later_is_looked_at_again(
        self, moving: tuple[World, list[str]], listener: Listener
    ) -> None:
        world, addresses = moving
        endpoint = f"https://ehr.example.org:{listener.server.server_port}/hook"
        id = world.subscribe(a_subscription(channel={"endpoint": endpoint}))
        addresses[:] = ["127.0.0.1"]
        world.start()
        eventually(lambda: world.status(id) == "error")
        assert "public" in world.subscription(id)["error"]
        assert listener.calls == []


class TestRetention:
    def test_what_is_older_than_the_setting_goes_and_events_says_from_where_they_are_kept(
        self, database: Database
    ) -> None:
        world = make_world(database, {LAKESIDE.subject: LAKESIDE}, keep=timedelta())
        id = world.subscribe(a_websocket_subscription())
        for _ in range(3):
            world.task()
        world.start()
        try:
            eventually(lambda: world.store.last_number(id) == 3)
            world.stop()
            world.start()  # deletes at its start, and now and then
            eventually(lambda: world.store.first_number(id) == 3)
            kept = world.operate("events", LAKESIDE, id)
        finally:
            world.stop()
        assert [number for number, _ in events_of(kept)] == [3]
        assert status_of(kept)["oldest-kept-event"] == "3"
        assert status_of(kept)["events-since-subscription-start"] == "3"


class TestDiscovery:
    """http://hl7.org/fhir/uv/subscriptions-backport/components.html#subscription-topics-in-fhir-r4"""

    @pytest.fixture
    def basics(self, world: World, web: str) -> str:
        for resource in topic_resources(TOPICS):
            world.repository.update(PUBLISHER, resource)
        world.create({"resourceType": "Basic", "code": {"coding": [{"code": "referral"}]}})
        return f"http://{web}/fhir/Basic"

    def found(self, address: str, **parameters: str) -> list[dict]:
        answer = requests.get(address, params={"_count": str(MOST_FOUND)} | parameters, timeout=30)
        assert answer.status_code == 200, answer.text
        return [entry["resource"] for entry in answer.json().get("entry", [])]

    def test_all_topics_are_found_by_their_code(self, basics: str) -> None:
        by_code = self.found(basics, code=f"{FHIR_TYPES}|SubscriptionTopic")
        assert {one["id"] for one in by_code} == {f"topic-{topic.name}" for topic in TOPICS.values()}
        urls = [
            one["valueUri"]
            for basic in by_code
            for one in basic["extension"]
            if one["url"].endswith("SubscriptionTopic.url")
        ]
        assert sorted(urls) == sorted(TOPICS)

    def test_each_is_read_by_its_id(self, basics: str) -> None:
        for topic in TOPICS.values():
            read = requests.get(f"{basics}/topic-{topic.name}", timeout=30).json()
            assert read["modifierExtension"][0]["valueCode"] == "active"

    def test_what_is_found_can_be_subscribed_to_with_its_version_or_without(self, basics: str) -> None:
        api, found = basics.removesuffix("/Basic"), self.found(basics, code=f"{FHIR_TYPES}|SubscriptionTopic")
        assert len(found) == len(TOPICS)
        for basic in found:
            url = next(one["valueUri"] for one in basic["extension"] if one["url"].endswith("Topic.url"))
            version = next(one["valueString"] for one in basic["extension"] if one["url"].endswith("Topic.version"))
            subscribe(api, a_subscription(criteria=url))
            subscribe(api, a_subscription(criteria=f"{url}|{version}"))
            refused = requests.post(
                f"{api}/Subscription", json=a_subscription(criteria=f"{url}|0.9"), headers=JSON, timeout=30
            )
            assert refused.status_code == 422
