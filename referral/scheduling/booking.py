"""Holding, booking, moving and cancelling a time. https://profiles.ihe.net/ITI/Scheduling/ITI-117.html

The practice's staff may, and a referring office for its own referrals. Only here does an office write an
Appointment: the rules do it for the caller once everything is checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_server import references
from fhir_server.access import Access
from fhir_server.errors import BadRequest, TooManyRequests, Unprocessable
from fhir_server.prepare import Draft, instant
from fhir_server.version import Version
from referral import appointments, slots, store
from referral.codes import HELD_UNTIL, STATUS_REASON, extension, reference, with_extension
from referral.codes import references as references_to
from referral.context import Practice
from referral.scheduling.claiming import claim, commit, gone
from referral.scheduling.orders import check_placer, check_schedulable
from referral.scheduling.proposals import (
    ProposalId,
    order_of,
    schedule_of,
    services_of,
    slot_of,
    visit,
    with_answers,
)
from referral.states import APPOINTMENT_MOVES, check_move


@dataclass(frozen=True, slots=True)
class Target:
    """The time that a caller means: an Appointment that is stored, or the Slots of a proposal.

    appointment: reference, or empty. order: reference of the order that a proposal was made for. path: where the
    caller named it, for an OperationOutcome.
    """

    appointment: str
    slots: tuple[str, ...]
    order: str | None
    path: str | None


@dataclass(frozen=True, slots=True)
class Particulars:
    """What a caller says besides. order: the order the visit is for, patient: reference to check it by."""

    order: store.Stored | None = None
    patient: str | None = None
    comment: str | None = None


def target_of(practice: Practice, text: str, path: str | None = None) -> Target:
    """What a reference to an Appointment means. Raises BadRequest for other references, NotFound for a Slot gone."""
    target = references.local(text, practice.repository.base_url)
    if target is None or target[0] != "Appointment":
        raise BadRequest("a reference to an Appointment of this server is expected", path)
    proposal = ProposalId.parse(target[1])
    if proposal is None:
        return Target(f"Appointment/{target[1]}", (), None, path)
    slot = slot_of(practice.repository, proposal)
    if slot is None:
        raise gone(path)
    return Target("", (slot.reference,), order_of(practice.repository, proposal), path)


def hold(practice: Practice, access: Access, target: Target, told: Particulars | None = None) -> Version:
    """Keep the time for the caller until `policy.hold` is over; the Appointment, pending.

    Raises NotFound (severity fatal) when the time is taken, TooManyRequests beyond `policy.max_holds`.
    """
    access.require_every("create", "Appointment")
    told = told or Particulars()

    def make() -> list[Draft] | Version:
        current = _stored(practice, access, target)
        order = _order(practice, access, target, current, told)
        if order is not None:
            check_schedulable(practice, access, order, target.path)
        elif not access.is_practice:
            raise BadRequest("order-reference or referral-identifier is needed", "Parameters.parameter")
        if current is not None and current.resource["status"] not in ("proposed", "pending"):
            raise gone(target.path)
        wanted = slots.slots_of(current.resource) if current else list(target.slots)
        if there := _already(practice, wanted, "pending", current, order):
            return there
        _check_holds(practice, access)
        taken = claim(practice, wanted, target.path, current)
        until = practice.clock() + practice.policy.hold
        held = _visit(practice, taken.slots, order, current) | {"status": "pending"}
        held = with_extension(held, HELD_UNTIL, {"valueDateTime": until.isoformat(timespec="seconds")})
        return [_write(held, current), *taken.drafts("busy-tentative", until)]

    return commit(practice, access, make, target.path)


def book(practice: Practice, access: Access, target: Target, told: Particulars | None = None) -> Version:
    """Book a held or proposed time; the Appointment, booked. Booking again what is booked changes nothing.

    Raises NotFound (severity fatal) when the time is taken, Unprocessable when the referral may not be booked.
    """
    access.require_every("create", "Appointment")
    told = told or Particulars()

    def make() -> list[Draft] | Version:
        current = _stored(practice, access, target)
        order = _order(practice, access, target, current, told)
        if order is None:
            raise BadRequest("order-reference or referral-identifier is needed", "Parameters.parameter")
        check_schedulable(practice, access, order, target.path)
        _check_patient(told, order)
        wanted = slots.slots_of(current.resource) if current else list(target.slots)
        if there := _already(practice, wanted, "booked", current, order):
            return there
        if current is not None and current.resource["status"] not in ("proposed", "pending", "waitlist"):
            raise gone(target.path)
        overbook = access.is_practice and order.resource.get("priority") in practice.policy.overbook
        taken = claim(practice, wanted, target.path, current, overbook=overbook)
        booked = _visit(practice, taken.slots, order, current) | {"status": "booked"}
        booked = with_answers(with_extension(booked, HELD_UNTIL, None), "accepted")
        if told.comment:
            booked["comment"] = told.comment
        return [_write(booked, current), *taken.drafts("busy")]

    return commit(practice, access, make, target.path)


def move(practice: Practice, access: Access, appointment: str, slots_: Sequence[str], path: str | None) -> Version:
    """Give a booked Appointment (`Appointment/1`) other Slots; those that it had are free again.

    Raises NotFound (severity fatal) when the new time is taken: the old one stays then.
    """
    access.require_every("update", "Appointment")
    target = Target(appointment, (), None, path)

    def make() -> list[Draft] | Version:
        current = _stored(practice, access, target)
        if current is None or current.resource["status"] != "booked":
            raise gone(path)
        order = _order(practice, access, target, current, Particulars())
        if order is not None:
            check_schedulable(practice, access, order, path)
        taken = claim(practice, slots_, path, current)
        had = [slot for slot in slots.slots_of(current.resource) if slot not in slots_]
        left = {**current.resource, "slot": [{"reference": slot} for slot in had]}
        free = slots.released(practice.repository, [store.Stored(left, current.version)])
        moved = with_answers(_visit(practice, taken.slots, order, current), "accepted")
        return [_write(moved, current), *taken.drafts("busy"), *(store.update_of(slot) for slot in free)]

    return commit(practice, access, make, path)


def cancel(practice: Practice, access: Access, appointment: str, wanted: dict, path: str | None) -> Version:
    """Cancel an Appointment (`Appointment/1`) not yet begun; its Slots are free again.

    wanted: an Appointment whose reasons (cancelationReason, status-reason) are taken over. Raises Unprocessable,
    naming from and to, once the patient is there.
    """
    access.require_every("update", "Appointment")
    target = Target(appointment, (), None, path)

    def make() -> list[Draft] | Version:
        current = _stored(practice, access, target)
        if current is None:
            raise gone(path)
        order = _order(practice, access, target, current, Particulars())
        if order is not None:
            check_placer(practice, access, order, path)
        if current.resource["status"] == "cancelled":
            return practice.repository.read(store.RULES, "Appointment", current.resource["id"])
        if not access.is_practice and not appointments.cancellable([current]):
            raise Unprocessable(f"the visit is {current.resource['status']}; please call the practice", path)
        check_move(APPOINTMENT_MOVES, "Appointment.status", current.resource["status"], "cancelled")
        cancelled = appointments.cancelled(current, "other").resource
        if "cancelationReason" in wanted:
            cancelled["cancelationReason"] = wanted["cancelationReason"]
        reason = (extension(wanted, STATUS_REASON) or {}).get("valueCodeableConcept")
        cancelled = with_extension(appointments.with_status_reason(cancelled, reason), HELD_UNTIL, None)
        free = slots.released(practice.repository, [current])
        return [_write(cancelled, current), *(store.update_of(slot) for slot in free)]

    return commit(practice, access, make, path)


def _stored(practice: Practice, access: Access, target: Target) -> store.Stored | None:
    """The Appointment that the caller means, as it is now. Raises NotFound for one that is not there for them."""
    if not target.appointment:
        return None
    reader = access.of_the_server()  # the operation reads, within their sight
    found = store.fetch(practice.repository, target.appointment, reader)
    if found is None:
        raise gone(target.path)
    return found


def _order(
    practice: Practice, access: Access, target: Target, current: store.Stored | None, told: Particulars
) -> store.Stored | None:
    """The order of the visit. Raises Unprocessable when what the caller names is not what the time is for."""
    linked = references_to(current.resource.get("basedOn"), "ServiceRequest") if current else []
    text = next(iter(linked), None) or target.order
    if told.order is not None:
        if text is not None and told.order.reference != text:
            raise Unprocessable("this time is kept for another order", target.path)
        return told.order
    if text is None:
        return None
    reader = access.of_the_server()
    order = store.fetch(practice.repository, text, reader)
    if order is None:
        raise gone(target.path)
    return order


def _already(
    practice: Practice, wanted: Sequence[str], status: str, current: store.Stored | None, order: store.Stored | None
) -> Version | None:
    """The hold or booking that is there for the same order: who asks again, since an answer got lost, gets it."""
    repository, now = practice.repository, practice.clock()
    for slot in wanted:
        for other in slots.holding(repository, slot):
            linked = references_to(other.resource.get("basedOn"), "ServiceRequest")
            until = slots.held_until(other.resource)
            is_over = other.resource["status"] == "pending" and (until is None or until <= now)
            is_ours = (order is not None and order.reference in linked) or (
                current is not None and current.reference == other.reference
            )
            if is_ours and other.resource["status"] == status and not is_over:
                return repository.read(store.RULES, "Appointment", other.resource["id"])
    return None


def _check_holds(practice: Practice, access: Access) -> None:
    """Refuse an office that keeps many times and books none."""
    if access.is_practice:
        return
    reader = access.of_the_server()
    held = [v.resource() for v in store.every(practice.repository, "Appointment", [("status", "pending")], reader)]
    ends = [until for appointment in held if (until := slots.held_until(appointment))]
    if sum(until > practice.clock() for until in ends) >= practice.policy.max_holds:
        raise TooManyRequests(f"{practice.policy.max_holds} times are held already; book one or wait for their end")


def _check_patient(told: Particulars, order: store.Stored) -> None:
    if told.patient is not None and told.patient != reference(order.resource.get("subject")):
        raise Unprocessable("the patient is not the one of the order", "Parameters.parameter")


def _visit(
    practice: Practice, taken: tuple[store.Stored, ...], order: store.Stored | None, current: store.Stored | None
) -> dict:
    """The Appointment of these Slots; what an earlier one had besides, it keeps."""
    schedule = schedule_of(practice.repository, taken[0].resource)
    services = services_of(practice.repository, schedule)
    made = visit([slot.resource for slot in taken], schedule, services, order.resource if order else None)
    return (current.resource if current else {"created": instant(practice.clock())}) | made


def _write(appointment: dict, current: store.Stored | None) -> Draft:
    if current is None:
        return Draft("create", appointment)
    return Draft("update", appointment, if_match=current.version)
