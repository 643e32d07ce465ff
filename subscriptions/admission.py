"""What a Subscription must pass before it is stored, and which status it then has."""

from collections.abc import Callable, Mapping
from datetime import datetime

from conformance import Topic
from fhir_server.access import Access
from fhir_server.admission import Write
from fhir_server.errors import Issue, Unprocessable
from subscriptions.definition import FAX, REST_HOOK, SubscriptionDefinition, parse
from subscriptions.masking import restored
from subscriptions.outgoing import EndpointUnavailable, Outgoing, OutgoingRefused
from subscriptions.reach import kept, reach_of, with_reach
from subscriptions.rights import owner_of
from subscriptions.status import SERVER


class SubscriptionAdmission:
    """The admission of type Subscription: call it with a Write.

    Clients ask (`requested`, `off`); the server alone says `active` or `error`, after a handshake or a failure.
    """

    def __init__(self, topics: Mapping[str, Topic], outgoing: Outgoing, clock: Callable[[], datetime]) -> None:
        self._topics = topics
        self._outgoing = outgoing
        self._clock = clock

    def __call__(self, write: Write) -> dict | None:
        if write.after is None:
            return None
        subscription = dict(write.after)
        if write.access.subject != SERVER.subject:
            subscription = with_reach(restored(subscription, write.before), kept(write.before or {}))
            _ask(subscription, write.before)
        if subscription.get("status") in ("off", "error") and write.before is not None:
            return self._narrowed(subscription, write)  # switching off must be possible even where the topic is gone
        definition = parse(subscription, self._topics, write.repository.base_url)
        write.access.require("read", definition.topic.resource_type)
        if subscription.get("status") == "requested":
            self._check_reach(definition, write.access)
        return self._narrowed(subscription, write)

    def _narrowed(self, subscription: dict, write: Write) -> dict:
        """The Subscription with the reach of the token that its owner writes it through; else as it was."""
        if write.access.subject == SERVER.subject or not _is_owner(write):
            return subscription
        try:
            definition = parse(subscription, self._topics, write.repository.base_url)
        except Unprocessable:
            return subscription
        return with_reach(subscription, reach_of(write.access, definition.topic.resource_type))

    def _check_reach(self, definition: SubscriptionDefinition, access: Access) -> None:
        if definition.ended(self._clock()):
            raise Unprocessable("the end lies in the past", "Subscription.end")
        if definition.channel == FAX and not access.is_practice:
            text, path = "fax numbers are set up by the practice, which knows them", "Subscription.channel.endpoint"
            raise Unprocessable(text, path, [Issue("not-supported", text, path)])
        if definition.channel == REST_HOOK and definition.endpoint is not None:
            try:
                self._outgoing.check(definition.endpoint)
            except (OutgoingRefused, EndpointUnavailable) as error:
                raise Unprocessable(str(error), "Subscription.channel.endpoint") from None


def _is_owner(write: Write) -> bool:
    """Whether the writer is whose Subscription it is; of a new one, whoever makes it."""
    if write.before is None:
        return True
    newest = write.repository.store.newest("Subscription", write.before["id"])
    return newest is not None and owner_of(newest) == write.access.subject


def _ask(subscription: dict, before: dict | None) -> None:
    """Turn what a client wrote into what a client may ask for."""
    status, was = subscription.get("status"), (before or {}).get("status")
    if status in ("requested", "active"):
        subscription["status"] = "requested"
        subscription.pop("error", None)
    elif status == "off":
        subscription.pop("error", None)
    elif status == "error" and was == "error":  # another element is changed; the failure stays as it is told
        subscription |= {"error": before["error"]} if before and "error" in before else {}
    else:
        raise Unprocessable("a client sets the status to requested, active or off", "Subscription.status")
