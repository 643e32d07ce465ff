"""What one websocket is sent about one Subscription: its handshake, then events in order, heartbeats in between.

A Subscription to a topic is told by the guide's Bundles. One by plain criteria is told by Bundles that a
SubscriptionStatus heads as in R4B, which clients of such Subscriptions read; who bound with R4's own `bind` gets R4's
`bound` and `ping`.

Nothing is queued here. A feed reads its next events from the store when there is room for them, so a slow client
costs one bundle of memory, and one that comes back goes on where it stopped.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from conformance import Topic
from fhir_server import fhir_json
from fhir_server.audit.trail import NotAudited
from fhir_server.errors import Unprocessable
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions import notification
from subscriptions.account import Account
from subscriptions.definition import WEBSOCKET, SubscriptionDefinition, parse
from subscriptions.notification import EVENT, HANDSHAKE, HEARTBEAT, About, Notified, fitting
from subscriptions.rights import Rights, RightsLost, owner_of
from subscriptions.status import set_status
from subscriptions.store import Bound, State, SubscriptionStore

ALL = 2**63 - 1
PINGS = {HANDSHAKE: "bound", EVENT: "ping"}  # http://hl7.org/fhir/R4/subscription.html#2.46.7.2


@dataclass(frozen=True, slots=True)
class Sources:
    """Where feeds find what they send."""

    store: SubscriptionStore
    repository: Repository
    topics: Mapping[str, Topic]
    rights: Rights
    clock: Callable[[], datetime]
    account: Account


@dataclass(frozen=True, slots=True)
class Sending:
    """A notification to be sent. number: the last event in it, None where it has none. more: there may be more to
    be sent at once; else what comes after it wakes the listener."""

    text: str
    number: int | None = None
    more: bool = True


@dataclass(frozen=True, slots=True)
class _Case:
    """The Subscription as it is now. own: it belongs to whom the websocket belongs to."""

    version: Version
    definition: SubscriptionDefinition
    state: State
    own: bool


def owned(id: str, subject: str, sources: Sources, until: datetime) -> Bound | None:
    """What stands for a subject's own Subscription without a token; None when it is not theirs."""
    newest = sources.repository.store.newest("Subscription", id)
    if newest is None or newest.deleted or owner_of(newest) != subject:
        return None
    return Bound("", subject, {id: 0}, until)


