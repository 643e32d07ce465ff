"""Topics are data: a file more is a topic more."""

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.canonical import CANONICAL
from conformance.topics import read_topics

URGENT = {
    "name": "urgent-orders",
    "title": "Urgent orders",
    "description": "An order was revoked or put on hold.",
    "resource": "ServiceRequest",
    "interactions": ["update"],
    "statuses": ["revoked", "on-hold"],
    "filters": ["requester", "status"],
}


def write(folder: Path, file: str = "urgent-orders.json", **changes: Any) -> Path:
    row = {name: value for name, value in (URGENT | changes).items() if value is not None}
    (folder / file).write_text(json.dumps(row))
    return folder


def test_a_file_is_a_topic(tmp_path: Path) -> None:
    (topic,) = read_topics(write(tmp_path)).values()
    assert topic.url == f"{CANONICAL}/SubscriptionTopic/urgent-orders"
    assert (topic.resource_type, topic.interactions, topic.watched) == ("ServiceRequest", {"update"}, ())
    assert topic.statuses == {"revoked", "on-hold"}
    assert dict(topic.filters) == {"requester": ("identifier", "missing"), "status": ("not", "missing")}


@pytest.mark.parametrize("changes", [
    {"title": None}, {"trigger": "always"}, {"name": "other"}, {"interactions": []}, {"interactions": ["delete"]},
    {"filters": ["no-such"]}, {"filters": ["authored"]}, {"resource": "Nothing"},
])  # fmt: skip
def test_a_faulty_file_is_found_at_the_start(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match=r"urgent-orders\.json"):
        read_topics(write(tmp_path, **changes))
