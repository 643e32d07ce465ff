"""What the front desk and a referring office look at: lists of referrals and visits as plain values.

Every list is searched with the caller's own Access, so it holds what that caller may see and nothing else.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from urllib.parse import parse_qsl

from fhir_server import references
from fhir_server.access import Access
from fhir_server.errors import NotFound
from fhir_server.repository import Repository
from fhir_server.version import Version
from referral import appointments, store, tracker
from referral.codes import (
    ABORT,
    BUSINESS_STATUS,
    ESCALATION,
    FULFILL,
    NOSHOW_COUNT,
    REBOOK,
    TASK,
    TASK_CODE,
    extension,
    reference,
    task_kind,
)
from referral.codes import references as references_to
from referral.context import Practice
from referral.event import moment
from referral.messages import referral_number
from referral.naming import concept_text, human_name
from referral.policy import PRIORITIES
from referral.states import TASK_OPEN

# What waits for the front desk: to receive, to complete, to accept, to schedule, to answer.
INCOMING = (
    "submitted",
    "received",
    "awaiting-information",
    "awaiting-scheduling",
    "appointment-cancelled",
    "cancellation-requested",
)
VISITS_OF_A_DAY = ("booked", "arrived", "checked-in", "fulfilled", "noshow")
OPEN = ("status", ",".join(sorted(TASK_OPEN)))
REFERRALS = ("code", f"{TASK_CODE}|{FULFILL}")


@dataclass(frozen=True, slots=True)
class Card:
    """One referral as a line of a list.

    task, order, patient: references; version: of the Task, for If-Match. since: when it came into its state; sent:
    when the order was placed; by the practice's clock, `late` says that it has been longer in its state than the
    policy allows. noshows: missed appointments so far. reason: why it has its status, where one is given.
    """

    task: str
    version: int
    order: str
    number: str
    priority: str
    status: str
    code: str
    display: str
    since: datetime
    sent: datetime
    late: bool
    patient: str
    patient_name: str
    birth_date: str
    exam: str
    office: str
    noshows: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """One appointment of a day. appointment, task: references; version: of the Appointment; task: empty when the
    appointment belongs to no referral; late: booked, and its start is longer ago than the grace period."""

    appointment: str
    version: int
    status: str
    start: datetime
    end: datetime | None
    room: str
    late: bool
    patient_name: str
    birth_date: str
    exam: str
    task: str
    number: str
    priority: str
    office: str


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that somebody still has to do, with its referral. step: reference; version: of the step's Task."""

    step: str
    version: int
    description: str
    asked: datetime
    card: Card


@dataclass(frozen=True, slots=True)
class Page:
    """A page of referrals, newest first; `next` goes into `my_referrals` for the following one, None at the end."""

    cards: tuple[Card, ...]
    next: str | None


def incoming(practice: Practice, access: Access) -> list[Card]:
    """Referrals that wait for the front desk, the most urgent first, among equals the longest waiting first."""
    states = ",".join(f"{BUSINESS_STATUS}|{code}" for code in INCOMING)
    found = store.every(practice.repository, "Task", [REFERRALS, OPEN, ("business-status", states)], access)
    return by_urgency(_cards(practice, access, found))


def today(practice: Practice, access: Access, day: date | None = None) -> list[Visit]:
    """Appointments of a day in the practice's time zone (today by its clock), by start."""
    zone = practice.policy.time_zone
    day = day or practice.clock().astimezone(zone).date()
    begin = datetime.combine(day, time(), zone)
    end = datetime.combine(day + timedelta(days=1), time(), zone)
    query = [
        ("date", f"ge{begin.isoformat()}"),
        ("date", f"lt{end.isoformat()}"),
        ("status", ",".join(VISITS_OF_A_DAY)),
    ]
    found = [store.stored(version) for version in store.every(practice.repository, "Appointment", query, access)]
    return sorted(_visits(practice, access, found), key=lambda visit: (visit.start, visit.appointment))


def missed(practice: Practice, access: Access) -> list[OpenStep]:
    """Referrals whose patient did not come and for which nothing has happened since; the longest waiting first."""
    return _open_steps(practice, access, REBOOK)


