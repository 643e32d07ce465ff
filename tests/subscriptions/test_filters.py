"""Filters as clauses over the search keys of a version. https://hl7.org/fhir/R4/search.html"""

from datetime import UTC, datetime

import pytest

import conformance
from fhir_server.index import Indexer
from fhir_server.search.held import Facts
from subscriptions.filters import WRITTEN, matches, parse
from tests.subscriptions.conftest import BASE, TOPICS, topic

AT = datetime(2026, 3, 1, 8, tzinfo=UTC)
TASK = {
    "resourceType": "Task", "id": "1", "status": "accepted", "intent": "order",
    "businessStatus": {"coding": [{"system": "http://s", "code": "received"}]},
    "requester": {"reference": "PractitionerRole/r1", "identifier": {"system": "http://npi", "value": "77"}},
    "identifier": [{"value": "A,1"}, {"system": "urn:long", "value": "long" * 200}],
}  # fmt: skip


@pytest.mark.parametrize("text, matched", [
    ("status=accepted", True),
    ("Task.status=accepted", True),
    ("Task?status=accepted", True),
    ("status=rejected", False),
    ("status=rejected,accepted", True),
    ("status=rejected&status=accepted", False),
    ("status=accepted&business-status=received", True),
    ("business-status=http://s|received", True),
    ("business-status=http%3A%2F%2Fs%7Creceived", True),
    ("business-status=http://s|", True),
    ("business-status=http://other|received", False),
    ("status:not=accepted", False),
    ("status:not=rejected", True),
    ("status:not=rejected,accepted", False),
    ("code:not=anything", True),
    ("owner:missing=true", True),
    ("owner:missing=false", False),
    ("requester:missing=false", True),
    ("requester=PractitionerRole/r1", True),
    (f"requester={BASE}/PractitionerRole/r1", True),
    ("requester=r1", True),
    ("requester:PractitionerRole=r1", True),
    ("requester:PractitionerRole=PractitionerRole/r1", True),
    ("requester:Organization=r1", False),
    ("requester=Organization/r1", False),
    ("requester:identifier=http://npi|77", True),
    ("requester:identifier=http://npi|78", False),
    (r"identifier=A\,1", True),
    ("identifier=A,1", False),
    ("identifier=" + "long" * 200, True),
    ("identifier=" + "long" * 200 + "er", False),
])  # fmt: skip
def test_a_filter_holds_or_does_not(text: str, matched: bool) -> None:
    facts = Facts(frozenset(Indexer(BASE).index(TASK).keys))
    assert matches(parse(text, TOPICS[topic("referral-status")], BASE), facts) is matched


@pytest.mark.parametrize("value, matched", [
    ("2026-03-01", True), ("2026-03-01T08:00:00Z", True), ("2026-03-02", False), ("ne2026-03-01", False),
    ("ne2025", True), ("gt2026-02", True), ("gt2026-03-01", False), ("ge2026-03-01", True), ("ge2026-03-02", False),
    ("lt2026-03-01", False), ("lt2026-03-02", True), ("le2026-03-01", True), ("le2026-02", False),
    ("sa2026-02", True), ("eb2026-03-02", True), ("eb2026", False), ("lt2020,gt2025", True), ("lt2020,gt2027", False),
])  # fmt: skip
def test_a_version_is_written_at_its_time(value: str, matched: bool) -> None:
    facts = Facts((), (), AT)
    assert matches(parse(f"_lastUpdated={value}", TOPICS[topic("referral-status")], BASE), facts) is matched


def test_every_filter_that_a_topic_offers_can_be_filtered_by() -> None:
    for one in TOPICS.values():
        parameters = conformance.search_parameters(one.resource_type)
        for code in one.filters:
            if code == WRITTEN:
                continue  # of the version, below
            value = f"{parameters[code].targets[0]}/1" if parameters[code].type == "reference" else "x"
            (clause,) = parse(f"{code}={value}", one, BASE)
            assert matches([clause], Facts({f"{code}={value}"})), (one.name, code)


@pytest.mark.parametrize("name", sorted(one.name for one in TOPICS.values()))
def test_the_topic_of_a_filter_is_described(name: str) -> None:
    one = TOPICS[topic(name)]
    assert one.title
    assert one.description
    assert one.interactions <= {"create", "update"}
