"""The proof of the promise over the whole store: no referral goes silent.

Faults break the promise. Notes are what stands in the way of a message with a known reason: a receiver that does
not answer, an office that hears by nobody, a referral that waits and has been escalated. What is still on its way
counts as a fault until it has arrived, so `settled` looks again before it believes one.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conformance import Topic
from fhir_server.access import Access
from fhir_server.errors import Unprocessable
from fhir_server.findings import Finding
from fhir_server.repository import Repository
from fhir_server.search.held import Facts
from fhir_server.store import WriteNumbers
from fhir_server.stream import Failure
from fhir_server.version import Version
from referral import appointments, escalation, intake, store, tracker
from referral.codes import BUSINESS_STATUS, FULFILL, TASK_CODE, code_of, reference, references
from referral.context import Practice
from referral.event import recorded
from referral.states import STATES, TASK_ENDED, fits
from subscriptions import definition, filters
from subscriptions.definition import WEBSOCKET, SubscriptionDefinition
from subscriptions.delivery import KEEP
from subscriptions.matching import SKEW, facts_of, fires
from subscriptions.rights import AccessOf, Rights
from subscriptions.store import State, SubscriptionStore

PAUSE_S = 0.5
CHUNK = 200
MARGIN = timedelta(hours=2)  # before old events are cleared
# Resources of the loop whose versions are shown to an office when they are written, and never only later.
HEARD = ("Appointment", "Communication", "DiagnosticReport", "ImagingStudy", "QuestionnaireResponse", "Task")


@dataclass(frozen=True, slots=True)
class Report:
    """What the whole store shows. states: referrals by business status; events: generated, to all Subscriptions
    that there are; delivered: of these. faults: what breaks the promise; notes: what is known, with the reason."""

    orders: int
    states: Mapping[str, int]
    subscriptions: int
    events: int
    delivered: int
    faults: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    @property
    def referrals(self) -> int:
        return sum(self.states.values())


def check(
    practice: Practice,
    subscriptions: SubscriptionStore,
    topics: Mapping[str, Topic],
    access_of: AccessOf,
    failures: Sequence[Failure],
) -> Report:
    """Look at everything once. access_of: the present access of `client:x` or `user:y`, None when there is none.
    failures: what consumers have passed over (`fhir_server.stream.failures`)."""
    referrals = _referrals(practice.repository)
    orders = _orders(practice)
    events = _Events(practice, subscriptions, topics, Rights(access_of, practice.repository))
    faults = [
        *_unknown_states(referrals),
        *_not_received(practice, referrals),
        *_orders_without_task(orders, referrals),
        *_visits(practice),
    ]
    overdue, escalated = _overdue(practice, referrals)
    faults += [*overdue, *events.faults()]
    notes = [*escalated, *events.notes(referrals), *(_passed_over(failure) for failure in failures)]
    states = Counter(state.code if (state := tracker.state_of(task)) else task["status"] for _, task in referrals)
    return Report(
        len(orders), dict(states), len(events.states), events.generated, events.delivered, tuple(faults), tuple(notes)
    )


def settled(look: Callable[[], Report], wait_s: float, pause: Callable[[float], None] = time.sleep) -> Report:
    """The first report without faults, or the last one when some are left after so many seconds."""
    deadline = time.monotonic() + wait_s
    report = look()
    while report.faults and time.monotonic() < deadline:
        pause(PAUSE_S)
        report = look()
    return report


Referrals = Sequence[tuple[Version, dict]]


def _referrals(repository: Repository) -> Referrals:
    """All coordination Tasks that are no mistake."""
    found = store.every(repository, "Task", [("code", f"{TASK_CODE}|{FULFILL}")])
    tasks = [(version, version.resource()) for version in found]
    return [
        (version, task)
        for version, task in tasks
        if task["status"] != "entered-in-error" and reference(task.get("focus")).startswith("ServiceRequest/")
    ]


def _orders(practice: Practice) -> list[str]:
    """Active orders that are for the practice."""
    found = store.every(practice.repository, "ServiceRequest", [("status", "active")])
    return [v.reference for v in found if intake.is_for(v.resource(), practice.policy.practice)]


def _unknown_states(referrals: Referrals) -> Iterator[Finding]:
    for version, task in referrals:
        code, status = code_of(task.get("businessStatus"), BUSINESS_STATUS), task["status"]
        if code not in STATES:
            if status != "draft":
                yield Finding(version.reference, f"is {status}, in no state that is known")
        elif not fits(STATES[code], status):
            yield Finding(version.reference, f"is {status}, which does not go with {code}")


def _not_received(practice: Practice, referrals: Referrals) -> Iterator[Finding]:
    """Referrals that were sent and that nobody received, or of which the placer was told nothing."""
    receipts = {}
    for version, task in referrals:
        if task["status"] == "requested":
            yield Finding(version.reference, "was sent and is not received yet")
        elif task["status"] not in (*TASK_ENDED, "draft"):
            receipts[version.id] = store.derived_id("message", "received", reference(task["focus"]))
    there = _existing(practice.repository, "Communication", receipts.values())
    for task_id, receipt in receipts.items():
        if receipt not in there and _has_received(practice.repository, task_id):
            yield Finding(f"Task/{task_id}", "was received, but its placer has no receipt")


def _has_received(repository: Repository, task_id: str) -> bool:
    """Whether it was sent to us, and not begun by the practice itself."""
    events = [recorded(v.resource()) for v in tracker.history(repository, task_id) if not v.deleted]
    return any(event is not None and event.code == "received" for event in events)


def _orders_without_task(orders: Sequence[str], referrals: Referrals) -> Iterator[Finding]:
    tracked = {reference(task["focus"]) for _, task in referrals}
    for order in orders:
        if order not in tracked:
            yield Finding(order, "is an active order for the practice, and no Task follows it")


def _visits(practice: Practice) -> Iterator[Finding]:
    """Appointments that nobody followed up, and missed ones of which the placer was told nothing."""
    now, policy = practice.clock(), practice.policy
    for version in store.every(practice.repository, "Appointment", [("status", "booked")]):
        start = appointments.start_of(version.resource())
        if start is not None and start + policy.grace + policy.correction <= now:
            yield Finding(version.reference, "its time has passed, and nobody has said whether the patient came")
    missed = {
        version.reference: references(version.resource().get("basedOn"), "ServiceRequest")
        for version in store.every(practice.repository, "Appointment", [("status", "noshow")])
    }
    tracked = tracker.of_orders(practice.repository, (order for orders in missed.values() for order in orders))
    messages = {
        appointment: store.derived_id("message", "appointment-noshow", appointment)
        for appointment, orders in missed.items()
        if tracked.keys() & set(orders)
    }
    there = _existing(practice.repository, "Communication", messages.values())
    for appointment, message in messages.items():
        if message not in there:
            yield Finding(appointment, "was missed, and the placer has no message about it")


def _overdue(practice: Practice, referrals: Referrals) -> tuple[list[Finding], list[Finding]]:
    """Referrals that wait too long: silent ones, and those that were escalated."""
    waiting = {}
    for version, task in referrals:
        found = escalation.overdue(practice, task)
        if found is not None:
            step = escalation.step_id(task, found, escalation.level_of(practice, found))
            waiting[version.reference] = (step, found)
    there = _existing(practice.repository, "Task", [step for step, _ in waiting.values()])
    silent, escalated = [], []
    for task_reference, (step, found) in waiting.items():
        how_long = f"{found.state.code} since {found.since:%Y-%m-%d %H:%M} UTC"
        if step in there:
            escalated.append(Finding(task_reference, f"{how_long}, escalated by Task/{step}"))
        else:
            silent.append(Finding(task_reference, f"{how_long}, longer than allowed, and nobody was told"))
    return silent, escalated


def _existing(repository: Repository, resource_type: str, ids: Collection[str]) -> set[str]:
    wanted = list(dict.fromkeys(ids))
    chunks = [wanted[first : first + CHUNK] for first in range(0, len(wanted), CHUNK)]
    found = [v for chunk in chunks for v in repository.store.newest_many((resource_type, id) for id in chunk)]
    return {version.id for version in found}


def _passed_over(failure: Failure) -> Finding:
    return Finding(failure.version, f"the consumer {failure.consumer} could not take it: {failure.error}")


@dataclass(frozen=True, slots=True)
class _Listener:
    """A Subscription that is on. since: versions with higher write numbers are surely its own."""

    state: State
    definition: SubscriptionDefinition
    access: Access
    since: int

    def selects(self, facts: Facts) -> bool:
        return filters.matches(self.definition.clauses, facts)

    def is_told(self, repository: Repository, version: Version, before: dict | None, after: dict) -> bool:
        topic = self.definition.topic
        return (
            fires(topic, version.op, before, after)
            and repository.visible(self.access, "r", version)
            and self.selects(facts_of(version, after, repository.indexer))
        )


class _Events:
    """What was to be told against what was told, Subscription by Subscription."""

    def __init__(
        self, practice: Practice, subscriptions: SubscriptionStore, topics: Mapping[str, Topic], rights: Rights
    ) -> None:
        self._repository = practice.repository
        self._topics = topics
        self._rights = rights
        self.states = subscriptions.states()
        self._last = subscriptions.last_numbers()
        self._events = {state.id: subscriptions.events(state.id, 1) for state in self.states}
        # Older events are cleared away, so what they were of can no longer be asked for.
        self._oldest = WriteNumbers.at(datetime.now(UTC) - KEEP + MARGIN)
        self._listeners = [listener for state in self.states if (listener := self._listener(state))]
        self.generated = sum(self._last.values())
        self.delivered = sum(min(state.delivered, self._last.get(state.id, 0)) for state in self.states)

    def faults(self) -> Iterator[Finding]:
        """Events that were never made, numbers left out, and deliveries that stand still without a reason."""
        for state in self.states:
            subject, last = f"Subscription/{state.id}", self._last.get(state.id, 0)
            numbers = [event.number for event in self._events[state.id]]
            if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
                yield Finding(subject, f"has {len(numbers)} events numbered {numbers[0]} to {numbers[-1]}")
            if _stands_still(state, last):
                yield Finding(subject, f"{last - state.delivered} events are not delivered yet")
        yield from self._missing()

    def notes(self, referrals: Referrals) -> Iterator[Finding]:
        """What is not delivered, with the reason, and offices that no Subscription speaks to."""
        for state in self.states:
            waiting = self._last.get(state.id, 0) - state.delivered
            if waiting > 0 and not _stands_still(state, self._last.get(state.id, 0)):
                yield Finding(f"Subscription/{state.id}", f"{waiting} events wait: {_reason(state)}")
        unheard: Counter[str] = Counter()
        listeners = [one for one in self._listeners if one.definition.topic.resource_type == "Task"]
        ranges = any(clause.by_ranges for one in listeners for clause in one.definition.clauses)
        for version, task in referrals:
            facts = facts_of(version, task, self._repository.indexer, ranges)
            hears = (self._repository.visible(one.access, "r", version) and one.selects(facts) for one in listeners)
            if not any(hears):
                unheard[reference(task.get("requester")) or "nobody"] += 1
        for office, count in sorted(unheard.items()):
            yield Finding(office, f"no Subscription that is on tells of {count} of its referrals")

    def _listener(self, state: State) -> _Listener | None:
        version = self._repository.store.version("Subscription", state.id, state.version)
        access = self._rights.access(state.owner)
        if state.status != "active" or version is None or version.deleted or access is None:
            return None
        try:
            asked = definition.parse(version.resource(), self._topics, self._repository.base_url)
        except Unprocessable:
            return None  # said by its status once it is to deliver
        if asked.reach is not None:
            access = asked.reach.narrow(access, asked.topic.resource_type)
        return _Listener(state, asked, access, max(version.number + SKEW, self._oldest))

    def _missing(self) -> Iterator[Finding]:
        """Versions that a Subscription should have an event of, worked out anew from the versions themselves."""
        for resource_type in HEARD:
            listeners = [one for one in self._listeners if one.definition.topic.resource_type == resource_type]
            if not listeners:
                continue
            told = {
                one.state.id: {(event.focus, event.version) for event in self._events[one.state.id]}
                for one in listeners
            }
            for version, before in self._versions(resource_type, min(one.since for one in listeners)):
                after = version.resource()
                for one in listeners:
                    known = (version.reference, version.version) in told[one.state.id]
                    new_enough = version.number > one.since and not known
                    if new_enough and one.is_told(self._repository, version, before, after):
                        subject = f"Subscription/{one.state.id}"
                        yield Finding(subject, f"has no event of {version.versioned_reference}")

    def _versions(self, resource_type: str, number: int) -> Iterator[tuple[Version, dict | None]]:
        """Versions with a higher write number, and the content before each."""
        for version in self._repository.store.since(number, types=[resource_type]):
            if not version.deleted:
                yield version, store.previous(self._repository, version) if version.op == "update" else None


def _stands_still(state: State, last: int) -> bool:
    """Whether events wait although nothing is known to be in their way."""
    on = state.status in ("requested", "active")
    return on and state.delivered < last and state.channel != WEBSOCKET and state.failures == 0


def _reason(state: State) -> str:
    if state.status not in ("requested", "active"):
        return f"it is {state.status}" + (f" ({state.reason})" if state.reason else "")
    if state.channel == WEBSOCKET:
        return "its client is not connected"
    return state.reason or "its endpoint does not answer"
