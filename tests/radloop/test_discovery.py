"""What a client of a whole server finds out about Subscriptions before it makes one."""

import pytest

import conformance
from radloop.demo.stage import Caller
from subscriptions import profile
from subscriptions.capability import FHIR_TYPES
from tests.server import Server


@pytest.fixture(scope="module")
def ehr(server: Server) -> Caller:
    return Caller(server.settings.fhir_base, server.backend("demo-ehr"))


def test_an_office_finds_every_topic_that_the_capability_statement_names(ehr: Caller) -> None:
    statement = ehr.get("metadata")
    assert profile.SERVER_CAPABILITIES in statement["instantiates"]
    (subscription,) = [one for one in statement["rest"][0]["resource"] if one["type"] == "Subscription"]
    assert profile.SUBSCRIPTION_PROFILE in subscription["supportedProfile"]
    assert {one["name"]: one["definition"] for one in subscription["operation"]}.items() >= {
        "status": profile.STATUS_OPERATION,
        "events": profile.EVENTS_OPERATION,
        "get-ws-binding-token": profile.TOKEN_OPERATION,
    }.items()
    named = {one["valueCanonical"] for one in subscription["extension"] if one["url"] == profile.TOPIC_CANONICAL}
    bundle = ehr.get(f"Basic?code={FHIR_TYPES}%7CSubscriptionTopic&_count=100")
    found = {
        one["valueUri"]
        for entry in bundle["entry"]
        for one in entry["resource"]["extension"]
        if one["url"].endswith("SubscriptionTopic.url")
    }
    assert found == named == set(conformance.topics())
