"""The index of matching: who is concerned by a version is found by its search keys."""

from datetime import UTC, datetime, timedelta

import pytest

from fhir_server.index import Indexer
from fhir_server.search.held import Facts
from fhir_server.version import Version
from subscriptions import criteria, filters
from subscriptions.watching import Watcher, Watchers
from tests.subscriptions.conftest import BASE, TOPICS, a_task, topic

REFERRALS, ORDERS = TOPICS[topic("referral-status")], TOPICS[topic("referral-order")]
MANY, SOME = 10_000, 2000


def a_watcher(id: str, *texts: str, topic: object = REFERRALS) -> Watcher:
    clauses = tuple(clause for text in texts for clause in filters.parse(text, topic, BASE))
    return Watcher(id, 1, topic, clauses, "client:lakeside", True)


def a_version(resource: dict, number: int = 1) -> tuple[Version, Facts]:
    type, at = resource["resourceType"], datetime(2026, 1, 1, tzinfo=UTC)
    entry = Indexer(BASE).index(resource)
    version = Version(type, "1", 1, number, number, at, "system:test", "create", b"{}")
    return version, Facts(frozenset(entry.keys), entry.ranges, at)


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
    assert watchers._types == {}


def test_looks_at_those_concerned_alone_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that all share does not lead to all: each lies under the one that fewest share."""
    watchers = Watchers()
    for number in range(MANY):
        watchers.add(a_watcher(f"s{number}", "status=requested", f"requester=Organization/{number}"))
    looked_at = []
    monkeypatch.setattr(filters, "matches", lambda clauses, _facts: looked_at.append(clauses) or True)
    assert concerned(watchers, a_task("77")) == ["s0", "s77"]  # the first one lay alone under the shared key
    assert len(looked_at) == 2


def criteria_watcher(id: str, text: str) -> Watcher:
    topic, clauses = criteria.parse(text, BASE)
    return Watcher(id, 1, topic, tuple(clauses), "client:lakeside", True)


def an_observation(**value: object) -> dict:
    return {"resourceType": "Observation", "status": "final", "code": {"coding": [{"code": "a"}]}} | value


@pytest.mark.parametrize("text, resource, most", [
    ("Observation?date={day}", an_observation(effectiveDateTime="2003-05-06T07:08:09Z"), 3),
    ("Observation?date=eq{day}&status=final", an_observation(effectiveDateTime="2003-05-06"), 20),
    ("Observation?date=ge{day}", an_observation(effectiveDateTime="2000-01-02T00:00:00Z"), 3),
    ("Observation?date=lt{day}", an_observation(effectiveDateTime="2005-06-21"), 3),
    ("Observation?value-quantity={n}", an_observation(valueQuantity={"value": 77, "unit": "mm"}), 3),
    ("Observation?value-quantity=gt{n}", an_observation(valueQuantity={"value": 2}), 3),
    ("Observation?value-quantity=le{n}", an_observation(valueQuantity={"value": SOME - 2}), 3),
    ("Observation?value-quantity={n}|http://unitsofmeasure.org|mm",
        an_observation(valueQuantity={"value": 77, "system": "http://unitsofmeasure.org", "code": "mm"}), 3),
    ("Observation?value-string=name {n}.", an_observation(valueString="Name 77. and more"), 3),
    ("Observation?value-string:exact=Name {n}", an_observation(valueString="Name 77"), 1),
    ("Observation?code-value-quantity=c{n}$gt5",
        an_observation(code={"coding": [{"code": "c77"}]}, valueQuantity={"value": 6}), 1),
])  # fmt: skip
def test_dates_numbers_and_texts_lead_to_those_concerned_too(
    monkeypatch: pytest.MonkeyPatch, text: str, resource: dict, most: int
) -> None:
    watchers, first = Watchers(), datetime(2000, 1, 1, tzinfo=UTC)
    for number in range(SOME):
        day = (first + timedelta(days=number)).date().isoformat()
        watchers.add(criteria_watcher(f"s{number}", text.format(n=number, day=day)))
    version, facts = a_version(resource)
    real, looked_at = filters.matches, []
    monkeypatch.setattr(filters, "matches", lambda *given: looked_at.append(given) or real(*given))
    found = watchers.concerned(version, facts)
    assert 1 <= len(found) <= len(looked_at) <= most
    assert {watcher.id for watcher in found} == {
        watcher.id for watcher in watchers._by_id.values() if real(watcher.clauses, facts)
    }
