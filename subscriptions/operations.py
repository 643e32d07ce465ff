"""The operations of Subscription: $status, $events and $get-ws-binding-token.
http://hl7.org/fhir/uv/subscriptions-backport/artifacts.html
"""

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime

from conformance import Topic
from fhir_server.access import Access
from fhir_server.errors import BadRequest, Forbidden, Gone, NotFound, Unprocessable
from fhir_server.operation import Operation, OperationRequest
from fhir_server.repository import Repository
from fhir_server.validation import check_id
from fhir_server.version import Version
from subscriptions import notification, profile
from subscriptions.binding import Bindings
from subscriptions.criteria import is_plain
from subscriptions.definition import WEBSOCKET, SubscriptionDefinition, parse
from subscriptions.notification import LEVELS, QUERY_EVENT, QUERY_STATUS, About, Notified
from subscriptions.reach import reach_of
from subscriptions.rights import Rights, owner_of
from subscriptions.store import SubscriptionStore

STATUSES = ("requested", "active", "error", "off")
MAX_SUBSCRIPTIONS = 100  # named or found in one call
MAX_EVENTS = 200  # in one answer of $events
NUMBER = re.compile(r"[0-9]{1,18}")


class SubscriptionOperations:
    """Answers the operations. live_url: the public address of the websocket endpoint."""

    def __init__(
        self,
        store: SubscriptionStore,
        repository: Repository,
        topics: Mapping[str, Topic],
        rights: Rights,
        bindings: Bindings,
        live_url: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._repository = repository
        self._topics = topics
        self._rights = rights
        self._bindings = bindings
        self._live_url = live_url
        self._clock = clock

    def declared(self) -> list[Operation]:
        """The operations as values for `fhir_server.routes`."""
        return [
            Operation("status", profile.STATUS_OPERATION, "Subscription", True, True, False, self.status),
            Operation("events", profile.EVENTS_OPERATION, "Subscription", True, False, False, self.events),
            Operation(
                "get-ws-binding-token", profile.TOKEN_OPERATION, "Subscription", True, True, False, self.binding_token
            ),
        ]

    def status(self, request: OperationRequest) -> dict:
        """$status: a status for each Subscription asked for, or for all of the caller's own; those that the caller
        cannot see are left out, unless it is the one of the address."""
        wanted = _codes(request, "status", STATUSES)
        entries = []
        for version in self._asked_for(request, skip_unknown=True):
            subscription = version.resource()
            if not wanted or subscription["status"] in wanted:
                about = self._about(version.id, subscription)
                parameters = notification.status_parameters(QUERY_STATUS, about, [], self._repository.base_url)
                full_url = f"urn:uuid:{parameters['id']}"
                entries.append({"fullUrl": full_url, "resource": parameters, "search": {"mode": "match"}})
        bundle: dict = {
            "resourceType": "Bundle",
            "id": str(uuid.uuid4()),
            "type": "searchset",
            "total": len(entries),
        }
        return bundle | ({"entry": entries} if entries else {})

    def events(self, request: OperationRequest) -> dict:
        """$events: the kept events of one's own Subscription, from eventsSinceNumber to eventsUntilNumber, both
        included, never more told than the Subscription tells. At most MAX_EVENTS; who finds the last number below
        events-since-subscription-start asks again from there."""
        version = self._repository.read(request.access, "Subscription", request.id or "")
        _require_owner(request.access, version)
        definition = self._definition(version)
        request.access.require("read", definition.topic.resource_type)
        first, last = _number(request, "eventsSinceNumber"), _number(request, "eventsUntilNumber")
        asked = _codes(request, "content", LEVELS)
        content = notification.lower(definition.content, asked[0] if asked else None)
        found = self._store.events(version.id, first or 0, last, limit=MAX_EVENTS)
        # What the caller may not see (any more) is told bare: its number, and nothing else.
        notified = self._rights.notified(found, request.access, withheld=2**63 - 1)
        return self._history(version, content, notification.fitting(notified, content))

    def binding_token(self, request: OperationRequest) -> dict:
        """$get-ws-binding-token: for the Subscriptions named, or all of the caller's own with channel websocket."""
        named = request.id is not None or _ids(request)
        versions = self._asked_for(request, skip_unknown=False)
        bound = []
        for version in versions:
            if named:
                _require_owner(request.access, version)
            if not _is_covered(request.access, version.resource(), self._topics, self._repository.base_url):
                if named:
                    raise Forbidden(f"Subscription/{version.id} tells more than this token may read")
                continue
            subscription = version.resource()
            channel, status = subscription["channel"].get("type"), subscription["status"]
            if channel == WEBSOCKET and status != "off":
                bound.append(version.id)
            elif named:
                text = f"Subscription/{version.id} has status {status} and channel {channel}, so nothing to bind to"
                raise Unprocessable(text, "Subscription.channel.type")
        if not bound:
            raise Unprocessable(
                "there is no Subscription of yours with channel websocket", "Subscription.channel.type"
            )
        token, until = self._bindings.bind(request.access.subject, bound)
        return {
            "resourceType": "Parameters",
            "parameter": [
                {"name": "token", "valueString": token},
                {"name": "expiration", "valueDateTime": notification.instant(until)},
                *({"name": "subscription", "valueString": id} for id in bound),
                {"name": "websocket-url", "valueUrl": self._live_url},
            ],
        }

    def _asked_for(self, request: OperationRequest, skip_unknown: bool) -> list[Version]:
        """The Subscription of the address, those named by `id`, or else the caller's own."""
        access = request.access
        access.require("read", "Subscription")
        if request.id is not None:
            return [self._repository.read(access, "Subscription", request.id)]
        if not (ids := _ids(request)):
            own = {"keys": f"@owner/{access.subject}"}
            return self._repository.store.page("Subscription", own, [("n", -1)], MAX_SUBSCRIPTIONS)
        found = []
        for id in ids:
            try:
                found.append(self._repository.read(access, "Subscription", id))
            except (NotFound, Gone):
                if not skip_unknown:
                    raise
        return found

    def _about(self, id: str, subscription: dict, content: str | None = None, kept: int | None = None) -> About:
        """The Subscription as its status tells of it. kept: the oldest event kept, where it is to be told."""
        state = self._store.state(id)
        errors = [subscription.get("error"), state.reason if state and state.failures else None]
        return About(
            id,
            None if is_plain(subscription["criteria"]) else subscription["criteria"],
            subscription["status"],
            content or _content(subscription),
            self._store.last_number(id),
            tuple(dict.fromkeys(error for error in errors if error)),
            kept,
        )

    def _history(self, version: Version, content: str, events: list[Notified]) -> dict:
        about = self._about(version.id, version.resource(), content, self._store.first_number(version.id))
        return notification.bundle(QUERY_EVENT, about, events, self._repository.base_url, self._clock())

    def _definition(self, version: Version) -> SubscriptionDefinition:
        return parse(version.resource(), self._topics, self._repository.base_url)


def _require_owner(access: Access, subscription: Version) -> None:
    if owner_of(subscription) != access.subject:
        raise Forbidden("only the owner of a Subscription may be told what it tells")


def _is_covered(access: Access, subscription: dict, topics: Mapping[str, Topic], base_url: str) -> bool:
    """Whether a token may be told what the Subscription tells: one that is narrowed, what it made itself."""
    if not access.is_narrowed:
        return True
    try:
        definition = parse(subscription, topics, base_url)
    except Unprocessable:
        return False
    return reach_of(access, definition.topic.resource_type) in (None, definition.reach)


def _content(subscription: dict) -> str:
    """The content level of a Subscription, even of one that can no longer be read as a whole."""
    for extension in subscription["channel"].get("_payload", {}).get("extension", []):
        if extension.get("url") == profile.PAYLOAD_CONTENT and extension.get("valueCode") in LEVELS:
            return extension["valueCode"]
    return LEVELS[0]


def _ids(request: OperationRequest) -> list[str]:
    """The ids named by `id`, or by `ids` as some clients write it, commas included."""
    named = [value for name in ("id", "ids") for value in request.all(name)]
    ids = [check_id(id) for value in named for id in (value.split(",") if isinstance(value, str) else [value])]
    if len(ids) > MAX_SUBSCRIPTIONS:
        raise BadRequest(f"at most {MAX_SUBSCRIPTIONS} Subscriptions can be named", "Parameters.parameter")
    return list(dict.fromkeys(ids))


def _codes(request: OperationRequest, name: str, allowed: tuple[str, ...]) -> list[str]:
    codes = request.all(name)
    for code in codes:
        if code not in allowed:
            raise BadRequest(f"{name} is one of {', '.join(allowed)}", f"Parameters.parameter.where(name='{name}')")
    return codes


def _number(request: OperationRequest, name: str) -> int | None:
    """An event number: digits as a string, or a whole number."""
    value = request.one(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str) or not NUMBER.fullmatch(str(value)):
        raise BadRequest(f"{name} is an event number", f"Parameters.parameter.where(name='{name}')")
    return int(value)
