"""What a Subscription may say, and what is refused with which element named.
http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription
"""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.errors import Unprocessable
from subscriptions import profile
from subscriptions.definition import MAX_COUNT, TIMEOUT_S, parse
from tests.subscriptions.conftest import BASE, TOPICS, a_subscription, a_websocket_subscription

R5 = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Subscription"


def number(url: str, **value: Any) -> dict:
    return {"url": url, **value}


def with_channel(**channel: Any) -> dict:
    return a_subscription(channel=channel)


def with_content(*codes: Any) -> dict:
    extension = [{"url": profile.PAYLOAD_CONTENT, "valueCode": code} for code in codes]
    return with_channel(_payload={"extension": extension})


def without(*names: str) -> dict:
    subscription = a_subscription()
    for name in names:
        del subscription["channel"][name]
    return subscription


def email(**channel: Any) -> dict:
    usual = {"type": "email", "endpoint": "mailto:office@lakeside.example", "payload": "text/plain"}
    return with_channel(**(usual | channel))


def custom_channel() -> dict:
    coding = {"system": "http://example.org", "code": "zulip"}
    return with_channel(_type={"extension": [{"url": profile.CHANNEL_TYPE, "valueCoding": coding}]})


CRITERIA = "Subscription.criteria"
FIRST_FILTER = "Subscription.criteria.extension[0].value"
CHANNEL = "Subscription.channel"
CONTENT = "Subscription.channel.payload.extension[0].value"
NUMBER = "Subscription.channel.extension[0].value"

FAULTS = [
    # the topic and its filters
    (a_subscription(criteria="http://example.org/SubscriptionTopic/other"), CRITERIA, "value"),
    (a_subscription(criteria="Task?status=accepted"), CRITERIA, "value"),  # the query criteria of plain R4
    (a_subscription("referral-status", "description=x"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "authored-on=gt2026"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "_lastUpdated=soon"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "_lastUpdated:missing=true"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "Patient?status=x"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "Patient.status=x"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "status:above=x"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "status"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "status="), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "=accepted"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "status=a,,b"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "owner:missing=perhaps"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "requester:Patient=Organization/1"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "status=" + "x" * 2000), FIRST_FILTER, "value"),
    (a_subscription("referral-status", "status=" + "a," * 100 + "b"), FIRST_FILTER, "value"),
    (a_subscription("referral-status", *["status=x"] * 21), CRITERIA, "too-costly"),
    (
        a_subscription(_criteria={"extension": [{"url": profile.FILTER_CRITERIA, "valueCode": "status"}]}),
        FIRST_FILTER,
        "required",
    ),
    # the channel
    (with_channel(type="message"), f"{CHANNEL}.type", "not-supported"),
    (with_channel(type="sms"), f"{CHANNEL}.type", "not-supported"),
    (custom_channel(), f"{CHANNEL}.type.extension[0].value", "not-supported"),
    (without("endpoint"), f"{CHANNEL}.endpoint", "required"),
    (with_channel(endpoint="ftp://ehr.example.org/"), f"{CHANNEL}.endpoint", "value"),
    (with_channel(endpoint="https://user:secret@ehr.example.org/"), f"{CHANNEL}.endpoint", "value"),
    (with_channel(endpoint="not a url"), f"{CHANNEL}.endpoint", "value"),
    (email(endpoint="mailto:a@b"), f"{CHANNEL}.endpoint", "value"),
    (email(endpoint="mailto:a@b.example?subject=x"), f"{CHANNEL}.endpoint", "value"),
    (email(endpoint="mailto:a@b.example,c@d.example"), f"{CHANNEL}.endpoint", "value"),
    (email(endpoint="mailto:a@b.example\r\nBcc: x@y.example"), f"{CHANNEL}.endpoint", "value"),
    (with_channel(payload="application/fhir+xml"), f"{CHANNEL}.payload", "not-supported"),
    (with_channel(payload="application/json"), f"{CHANNEL}.payload", "not-supported"),
    (with_channel(payload="application/fhir+json; fhirVersion=5.0"), f"{CHANNEL}.payload", "not-supported"),
    (email(payload="text/csv"), f"{CHANNEL}.payload", "not-supported"),
    (email(payload="text/plain;attach=application/pdf"), f"{CHANNEL}.payload", "not-supported"),
    (with_content(), "Subscription.channel.payload.extension", "required"),
    (without("_payload"), "Subscription.channel.payload.extension", "required"),
    (with_content("id-only", "empty"), "Subscription.channel.payload.extension", "invariant"),
    (with_content("everything"), CONTENT, "value"),
    (with_content(None), CONTENT, "value"),
    (email(_payload=with_content("full-resource")["channel"]["_payload"]), CONTENT, "not-supported"),
    (with_channel(header=["no colon"]), f"{CHANNEL}.header[0]", "value"),
    (with_channel(header=["X-A: b", "Host: evil.example"]), f"{CHANNEL}.header[1]", "value"),
    (with_channel(header=["X-A: b\r\nX-B: c"]), f"{CHANNEL}.header[0]", "value"),
    (with_channel(header=["X-A: b"] * 21), f"{CHANNEL}.header", "too-long"),
    # numbers
    (a_subscription(extensions=(number(profile.TIMEOUT, valueUnsignedInt=0),)), NUMBER, "value"),
    (a_subscription(extensions=(number(profile.TIMEOUT, valueUnsignedInt=100_000),)), NUMBER, "value"),
    (a_subscription(extensions=(number(profile.TIMEOUT, valueString="60"),)), NUMBER, "value"),
    (a_subscription(extensions=(number(profile.MAX_COUNT, valuePositiveInt=True),)), NUMBER, "value"),
    (a_subscription(extensions=(number(profile.MAX_COUNT, valuePositiveInt=0),)), NUMBER, "value"),
    (a_subscription(extensions=(number(profile.HEARTBEAT_PERIOD, valueUnsignedInt=-1),)), NUMBER, "value"),
    (a_subscription(extensions=(number(profile.TIMEOUT, valueUnsignedInt=5),) * 2), NUMBER, "invariant"),
    (a_subscription(end="2030-01-01"), "Subscription.end", "value"),
    (a_subscription(end="soon"), "Subscription.end", "value"),
    (a_subscription(end=2030), "Subscription.end", "value"),
    # R5 in R4's clothes, and what changes the meaning
    (a_subscription(extension=[{"url": f"{R5}.topic"}]), "Subscription.extension[0]", "not-supported"),
    (a_subscription(extensions=({"url": f"{R5}.content"},)), f"{CHANNEL}.extension[0]", "not-supported"),
    (
        a_subscription(modifierExtension=[{"url": "http://example.org/not"}]),
        "Subscription.modifierExtension[0]",
        "not-supported",
    ),
]


