"""What the audit trail tells of Subscriptions."""

import pytest

from fhir_server.audit.resource import Observer, audit_events
from fhir_server.audit.trail import NotAudited, Trail
from tests.subscriptions.conftest import BASE, LAKESIDE, PRACTICE, World, a_subscription, a_task, eventually
from tests.subscriptions.hook_listener import Listener, status

OBSERVER = Observer(BASE, "127.0.0.1:8080")
PATIENT = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Osei"}]}


@pytest.fixture
def running(world: World) -> World:
    world.start()
    return world


def subscribed(world: World, listener: Listener, content: str = "id-only") -> str:
    id = world.subscribe(a_subscription(content=content, channel={"endpoint": listener.url}))
    eventually(lambda: world.status(id) == "active")
    return id


def told(world: World, listener: Listener) -> str:
    """One event about the referral of a patient is delivered; its version."""
    world.repository.update(PRACTICE, PATIENT)
    task = world.repository.create(PRACTICE, a_task() | {"for": {"reference": "Patient/p1"}}).version
    eventually(lambda: listener.events())
    return task.versioned_reference


def test_each_delivery_of_patient_data_is_a_disclosure(running: World, listener: Listener) -> None:
    id = subscribed(running, listener)
    version = told(running, listener)
    (event,) = running.trail("disclosed")
    assert event.actor.subject == LAKESIDE.subject
    assert [datum.reference for datum in event.data] == [version]
    (resource,) = audit_events(event, OBSERVER)
    assert resource["meta"]["profile"][0].endswith("/IHE.BasicAudit.PrivacyDisclosure.Source")
    assert (resource["type"]["code"], resource["subtype"][0]["code"]) == ("110106", "disclose")
    assert resource["purposeOfEvent"]
    assert {agent["type"]["coding"][0]["code"] for agent in resource["agent"]} == {"110152", "110153"}
    assert {entity.get("what", {}).get("reference") for entity in resource["entity"]} >= {"Patient/p1", version}
    assert f"Subscription/{id}" in str(resource["entity"])


def test_what_tells_of_nothing_is_none(running: World, listener: Listener) -> None:
    subscribed(running, listener, content="empty")
    told(running, listener)
    assert running.trail("disclosed") == []


def test_activation_failure_and_end_are_told_with_their_versions(running: World, listener: Listener) -> None:
    id = subscribed(running, listener)
    listener.answer = status(500)
    running.create(a_task())
    eventually(lambda: running.status(id) == "error")
    eventually(lambda: len({event.id for event in running.trail("update")}) == 2)
    active, failed = sorted({event.id: event for event in running.trail("update")}.values(), key=lambda one: one.at)
    assert active.description == "the Subscription is active"
    assert failed.description.startswith("the Subscription is error: the endpoint answered 500")
    assert all(event.data[0].reference.startswith(f"Subscription/{id}/_history/") for event in (active, failed))
    assert {event.actor.subject for event in (active, failed)} == {"system:subscriptions"}


def test_nothing_is_sent_that_cannot_be_audited(
    running: World, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribed(running, listener)
    tried = []

    def fail(_trail: Trail, *events: object) -> None:
        tried.append(events)
        raise NotAudited("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Trail, "record", fail)
        running.create(a_task())
        eventually(lambda: tried)
        assert listener.events() == []
    eventually(lambda: listener.events())
    assert len(running.trail("disclosed")) == 1
