"""What an Appointment's version means for the referral: booked, moved, cancelled, arrived, missed, kept."""

from collections.abc import Callable
from dataclasses import replace

from fhir_server.errors import Conflict, PreconditionFailed
from fhir_server.version import Version
from referral import appointments, messages, slots, steps, store, tracker
from referral.codes import CONFIRM_ARRIVAL, ESCALATION, NOSHOW_COUNT, REBOOK, references, with_extension
from referral.context import Practice
from referral.event import Event, event_of
from referral.states import APPOINTMENT_HOLDING, ARRIVED_RANK, CHECKED_IN, FINAL_RANK

ATTEMPTS = 5
CORRECTED = "Correction: the patient did come."


def on_appointment(practice: Practice, version: Version) -> None:
    """A version of an Appointment: its slots, the question whether the patient came, its referrals."""
    appointment, before = version.resource(), store.previous(practice.repository, version)
    was = before["status"] if before else None
    _keep_slots(practice, appointment, before)
    moved = before is not None and appointments.start_of(before) != appointments.start_of(appointment)
    if was == "booked" and (appointment["status"] != "booked" or moved):
        _answer_arrival(practice, version.reference, appointment["status"])
    code = _code(appointment, before)
    for order in references(appointment.get("basedOn"), "ServiceRequest") if code else ():
        referral = tracker.tracker_of(practice.repository, order)
        if referral is not None:
            _tell(practice, referral, order, version, event_of(version, code or ""), was)


def _code(appointment: dict, before: dict | None) -> str | None:
    """The business status that this version leads to; None when it changes nothing that the referrer needs."""
    status, was = appointment["status"], before["status"] if before else None
    if status == was == "booked" and before is not None:
        moved = appointments.start_of(before) != appointments.start_of(appointment)
        return "appointment-rescheduled" if moved else None
    if status == was or (status == "cancelled" and was not in (None, "booked", "arrived", "checked-in")):
        return None  # a hold or a proposal that ends was never told to anybody
    if status in ("arrived", "checked-in"):
        return None if was in CHECKED_IN else "patient-arrived"
    return {
        "booked": "appointment-booked",
        "cancelled": "appointment-cancelled",
        "noshow": "appointment-noshow",
        "fulfilled": "exam-performed",
    }.get(status)


def _tell(
    practice: Practice, referral: store.Stored, order: str, version: Version, event: Event, was: str | None
) -> None:
    repository, task_id = practice.repository, referral.resource["id"]
    all_visits = appointments.of_order(repository, order)
    others = appointments.live(all_visits, but=version.reference)
    appointment = version.resource()
    if event.code in ("appointment-cancelled", "appointment-noshow"):
        # The state follows the latest live appointment: with another one booked, this is a line in the history.
        event = replace(event, over=-1 if others else ARRIVED_RANK, reason=_reason(event.code, appointment))
        if others:
            tracker.note(repository, task_id, event, practice.clock)
        else:
            tracker.move(repository, task_id, event, practice.clock, also=_counting(all_visits))
    else:
        event = replace(event, over=_over(event.code, appointment, version))
        heard = version.by != store.RULES.subject
        tracker.move(repository, task_id, event, practice.clock, heard=heard, also=_counting(all_visits))
    if event.code == "appointment-noshow":
        _missed(practice, referral, order, version, rebook=not others, count=_noshows(all_visits))
    elif was == "noshow":
        messages.send(repository, referral.resource, event.code, version.reference, CORRECTED, practice.clock())
    if event.code in ("appointment-booked", "patient-arrived", "exam-performed"):
        _rebooked(practice, task_id, "completed" if event.code == "appointment-booked" else "cancelled")


def _over(code: str, appointment: dict, version: Version) -> int:
    """A booking for a time to come is a new visit, and may follow on images of the last one."""
    start = appointments.start_of(appointment)
    if code in ("appointment-booked", "appointment-rescheduled") and start and start > version.last_updated:
        return FINAL_RANK - 1
    return -1


def _reason(code: str, appointment: dict) -> dict:
    if code == "appointment-noshow":
        return appointments.reason_of(appointment) or appointments.status_reason(
            "no-show", "The patient did not attend"
        )
    return appointments.reason_of(appointment) or {"text": "The appointment was cancelled"}


