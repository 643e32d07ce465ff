"""The Bundles that subscribers get, and the status Parameters in them.
http://hl7.org/fhir/uv/subscriptions-backport/notifications.html
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

from fhir_server.version import Version
from subscriptions import profile
from subscriptions.definition import EMPTY, FULL_RESOURCE, ID_ONLY

HANDSHAKE, HEARTBEAT, EVENT = "handshake", "heartbeat", "event-notification"
QUERY_STATUS, QUERY_EVENT = "query-status", "query-event"

KEPT_FROM = "oldest-kept-event"
LEVELS = (EMPTY, ID_ONLY, FULL_RESOURCE)  # each tells more than the one before
MAX_CONTENT = 4 * 1024 * 1024  # bytes of resources in one notification; a single larger one goes alone
METHODS = {"create": ("POST", "201"), "update": ("PUT", "200"), "delete": ("DELETE", "204")}


@dataclass(frozen=True, slots=True)
class About:
    """What a status says of its Subscription. topic: None of one by plain R4 criteria. total: events generated so
    far, delivered or not. kept_from: the number of the oldest event kept; in the answer of `$events` only."""

    subscription: str
    topic: str | None
    status: str
    content: str
    total: int
    errors: tuple[str, ...] = ()
    kept_from: int | None = None


@dataclass(frozen=True, slots=True)
class Notified:
    """One event in a notification. source: the version it is about; None when it may not be told (any more)."""

    number: int
    at: datetime
    source: Version | None


def bundle(kind: str, about: About, events: Iterable[Notified], base_url: str, now: datetime) -> dict:
    """A notification of that kind, or the answer of `$events` (QUERY_EVENT)."""
    events = list(events)
    entries = [
        {
            "fullUrl": f"urn:uuid:{uuid.uuid4()}",
            "resource": status_parameters(kind, about, events, base_url),
            "request": {"method": "GET", "url": f"{base_url}/Subscription/{about.subscription}/$status"},
            "response": {"status": "200"},
        }
    ]
    if about.content != EMPTY:
        entries += [_entry(event.source, about.content, base_url) for event in events if event.source is not None]
    return {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "type": "history",
        "timestamp": instant(now),
        "entry": entries,
    }


def status_parameters(kind: str, about: About, events: Iterable[Notified], base_url: str) -> dict:
    """The status of a Subscription as R4 Parameters."""
    parameters: list[dict] = [
        {"name": "subscription", "valueReference": {"reference": f"{base_url}/Subscription/{about.subscription}"}}
    ]
    if about.content != EMPTY and about.topic is not None:
        parameters.append({"name": "topic", "valueCanonical": about.topic})
    parameters += [
        {"name": "status", "valueCode": about.status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(about.total)},
    ]
    if about.kept_from is not None:  # the profile's parameters are open to others
        parameters.append({"name": KEPT_FROM, "valueString": str(about.kept_from)})
    parameters += [_event(event, about.content, base_url) for event in events]
    parameters += [
        {
            "name": "error",
            "valueCodeableConcept": {
                "coding": [{"system": profile.ERROR_SYSTEM, "code": "no-response"}],
                "text": text,
            },
        }
        for text in about.errors
    ]
    return {
        "resourceType": "Parameters",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [profile.STATUS_PROFILE]},
        "parameter": parameters,
    }


def r4b_bundle(kind: str, about: About, events: Iterable[Notified], base_url: str, now: datetime) -> dict:
    """The same as R4B and later say it, headed by a SubscriptionStatus; for Subscriptions by plain criteria on a
    websocket, where R4 itself fixes a ping and nothing more. http://hl7.org/fhir/R4B/subscriptionstatus.html"""
    events = list(events)
    made = bundle(kind, about, events, base_url, now)
    status: dict = {
        "resourceType": "SubscriptionStatus",
        "id": str(uuid.uuid4()),
        "status": about.status,
        "type": kind,
        "eventsSinceSubscriptionStart": str(about.total),
        "subscription": {"reference": f"Subscription/{about.subscription}"},  # clients cut it at the first slash
    }
    told = [
        {"eventNumber": str(event.number), "timestamp": instant(event.at)}
        | ({"focus": {"reference": f"{base_url}/{event.source.reference}"}} if event.source is not None else {})
        for event in events
    ]
    if told:
        status["notificationEvent"] = told
    if about.errors:
        status["error"] = [{"text": text} for text in about.errors]
    made["entry"][0]["resource"] = status
    return made


def fitting(events: Sequence[Notified], content: str) -> list[Notified]:
    """The first events, as many as fit into one notification; at least one."""
    if content != FULL_RESOURCE:
        return list(events)
    sizes = accumulate(len(event.source.body or b"") if event.source else 0 for event in events)
    return [event for event, size in zip(events, sizes, strict=True) if size <= MAX_CONTENT] or list(events[:1])


def lower(content: str, asked: str | None) -> str:
    """The content level to answer with: as asked for, never above the Subscription's own."""
    return content if asked not in LEVELS else min(content, asked, key=LEVELS.index)


def instant(moment: datetime) -> str:
    """An instant in UTC with milliseconds, `2026-01-02T03:04:05.678Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(event: Notified, content: str, base_url: str) -> dict:
    part: list[dict] = [
        {"name": "event-number", "valueString": str(event.number)},
        {"name": "timestamp", "valueInstant": instant(event.at)},
    ]
    if content != EMPTY and event.source is not None:
        reference = f"{base_url}/{event.source.reference}"
        part.append({"name": "focus", "valueReference": {"reference": reference}})
    return {"name": "notification-event", "part": part}


def _entry(source: Version, content: str, base_url: str) -> dict:
    method, status = METHODS[source.op]
    url = source.resource_type if source.op == "create" else source.reference
    entry: dict = {
        "fullUrl": f"{base_url}/{source.reference}",
        "request": {"method": method, "url": url},
        "response": {
            "status": status,
            "etag": f'W/"{source.version}"',
            "lastModified": instant(source.last_updated),
        },
    }
    if content == FULL_RESOURCE and not source.deleted:
        entry["resource"] = source.resource()
    return entry
