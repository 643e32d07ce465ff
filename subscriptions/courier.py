"""One Subscription's turn: handshake, the events that wait, a heartbeat; in order, under a lease.

The Subscription is read anew for each sending, so what its owner or an administrator changed counts at once.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conformance import Topic
from fhir_server import fhir_json, fhir_xml
from fhir_server.audit.trail import NotAudited
from fhir_server.errors import Gone, NotFound, Unprocessable
from fhir_server.formats import FHIR_XML
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions import notification
from subscriptions.account import Account
from subscriptions.addresses import Addresses, AddressRefused
from subscriptions.definition import EMAIL, EMPTY, FAX, REST_HOOK, WEBSOCKET, SubscriptionDefinition, parse
from subscriptions.fax import FaxSender, FaxUnavailable
from subscriptions.mail import Mailer, MailUnavailable, address_of
from subscriptions.notification import EVENT, HANDSHAKE, HEARTBEAT, About, Notified, fitting
from subscriptions.outgoing import EndpointUnavailable, Outgoing, OutgoingRefused, below
from subscriptions.rights import Rights, RightsLost
from subscriptions.status import SERVER, set_status
from subscriptions.store import State, SubscriptionStore

LEASE_S = 10.0  # so long a Subscription waits for a worker that was killed; a living one renews its leases
FRESH_S = 2.0  # a lease taken so recently is still ours
FAX_LOOK_S = 5.0  # a gateway takes a minute or so for a page
GONE = 410  # an endpoint's way to say that it wants no more


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
    """This worker was away longer than its lease, and another one has the Subscription now."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A Subscription as it is now, with how far it is. claimed: when its lease was taken, by time.monotonic()."""

    version: Version
    definition: SubscriptionDefinition
    state: State
    claimed: float


@dataclass(frozen=True, slots=True)
class Next:
    """How a turn ended. again: there may be more to do at once; delay_s: come again after so many seconds although
    nothing new happens; failing: the endpoint did not take the last sending; released: the lease is given back."""

    again: bool = False
    delay_s: float | None = None
    failing: bool = False
    released: bool = False


