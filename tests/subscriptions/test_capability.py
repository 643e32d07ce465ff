"""How clients find out what can be subscribed to.
http://hl7.org/fhir/uv/subscriptions-backport/components.html
"""

import pytest

from fhir_server.validation import check_structure
from subscriptions import profile
from subscriptions.capability import capability, topic_resources
from tests.subscriptions.conftest import TOPICS, World

SHORT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic."
LONG = "http://hl7.org/fhir/4.3/StructureDefinition/extension-SubscriptionTopic."


def test_the_capability_statement_names_profile_topics_and_guide() -> None:
    said = capability(TOPICS)
    subscription = said.resources["Subscription"]
    assert profile.SUBSCRIPTION_PROFILE in subscription["supportedProfile"]
    topics = [one["valueCanonical"] for one in subscription["extension"] if one["url"] == profile.TOPIC_CANONICAL]
    assert set(topics) == set(TOPICS)
    assert profile.SERVER_CAPABILITIES in said.instantiates


def test_the_operations_are_declared(world: World) -> None:
    declared = {one.name: (one.definition, one.instance, one.type_level) for one in world.service.operations}
    operations = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription"
    assert declared == {
        "status": (f"{operations}-status", True, True),
        "events": (f"{operations}-events", True, False),
        "get-ws-binding-token": (f"{operations}-get-ws-binding-token", True, True),
    }


@pytest.mark.parametrize("basic", topic_resources(TOPICS), ids=lambda basic: basic["id"])
def test_each_topic_is_a_basic(basic: dict) -> None:
    check_structure(basic)
    assert basic["code"]["coding"] == [{"system": "http://hl7.org/fhir/fhir-types", "code": "SubscriptionTopic"}]
    assert basic["modifierExtension"] == [{"url": f"{SHORT}status", "valueCode": "active"}]
    said = {one["url"]: one for one in basic["extension"]}
    topic = TOPICS[said[f"{SHORT}url"]["valueUri"]]
    for name in ("version", "name", "title", "date", "description"):
        assert f"{SHORT}{name}" in said
    trigger = said[f"{LONG}resourceTrigger"]["extension"]
    assert {"url": "resource", "valueUri": topic.resource_type} in trigger
    assert {one["valueCode"] for one in trigger if one["url"] == "supportedInteraction"} == topic.interactions
    filters = [one["extension"] for one in basic["extension"] if one["url"] == f"{LONG}canFilterBy"]
    codes = {part["valueString"] for one in filters for part in one if part["url"] == "filterParameter"}
    assert codes == set(topic.filters)
    assert said[f"{LONG}notificationShape"]["extension"] == [{"url": "resource", "valueUri": topic.resource_type}]


def test_the_trigger_is_said_as_fhirpath() -> None:
    criteria = {
        basic["id"]: part["valueString"]
        for basic in topic_resources(TOPICS)
        for one in basic["extension"]
        for part in one.get("extension", [])
        if part["url"] == "fhirPathCriteria"
    }
    assert criteria["topic-imaging-available"] == (
        "%current.status in ('available' | 'entered-in-error') and "
        "(%previous.id.empty() or (%previous.status ~ %current.status).not())"
    )
    assert "topic-referral-order" not in criteria
