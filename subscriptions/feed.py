"""What one websocket is sent about one Subscription: its handshake, then events in order, heartbeats in between.

A Subscription to a topic is told by the guide's Bundles. One by plain criteria is told by Bundles that a
SubscriptionStatus heads as in R4B, which clients of such Subscriptions read; who bound with R4's own `bind` gets R4's
`bound` and `ping`.

Nothing is queued here. A feed reads its next events from the store when there is room for them, so a slow client
costs one bundle of memory, and one that comes back goes on where it stopped.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fhir_server import fhir_json
from fhir_server.audit.trail import NotAudited
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions import notification
from subscriptions.account import Account
from subscriptions.definition import WEBSOCKET, SubscriptionDefinition
from subscriptions.notification import EVENT, HANDSHAKE, HEARTBEAT, About, Notified
from subscriptions.reading import Case, Reading, Telling, Unreadable, Want
from subscriptions.rights import RightsLost, owner_of
from subscriptions.status import set_status
from subscriptions.store import Arrived, Bound, State, SubscriptionStore
from subscriptions.together import Together

ALL = 2**63 - 1
PINGS = {HANDSHAKE: "bound", EVENT: "ping"}  # http://hl7.org/fhir/R4/subscription.html#2.46.7.2


@dataclass(frozen=True, slots=True)
class Sources:
    """Where feeds find what they send."""

    store: SubscriptionStore
    repository: Repository
    clock: Callable[[], datetime]
    account: Account
    cases: Together[str, Case | Unreadable | None]
    telling: Together[Want, Telling]
    arrivals: Together[Arrived, None]


def sources(
    store: SubscriptionStore,
    repository: Repository,
    reading: Reading,
    clock: Callable[[], datetime],
    account: Account,
) -> Sources:
    """What all feeds of a process ask, together."""

    def cases(ids: Sequence[str]) -> list[Case | Unreadable | None]:
        found = reading.cases(set(ids))
        return [found.get(id) for id in ids]

    def arrivals(arrived: Sequence[Arrived]) -> list[None]:
        store.advance(arrived)
        return [None] * len(arrived)

    return Sources(
        store,
        repository,
        clock,
        account,
        Together("feed-cases", cases),
        Together("feed-events", reading.told),
        Together("feed-arrivals", arrivals),
    )


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
    error: str | None
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
        self._heartbeat_s = _heartbeat_s(case, self._sources.clock) if case is not None else None
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
            # Nobody waits for it: what is not noted is sent again at the next bind.
            self._sources.arrivals.ask(Arrived(self.id, number, datetime.now(UTC), self._replays))

    def _case(self) -> _Case | None:
        """The Subscription, read anew each time: what its owner or an administrator changed counts at once."""
        found = self._sources.cases.ask(self.id).result()
        if not isinstance(found, Case):
            self.ended = True
            return None
        if found.definition.channel != WEBSOCKET:
            self.ended = True
        if self.ended or found.state is None:  # without a state the stream has yet to tell of it, and will wake us
            return None
        self._own = owner_of(found.version) == self.bound.subject
        return _Case(found.version, found.definition, found.error, found.state, self._own)

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
        if status == "requested" or _has_ended(case.definition, self._sources.clock):
            return None
        events = self._events(case) if status == "active" else None
        if events is None and not self.ended and (left_s := self.heartbeat_in_s()) is not None and left_s <= 0:
            return self._sending(HEARTBEAT, case, [])
        return events

    def _events(self, case: _Case) -> Sending | None:
        """The next events; those of a Subscription that is not the reader's own, as far as they may see them."""
        definition = case.definition
        while True:
            withheld = case.state.withheld if case.own else ALL
            want = Want(self.id, definition, self.bound.subject, self._sent + 1, definition.max_count, withheld)
            try:
                telling = self._sources.telling.ask(want).result()
            except RightsLost as loss:
                if self._sources.store.last_number(self.id) > self._sent:
                    self._lose(case, loss)
                return None
            if not telling.events:
                return None
            told = telling.events if case.own else [event for event in telling.events if event.source is not None]
            if told and not self._pings:
                try:
                    self._sources.account.sending(self.id, self.bound.subject, definition, told)
                except NotAudited:
                    return None  # with the next look
            self._sent = telling.events[-1].number
            if told:
                return self._sending(EVENT, case, told, telling.newest, telling.more)
            if not telling.more:
                return None

    def _lose(self, case: _Case, loss: RightsLost) -> None:
        if case.own:
            set_status(self._sources.repository, self.id, case.version.version, "error", str(loss))
        else:
            self.ended = True

    def _sending(
        self, kind: str, case: _Case, events: Sequence[Notified], newest: int | None = None, more: bool = True
    ) -> Sending | None:
        """newest: number of the newest event, where that is known."""
        number = self._sent if kind == EVENT else None
        if self._pings:
            word = PINGS.get(kind)
            return Sending(f"{word} {self.id}", number, more) if word else None
        if newest is None:
            newest = self._sources.store.last_number(self.id)
        return Sending(fhir_json.dumps(self._bundle(kind, case, events, newest)).decode(), number, more)

    def _bundle(self, kind: str, case: _Case, events: Sequence[Notified], total: int) -> dict:
        definition, repository = case.definition, self._sources.repository
        about = About(
            self.id,
            None if definition.plain else definition.topic.url,
            definition.status,
            definition.content,
            total,
            (case.error,) if case.error else (),
        )
        made = notification.r4b_bundle if definition.plain else notification.bundle
        return made(kind, about, events, repository.base_url, self._sources.clock())


def _heartbeat_s(case: _Case, clock: Callable[[], datetime]) -> int | None:
    """The period of heartbeats, while there are any."""
    definition = case.definition
    beating = definition.status in ("active", "error") and not _has_ended(definition, clock)
    return definition.heartbeat_s if beating else None


def _has_ended(definition: SubscriptionDefinition, clock: Callable[[], datetime]) -> bool:
    return definition.end is not None and definition.ended(clock())
