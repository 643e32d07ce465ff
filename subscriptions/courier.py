"""One Subscription's turn: handshake, the events that wait, a heartbeat; in order, under a lease.

The Subscription is read anew for each sending, so what its owner or an administrator changed counts at once.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from fhir_server import fhir_json, fhir_xml
from fhir_server.audit.trail import NotAudited
from fhir_server.formats import FHIR_XML
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions import notification
from subscriptions.account import Account
from subscriptions.addresses import Addresses, AddressRefused
from subscriptions.calling import Callers
from subscriptions.definition import EMAIL, EMPTY, FAX, REST_HOOK, WEBSOCKET, SubscriptionDefinition
from subscriptions.fax import FaxSender, FaxUnavailable
from subscriptions.mail import Mailer, MailUnavailable, address_of
from subscriptions.notification import EVENT, HANDSHAKE, HEARTBEAT, About, Notified
from subscriptions.outgoing import EndpointUnavailable, Outgoing, OutgoingRefused, below
from subscriptions.reading import Case, Reading, Telling, Unreadable, Want
from subscriptions.rights import Rights, RightsLost
from subscriptions.status import set_status
from subscriptions.store import Failed, Sent, State, SubscriptionStore
from subscriptions.together import Together

LEASE_S = 10.0  # so long a Subscription waits for a worker that was killed; a living one renews its leases
ASIDE = 16  # threads for what is rare and waits for MongoDB: handshakes, and whatever changes a Subscription
SLOW = 16  # threads for mail and fax
FAX_LOOK_S = 5.0  # a gateway takes a minute or so for a page
GONE = 410  # an endpoint's way to say that it wants no more
WANTING = ("requested", "active")

T = TypeVar("T")
Question = TypeVar("Question")
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds to wait after the first, second ... failure in a row (the last one repeats), and when to give up."""

    delays_s: tuple[float, ...] = (1, 5, 15, 60, 300, 900, 3600)
    give_up_after_s: float = 7 * 86_400

    def delay_s(self, failures: int) -> float:
        return self.delays_s[min(failures, len(self.delays_s)) - 1]