def _noshows(visits: list[store.Stored]) -> int:
    return sum(visit.resource["status"] == "noshow" for visit in visits)


def _counting(visits: list[store.Stored]) -> Callable[[dict], dict]:
    """Keeps the number of missed appointments on the Task."""
    count = _noshows(visits)

    def with_count(task: dict) -> dict:
        return with_extension(task, NOSHOW_COUNT, {"valueUnsignedInt": count} if count else None)

    return with_count


def _missed(
    practice: Practice, referral: store.Stored, order: str, version: Version, *, rebook: bool, count: int
) -> None:
    """The next step goes to the referring office; after too many missed visits, a question to the staff as well."""
    task, now = referral.resource, practice.clock()
    call = f" or call {practice.policy.phone}" if practice.policy.phone else " or call the practice"
    next_step = f"The patient did not attend. Rebook, withdraw the referral,{call}."
    if rebook:
        step = steps.Step(
            REBOOK,
            "appointment-noshow",
            (version.reference,),
            task.get("requester"),
            task.get("owner"),
            order,
            next_step,
        )
        steps.ask(practice.repository, step, task, now)
    reason = _reason("appointment-noshow", version.resource())
    messages.send(practice.repository, task, "appointment-noshow", version.reference, next_step, now, reason)
    if count >= practice.policy.max_noshows:
        many = steps.Step(
            ESCALATION,
            "appointment-noshow",
            (referral.reference, "noshow", str(count)),
            task.get("owner"),
            task.get("owner"),
            order,
            f"{count} appointments of this referral were missed: decide how to go on.",
        )
        steps.ask(practice.repository, many, task, now)


def _rebooked(practice: Practice, task_id: str, status: str) -> None:
    for step in steps.open_steps(practice.repository, [("part-of", f"Task/{task_id}")], REBOOK):
        why = "A new appointment is set" if status == "completed" else "The patient came after all"
        steps.finish(practice.repository, step, status, why, practice.clock())


def _answer_arrival(practice: Practice, reference: str, status: str) -> None:
    """The question whether the patient came has its answer, or its reason has gone."""
    answered = status in CHECKED_IN or status == "noshow"
    for step in steps.open_steps(practice.repository, [("focus", reference)], CONFIRM_ARRIVAL):
        why = f"The appointment is {status}"
        steps.finish(practice.repository, step, "completed" if answered else "cancelled", why, practice.clock())


def _keep_slots(practice: Practice, appointment: dict, before: dict | None) -> None:
    """Slots follow appointments that were written without the operations, which keep both together themselves."""
    for attempt in range(1, ATTEMPTS + 1):
        changed = _slots_to_change(practice, appointment, before)
        try:
            if changed:
                practice.repository.write(store.RULES, [store.update_of(slot) for slot in changed])
            return
        except (Conflict, PreconditionFailed):
            if attempt == ATTEMPTS:
                raise


def _slots_to_change(practice: Practice, appointment: dict, before: dict | None) -> list[store.Stored]:
    repository = practice.repository
    reference = f"Appointment/{appointment['id']}"
    current = store.fetch(repository, reference)
    if current is None or current.resource["status"] != appointment["status"]:
        return []  # a later version is on its way here
    had = slots.slots_of(before) if before and before["status"] in APPOINTMENT_HOLDING else []
    if appointment["status"] not in APPOINTMENT_HOLDING | {"fulfilled", "noshow"}:
        return slots.released(repository, [store.Stored({**appointment, "slot": _refer(had)}, 0)])
    left = [slot for slot in had if slot not in slots.slots_of(appointment)]
    changed = slots.released(repository, [store.Stored({**appointment, "slot": _refer(left)}, 0)]) if left else []
    if appointment["status"] in ("booked", "arrived", "checked-in"):
        found = [store.fetch(repository, slot) for slot in slots.slots_of(appointment)]
        changed += [
            slots.with_status(slot, "busy") for slot in found if slot and slot.resource.get("status") != "busy"
        ]
    return changed


def _refer(references_: list[str]) -> list[dict]:
    return [{"reference": text} for text in references_]
