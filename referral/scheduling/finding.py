"""Which times can be had. https://profiles.ihe.net/ITI/Scheduling/ITI-115.html"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fhir_server import references
from fhir_server.access import Access
from fhir_server.errors import BadRequest
from fhir_server.prepare import instant
from fhir_server.repository import Repository
from referral import slots, store
from referral.codes import code_of, reference
from referral.context import Practice
from referral.event import moment
from referral.scheduling.proposals import ACTORS, ProposalId, visit

LONGEST = timedelta(days=93)
DEFAULT_COUNT, MAX_COUNT = 50, 500
CHUNK = 50  # schedules in one search
MAX_PLACES = 5  # a room in a site in a building ...
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
APPOINTMENT_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0276"
EMERGENCY = "EMERGENCY"  # appointmentType of a time that is kept back
FOR_URGENT = ("stat", "asap")  # orders that get the times kept for emergencies


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for, in [start, end]. Each list narrows; its values are alternatives; an empty one does not.

    visit_types, specialties: displays, texts or codes of the Slot's or Schedule's serviceType or specialty, or the
    name of a HealthcareService. practitioners, organizations, locations: references. days: of the week, `mon` ...
    order: what the visit is for; its priority opens the times that are kept for emergencies.
    """

    start: datetime
    end: datetime
    visit_types: tuple[str, ...] = ()
    specialties: tuple[str, ...] = ()
    practitioners: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    location_names: tuple[str, ...] = ()
    days: frozenset[str] = field(default_factory=frozenset)
    order: store.Stored | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Appointments in status proposed, the earliest first; total: of those too that were not asked for."""

    proposals: tuple[dict, ...]
    total: int


def find(practice: Practice, access: Access, wanted: Wanted, count: int = DEFAULT_COUNT) -> Found:
    """The free times. Raises BadRequest for a span that is empty or too long, Forbidden without the scope."""
    if wanted.end <= wanted.start:
        raise BadRequest("end lies after start", "Parameters.parameter")
    if wanted.end - wanted.start > LONGEST:
        raise BadRequest(f"start and end may be {LONGEST.days} days apart", "Parameters.parameter")
    access.require_every("search", "Appointment")
    places = _Places(practice.repository)
    # Schedules and Slots are open to every caller (conformance.access_rules), so the rules read them.
    schedules = {}
    for version in store.every(practice.repository, "Schedule", []):
        schedule = version.resource()
        if schedule.get("active", True) and places.suits(schedule, wanted):
            schedules[version.reference] = schedule
    free = [slot for slot in _slots(practice, wanted, schedules) if _suits(practice, slot, wanted, places)]
    free.sort(key=lambda slot: (slot.start, slot.number))
    order = wanted.order.resource if wanted.order else None
    number = _created(practice.repository, wanted.order)
    proposals = []
    for slot in free[: min(count, MAX_COUNT)]:
        appointment = visit([slot.resource], slot.schedule, places.services(slot.schedule), order)
        proposals.append(appointment | {"id": str(ProposalId(slot.number, number)), "status": "proposed"})
    return Found(tuple(proposals), len(free))


@dataclass(frozen=True, slots=True)
class _Free:
    """A Slot that may be taken. number: of its creation."""

    resource: dict
    number: int
    start: datetime
    schedule: dict


def _slots(practice: Practice, wanted: Wanted, schedules: dict[str, dict]) -> Iterator[_Free]:
    """Slots of the schedules that may be taken and have not begun."""
    now = practice.clock()
    first = max(wanted.start, now)
    if not schedules or first >= wanted.end:
        return
    span = [("start", f"ge{instant(first)}"), ("start", f"lt{instant(wanted.end)}")]
    names = list(schedules)
    for chunk in range(0, len(names), CHUNK):
        query = [("schedule", ",".join(names[chunk : chunk + CHUNK])), ("status", "free,busy-tentative"), *span]
        for version in store.every(practice.repository, "Slot", query):
            slot = version.resource()
            start, end = moment(slot.get("start")), moment(slot.get("end"))
            if start and end and first <= start and end <= wanted.end and slots.is_free(slot, now):
                yield _Free(slot, version.created, start, schedules[reference(slot["schedule"])])


def _suits(practice: Practice, slot: _Free, wanted: Wanted, places: "_Places") -> bool:
    resource, day = slot.resource, DAYS[slot.start.astimezone(practice.policy.time_zone).weekday()]
    kept_back = code_of(resource.get("appointmentType"), APPOINTMENT_TYPE) == EMERGENCY
    priority = wanted.order.resource.get("priority") if wanted.order else None
    return (
        (not kept_back or priority in FOR_URGENT)
        and (not wanted.days or day in wanted.days)
        and _called(resource.get("specialty") or slot.schedule.get("specialty"), wanted.specialties)
        and _called(_kinds(resource, slot.schedule, places), wanted.visit_types)
    )


def _kinds(slot: dict, schedule: dict, places: "_Places") -> list[dict]:
    """The kinds of visit that a Slot is for: its own where it has some, with the names of services of that kind."""
    kinds = list(slot.get("serviceType") or schedule.get("serviceType") or [])
    for service in places.services(schedule):
        types = service.get("type", [])
        if not kinds or not types or not _codes(kinds).isdisjoint(_codes(types)):
            kinds = [*kinds, *types, {"text": service.get("name", "")}]
    return kinds


def _codes(concepts: Iterable[dict]) -> set[tuple[str | None, str | None]]:
    return {(c.get("system"), c.get("code")) for concept in concepts for c in concept.get("coding", [])}


def _called(concepts: list[dict] | None, names: tuple[str, ...]) -> bool:
    """Whether one of the concepts goes by one of the names: its text, a display, `code` or `system|code`."""
    if not names:
        return True
    known = set()
    for concept in concepts or []:
        known.add(concept.get("text", "").casefold())
        for coding in concept.get("coding", []):
            code = coding.get("code", "")
            known |= {coding.get("display", "").casefold(), code.casefold()}
            known.add(f"{coding.get('system', '')}|{code}".casefold())
    return any(name.casefold() in known for name in names if name)


def _created(repository: Repository, order: store.Stored | None) -> int | None:
    version = repository.store.newest("ServiceRequest", order.resource["id"]) if order else None
    return version.created if version else None


class _Places:
    """The people, rooms and services of the schedules, read once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, dict] = {}

    def get(self, text: str) -> dict:
        if text not in self._known:
            found = store.fetch(self._repository, text)
            self._known[text] = found.resource if found else {}
        return self._known[text]

    def services(self, schedule: dict) -> list[dict]:
        return [self.get(text) for text in self._actors(schedule) if text.startswith("HealthcareService/")]

    def suits(self, schedule: dict, wanted: Wanted) -> bool:
        """Whether the people, places and organizations of the schedule are among those that are wanted."""
        actors = self._actors(schedule)
        if wanted.practitioners:
            people = {*actors, *(reference(self.get(text).get("practitioner")) for text in actors)}
            if people.isdisjoint(self._local(wanted.practitioners)):
                return False
        places = [place for text in actors if text.startswith("Location/") for place in self._around(text)]
        if wanted.locations and not self._local(wanted.locations) & set(places):
            return False
        names = [str(self.get(place).get("name", "")).casefold() for place in places]
        if wanted.location_names and not any(w.casefold() in name for w in wanted.location_names for name in names):
            return False
        if wanted.organizations:
            elements = ("managingOrganization", "providedBy", "organization")
            known = {reference(self.get(text).get(element)) for text in [*actors, *places] for element in elements}
            return bool(known & self._local(wanted.organizations))
        return True

    def _actors(self, schedule: dict) -> list[str]:
        found = [reference(actor) for actor in schedule.get("actor", [])]
        return [text for text in found if text.partition("/")[0] in ACTORS]

    def _around(self, place: str) -> list[str]:
        """The location and those that it is part of."""
        found = [place]
        while len(found) < MAX_PLACES and (outer := reference(self.get(found[-1]).get("partOf"))):
            found.append(outer)
        return found

    def _local(self, texts: tuple[str, ...]) -> set[str]:
        targets = [references.local(text, self._repository.base_url) for text in texts]
        return {f"{target[0]}/{target[1]}" for target in targets if target}