@pytest.mark.parametrize("subscription, element, code", FAULTS)
def test_a_fault_is_refused_and_its_element_named(subscription: dict, element: str, code: str) -> None:
    with pytest.raises(Unprocessable) as refusal:
        parse(subscription, TOPICS, BASE)
    assert (element, code) in [(issue.expression, issue.code) for issue in refusal.value.issues]


def test_every_fault_is_told_at_once() -> None:
    subscription = a_subscription("referral-status", "description=x", channel={"type": "sms", "payload": "text/csv"})
    with pytest.raises(Unprocessable) as refusal:
        parse(subscription, TOPICS, BASE)
    assert {issue.expression for issue in refusal.value.issues} == {
        FIRST_FILTER,
        f"{CHANNEL}.type",
        f"{CHANNEL}.payload",
    }


def test_the_example_of_the_guide_is_read() -> None:
    subscription = a_subscription(
        "referral-status",
        "Task?requester=Organization/lakeside",
        content="full-resource",
        channel={"header": ["Authorization: Bearer abc"], "payload": "application/fhir+json;fhirVersion=4.0"},
        extensions=(
            number(profile.HEARTBEAT_PERIOD, valueUnsignedInt=86400),
            number(profile.TIMEOUT, valueUnsignedInt=60),
            number(profile.MAX_COUNT, valuePositiveInt=5),
        ),
        end="2030-01-01T00:00:00Z",
        extension=[{"url": f"{R5}.identifier", "valueIdentifier": {"value": "1"}}],
    )
    untouched = copy.deepcopy(subscription)
    definition = parse(subscription, TOPICS, BASE)
    assert subscription == untouched
    assert definition.topic.resource_type == "Task"
    assert definition.channel == "rest-hook"
    assert definition.content == "full-resource"
    assert definition.headers == (("Authorization", "Bearer abc"),)
    assert (definition.heartbeat_s, definition.timeout_s, definition.max_count) == (86400, 60, 5)
    assert definition.ended(datetime(2030, 1, 1, tzinfo=UTC))
    assert not definition.ended(datetime(2029, 12, 31, tzinfo=UTC))
    assert [clause.filter for clause in definition.clauses] == [{"keys": "requester=Organization/lakeside"}]


def test_a_websocket_needs_no_endpoint_and_numbers_have_defaults() -> None:
    definition = parse(a_websocket_subscription(), TOPICS, BASE)
    assert (definition.channel, definition.endpoint) == ("websocket", None)
    assert (definition.heartbeat_s, definition.timeout_s, definition.max_count) == (None, TIMEOUT_S, MAX_COUNT)


def test_more_events_at_once_than_we_send_are_cut_to_what_we_send() -> None:
    subscription = a_subscription(extensions=(number(profile.MAX_COUNT, valuePositiveInt=1000),))
    assert parse(subscription, TOPICS, BASE).max_count == MAX_COUNT
