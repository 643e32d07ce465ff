"""A time that can be had, as an Appointment in status proposed: made from a Slot, its Schedule and the order.

Proposals are not stored: their id says which Slot and which order they are of, so that $hold and $book can make
them anew from what is there by then.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fhir_server.repository import Repository
from referral import store
from referral.codes import APPOINTMENT_PRIORITY, reference, references
from referral.event import moment

NAME = "proposal"
_ID = re.compile(rf"{NAME}-([0-9a-f]{{1,16}})(?:-([0-9a-f]{{1,16}}))?")
ACTORS = (
    "Device",
    "HealthcareService",
    "Location",
    "Practitioner",
    "PractitionerRole",
)  # of a visit, but the patient


@dataclass(frozen=True, slots=True)
class ProposalId:
    """The creation numbers of a Slot and of an order, which always fit into an id of 64 characters."""

    slot: int
    order: int | None

    def __str__(self) -> str:
        return f"{NAME}-{self.slot:x}" + (f"-{self.order:x}" if self.order is not None else "")

    @classmethod
    def parse(cls, id: str) -> "ProposalId | None":
        """None for the id of something else."""
        match = _ID.fullmatch(id)
        if match is None:
            return None
        numbers = [int(text, 16) for text in match.groups() if text is not None]
        if any(number >= 2**63 for number in numbers):
            return None
        return cls(numbers[0], numbers[1] if len(numbers) > 1 else None)


def slot_of(repository: Repository, proposal: ProposalId) -> store.Stored | None:
    """The Slot as it is now."""
    version = repository.store.created_as("Slot", proposal.slot)
    return store.stored(version) if version is not None else None


def order_of(repository: Repository, proposal: ProposalId) -> str | None:
    """The reference of the order that the proposal was made for. Whether the caller may see it is not asked here."""
    if proposal.order is None:
        return None
    version = repository.store.created_as("ServiceRequest", proposal.order)
    return version.reference if version is not None else None


def schedule_of(repository: Repository, slot: dict) -> dict:
    """The Schedule of a Slot; empty when it is not here."""
    found = store.fetch(repository, reference(slot.get("schedule")))
    return found.resource if found else {}


def visit(slots: Sequence[dict], schedule: dict, services: Sequence[dict], order: dict | None) -> dict:
    """The Appointment of these (adjoining) Slots, without id and status."""
    start, end = slots[0]["start"], slots[-1]["end"]
    began, ended = moment(start), moment(end)
    appointment = {
        "resourceType": "Appointment",
        "serviceCategory": slots[0].get("serviceCategory") or schedule.get("serviceCategory"),
        "serviceType": slots[0].get("serviceType") or schedule.get("serviceType"),
        "specialty": slots[0].get("specialty") or schedule.get("specialty"),
        "appointmentType": slots[0].get("appointmentType"),
        "priority": APPOINTMENT_PRIORITY.get((order or {}).get("priority", "routine")) if order else None,
        "start": start,
        "end": end,
        "minutesDuration": int((ended - began).total_seconds() // 60) if began and ended else None,
        "slot": [{"reference": f"Slot/{slot['id']}"} for slot in slots],
        "patientInstruction": _preparation(order, services),
        "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}] if order else None,
        "participant": _participants(schedule, order),
        "requestedPeriod": [{"start": start, "end": end}],
    }
    return {name: value for name, value in appointment.items() if value}


def is_due(slot: dict, now: datetime) -> bool:
    """Whether the Slot still lies ahead, or has just begun."""
    end = moment(slot.get("end"))
    return end is not None and end > now


def with_answers(appointment: dict, status: str) -> dict:
    """The Appointment with this answer of every participant: needs-action while proposed or held, then accepted."""
    answered = [participant | {"status": status} for participant in appointment["participant"]]
    return appointment | {"participant": answered}


def _participants(schedule: dict, order: dict | None) -> list[dict]:
    actors = [
        actor for actor in schedule.get("actor", []) if reference(actor).startswith(tuple(f"{a}/" for a in ACTORS))
    ]
    patient = [order["subject"]] if order and reference(order.get("subject")).startswith("Patient/") else []
    return [
        {"actor": {name: actor[name] for name in ("reference", "display") if name in actor}, "status": "needs-action"}
        for actor in [*patient, *actors]
    ]


def _preparation(order: dict | None, services: Sequence[dict]) -> str | None:
    """What the patient is told beforehand: the order's own words, else the practice's for this kind of exam."""
    texts = [(order or {}).get("patientInstruction"), *[service.get("extraDetails") for service in services]]
    return next(filter(None, texts), None)


def services_of(repository: Repository, schedule: dict) -> list[dict]:
    """The HealthcareServices that a Schedule is for."""
    wanted = references(schedule.get("actor"), "HealthcareService")
    found = [store.fetch(repository, text) for text in wanted]
    return [service.resource for service in found if service is not None]
