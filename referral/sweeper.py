"""Appointments whose time has passed without a word, and holds that have run out.

A pass is idempotent and goes by the practice's clock. Nobody is marked as missed before the front desk was asked in
an earlier pass, so a clock that jumps, or a worker that was away, needs two passes.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from fhir_server import periodic
from fhir_server.errors import Conflict, PreconditionFailed
from fhir_server.prepare import Draft, instant
from fhir_server.version import Version
from referral import appointments, slots, steps, store, tracker
from referral.codes import CONFIRM_ARRIVAL, references
from referral.context import Practice
from referral.scheduling.claiming import unheld

NAME = "sweeper"


def sweep(practice: Practice) -> int:
    """One pass: ask, mark as missed, free what was held too long; how many things it did."""
    return _booked(practice) + _held(practice) + _proposed(practice)


def _booked(practice: Practice) -> int:
    """Appointments that began longer ago than the grace period, and nobody has come."""
    found = _begun(practice, "booked", practice.clock() - practice.policy.grace)
    return periodic.each(NAME, found, lambda version: _ask_or_mark(practice, version), lambda v: v.reference)


def _ask_or_mark(practice: Practice, version: Version) -> bool:
    appointment = version.resource()
    for order in references(appointment.get("basedOn"), "ServiceRequest"):
        referral = tracker.tracker_of(practice.repository, order)
        if referral is not None:
            question = _question(practice, version, appointment, referral.resource)
            if steps.ask(practice.repository, question, referral.resource, practice.clock()):
                return True
    return _mark_missed(practice, version)


def _question(practice: Practice, version: Version, appointment: dict, referral: dict) -> steps.Step:
    """Whether the patient came, asked once for each appointment and start."""
    start = appointments.start_of(appointment)
    owner = referral.get("owner") or {"reference": practice.policy.practice}
    state = tracker.state_of(referral)
    return steps.Step(
        CONFIRM_ARRIVAL,
        state.code if state else "appointment-booked",
        (version.reference, appointment["start"]),
        owner,
        owner,
        version.reference,
        "The time of the appointment has passed. Did the patient come?",
        due=start + practice.policy.grace + practice.policy.correction if start else None,
    )


def _mark_missed(practice: Practice, version: Version) -> bool:
    policy = practice.policy
    marked = False

    def change(appointment: dict) -> dict | None:
        nonlocal marked
        start = appointments.start_of(appointment)
        marked = (
            appointment["status"] == "booked"
            and start is not None
            and start + policy.grace + policy.correction <= practice.clock()
        )
        if not marked:
            return None
        reason = appointments.status_reason("no-show", "The patient did not attend")
        return appointments.with_status_reason(appointment | {"status": "noshow"}, reason)

    practice.repository.amend(store.RULES, "Appointment", version.id, change)
    return marked


def _held(practice: Practice) -> int:
    """Holds that have run out are proposals again, and their slots free."""
    found = store.every(practice.repository, "Appointment", [("status", "pending")])
    return periodic.each(NAME, found, lambda version: _release(practice, version), lambda v: v.reference)


def _release(practice: Practice, version: Version) -> bool:
    appointment = store.stored(version)
    until = slots.held_until(appointment.resource)
    if until is None or until > practice.clock():
        return False
    free = slots.released(practice.repository, [appointment])
    drafts = [store.update_of(changed) for changed in (unheld(appointment), *free)]
    return _write(practice, drafts)


def _proposed(practice: Practice) -> int:
    """Proposals that nobody took before their time are over."""
    found = _begun(practice, "proposed", practice.clock())

    def cancel(version: Version) -> bool:
        return _write(practice, [store.update_of(appointments.cancelled(store.stored(version), "other"))])

    return periodic.each(NAME, found, cancel, lambda v: v.reference)


def _begun(practice: Practice, status: str, moment: datetime) -> Iterator[Version]:
    """Appointments in the status that began at the moment or before it.

    A start written to the second covers all of that second, so the search goes a little beyond.
    """
    query = [("status", status), ("date", f"lt{instant(moment + timedelta(seconds=1))}")]
    for version in store.every(practice.repository, "Appointment", query):
        start = appointments.start_of(version.resource())
        if start is not None and start <= moment:
            yield version


def _write(practice: Practice, drafts: list[Draft]) -> bool:
    try:
        practice.repository.write(store.RULES, drafts)
    except (Conflict, PreconditionFailed):
        return False  # somebody takes or frees it at this moment; the next pass looks again
    return True