def overdue(practice: Practice, access: Access) -> list[OpenStep]:
    """Referrals that have waited longer than their priority allows, the most urgent first."""
    steps = _open_steps(practice, access, ESCALATION)
    return sorted(steps, key=lambda step: (_urgency(step.card.priority), step.card.since))


def abort_requests(practice: Practice, access: Access) -> list[OpenStep]:
    """Requests to cancel that came after the patient had checked in, which a person answers."""
    return _steps_with_cards(practice, access, [("code", f"{TASK_CODE}|{ABORT}"), OPEN])


def my_referrals(practice: Practice, access: Access, after: str | None = None, count: int = 50) -> Page:
    """The referrals that the caller may see, newest first. after: `Page.next` of the page before."""
    query = parse_qsl(after, keep_blank_values=True) if after else [REFERRALS, ("_count", str(count))]
    result = practice.repository.search(access, "Task", query, strict=True)
    return Page(tuple(_cards(practice, access, result.matches)), result.next)


def card_of(practice: Practice, access: Access, task_id: str) -> Card:
    """One referral by the id of its Task. Raises NotFound, also for a Task that is no referral's."""
    version = practice.repository.read(access, "Task", task_id)
    if task_kind(version.resource()) != FULFILL:
        raise NotFound(f"Task/{task_id} is no referral")
    return _cards(practice, access, [version])[0]


def visits_of(practice: Practice, access: Access, order: str) -> list[Visit]:
    """All appointments of an order (`ServiceRequest/1`) that were ever told to anybody, by start."""
    query = [("based-on", order)]
    found = [store.stored(version) for version in store.every(practice.repository, "Appointment", query, access)]
    told = [appointment for appointment in found if appointment.resource["status"] not in ("proposed", "pending")]
    return sorted(_visits(practice, access, told), key=lambda visit: (visit.start, visit.appointment))


def by_urgency(cards: Iterable[Card]) -> list[Card]:
    return sorted(cards, key=lambda card: (_urgency(card.priority), card.since, card.task))


def _urgency(priority: str) -> int:
    return PRIORITIES.index(priority) if priority in PRIORITIES else len(PRIORITIES)


def _open_steps(practice: Practice, access: Access, kind: str) -> list[OpenStep]:
    return _steps_with_cards(practice, access, [("code", f"{TASK}|{kind}"), OPEN])


def _steps_with_cards(practice: Practice, access: Access, query: list[tuple[str, str]]) -> list[OpenStep]:
    steps = list(store.every(practice.repository, "Task", query, access))
    referrals = {version.id: _referral_of(version.resource()) for version in steps}
    seen = _Seen(practice.repository, access)
    seen.look(referrals.values())
    tasks = [seen.version(target) for target in dict.fromkeys(referrals.values())]
    cards = {card.task: card for card in _cards(practice, access, [task for task in tasks if task is not None])}
    found = []
    for version in steps:
        card, step = cards.get(referrals[version.id]), version.resource()
        if card is not None:
            asked = moment(step.get("authoredOn")) or version.last_updated
            found.append(OpenStep(version.reference, version.version, step.get("description", ""), asked, card))
    return sorted(found, key=lambda step: (step.asked, step.step))


def _referral_of(step: dict) -> str:
    """The coordination Task that a step is part of, or that a request to abort is about."""
    part_of = references_to(step.get("partOf"), "Task")
    return part_of[0] if part_of else reference(step.get("focus"))


def _cards(practice: Practice, access: Access, versions: Iterable[Version]) -> list[Card]:
    tasks = [(version, version.resource()) for version in versions]
    tasks = [(version, task) for version, task in tasks if task_kind(task) == FULFILL]
    seen = _Seen(practice.repository, access)
    seen.look(reference(task.get(name)) for _, task in tasks for name in ("focus", "for", "requester"))
    now = practice.clock()
    return [_card(practice, seen, version, task, now) for version, task in tasks]


