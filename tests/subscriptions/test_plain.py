"""Subscriptions by criteria, as R4 itself has them. http://hl7.org/fhir/R4/subscription.html"""

from typing import Any

import pytest

from fhir_server import fhir_json, fhir_xml
from fhir_server.access import Scope
from fhir_server.errors import Forbidden, NotFound, Unprocessable
from subscriptions import profile
from subscriptions.definition import parse
from tests.subscriptions.conftest import (
    BASE,
    HILLCREST,
    LAKESIDE,
    TOPICS,
    World,
    a_plain_subscription,
    an_office,
    eventually,
)
from tests.subscriptions.hook_listener import Listener, status, status_of

CRITERIA, CHANNEL = "Subscription.criteria", "Subscription.channel"


def subscribe(world: World, criteria: str, **channel: Any) -> str:
    return world.subscribe(a_plain_subscription(criteria, **channel))


class TestCriteria:
    @pytest.mark.parametrize("criteria, found", [
        ("Task", True),
        ("Task?", True),
        ("Task?status=requested", True),
        ("Task?status=accepted", False),
        ("Task?status=accepted,requested", True),
        ("Task?status:not=accepted", True),
        ("Task?requester=Organization/lakeside&status=requested", True),
        ("Task?requester=lakeside", True),
        ("Task?requester=Organization/lakeside&status=accepted", False),
        ("Task?owner:missing=true", True),
        ("Task?identifier=http%3A%2F%2Fa%7C1", True),
        ("Task?_tag=urn:t|a", True),
        ("Task?_tag=urn:t|b", False),
        ("Task?_lastUpdated=gt2020&status=requested", True),
        ("Task?_lastUpdated=lt2020", False),
        ("ServiceRequest?status=requested", False),
    ])  # fmt: skip
    def test_a_new_resource_is_an_event_when_the_search_would_find_it(
        self, world: World, criteria: str, found: bool
    ) -> None:
        subscription = subscribe(world, criteria)
        identifier = [{"system": "http://a", "value": "1"}]
        task = world.task(identifier=identifier, meta={"tag": [{"system": "urn:t", "code": "a"}]})
        world.pump()
        assert world.events(subscription) == ([(1, f"{task}/_history/1")] if found else [])

    def test_every_update_that_the_search_would_find_is_an_event_whatever_has_changed(self, world: World) -> None:
        subscription = subscribe(world, "Task?status=accepted")
        task = world.task()
        world.change(task, status="accepted")
        world.change(task, description="still accepted")
        world.change(task, status="completed")
        world.pump()
        assert world.events(subscription) == [(1, f"{task}/_history/2"), (2, f"{task}/_history/3")]

    def test_what_the_subscriber_may_not_see_is_no_event(self, world: World) -> None:
        subscription = subscribe(world, "Task?status=requested")
        world.task("hillcrest")
        world.pump()
        assert world.events(subscription) == []

    @pytest.mark.parametrize("criteria", [
        "Task?description=x", "Task?authored-on=gt2026", "Task?subject.name=x", "Task?patient:Patient.name=x",
        "Task?_has:Provenance:target:agent=x", "Task?_lastUpdated=ap2026", "Task?_id=1", "Task?_include=Task:owner",
        "Task?status", "Task?status=", "Task?status:above=x", "Task?requester:Patient=Organization/1", "Task?_text=x",
        "Nothing?status=x", "Subscription?status=active", "Binary", "Task?" + "x" * 2000,
    ])  # fmt: skip
    def test_what_cannot_be_matched_without_a_query_is_refused(self, criteria: str) -> None:
        with pytest.raises(Unprocessable) as refusal:
            parse(a_plain_subscription(criteria), TOPICS, BASE)
        assert [(issue.expression, issue.code) for issue in refusal.value.issues] == [(CRITERIA, "not-supported")]

    def test_the_creator_must_be_allowed_to_read_the_type(self, world: World) -> None:
        reader = an_office("lakeside", (Scope("system", "Subscription", "cruds"),))
        with pytest.raises(Forbidden):
            world.subscribe(a_plain_subscription(), reader)

    @pytest.mark.parametrize("channel, element", [
        ({"type": "sms"}, f"{CHANNEL}.type"),
        ({"type": "message"}, f"{CHANNEL}.type"),
        ({"endpoint": "ftp://a.example/"}, f"{CHANNEL}.endpoint"),
        ({"payload": "text/csv"}, f"{CHANNEL}.payload"),
        ({"payload": 3}, f"{CHANNEL}.payload"),
        ({"header": ["Host: evil.example"]}, f"{CHANNEL}.header[0]"),
        ({"extension": [{"url": profile.HEARTBEAT_PERIOD, "valueUnsignedInt": 9}]}, f"{CHANNEL}.extension"),
    ])  # fmt: skip
    def test_a_bad_channel_is_refused(self, channel: dict, element: str) -> None:
        with pytest.raises(Unprocessable) as refusal:
            parse(a_plain_subscription(**channel), TOPICS, BASE)
        assert [issue.expression for issue in refusal.value.issues] == [element]

    def test_criteria_beside_elements_of_the_guide_are_no_topic(self) -> None:
        payload = {"extension": [{"url": profile.PAYLOAD_CONTENT, "valueCode": "empty"}]}
        with pytest.raises(Unprocessable) as refusal:
            parse(a_plain_subscription(_payload=payload), TOPICS, BASE)
        assert refusal.value.issues[0].expression == CRITERIA


