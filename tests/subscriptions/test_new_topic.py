"""A topic that is nothing but a file is subscribed to, filtered, delivered and described like the others."""

import json
from pathlib import Path

from pymongo.database import Database

import conformance
from conformance import read_topics
from subscriptions.capability import topic_resources
from tests.subscriptions.conftest import LAKESIDE, World, a_subscription, eventually, make_world
from tests.subscriptions.hook_listener import Listener, events_of, status_of

STOPPED = {
    "name": "orders-stopped",
    "title": "Orders stopped",
    "description": "An order was revoked or put on hold.",
    "resource": "ServiceRequest",
    "interactions": ["update"],
    "statuses": ["revoked", "on-hold"],
    "filters": ["priority"],
}
ORDER = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/p-1"},
    "requester": {"reference": "Organization/lakeside"},
}


def test_needs_no_code(database: Database, tmp_path: Path, listener: Listener) -> None:
    (tmp_path / "orders-stopped.json").write_text(json.dumps(STOPPED))
    topics = read_topics(tmp_path)
    world: World = make_world(database, {LAKESIDE.subject: LAKESIDE}, topics=topics)
    world.start()
    try:
        channel = {"endpoint": listener.url}
        id = world.subscribe(a_subscription("orders-stopped", "ServiceRequest?priority=stat", channel=channel))
        eventually(lambda: world.status(id) == "active")
        stat, routine = (f"ServiceRequest/{world.create(ORDER | {'priority': one})}" for one in ("stat", "routine"))
        for order in (stat, routine):
            world.change(order, note=[{"text": "no event"}])
            world.change(order, status="on-hold")
        world.change(stat, status="revoked")
        listener.wait_for(lambda listener: len(listener.events()) == 2)
    finally:
        world.stop()
    assert [focus.rpartition("/fhir/")[2] for _, focus in listener.events()] == [stat, stat]
    assert status_of(listener.bundles()[0])["topic"] == f"{conformance.CANONICAL}/SubscriptionTopic/orders-stopped"
    assert events_of(listener.bundles()[0]) == []  # the handshake
    assert [one["id"] for one in topic_resources(topics)] == ["topic-orders-stopped"]
