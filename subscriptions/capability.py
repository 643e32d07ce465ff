"""How clients find out what can be subscribed to: in the CapabilityStatement, and as one R4 Basic for each topic.
http://hl7.org/fhir/uv/subscriptions-backport/components.html#subscription-topics-in-fhir-r4
"""

from collections.abc import Mapping

from conformance import Topic
from fhir_server.capability import Capability
from subscriptions import profile
from subscriptions.matching import watched

R5_TOPIC = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic"
R4B_TOPIC = "http://hl7.org/fhir/4.3/StructureDefinition/extension-SubscriptionTopic"
FHIR_TYPES = "http://hl7.org/fhir/fhir-types"
DATE = "2026-01-01"  # of the topics as they are defined now


def capability(topics: Mapping[str, Topic]) -> Capability:
    """What the CapabilityStatement says about Subscription."""
    extensions = [{"url": profile.TOPIC_CANONICAL, "valueCanonical": url} for url in sorted(topics)]
    subscription = {"supportedProfile": [profile.SUBSCRIPTION_PROFILE], "extension": extensions}
    return Capability({"Subscription": subscription}, (profile.SERVER_CAPABILITIES,))


def topic_resources(topics: Mapping[str, Topic]) -> list[dict]:
    """Each topic as a Basic, found by `Basic?code=http://hl7.org/fhir/fhir-types|SubscriptionTopic`."""
    return [_basic(topic) for topic in topics.values()]


def _basic(topic: Topic) -> dict:
    words = {
        "url": {"valueUri": topic.url},
        "version": {"valueString": profile.TOPIC_VERSION},
        "name": {"valueString": topic.name},
        "title": {"valueString": topic.title},
        "date": {"valueDateTime": DATE},
        "description": {"valueMarkdown": topic.description},
    }
    return {
        "resourceType": "Basic",
        "id": f"topic-{topic.name}",
        "extension": [
            *({"url": f"{R5_TOPIC}.{name}"} | value for name, value in words.items()),
            _trigger(topic),
            *(_filter(topic, code) for code in sorted(topic.filters)),
            _complex("notificationShape", ("resource", {"valueUri": topic.resource_type})),
        ],
        "modifierExtension": [{"url": f"{R5_TOPIC}.status", "valueCode": "active"}],
        "code": {"coding": [{"system": FHIR_TYPES, "code": "SubscriptionTopic"}]},
    }


def _trigger(topic: Topic) -> dict:
    interactions = [("supportedInteraction", {"valueCode": code}) for code in sorted(topic.interactions)]
    criteria = _criteria(topic)
    return _complex(
        "resourceTrigger",
        ("description", {"valueMarkdown": topic.description}),
        ("resource", {"valueUri": topic.resource_type}),
        *interactions,
        *([("fhirPathCriteria", {"valueString": criteria})] if criteria else []),
    )


def _criteria(topic: Topic) -> str:
    """What the trigger asks of the version before and this one, as FHIRPath; empty when it asks nothing."""
    parts = []
    if topic.statuses:
        statuses = " | ".join(f"'{status}'" for status in sorted(topic.statuses))
        parts.append(f"%current.status in ({statuses})")
    if elements := watched(topic):
        changed = " or ".join(f"(%previous.{name} ~ %current.{name}).not()" for name in elements)
        parts.append(f"(%previous.id.empty() or {changed})")
    return " and ".join(parts)


def _filter(topic: Topic, code: str) -> dict:
    modifiers = ", ".join(f"`:{modifier}`" for modifier in topic.filters[code])
    text = f"Filter by the search parameter `{code}`" + (f", also with {modifiers}." if modifiers else ".")
    return _complex(
        "canFilterBy",
        ("description", {"valueMarkdown": text}),
        ("resource", {"valueUri": topic.resource_type}),
        ("filterParameter", {"valueString": code}),
    )


def _complex(name: str, *parts: tuple[str, dict]) -> dict:
    return {"url": f"{R4B_TOPIC}.{name}", "extension": [{"url": part} | value for part, value in parts]}
