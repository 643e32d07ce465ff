"""The front desk's moves, as plain functions: each one write through the Repository, with the caller's own Access.

What follows from a move (messages, slots, steps) is a reaction to the version that it makes (rules.py). `version`
is the one that the page showed; when it is no longer current, PreconditionFailed is raised and nothing changes.
"""

from collections.abc import Callable

from fhir_server.access import Access
from fhir_server.errors import BadRequest, NotFound, PreconditionFailed, Unprocessable
from fhir_server.prepare import instant
from fhir_server.version import Version
from referral import appointments
from referral.codes import ABORT, CANCELLATION_REASON, FULFILL, STATUS_REASONS, concept, task_kind
from referral.context import Practice
from referral.information import MISSING
from referral.states import CHECKED_IN, business_status

MAX_REASON = 1000  # characters of a reason that somebody types

# Why staff cancels a visit: code of IHE Scheduling's status-reason -> code of appointment-cancellation-reason.
CANCEL_REASONS = {
    "patient-cancel": "pat",
    "staff-cancel": "prov",
    "equip-unavail": "maint",
    "prep-incomplete": "meds-inc",
    "transportation": "pat-lt",
    "pregnant": "pat-preg",
    "scheduling-error": "oth-err",
    "other": "other",
}


def accept(practice: Practice, access: Access, task_id: str, version: int) -> Version:
    """Take the referral on; it waits to be scheduled."""
    return _move_task(practice, access, task_id, version, {"status": "accepted"})


def decline(practice: Practice, access: Access, task_id: str, version: int, reason: str) -> Version:
    """Refuse the referral. reason: goes to the referring office; BadRequest when there is none."""
    return _move_task(practice, access, task_id, version, {"status": "rejected"} | _because(reason))


def ask_information(practice: Practice, access: Access, task_id: str, version: int, what: str) -> Version:
    """Ask the referring office to complete the referral. what: in words what is missing; BadRequest without."""

    def change(task: dict) -> dict:
        status = task["status"] if task["status"] == "accepted" else "received"
        return task | {"status": status, "businessStatus": business_status(MISSING)} | _because(what)

    return _change_task(practice, access, task_id, version, FULFILL, change)


def fail(practice: Practice, access: Access, task_id: str, version: int, reason: str) -> Version:
    """The exam cannot be done, although the referral was accepted. reason: as for `decline`."""
    return _move_task(practice, access, task_id, version, {"status": "failed"} | _because(reason))


def answer_abort(
    practice: Practice, access: Access, abort_id: str, version: int, *, accepted: bool, reason: str
) -> Version:
    """Answer a request to cancel that came after the patient had checked in. abort_id: of the abort Task."""
    answer = {"status": "accepted" if accepted else "rejected"} | _because(reason)
    return _change_task(practice, access, abort_id, version, ABORT, lambda task: task | answer)


def complete_step(practice: Practice, access: Access, step_id: str, version: int, note: str = "") -> Version:
    """End a step that needs no more doing, such as an escalation that was looked at."""

    def change(task: dict) -> dict:
        if task_kind(task) in (None, FULFILL, ABORT):
            raise Unprocessable("this Task is no step of a referral", "Task.code")
        return task | {"status": "completed"} | (_because(note) if note.strip() else {})

    return _change_task(practice, access, step_id, version, None, change)


def mark_arrived(practice: Practice, access: Access, appointment_id: str, version: int) -> Version:
    """The patient is there; also corrects an appointment that was marked as missed."""
    return _mark(practice, access, appointment_id, version, "arrived")


def mark_fulfilled(practice: Practice, access: Access, appointment_id: str, version: int) -> Version:
    """The exam is done; also corrects an appointment that was marked as missed."""
    return _mark(practice, access, appointment_id, version, "fulfilled")


def mark_noshow(practice: Practice, access: Access, appointment_id: str, version: int) -> Version:
    """The patient did not come. Unprocessable before the appointment has begun."""
    return _mark(practice, access, appointment_id, version, "noshow")