def _card(practice: Practice, seen: "_Seen", version: Version, task: dict, now: datetime) -> Card:
    order, patient = seen.resource(reference(task["focus"])), seen.resource(reference(task.get("for")))
    state, priority = tracker.state_of(task), task.get("priority", "routine")
    since = tracker.since_of(task) or version.last_updated
    limit = practice.policy.limit(state.code, priority) if state and task["status"] in TASK_OPEN else None
    count = extension(task, NOSHOW_COUNT) or {}
    return Card(
        task=version.reference,
        version=version.version,
        order=reference(task["focus"]),
        number=referral_number(task),
        priority=priority,
        status=task["status"],
        code=state.code if state else "",
        display=state.display if state else task["status"],
        since=since,
        sent=moment(order.get("authoredOn")) or moment(task.get("authoredOn")) or since,
        late=limit is not None and now - since > limit,
        patient=reference(task.get("for")),
        patient_name=human_name(patient),
        birth_date=patient.get("birthDate", ""),
        exam=concept_text(order.get("code")),
        office=_party_name(seen, task.get("requester")),
        noshows=count.get("valueUnsignedInt", 0),
        reason=concept_text(task.get("statusReason")),
    )


def _visits(practice: Practice, access: Access, found: list[store.Stored]) -> Iterator[Visit]:
    seen = _Seen(practice.repository, access)
    orders = {a.reference: next(iter(references_to(a.resource.get("basedOn"), "ServiceRequest")), "") for a in found}
    tasks = tracker.of_orders(practice.repository, filter(None, orders.values()), access)
    actors = [reference(p.get("actor")) for a in found for p in a.resource.get("participant", [])]
    offices = [reference(task.get("requester")) for task in tasks.values()]
    seen.look([*orders.values(), *actors, *offices])
    now, grace = practice.clock(), practice.policy.grace
    for appointment in found:
        resource, start = appointment.resource, appointments.start_of(appointment.resource)
        if start is None:
            continue  # only a proposal or a waiting list entry has none
        order = orders[appointment.reference]
        task, ordered = tasks.get(order, {}), seen.resource(order)
        people = [reference(p.get("actor")) for p in resource.get("participant", [])]
        patient = next((seen.resource(text) for text in people if text.startswith("Patient/")), {})
        rooms = [seen.resource(text).get("name", "") for text in people if text.startswith("Location/")]
        yield Visit(
            appointment=appointment.reference,
            version=appointment.version,
            status=resource["status"],
            start=start,
            end=moment(resource.get("end")),
            room=next(iter(filter(None, rooms)), ""),
            late=resource["status"] == "booked" and now >= start + grace,
            patient_name=human_name(patient),
            birth_date=patient.get("birthDate", ""),
            exam=concept_text(ordered.get("code")) or concept_text(next(iter(resource.get("serviceType", [])), None)),
            task=f"Task/{task['id']}" if task else "",
            number=referral_number(task) if task else "",
            priority=task.get("priority", "routine"),
            office=_party_name(seen, task.get("requester")),
        )


class _Seen:
    """Resources that lines of a list refer to, fetched together; those that the caller may not see stay away."""

    def __init__(self, repository: Repository, access: Access) -> None:
        self._repository = repository
        self._access = access
        self._versions: dict[str, Version] = {}
        self._resources: dict[str, dict] = {}

    def look(self, wanted: Iterable[str]) -> None:
        targets = {references.local(text, self._repository.base_url) for text in wanted if text}
        for version in self._repository.store.newest_many(target for target in targets if target):
            if self._repository.visible(self._access, "r", version):
                self._versions[version.reference] = version

    def version(self, text: str) -> Version | None:
        return self._versions.get(text)

    def resource(self, text: str) -> dict:
        """The content; empty when it is not there, or not for this caller."""
        if text not in self._resources:
            version = self._versions.get(text)
            self._resources[text] = version.resource() if version is not None else {}
        return self._resources[text]


def _party_name(seen: _Seen, party: object) -> str:
    """What a requester is called: an organization's or a person's name, else what the reference itself displays."""
    resource = seen.resource(reference(party))
    if resource.get("resourceType") == "PractitionerRole":
        person, office = resource.get("practitioner", {}), resource.get("organization", {})
        return ", ".join(filter(None, [person.get("display"), office.get("display")]))
    name = resource.get("name")
    if isinstance(name, str):
        return name
    display = party.get("display", "") if isinstance(party, dict) else ""
    return human_name(resource) if name else display
