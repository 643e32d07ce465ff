"""Free times for a referral: which kinds of exam there are, and the next times of one of them, by day."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from fhir_server.access import Access
from fhir_server.errors import BadRequest, NotFound
from portal.words import day
from referral import store
from referral.board import Card
from referral.context import Practice
from referral.event import moment
from referral.scheduling import booking
from referral.scheduling.finding import Wanted, find
from referral.scheduling.proposals import ProposalId

SPAN_DAYS = 14
SHOWN = 60  # times on one page


class Taken(Exception):
    """Somebody else has this time by now, or it is over."""


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of exam that can be booked: a HealthcareService by its id."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A free time. id: of the proposed Appointment."""

    id: str
    start: datetime


def services(practice: Practice, access: Access) -> list[Service]:
    """The kinds of exam, by name."""
    found = [
        v.resource() for v in store.every(practice.repository, "HealthcareService", [("active", "true")], access)
    ]
    return sorted((Service(s["id"], s["name"]) for s in found if s.get("name")), key=lambda service: service.name)


def service_of(practice: Practice, access: Access, card: Card, offered: Iterable[Service]) -> str:
    """The id of the kind of exam that is meant, where order or last visit say so in codes; else empty."""
    order = store.fetch(practice.repository, card.order, access)
    visits = store.every(practice.repository, "Appointment", [("based-on", card.order)], access)
    meant = _codes([(order.resource if order else {}).get("code")])
    for visit in visits:
        meant |= _codes(visit.resource().get("serviceType", []))
    for service in offered:
        resource = store.fetch(practice.repository, f"HealthcareService/{service.id}", access)
        if resource is not None and meant & _codes(resource.resource.get("type", [])):
            return service.id
    return ""


def first_day(practice: Practice, text: str | None) -> date:
    """The day to look from: today by the practice's clock, or a later one. Raises BadRequest."""
    today = practice.clock().astimezone(practice.policy.time_zone).date()
    if not text:
        return today
    try:
        return max(date.fromisoformat(text), today)
    except ValueError:
        raise BadRequest("give the day as year-month-day, such as 2026-03-31") from None


def free_times(
    practice: Practice, access: Access, card: Card, service: Service, begin: date
) -> list[tuple[str, list[Proposal]]]:
    """The next free times from that day, at most SHOWN, by day in words."""
    zone = practice.policy.time_zone
    try:
        start = datetime.combine(begin, time(), zone)
        end = datetime.combine(begin + timedelta(days=SPAN_DAYS), time(), zone)
    except OverflowError:
        raise BadRequest("that day is too far away") from None
    order = store.fetch(practice.repository, card.order, access)
    found = find(practice, access, Wanted(start, end, visit_types=(service.name,), order=order), SHOWN)
    by_day: dict[str, list[Proposal]] = {}
    for appointment in found.proposals:
        begins = moment(appointment["start"])
        if begins is not None:
            by_day.setdefault(day(begins, zone), []).append(Proposal(appointment["id"], begins))
    return list(by_day.items())


def book(practice: Practice, access: Access, card: Card, proposal: str) -> None:
    """Book a free time for the referral, in one step: it is claimed and booked, or Taken is raised."""
    if ProposalId.parse(proposal) is None:
        raise BadRequest("choose one of the times")
    order = store.fetch(practice.repository, card.order, access)
    if order is None:
        raise NotFound("the order of this referral is not here")
    try:
        target = booking.target_of(practice, f"Appointment/{proposal}")
        booking.book(practice, access, target, booking.Particulars(order=order))
    except NotFound:
        raise Taken from None


def chosen_service(offered: Iterable[Service], id: str) -> Service:
    """Raises NotFound for an id that is not offered."""
    for service in offered:
        if service.id == id:
            return service
    raise NotFound("there is no such kind of exam")


def _codes(concepts: Iterable[dict | None]) -> set[tuple[str | None, str | None]]:
    codings = [coding for concept in concepts if concept for coding in concept.get("coding", [])]
    return {(coding.get("system"), coding.get("code")) for coding in codings}