def undo_noshow(practice: Practice, access: Access, appointment_id: str, version: int) -> Version:
    """Take a no-show back: the patient came after all, and the referring office gets the correction.

    Unprocessable for an appointment that is not a no-show.
    """

    def change(appointment: dict) -> dict:
        if appointment["status"] != "noshow":
            raise Unprocessable("only a no-show can be taken back", "Appointment.status")
        return _with_status(appointment, "arrived")

    return _change_appointment(practice, access, appointment_id, version, change)


def cancel_visit(
    practice: Practice, access: Access, appointment_id: str, version: int, code: str, text: str = ""
) -> Version:
    """Cancel an appointment; its slot is free again. code: a key of CANCEL_REASONS; text: in words, may be empty."""
    if code not in CANCEL_REASONS:
        raise BadRequest(f"the reason is one of {', '.join(CANCEL_REASONS)}", "Appointment.cancelationReason")
    reason = concept(STATUS_REASONS, code, _checked(text) if text.strip() else None)

    def change(appointment: dict) -> dict:
        cancelled = appointment | {
            "status": "cancelled",
            "cancelationReason": concept(CANCELLATION_REASON, CANCEL_REASONS[code]),
        }
        return appointments.with_status_reason(cancelled, reason)

    return _change_appointment(practice, access, appointment_id, version, change)


def _mark(practice: Practice, access: Access, appointment_id: str, version: int, status: str) -> Version:
    def change(appointment: dict) -> dict:
        start = appointments.start_of(appointment)
        if status == "noshow" and (start is None or start > practice.clock()):
            raise Unprocessable("an appointment can be missed once it has begun", "Appointment.status")
        return _with_status(appointment, status)

    return _change_appointment(practice, access, appointment_id, version, change)


def _with_status(appointment: dict, status: str) -> dict:
    reason = appointments.status_reason("no-show", "The patient did not attend") if status == "noshow" else None
    marked = appointments.with_status_reason(appointment | {"status": status}, reason)
    if status in CHECKED_IN:
        people = [_came(participant) for participant in marked.get("participant", [])]
        marked |= {"participant": people} if people else {}
    return marked


def _came(participant: dict) -> dict:
    """A patient who is there has accepted the time, whatever was on record before."""
    is_patient = str(participant.get("actor", {}).get("reference", "")).startswith("Patient/")
    return participant | {"status": "accepted"} if is_patient else participant


def _move_task(practice: Practice, access: Access, task_id: str, version: int, changed: dict) -> Version:
    return _change_task(practice, access, task_id, version, FULFILL, lambda task: task | changed)


def _change_task(
    practice: Practice,
    access: Access,
    task_id: str,
    version: int,
    kind: str | None,
    change: Callable[[dict], dict],
) -> Version:
    def with_time(task: dict) -> dict:
        if kind is not None and task_kind(task) != kind:
            raise NotFound(f"Task/{task_id} is no such Task")
        rest = {name: value for name, value in task.items() if name != "statusReason"}
        return change(rest) | {"lastModified": instant(practice.clock())}

    return _change(practice, access, "Task", task_id, version, with_time)


def _change_appointment(
    practice: Practice, access: Access, appointment_id: str, version: int, change: Callable[[dict], dict]
) -> Version:
    return _change(practice, access, "Appointment", appointment_id, version, change)


def _change(
    practice: Practice, access: Access, resource_type: str, id: str, version: int, change: Callable[[dict], dict]
) -> Version:
    current = practice.repository.read(access, resource_type, id)
    if current.version != version:
        raise PreconditionFailed("somebody else has changed this in the meantime; look at it again")
    return practice.repository.update(access, change(current.resource()), if_match=version).version


def _because(reason: str) -> dict:
    if not reason.strip():
        raise BadRequest("a reason in words is needed", "Task.statusReason")
    return {"statusReason": {"text": _checked(reason)}}


def _checked(text: str) -> str:
    text = text.strip()
    if len(text) > MAX_REASON:
        raise BadRequest(f"a reason may have {MAX_REASON} characters")
    return text
