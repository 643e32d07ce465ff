"""Slots: who has one, claiming it, giving it back. A hold ends by the clock, whether or not anybody sweeps."""

from collections.abc import Iterable
from datetime import datetime

from fhir_server.repository import Repository
from referral import store
from referral.codes import HELD_UNTIL, extension, references, with_extension
from referral.event import moment
from referral.states import APPOINTMENT_HOLDING


def slots_of(appointment: dict) -> list[str]:
    """References of the appointment's slots."""
    return references(appointment.get("slot"), "Slot")


def held_until(resource: dict) -> datetime | None:
    """When the hold on a Slot, or of an Appointment, ends; None when there is none."""
    found = extension(resource, HELD_UNTIL)
    return moment(found.get("valueDateTime")) if found else None


def is_free(slot: dict, now: datetime) -> bool:
    """Whether the slot may be taken: free, or held until a time that is over."""
    if slot.get("status") == "free":
        return True
    until = held_until(slot)
    return slot.get("status") == "busy-tentative" and until is not None and until <= now


def holding(repository: Repository, slot: str, but: Iterable[str] = ()) -> list[store.Stored]:
    """The appointments that have the slot (`Slot/1`), those of the references `but` left out."""
    found = [store.stored(version) for version in store.every(repository, "Appointment", [("slot", slot)])]
    left_out = set(but)
    return [a for a in found if a.resource["status"] in APPOINTMENT_HOLDING and a.reference not in left_out]


def with_status(slot: store.Stored, status: str, until: datetime | None = None) -> store.Stored:
    """The slot in a new status. until: the end of a hold."""
    value = {"valueDateTime": until.isoformat(timespec="seconds")} if until else None
    return store.Stored(with_extension({**slot.resource, "status": status}, HELD_UNTIL, value), slot.version)


def released(repository: Repository, appointments: Iterable[store.Stored]) -> list[store.Stored]:
    """The slots of these appointments as free, but for those that somebody else has by now.

    The slot is read before its holders are looked for: a claim commits slot and appointment together, so with
    the slot's version in If-Match a claim in between makes the commit fail.
    """
    appointments = list(appointments)
    leaving = {appointment.reference for appointment in appointments}
    wanted = dict.fromkeys(slot for appointment in appointments for slot in slots_of(appointment.resource))
    free = []
    for reference in wanted:
        slot = store.fetch(repository, reference)
        taken = slot is not None and slot.resource.get("status") in ("busy", "busy-tentative")
        if slot is not None and taken and not holding(repository, reference, leaving):
            free.append(with_status(slot, "free"))
    return free
