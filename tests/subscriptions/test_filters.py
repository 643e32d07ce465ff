"""Filters as clauses over the search keys of a version. https://hl7.org/fhir/R4/search.html"""

import pytest

import conformance
from fhir_server.index import Indexer
from subscriptions.filters import matches, parse
from tests.subscriptions.conftest import BASE, TOPICS, topic

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
    keys = Indexer(BASE).index(TASK).keys
    assert matches(parse(text, TOPICS[topic("referral-status")], BASE), keys) is matched


def test_every_filter_that_a_topic_offers_can_be_filtered_by() -> None:
    for one in TOPICS.values():
        parameters = conformance.search_parameters(one.resource_type)
        for code in one.filters:
            value = f"{parameters[code].targets[0]}/1" if parameters[code].type == "reference" else "x"
            (clause,) = parse(f"{code}={value}", one, BASE)
            assert matches([clause], {f"{code}={value}"}), (one.name, code)


@pytest.mark.parametrize("name", sorted(one.name for one in TOPICS.values()))
def test_the_topic_of_a_filter_is_described(name: str) -> None:
    one = TOPICS[topic(name)]
    assert one.title
    assert one.description
    assert one.interactions <= {"create", "update"}
