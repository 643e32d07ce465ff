"""Subscriptions by criteria, as R4 itself has them. http://hl7.org/fhir/R4/subscription.html"""

from typing import Any
from urllib.parse import parse_qsl

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
    PRACTICE,
    TOPICS,
    World,
    a_plain_subscription,
    an_office,
    eventually,
)
from tests.subscriptions.hook_listener import Listener, status, status_of

CRITERIA, CHANNEL = "Subscription.criteria", "Subscription.channel"

OF_ALL_KINDS: list[dict] = [
    {"resourceType": "Observation", "status": "final", "effectiveDateTime": "2026-03-01T08:00:00Z",
     "code": {"coding": [{"system": "http://loinc.org", "code": "1-8"}]},
     "valueQuantity": {"value": 5.4, "unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"}},
    {"resourceType": "RiskAssessment", "status": "final", "subject": {"display": "x"},
     "prediction": [{"probabilityDecimal": 0.7}]},
    {"resourceType": "Patient", "name": [{"family": "Meyer"}], "birthDate": "1984-05-06"},
    {"resourceType": "ValueSet", "status": "draft", "url": "http://a.example/sets/colours"},
]  # fmt: skip


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
        ("Task?_id=nobody", False),
        ("Task?status=http://hl7.org/fhir/task-status|requested", True),
        ("Task?authored-on=ge2026-03-01", True),
        ("Task?authored-on=2026-03", True),
        ("Task?authored-on=lt2026-03-01", False),
        ("Task?authored-on=ap2026-03-01", True),
        ("Task?authored-on=ap1999-03-01", False),
        ("Task?_lastUpdated=ap2000", False),
        ("Task?period=sa2026-04", True),
        ("Task?period=eb2026-04", False),
        ("Task?modified:missing=true", True),
        ("Task?authored-on:missing=true", False),
        ("Task?code:text=call", True),
        ("Task?code:text=write", False),
        ("Task?_content=hip", True),
        ("Task?_content=knee", False),
        ("Task?authored-on=ge2026-03-01&status=accepted", False),
    ])  # fmt: skip
    def test_a_new_resource_is_an_event_when_the_search_would_find_it(
        self, world: World, criteria: str, found: bool
    ) -> None:
        subscription = subscribe(world, criteria)
        identifier = [{"system": "http://a", "value": "1"}]
        task = world.task(
            identifier=identifier,
            meta={"tag": [{"system": "urn:t", "code": "a"}]},
            authoredOn="2026-03-01T10:00:00+01:00",
            executionPeriod={"start": "2026-05-01", "end": "2026-05-03"},
            code={"text": "Call the patient"},
            description="about the hip",
        )
        world.pump()
        assert world.events(subscription) == ([(1, f"{task}/_history/1")] if found else [])

    @pytest.mark.parametrize("criteria, found", [
        ("Observation?value-quantity=5.4|http://unitsofmeasure.org|mmol/L", True),
        ("Observation?value-quantity=5400|http://unitsofmeasure.org|umol/L", True),
        ("Observation?value-quantity=gt5.4|http://unitsofmeasure.org|mmol/L", False),
        ("Observation?value-quantity=ge5,lt1", True),
        ("Observation?value-quantity=5.4||mmol", False),
        ("Observation?code-value-quantity=http://loinc.org|1-8$gt5", True),
        ("Observation?code-value-quantity=http://loinc.org|1-8$gt6", False),
        ("Observation?date=2026-03-01&code=http://loinc.org|1-8", True),
        ("RiskAssessment?probability=gt0.5", True),
        ("RiskAssessment?probability=gt0.8", False),
        ("Patient?family=mey", True),
        ("Patient?family:exact=mey", False),
        ("Patient?family:contains=EYE", True),
        ("Patient?birthdate=lt1990", True),
        ("Patient?birthdate=ge1990", False),
        ("ValueSet?url:below=http://a.example/sets", True),
        ("ValueSet?url:above=http://a.example/sets/colours/blue", True),
    ])  # fmt: skip
    def test_numbers_quantities_texts_and_modifiers_mean_what_they_mean_in_a_search(
        self, world: World, criteria: str, found: bool
    ) -> None:
        subscription = world.subscribe(a_plain_subscription(criteria), PRACTICE)
        for resource in OF_ALL_KINDS:
            world.create(resource)
        world.pump()
        assert len(world.events(subscription)) == found
        type, _, query = criteria.partition("?")
        result = world.repository.search(PRACTICE, type, parse_qsl(query), strict=True)
        assert len(result.matches) == found

    def test_a_version_that_was_superseded_is_held_against_what_it_was(self, world: World) -> None:
        subscription = subscribe(world, "Task?authored-on=2026")
        task = world.task(authoredOn="2026-03-01")
        world.change(task, authoredOn="2025-03-01")
        world.pump()
        assert world.events(subscription) == [(1, f"{task}/_history/1")]

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
        "Task?description=x", "Task?authored-on=gt26", "Task?subject.name=x", "Task?patient:Patient.name=x",
        "Task?_has:Provenance:target:agent=x", "Task?_lastUpdated=soon", "Task?_include=Task:owner", "Task?_sort=_id",
        "Task?status", "Task?status=", "Task?status:above=x", "Task?requester:Patient=Organization/1",
        "Task?code:in=http://a", "Task?_list=1", "Task?_filter=status eq draft", "Task?_text:missing=true",
        "Location?near=47|8", "Observation?value-quantity=many", "Observation?code-value-quantity=a",
        "Task?authored-on=" + ",".join(["2026"] * 101),
        "Nothing?status=x", "Subscription?status=active", "Binary", "Task?" + "x" * 2000,
    ])  # fmt: skip
    def test_what_a_resource_alone_does_not_tell_is_refused(self, criteria: str) -> None:
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