class Feed:
    """One Subscription of one websocket. `ended` once there will be nothing more to send. Not thread safe.

    pings: it was bound by R4's own frames.
    """

    def __init__(self, id: str, bound: Bound, sources: Sources, pings: bool = False) -> None:
        self.id = id
        self._pings = pings
        self._replays = 0
        self.bound = bound
        self.ended = False
        self._sources = sources
        self._told: str | None = None  # the status that the client knows; None before the handshake
        self._own = False  # as of the last look
        self._sent = 0  # number of the last event
        self._heartbeat_s: int | None = None
        self._last_sending = time.monotonic()

    def next(self) -> Sending | None:
        """What is to be sent now; None when there is nothing, until something happens or a heartbeat is due."""
        case = self._case()
        self._heartbeat_s = _heartbeat_s(case, self._sources.clock()) if case is not None else None
        sending = self._next(case) if case is not None else None
        if sending is not None:
            self._last_sending = time.monotonic()
        return sending

    def heartbeat_in_s(self) -> float | None:
        """Seconds until a heartbeat is due; None when none is asked for."""
        if self._heartbeat_s is None or self.ended:
            return None
        return self._last_sending + self._heartbeat_s - time.monotonic()

    def received(self, number: int) -> None:
        """The client has the events up to this number."""
        if number > self._sent:  # sent before all was set back
            return
        if self._own:  # what a page has seen is nobody's delivery
            self._sources.store.advance(self.id, number, datetime.now(UTC), self._replays)

    def _case(self) -> _Case | None:
        """The Subscription, read anew each time: what its owner or an administrator changed counts at once."""
        repository = self._sources.repository
        version = repository.store.newest("Subscription", self.id)
        if version is None or version.deleted:
            self.ended = True
            return None
        try:
            definition = parse(version.resource(), self._sources.topics, repository.base_url)
        except Unprocessable:
            self.ended = True
            return None
        state = self._sources.store.state(self.id)
        if definition.channel != WEBSOCKET:
            self.ended = True
        if self.ended or state is None:  # without a state the stream has yet to tell of it, and will wake us then
            return None
        self._own = owner_of(version) == self.bound.subject
        return _Case(version, definition, state, self._own)

    def _next(self, case: _Case) -> Sending | None:
        status = case.definition.status
        if self._told is None:
            self._told, self.ended = status, status == "off"
            self._sent = case.state.delivered if case.own else self.bound.numbers[self.id]
            self._replays = case.state.replays
            return self._sending(HANDSHAKE, case, [])
        if case.own and case.state.replays != self._replays:
            self._sent, self._replays = case.state.delivered, case.state.replays
        news, self._told = status != self._told, status
        if news and status in ("error", "off"):
            self.ended = status == "off"
            return self._sending(HEARTBEAT, case, [])
        if status == "requested" or case.definition.ended(self._sources.clock()):
            return None
        events = self._events(case) if status == "active" else None
        if events is None and not self.ended and (left_s := self.heartbeat_in_s()) is not None and left_s <= 0:
            return self._sending(HEARTBEAT, case, [])
        return events

    def _events(self, case: _Case) -> Sending | None:
        """The next events; those of a Subscription that is not the reader's own, as far as they may see them."""
        rights, definition = self._sources.rights, case.definition
        while found := self._sources.store.events(self.id, self._sent + 1, limit=definition.max_count + 1):
            try:
                access = rights.required(self.bound.subject, definition.topic.resource_type, definition.reach)
                events = found[: definition.max_count]
                notified = rights.notified(events, access, case.state.withheld if case.own else ALL)
            except RightsLost as loss:
                self._lose(case, loss)
                return None
            notified = fitting(notified, definition.content)
            told = notified if case.own else [event for event in notified if event.source is not None]
            if told and not self._pings:
                try:
                    self._sources.account.sending(self.id, self.bound.subject, definition, told)
                except NotAudited:
                    return None  # with the next look
            self._sent = notified[-1].number
            if told:
                newest = found[-1].number if len(events) == len(found) else None
                return self._sending(EVENT, case, told, newest, len(notified) < len(found))
        return None

    def _lose(self, case: _Case, loss: RightsLost) -> None:
        if case.own:
            set_status(self._sources.repository, self.id, case.version.version, "error", str(loss))
        else:
            self.ended = True

    def _sending(
        self, kind: str, case: _Case, events: list[Notified], newest: int | None = None, more: bool = True
    ) -> Sending | None:
        """newest: number of the newest event, where that is known."""
        number = self._sent if kind == EVENT else None
        if self._pings:
            word = PINGS.get(kind)
            return Sending(f"{word} {self.id}", number, more) if word else None
        if newest is None:
            newest = self._sources.store.last_number(self.id)
        return Sending(fhir_json.dumps(self._bundle(kind, case, events, newest)).decode(), number, more)

    def _bundle(self, kind: str, case: _Case, events: list[Notified], total: int) -> dict:
        definition, repository = case.definition, self._sources.repository
        error = case.version.resource().get("error")
        about = About(
            self.id,
            None if definition.plain else definition.topic.url,
            definition.status,
            definition.content,
            total,
            (error,) if error else (),
        )
        made = notification.r4b_bundle if definition.plain else notification.bundle
        return made(kind, about, events, repository.base_url, self._sources.clock())


def _heartbeat_s(case: _Case, now: datetime) -> int | None:
    """The period of heartbeats, while there are any."""
    definition = case.definition
    beating = definition.status in ("active", "error") and not definition.ended(now)
    return definition.heartbeat_s if beating else None
