"""The index of matching: who is concerned by a version is found by its search keys."""

from datetime import UTC, datetime

import pytest

from fhir_server.index import Indexer
from fhir_server.version import Version
from subscriptions import filters
from subscriptions.watching import Watcher, Watchers
from tests.subscriptions.conftest import BASE, TOPICS, a_task, topic

REFERRALS, ORDERS = TOPICS[topic("referral-status")], TOPICS[topic("referral-order")]
MANY = 10_000


def a_watcher(id: str, *texts: str, topic: object = REFERRALS) -> Watcher:
    clauses = tuple(clause for text in texts for clause in filters.parse(text, topic, BASE))
    return Watcher(id, 1, topic, clauses, "client:lakeside", True)


def a_version(resource: dict, number: int = 1) -> tuple[Version, list[str]]:
    type, at = resource["resourceType"], datetime(2026, 1, 1, tzinfo=UTC)
    return Version(type, "1", 1, number, number, at, "system:test", "create", b"{}"), Indexer(BASE).index(
        resource
    ).keys


def concerned(watchers: Watchers, resource: dict) -> list[str]:
    return [watcher.id for watcher in watchers.concerned(*a_version(resource))]


@pytest.mark.parametrize("texts, found", [
    ((), True),
    (("requester=Organization/lakeside",), True),
    (("requester=Organization/hillcrest",), False),
    (("requester=Organization/lakeside,Organization/hillcrest",), True),
    (("requester=Organization/lakeside", "status=requested"), True),
    (("requester=Organization/lakeside", "status=accepted"), False),
    (("status:not=accepted",), True),
    (("status:not=requested",), False),
    (("owner:missing=true",), True),
    (("owner:missing=false",), False),
])  # fmt: skip
def test_finds_whose_filters_are_met(texts: tuple[str, ...], found: bool) -> None:
    watchers = Watchers()
    watchers.add(a_watcher("a", *texts))
    assert concerned(watchers, a_task()) == (["a"] if found else [])


def test_each_is_found_once_in_the_order_of_ids_and_of_its_own_type() -> None:
    watchers = Watchers()
    watchers.add(a_watcher("c"))
    watchers.add(a_watcher("b", "status=requested,accepted"))
    watchers.add(a_watcher("a", "requester=Organization/lakeside,Organization/lakeside"))
    watchers.add(a_watcher("d", topic=ORDERS))
    assert concerned(watchers, a_task()) == ["a", "b", "c"]


def test_what_is_removed_or_replaced_is_not_found_and_leaves_nothing_behind() -> None:
    watchers = Watchers()
    watchers.add(a_watcher("a", "status=requested"))
    watchers.add(a_watcher("a", "status=accepted"))
    assert concerned(watchers, a_task()) == []
    assert concerned(watchers, a_task(status="accepted")) == ["a"]
    watchers.remove("a")
    watchers.remove("a")
    assert not watchers.any_of("Task")
    assert watchers._places == {}


def test_looks_at_those_concerned_alone_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that all share does not lead to all: each lies under the one that fewest share."""
    watchers = Watchers()
    for number in range(MANY):
        watchers.add(a_watcher(f"s{number}", "status=requested", f"requester=Organization/{number}"))
    looked_at = []
    monkeypatch.setattr(filters, "matches", lambda clauses, _keys, _at: looked_at.append(clauses) or True)
    assert concerned(watchers, a_task("77")) == ["s0", "s77"]  # the first one lay alone under the shared key
    assert len(looked_at) == 2
