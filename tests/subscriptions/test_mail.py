"""Mail to offices: that there is news, and nothing of a patient."""

import dataclasses
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from fhir_server.version import Version
from subscriptions.definition import parse
from subscriptions.mail import Mailer, Message
from subscriptions.notification import Notified
from tests.subscriptions.conftest import BASE, ORIGIN, PRACTICE, TOPICS, World, a_subscription, eventually

PATIENT = {"reference": "Patient/p-1", "display": "Ernestine Quackenbush", "identifier": {"value": "MRN-4711"}}
PRIVATE = ("Ernestine", "Quackenbush", "MRN-4711", "p-1", "abdomen", "tumour", "1956-05-27")


def mailed(world: World, content: str, **task: object) -> Message:
    """The mail about a Task that is full of what is nobody's business."""
    channel = {"type": "email", "endpoint": "mailto:office@lakeside.example", "payload": "text/plain"}
    id = world.subscribe(a_subscription(content=content, channel=channel), PRACTICE)
    world.start()
    eventually(lambda: world.status(id) == "active")
    note = [{"text": "CT abdomen, tumour? born 1956-05-27"}]
    world.task(**({"for": PATIENT, "description": "CT abdomen of Ernestine", "note": note} | task))
    eventually(lambda: len(world.service.outbox.list()) == 1)
    return world.service.outbox.list()[0]


@pytest.mark.parametrize("content", ["empty", "id-only"])
def test_tells_nothing_of_the_patient(world: World, content: str) -> None:
    message = mailed(world, content)
    text = str(dataclasses.asdict(message))
    assert [word for word in PRIVATE if word.lower() in text.lower()] == []
    assert message.to == "office@lakeside.example"
    assert f"{ORIGIN}/referrals" in message.body


def test_names_the_referral_by_its_number_where_the_content_level_allows(world: World) -> None:
    message = mailed(world, "id-only", identifier=[{"system": "urn:placer", "value": "LK-12"}])
    assert message.subject == "There is news on referral LK-12"
    assert f"{ORIGIN}/referrals/" in message.body


def test_names_nothing_at_content_level_empty(world: World) -> None:
    message = mailed(world, "empty", identifier=[{"system": "urn:placer", "value": "LK-12"}])
    assert "LK-12" not in message.subject + message.body
    assert f"{ORIGIN}/referrals\n" in message.body


def test_is_put_out_once_however_often_it_is_sent(world: World) -> None:
    message = mailed(world, "empty")
    world.service.outbox.deliver(message)
    assert world.service.outbox.list() == [message]


@pytest.mark.parametrize("value, shown", [
    ("LK-12", True), ("4711", True), ("Quackenbush", False), ("Ernestine Quackenbush 1956", False),
    ("12\r\nBcc: x@y.example", False), ("1" * 41, False), ("", False), (None, False),
])  # fmt: skip
def test_shows_a_number_only_if_it_looks_like_one(value: str | None, shown: bool) -> None:
    sent: list[Message] = []
    sender = SimpleNamespace(deliver=sent.append)
    mailer = Mailer(sender, ORIGIN, lambda _task: value)
    task = Version("Task", "7", 1, 1, 1, datetime.now(UTC), "x", "create", b'{"resourceType":"Task","id":"7"}')
    channel = {"type": "email", "endpoint": "mailto:office@lakeside.example", "payload": "text/plain"}
    definition = parse(a_subscription(channel=channel), TOPICS, BASE)
    mailer.send("s", definition, Notified(3, task.last_updated, task), task.last_updated)
    assert sent[0].id == "s/3"
    assert (sent[0].subject == f"There is news on referral {value}") is shown
    assert "\n" not in sent[0].subject