class _Failed(Exception):
    """The endpoint did not take it; `final` when it told us never to come again."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class _TakenOver(Exception):
    """This worker was away longer than its lease, and another one has or had the Subscription since."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A Subscription as it is now, leased to us, with how far it is. telling: what is to be sent next; None where it
    is not the time to send events."""

    version: Version
    definition: SubscriptionDefinition
    state: State
    telling: Telling | RightsLost | None = None

    @property
    def wants_events(self) -> bool:
        definition = self.definition
        active = definition.status == "active" and definition.channel != WEBSOCKET
        return active and _seconds_until(self.state.next_attempt) <= 0


@dataclass(frozen=True, slots=True)
class Next:
    """How a turn ended. again: there may be more to do at once; delay_s: come again after so many seconds although
    nothing new happens; failing: the endpoint did not take the last sending."""

    again: bool = False
    delay_s: float | None = None
    failing: bool = False


class Courier:
    """Delivers for rest-hook, mail and fax, and activates websockets. For one event loop; one turn at a time per
    Subscription among all couriers on the same database.

    What the turns that are under way ask of the store is asked together. A lease is kept while there is something to
    send and runs out by itself after that, so a Subscription with many events is not leased anew for each.
    """

    def __init__(
        self,
        store: SubscriptionStore,
        repository: Repository,
        reading: Reading,
        rights: Rights,
        outgoing: Outgoing,
        mailer: Mailer,
        addresses: Addresses,
        fax_sender: FaxSender,
        clock: Callable[[], datetime],
        holder: str,
        policy: RetryPolicy,
        account: Account,
    ) -> None:
        self._store = store
        self._repository = repository
        self._reading = reading
        self._rights = rights
        self._outgoing = outgoing
        self._mailer = mailer
        self._addresses = addresses
        self._fax_sender = fax_sender
        self._clock = clock
        self._holder = holder
        self._policy = policy
        self._account = account
        self._cases = Together("delivery-cases", self._open)
        self._notes = Together("delivery-notes", self._note)
        self._held: dict[str, float] = {}  # Subscription -> when we leased it, by time.monotonic()

    def begin(self) -> None:
        """To be called in the event loop, before the first turn there."""
        # Those who fail have lookers-up of their own: a name server that is silent may be theirs.
        self._callers = {False: Callers(self._outgoing), True: Callers(self._outgoing)}
        self._aside = ThreadPoolExecutor(ASIDE, "delivery-aside")
        self._slow = ThreadPoolExecutor(SLOW, "mail-and-fax")

    def end(self) -> None:
        """To be called after the last turn: others may have our Subscriptions at once."""
        for callers in self._callers.values():
            callers.close()
        self._aside.shutdown()
        self._slow.shutdown()
        self._store.release(self._holder)
        self._held.clear()

    async def turn(self, id: str, stopping: Callable[[], bool]) -> Next:
        """Do all there is to do, unless another worker is at it. What comes to be done meanwhile wakes its caller."""
        step = Next(again=True)
        while step.again and not stopping():
            found = await self._ask(self._cases, id)
            if found is None:
                return Next()
            if isinstance(found, Unreadable):
                await self._set_status(found.version, "error", f"no longer deliverable: {found.why}")
                return Next()
            step = await self._step(found)
        return step

    def renew(self, ids: Iterable[str]) -> None:
        """Lengthen the leases of turns under way that are half over; to be called much more often than that, so that
        those of many endpoints that hang are not all renewed at one moment."""
        now = time.monotonic()
        old = [id for id in ids if id in self._held and self._age_s(id) > LEASE_S / 2]
        if old and self._store.renew(old, self._holder, datetime.now(UTC), LEASE_S):
            for id in old:
                if id in self._held:  # else it was given back meanwhile
                    self._held[id] = now

    # Together for many

    def _open(self, ids: Sequence[str]) -> list[_Case | Unreadable | None]:
        """The Subscriptions, leased; None for one that another worker has, or that wants no deliveries."""
        now = time.monotonic()
        # Leases and retries run on the machine's clock, whatever the practice's time is.
        unsure = [id for id in ids if self._age_s(id) > LEASE_S / 2]
        if unsure:
            self._store.claim(unsure, self._holder, datetime.now(UTC), LEASE_S)
        states = {state.id: state for state in self._store.states(ids, self._holder)}
        for id in unsure:
            self._held[id] = now
        for id in ids:
            if id not in states:
                self._held.pop(id, None)
        found = self._reading.of(states, states)
        cases = {id: _wanting(found.get(id)) for id in ids}
        ready = [case for case in cases.values() if isinstance(case, _Case) and case.wants_events]
        for case, telling in zip(ready, self._reading.told([_want(case) for case in ready]), strict=True):
            cases[case.state.id] = replace(case, telling=telling)
        return [cases[id] for id in ids]

    def _note(self, outcomes: Sequence[Sent | Failed]) -> list[None]:
        now = time.monotonic()
        complete = self._store.note(outcomes, self._holder, datetime.now(UTC), LEASE_S)
        for outcome in outcomes:
            if complete and isinstance(outcome, Sent):
                self._held[outcome.id] = now
            else:
                self._held.pop(outcome.id, None)
        return [None] * len(outcomes)

    def _age_s(self, id: str) -> float:
        """Seconds since we leased it, infinite where we have not."""
        return time.monotonic() - self._held.get(id, float("-inf"))

    async def _ask(self, together: Together[Question, Reply], question: Question) -> Reply:
        return await asyncio.wrap_future(together.ask(question))

    # One sending

    async def _step(self, case: _Case) -> Next:
        """One sending."""
        state, definition = case.state, case.definition
        if definition.end is not None and definition.ended(self._clock()):
            await self._set_status(case.version, "off", None)
            return Next()
        waiting_s = _seconds_until(state.next_attempt)
        if definition.status == "active" and waiting_s > 0:
            return Next(delay_s=waiting_s, failing=True)
        try:
            if definition.status == "requested":
                return await self._handshake(case)
            if definition.channel == WEBSOCKET:
                return Next()
            return await self._deliver(case)
        except RightsLost as loss:
            await self._ask(self._notes, Failed(state.id, str(loss), datetime.now(UTC), None))
            await self._set_status(case.version, "error", str(loss))
            return Next()
        except _TakenOver:
            return Next(again=True)
        except _Failed as failure:
            return Next(delay_s=await self._fail(case, failure), failing=True)

    async def _handshake(self, case: _Case) -> Next:
        total = await self._in(self._aside, self._may_begin, case)
        if case.definition.channel == EMAIL and not await self._in(self._slow, self._wanted, case):
            return Next()  # its answer wakes nobody; the look-over comes by
        if case.definition.channel == REST_HOOK and not case.definition.plain:  # R4 itself has no handshake
            await self._post(case, HANDSHAKE, [], total)
        await self._in(self._aside, self._store.withhold, case.state.id, total)
        await self._sent(case, None)
        await self._set_status(case.version, "active", None)
        return Next(again=True)

    def _may_begin(self, case: _Case) -> int:
        """The number of the newest event, for whom may be told of them. Raises RightsLost."""
        self._rights.required(case.state.owner, case.definition.topic.resource_type, case.definition.reach)
        return self._store.last_number(case.state.id)

    def _wanted(self, case: _Case) -> bool:
        """Whether the mail address has said so; it is asked where it was not."""
        wish = f"{case.state.id}/{case.version.version}"
        try:
            return self._addresses.ready(case.state.owner, address_of(case.definition), wish)
        except (AddressRefused, MailUnavailable) as refusal:
            raise _Failed(str(refusal)) from None

    async def _deliver(self, case: _Case) -> Next:
        state, definition = case.state, case.definition
        telling = case.telling
        if isinstance(telling, RightsLost):
            raise telling
        if telling is None:  # its time came a moment ago
            return Next(again=True)
        if not telling.events:
            return Next(delay_s=await self._heartbeat(case, telling.newest))
        try:
            self._account.sending(state.id, state.owner, definition, telling.events)
        except NotAudited as trouble:
            raise _Failed(trouble.diagnostics) from None
        if definition.channel in (EMAIL, FAX):
            if not await self._in(self._slow, self._write, case, telling.events):
                return Next(delay_s=FAX_LOOK_S)
        elif definition.plain:
            await self._push(case, telling.events[0])
        else:
            await self._post(case, EVENT, telling.events, telling.newest)
        await self._sent(case, telling.events[-1].number)
        return Next(again=True) if telling.more else Next(delay_s=_heartbeat_s(definition))

    def _write(self, case: _Case, events: Sequence[Notified]) -> bool:
        """Send by mail or fax; False for a fax that is on its way still."""
        id, definition = case.state.id, case.definition
        try:
            if definition.channel == FAX:
                return self._fax_sender.deliver(
                    self._mailer.fax(id, definition, events[0], self._clock()), case.state.failures
                )
            for event in events:
                self._mailer.send(id, definition, event, self._clock(), self._attached(case, event))
        except (MailUnavailable, FaxUnavailable) as trouble:
            raise _Failed(str(trouble)) from None
        return True

    def _attached(self, case: _Case, event: Notified) -> str:
        """What mail brings with it: the notification at the level `empty`, as ids can be telling, and mail is read by
        many on its way."""
        id, definition = case.state.id, case.definition
        if not definition.attaches:
            return ""
        about = About(id, None, definition.status, EMPTY, self._store.last_number(id))
        made = notification.bundle(EVENT, about, [event], self._repository.base_url, self._clock())
        return fhir_json.dumps(made).decode()

    async def _heartbeat(self, case: _Case, total: int) -> float | None:
        """Send a heartbeat when it is time; returns the seconds until the next one."""
        state, period_s = case.state, _heartbeat_s(case.definition)
        if period_s is None:
            return None
        if state.last_sent is not None:
            left_s = _seconds_until(state.last_sent + timedelta(seconds=period_s))
            if left_s > 0:
                return left_s
        await self._post(case, HEARTBEAT, [], total)
        await self._sent(case, None)
        return period_s

    async def _post(self, case: _Case, kind: str, events: Sequence[Notified], total: int) -> None:
        state, definition = case.state, case.definition
        about = About(state.id, definition.topic.url, definition.status, definition.content, total)
        body = fhir_json.dumps(notification.bundle(kind, about, events, self._repository.base_url, self._clock()))
        await self._call(case, "POST", definition.endpoint or "", body, definition.mime)

    async def _push(self, case: _Case, event: Notified) -> None:
        """R4's own form: a POST of nothing, or the resource as an update of a server at the endpoint. What may not
        be told (any more) is passed over."""
        definition, source = case.definition, event.source
        if source is None:
            return
        if definition.content == EMPTY:
            await self._call(case, "POST", definition.endpoint or "", b"", "")
            return
        resource = source.resource()
        body = fhir_xml.dumps(resource) if definition.mime == FHIR_XML else fhir_json.dumps(resource)
        await self._call(case, "PUT", below(definition.endpoint or "", source.reference), body, definition.mime)

    async def _call(self, case: _Case, method: str, url: str, body: bytes, mime: str) -> None:
        state, definition = case.state, case.definition
        headers = [*([("Content-Type", mime)] if mime else []), *definition.headers]
        if self._age_s(state.id) > LEASE_S * 0.8:
            now = await self._ask(self._cases, state.id)
            if not isinstance(now, _Case) or (now.state.delivered, now.state.replays) != (
                state.delivered,
                state.replays,
            ):
                raise _TakenOver
        callers = self._callers[state.failures > 0]
        try:
            answer = await callers.call(method, url, body, headers, definition.timeout_s)
        except (OutgoingRefused, EndpointUnavailable) as error:
            raise _Failed(str(error)) from None
        if not answer.accepted:
            raise _Failed(f"the endpoint answered {answer.status}", final=answer.status == GONE)

    async def _sent(self, case: _Case, delivered: int | None) -> None:
        await self._ask(self._notes, Sent(case.state.id, datetime.now(UTC), delivered, case.state.replays))

    async def _fail(self, case: _Case, failure: _Failed) -> float | None:
        state, now = case.state, datetime.now(UTC)
        since = state.failing_since or now
        gone_s = (now - since).total_seconds()
        give_up = case.definition.status == "requested" or gone_s >= self._policy.give_up_after_s
        delay_s = self._policy.delay_s(state.failures + 1)
        next_attempt = None if give_up or failure.final else now + timedelta(seconds=delay_s)
        await self._ask(self._notes, Failed(state.id, str(failure), since, next_attempt))
        if failure.final:
            await self._set_status(case.version, "off", None)
        elif give_up:
            await self._set_status(case.version, "error", str(failure))
        return None if next_attempt is None else delay_s

    async def _set_status(self, seen: Version, status: str, error: str | None) -> None:
        await self._in(self._aside, set_status, self._repository, seen.id, seen.version, status, error)

    async def _in(self, threads: Executor, do: Callable[..., T], *arguments: object) -> T:
        """Do what waits for something in a thread meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(threads, do, *arguments)


def _wanting(found: Case | Unreadable | None) -> _Case | Unreadable | None:
    """The Subscription if it wants something to be delivered."""
    if isinstance(found, Unreadable):
        return found if found.version.resource().get("status") in WANTING else None
    if found is None or found.state is None or found.definition.status not in WANTING:
        return None
    return _Case(found.version, found.definition, found.state)


def _want(case: _Case) -> Want:
    state, definition = case.state, case.definition
    # One that failed gets one event to begin with: what it does not take should cost little.
    alone = definition.plain or definition.channel == FAX or state.failures > 0
    most = 1 if alone else definition.max_count
    return Want(state.id, definition, state.owner, state.delivered + 1, most, state.withheld)


def _heartbeat_s(definition: SubscriptionDefinition) -> float | None:
    """The period of the heartbeats that are sent from here."""
    if definition.channel != REST_HOOK or definition.heartbeat_s is None:
        return None
    return float(definition.heartbeat_s)


def _seconds_until(moment: datetime | None) -> float:
    return 0.0 if moment is None else (moment - datetime.now(UTC)).total_seconds()
