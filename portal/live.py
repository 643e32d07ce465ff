"""How an open page hears of news: Subscriptions of its user's own, and a token that binds its websocket to them.

They tell that something happened and nothing more; the page then fetches what it shows, with its user's access.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from conformance import CANONICAL
from fhir_server.access import Access
from fhir_server.repository import Repository
from referral.context import Practice
from subscriptions import profile
from subscriptions.definition import EMPTY, WEBSOCKET

TOPICS = tuple(f"{CANONICAL}/SubscriptionTopic/{name}" for name in ("referral-status", "appointment-status"))
REASON = "Keeps the pages of the portal up to date"
LASTS = timedelta(hours=12)  # as long as a log-in at most
RENEWED = timedelta(hours=1)  # before its end: longer than a binding token is good for


def keep_subscriptions(practice: Practice, access: Access) -> list[str]:
    """The ids of the caller's own Subscriptions for pages, made or renewed where that is due.

    Raises Forbidden when the caller may not subscribe.
    """
    return [_keep(practice.repository, access, topic, practice.clock()) for topic in TOPICS]


def _keep(repository: Repository, access: Access, topic: str, now: datetime) -> str:
    """Not found by an id of our making: somebody else could have taken it before."""
    own = replace(access, audience=frozenset({f"@owner/{access.subject}"}))
    query = [("criteria:exact", topic), ("type", WEBSOCKET), ("_count", "50")]
    found = [v for v in repository.search(own, "Subscription", query, strict=True).matches if _is_pages(v.resource())]
    if not found:
        return repository.create(access, _subscription(topic, now)).version.id

    def renewed(current: dict) -> dict | None:
        lasts = datetime.fromisoformat(current["end"]) - now > RENEWED
        if lasts and current["status"] in ("requested", "active"):
            return None
        return _subscription(topic, now) | {"id": current["id"]}

    return repository.amend(own, "Subscription", found[0].id, renewed).id


def _is_pages(subscription: dict) -> bool:
    return subscription.get("reason") == REASON and "end" in subscription


def _subscription(topic: str, now: datetime) -> dict:
    return {
        "resourceType": "Subscription",
        "meta": {"profile": [profile.SUBSCRIPTION_PROFILE]},
        "status": "requested",
        "reason": REASON,
        "end": (now + LASTS).isoformat(timespec="seconds"),
        "criteria": topic,
        "channel": {
            "type": WEBSOCKET,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": profile.PAYLOAD_CONTENT, "valueCode": EMPTY}]},
        },
    }