class Courier:
    """Delivers for rest-hook and mail, and activates websockets. Thread safe; one turn at a time per Subscription
    among all couriers on the same database."""

    def __init__(
        self,
        store: SubscriptionStore,
        repository: Repository,
        topics: Mapping[str, Topic],
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
        self._topics = topics
        self._rights = rights
        self._outgoing = outgoing
        self._mailer = mailer
        self._addresses = addresses
        self._fax_sender = fax_sender
        self._clock = clock
        self._holder = holder
        self._policy = policy
        self._account = account

    def turn(self, id: str, stopping: Callable[[], bool]) -> Next:
        """Do all there is to do, unless another worker is at it. What comes to be done meanwhile wakes its caller."""
        step = Next(again=True)
        try:
            while step.again and not stopping():
                case = self._case(id)
                if case is None:
                    return Next()
                step = self._step(case)
            return step
        finally:
            if not step.released:
                self._store.release(id, self._holder)

    def renew(self, ids: Iterable[str]) -> None:
        """Lengthen the leases of turns under way; to be called more often than every LEASE_S."""
        self._store.renew(ids, self._holder, datetime.now(UTC), LEASE_S)

    def _claim(self, id: str) -> State | None:
        # Leases and retries run on the machine's clock, whatever the practice's time is.
        return self._store.claim(id, self._holder, datetime.now(UTC), LEASE_S)

    def _case(self, id: str) -> _Case | None:
        """The Subscription, its lease taken; None when another worker has it, or when it wants no deliveries."""
        claimed = time.monotonic()
        state = self._claim(id)
        if state is None:
            return None
        try:
            version = self._repository.read(SERVER, "Subscription", id)
        except (NotFound, Gone):
            return None
        subscription = version.resource()
        if subscription.get("status") not in ("requested", "active"):
            return None
        try:
            definition = parse(subscription, self._topics, self._repository.base_url)
        except Unprocessable as fault:
            self._set_status(version, "error", f"no longer deliverable: {fault.diagnostics}")
            return None
        return _Case(version, definition, state, claimed)

    def _step(self, case: _Case) -> Next:
        """One sending."""
        state, definition = case.state, case.definition
        if definition.ended(self._clock()):
            self._set_status(case.version, "off", None)
            return Next()
        waiting_s = _seconds_until(state.next_attempt)
        if definition.status == "active" and waiting_s > 0:
            return Next(delay_s=waiting_s, failing=True)
        try:
            if definition.status == "requested":
                return self._handshake(case)
            if definition.channel == WEBSOCKET:
                return Next()
            return self._deliver(case)
        except RightsLost as loss:
            self._store.failed(state.id, self._holder, str(loss), datetime.now(UTC), None)
            self._set_status(case.version, "error", str(loss))
            return Next()
        except _TakenOver:
            return Next()
        except _Failed as failure:
            return Next(delay_s=self._fail(case, failure), failing=True)

    def _handshake(self, case: _Case) -> Next:
        state = case.state
        self._rights.required(state.owner, case.definition.topic.resource_type, case.definition.reach)
        total = self._store.last_number(state.id)
        if case.definition.channel == EMAIL and not self._wanted(case):
            return Next()  # its answer wakes nobody; the look-over comes by
        if case.definition.channel == REST_HOOK and not case.definition.plain:  # R4 itself has no handshake
            self._post(case, HANDSHAKE, [], total)
        self._store.withhold(state.id, total)
        self._store.sent(state.id, self._holder, datetime.now(UTC), replays=state.replays)
        self._set_status(case.version, "active", None)
        return Next(again=True)

    def _wanted(self, case: _Case) -> bool:
        """Whether the mail address has said so; it is asked where it was not."""
        wish = f"{case.state.id}/{case.version.version}"
        try:
            return self._addresses.ready(case.state.owner, address_of(case.definition), wish)
        except (AddressRefused, MailUnavailable) as refusal:
            raise _Failed(str(refusal)) from None

    def _deliver(self, case: _Case) -> Next:
        state, definition = case.state, case.definition
        access = self._rights.required(state.owner, definition.topic.resource_type, definition.reach)
        found = self._store.events(state.id, state.delivered + 1, limit=definition.max_count + 1)
        if not found:
            return Next(delay_s=self._heartbeat(case))
        events = found[: definition.max_count]
        notified = fitting(self._rights.notified(events, access, state.withheld), definition.content)
        try:
            alone = definition.plain or definition.channel == FAX
            self._account.sending(state.id, state.owner, definition, notified[:1] if alone else notified)
        except NotAudited as trouble:
            raise _Failed(trouble.diagnostics) from None
        if definition.channel == EMAIL:
            try:
                for event in notified:
                    self._mailer.send(state.id, definition, event, self._clock())
            except MailUnavailable as trouble:
                raise _Failed(str(trouble)) from None
        elif definition.channel == FAX:
            fax = self._mailer.fax(state.id, definition, notified[0], self._clock())
            try:
                if not self._fax_sender.deliver(fax, state.failures):
                    return Next(delay_s=FAX_LOOK_S)
            except FaxUnavailable as trouble:
                raise _Failed(str(trouble)) from None
            notified = notified[:1]
        elif definition.plain:
            self._push(case, notified[0])
        else:
            newest = found[-1].number if len(events) == len(found) else self._store.last_number(state.id)
            self._post(case, EVENT, notified, newest)
        last = len(notified) == len(found)
        self._store.sent(state.id, self._holder, datetime.now(UTC), notified[-1].number, state.replays, last)
        if not last:
            return Next(again=True)
        return Next(delay_s=_heartbeat_s(definition), released=True)

    def _heartbeat(self, case: _Case) -> float | None:
        """Send a heartbeat when it is time; returns the seconds until the next one."""
        state, period_s = case.state, _heartbeat_s(case.definition)
        if period_s is None:
            return None
        if state.last_sent is not None:
            left_s = _seconds_until(state.last_sent + timedelta(seconds=period_s))
            if left_s > 0:
                return left_s
        self._post(case, HEARTBEAT, [], self._store.last_number(state.id))
        self._store.sent(state.id, self._holder, datetime.now(UTC), replays=state.replays)
        return period_s

    def _post(self, case: _Case, kind: str, events: list[Notified], total: int) -> None:
        state, definition = case.state, case.definition
        about = About(state.id, definition.topic.url, definition.status, definition.content, total)
        body = fhir_json.dumps(notification.bundle(kind, about, events, self._repository.base_url, self._clock()))
        self._call(case, "POST", definition.endpoint or "", body, definition.mime)

    def _push(self, case: _Case, event: Notified) -> None:
        """R4's own form: a POST of nothing, or the resource as an update of a server at the endpoint. What may not
        be told (any more) is passed over."""
        definition, source = case.definition, event.source
        if source is None:
            return
        if definition.content == EMPTY:
            self._call(case, "POST", definition.endpoint or "", b"", "")
            return
        resource = source.resource()
        body = fhir_xml.dumps(resource) if definition.mime == FHIR_XML else fhir_json.dumps(resource)
        self._call(case, "PUT", below(definition.endpoint or "", source.reference), body, definition.mime)

    def _call(self, case: _Case, method: str, url: str, body: bytes, mime: str) -> None:
        definition = case.definition
        headers = [*([("Content-Type", mime)] if mime else []), *definition.headers]
        if time.monotonic() - case.claimed > FRESH_S and self._claim(case.state.id) is None:
            raise _TakenOver
        try:
            answer = self._outgoing.call(method, url, body, headers, definition.timeout_s)
        except (OutgoingRefused, EndpointUnavailable) as error:
            raise _Failed(str(error)) from None
        if not answer.accepted:
            raise _Failed(f"the endpoint answered {answer.status}", final=answer.status == GONE)

    def _fail(self, case: _Case, failure: _Failed) -> float | None:
        state, now = case.state, datetime.now(UTC)
        since = state.failing_since or now
        gone_s = (now - since).total_seconds()
        give_up = case.definition.status == "requested" or gone_s >= self._policy.give_up_after_s
        delay_s = self._policy.delay_s(state.failures + 1)
        next_attempt = None if give_up or failure.final else now + timedelta(seconds=delay_s)
        self._store.failed(state.id, self._holder, str(failure), since, next_attempt)
        if failure.final:
            self._set_status(case.version, "off", None)
        elif give_up:
            self._set_status(case.version, "error", str(failure))
        return None if next_attempt is None else delay_s

    def _set_status(self, seen: Version, status: str, error: str | None) -> None:
        set_status(self._repository, seen.id, seen.version, status, error)


def _heartbeat_s(definition: SubscriptionDefinition) -> float | None:
    """The period of the heartbeats that are sent from here."""
    if definition.channel != REST_HOOK or definition.heartbeat_s is None:
        return None
    return float(definition.heartbeat_s)


def _seconds_until(moment: datetime | None) -> float:
    return 0.0 if moment is None else (moment - datetime.now(UTC)).total_seconds()