class TestRestHook:
    def test_without_a_payload_the_endpoint_gets_a_post_of_nothing(self, world: World, listener: Listener) -> None:
        id = subscribe(world, "Task?status=requested", endpoint=listener.url, header=["X-Key: 1"])
        world.start()
        eventually(lambda: world.status(id) == "active")
        assert listener.calls == []  # R4 has no handshake
        world.task()
        listener.wait_for(lambda listener: len(listener.calls) == 1)
        assert (listener.calls, listener.bodies) == (["POST /hook"], [b""])
        assert listener.headers[0]["X-Key"] == "1"
        assert "Content-Type" not in listener.headers[0]

    @pytest.mark.parametrize("mime", ["application/fhir+json", "application/fhir+xml"])
    def test_with_a_payload_the_resource_is_put_below_the_endpoint(
        self, world: World, listener: Listener, mime: str
    ) -> None:
        id = subscribe(world, "Task", endpoint=listener.url, payload=mime)
        world.start()
        eventually(lambda: world.status(id) == "active")
        task = world.task()
        world.change(task, status="accepted")
        listener.wait_for(lambda listener: len(listener.calls) == 2)
        assert listener.calls == [f"PUT /hook/{task}"] * 2
        assert {headers["Content-Type"] for headers in listener.headers} == {mime}
        read = fhir_xml.loads if "xml" in mime else fhir_json.loads
        sent = [read(body) for body in listener.bodies]
        assert [(task["meta"]["versionId"], task["status"]) for task in sent] == [
            ("1", "requested"),
            ("2", "accepted"),
        ]

    def test_what_is_not_taken_comes_again_and_in_order(self, world: World, listener: Listener) -> None:
        id = subscribe(world, "Task", endpoint=listener.url, payload="application/fhir+json")
        world.start()
        eventually(lambda: world.status(id) == "active")
        listener.answer = lambda handler: status(500 if len(listener.calls) < 2 else 200)(handler)
        tasks = [world.task(), world.task()]
        listener.wait_for(lambda listener: len(listener.calls) == 3)
        assert listener.calls == [f"PUT /hook/{task}" for task in (tasks[0], tasks[0], tasks[1])]

    def test_rights_are_looked_at_before_each_sending(self, world: World, listener: Listener) -> None:
        id = subscribe(world, "Task", endpoint=listener.url)
        world.start()
        eventually(lambda: world.status(id) == "active")
        del world.accesses[LAKESIDE.subject]
        world.task()
        eventually(lambda: world.status(id) == "error")
        assert listener.calls == []


class TestOperations:
    def test_status_and_events_answer_as_for_topics_but_name_none(self, world: World) -> None:
        id = subscribe(world, "Task", payload="application/fhir+json")
        task = world.task()
        world.pump()
        (entry,) = world.operate("status", LAKESIDE, id)["entry"]
        told = {one["name"]: one for one in entry["resource"]["parameter"]}
        assert told["events-since-subscription-start"]["valueString"] == "1"
        assert "topic" not in told
        bundle = world.operate("events", LAKESIDE, id)
        assert status_of(bundle)["type"] == "query-event"
        assert "topic" not in status_of(bundle)
        assert bundle["entry"][1]["resource"]["id"] == task.split("/")[1]
        with pytest.raises(NotFound):
            world.operate("events", HILLCREST, id)
