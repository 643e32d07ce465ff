"""What may be written to the resources of the loop, and by whom. Registered with the Repository by type.

Only the placer changes an order; the practice moves the Task; the placer may cancel it before work begins; the
practice, or an operation, writes appointments.
"""

import hashlib
from collections.abc import Mapping, Sequence

from fhir_server.admission import Admission, Write
from fhir_server.errors import Conflict, Forbidden, Unprocessable
from fhir_server.fhir_json import dumps
from fhir_server.prepare import instant
from referral import slots, store, tracker
from referral.appointments import reason_of
from referral.codes import (
    ABORT,
    ACCESSION_SYSTEM,
    APPOINTMENT_PRIORITY,
    BUSINESS_STATUS,
    EVENT,
    FULFILL,
    IDENTIFIER_TYPE,
    STATE_SINCE,
    STATUS_REASONS,
    code_of,
    extension,
    reference,
    task_kind,
    with_extension,
    with_relative_links,
)
from referral.messages import is_accession
from referral.parties import belongs_to, is_placer, organizations_of, wrote_first
from referral.states import (
    ABORT_MOVES,
    APPOINTMENT_HOLDING,
    APPOINTMENT_LIVE,
    APPOINTMENT_MOVES,
    DEFAULT_STATE,
    ORDER_MOVES,
    STATES,
    STEP_MOVES,
    TASK_ENDED,
    TASK_MOVES,
    business_status,
    check_move,
    fits,
)

# What the placer may change on the coordination Task besides its status.
PLACERS_OWN = frozenset({"status", "statusReason", "input", "note", "restriction", "lastModified", "meta", "text"})
OVERBOOKS = frozenset({APPOINTMENT_PRIORITY["stat"], APPOINTMENT_PRIORITY["asap"]})
# What the owner of a step outside the practice may change on it.
OWNERS_OWN = PLACERS_OWN | {"output", "businessStatus", "executionPeriod"}


def order(write: Write) -> dict | None:
    """ServiceRequest: its placer alone changes it, along the moves of request-status."""
    before, after = write.before, write.after
    if before is None:
        if after is not None:
            _in_own_name(write, after)
        return after
    if not is_placer(write.repository, write.access, before):
        raise Forbidden("an order is changed by its placer; the practice answers on the Task", "ServiceRequest")
    if after is not None:
        check_move(ORDER_MOVES, "ServiceRequest.status", before.get("status"), after.get("status"))
    return after


def task(write: Write) -> dict | None:
    """Task: the coordination Task of a referral, a request to abort it, a step of ours; others pass."""
    before, after = write.before, write.after
    kind = task_kind(before or after or {})
    if kind is None and (after is None or task_kind(after) is None):
        return after
    if after is None:
        _practice_only(write, "Task", "a Task of a referral is ended, not deleted")
        return None
    if before is not None and task_kind(after) != kind:
        raise Unprocessable("Task.code and the kind of its focus stay as they are", "Task.code")
    if task_kind(after) == FULFILL:
        return _coordination(write, before, after)
    moves = ABORT_MOVES if task_kind(after) == ABORT else STEP_MOVES
    if before is None:
        _may_ask(write, after)
    else:
        _may_answer(write, before, after)
        check_move(moves, "Task.status", before.get("status"), after.get("status"))
    return after


def appointment(write: Write) -> dict | None:
    """Appointment: written by the practice, or through $hold and $book; along the moves of IHE Scheduling."""
    before, after = write.before, write.after
    _practice_only(write, "Appointment", "appointments are made and changed with $find, $hold and $book")
    if after is None:
        return None
    if before is not None:
        check_move(APPOINTMENT_MOVES, "Appointment.status", before.get("status"), after.get("status"))
    if after.get("status") == "cancelled" and code_of(reason_of(after), STATUS_REASONS) == "no-show":
        raise Unprocessable("a missed appointment has the status noshow, not cancelled", "Appointment.status")
    _not_taken(write, before or {}, after)
    return after


def relative(write: Write) -> dict | None:
    """The links of the loop as relative references, however the client wrote them: the rules follow these."""
    return None if write.after is None else with_relative_links(write.after, write.repository.base_url)


ADMISSIONS: Mapping[str, Sequence[Admission]] = {
    "ServiceRequest": (relative, order),
    "Task": (relative, task),
    "Appointment": (relative, appointment),
    "ImagingStudy": (relative,),
    "DiagnosticReport": (relative,),
    "QuestionnaireResponse": (relative,),
}


def _coordination(write: Write, before: dict | None, after: dict) -> dict:
    status = after.get("status", "")
    if before is None:
        _may_refer(write, after)
    else:
        if before.get("focus") != after.get("focus"):
            raise Unprocessable("the focus of a referral's Task stays the same", "Task.focus")
        check_move(TASK_MOVES, "Task.status", before.get("status"), status)
        if not write.access.is_practice:
            after = _placers_change(write, before, after)
    after = _with_state(after, before)
    if write.access.subject != store.RULES.subject:
        # The time line is ours to write: what a client sends there is what was there.
        kept = extension(before, EVENT) if before else None
        after = with_extension(after, EVENT, {"extension": kept["extension"]} if kept else None)
    if status in ("accepted", "in-progress") and not any(is_accession(i) for i in after.get("identifier", [])):
        after = {**after, "identifier": [*after.get("identifier", []), _accession(after["id"])]}
    entered = before is None or before.get("businessStatus") != after.get("businessStatus")
    since = None if before is None or entered else extension(before, STATE_SINCE)
    value = since["valueDateTime"] if since else instant(write.repository.clock())
    return with_extension(after, STATE_SINCE, {"valueDateTime": value})


def _with_state(after: dict, before: dict | None) -> dict:
    """The Task with a business status that goes with its status. Raises Unprocessable for one that does not."""
    status = after["status"]
    code = code_of(after.get("businessStatus"), BUSINESS_STATUS)
    if code is not None and code not in STATES:
        raise Unprocessable(f"{code[:64]!r} is no business status of a referral", "Task.businessStatus")
    unchanged = before is not None and after.get("businessStatus") == before.get("businessStatus")
    status_changed = before is None or before.get("status") != status
    if (code is None or (unchanged and status_changed)) and status in DEFAULT_STATE:
        code = DEFAULT_STATE[status]
    elif code is not None and not unchanged and not fits(STATES[code], status):
        raise Unprocessable(f"the business status {code} does not go with the status {status}", "Task.businessStatus")
    return after if code is None else {**after, "businessStatus": business_status(code)}


def _may_refer(write: Write, after: dict) -> None:
    """A new referral: by the office it names, not yet begun, and one for an order."""
    if write.access.is_practice:
        return
    _in_own_name(write, after)
    if after.get("status") not in ("draft", "requested"):
        raise Forbidden("a referral is sent as draft or requested; the practice moves it on", "Task.status")
    order_reference = reference(after["focus"])
    others = [t for t in tracker.trackers(write.repository, order_reference) if _counts(t, order_reference)]
    if others:
        raise Conflict(f"the order has its Task already: {others[0].reference}", "Task.focus")


def _counts(other: store.Stored, order_reference: str) -> bool:
    """Whether the Task stands in the way of another: not when it has ended, or is ours and not yet worked on."""
    status = other.resource["status"]
    ours = other.resource["id"] == store.derived_id("referral", order_reference)
    return status not in TASK_ENDED and not (ours and status in ("requested", "received"))


def _placers_change(write: Write, before: dict, after: dict) -> dict:
    if not (_placed(write, before) or wrote_first(write.repository, write.access, before)):
        raise Forbidden("this Task is another office's", "Task")
    if before.get("status") != after.get("status"):
        allowed = after.get("status") == "cancelled" or (before.get("status"), after.get("status")) == (
            "draft",
            "requested",
        )
        if not allowed:
            raise Forbidden("the practice moves the Task; the placer may cancel it", "Task.status")
    _only(before, after, PLACERS_OWN | {"extension"}, "the practice keeps this element of the Task")
    kept = {name: value for name, value in after.items() if name != "extension"}
    return kept | ({"extension": before["extension"]} if "extension" in before else {})


def _may_ask(write: Write, after: dict) -> None:
    """A request to abort comes from the placer; steps of ours come from the practice."""
    if write.access.is_practice:
        return
    if task_kind(after) != ABORT:
        raise Forbidden("a step of a referral is made by the practice", "Task.code")
    if belongs_to(write.repository, write.access, reference(after.get("owner"))):
        raise Unprocessable("a request to abort is for the practice to answer", "Task.owner")
    focus = store.fetch(write.repository, reference(after["focus"]), write.access)
    if focus is None:
        raise Unprocessable("the focus of a request to abort is the referral's Task or its order", "Task.focus")
    placed = (
        _placed(write, focus.resource)
        if focus.resource["resourceType"] == "Task"
        else is_placer(write.repository, write.access, focus.resource)
    )
    if not placed:
        raise Forbidden("only the placer may ask to abort a referral", "Task.focus")
    if after.get("status") not in ("draft", "requested"):
        raise Forbidden("the practice answers on a request to abort", "Task.status")


def _may_answer(write: Write, before: dict, after: dict) -> None:
    """The practice may; an office may take back its own request, and do the steps that it owns."""
    if write.access.is_practice:
        return
    if task_kind(before) == ABORT and not belongs_to(write.repository, write.access, reference(before.get("owner"))):
        if not wrote_first(write.repository, write.access, before):
            raise Forbidden("this request is another office's", "Task")
        if before.get("status") != after.get("status") and after.get("status") not in ("requested", "cancelled"):
            raise Forbidden("the practice answers on a request to abort", "Task.status")
        _only(before, after, PLACERS_OWN, "this element of the request stays as it is")
        return
    if not belongs_to(write.repository, write.access, reference(before.get("owner"))):
        raise Forbidden("this step is another party's", "Task.owner")
    _only(before, after, OWNERS_OWN, "this element of the step is the practice's")


def _placed(write: Write, task_: dict) -> bool:
    """Whether the caller's office placed the referral of this coordination Task."""
    if belongs_to(write.repository, write.access, reference(task_.get("requester"))):
        return True
    ordered = store.fetch(write.repository, reference(task_.get("focus")))
    return ordered is not None and is_placer(write.repository, write.access, ordered.resource)


def _in_own_name(write: Write, after: dict) -> None:
    """Refuse an order in the name of another office, where the requester's office is on record."""
    if write.access.is_practice or write.access.organization is None:
        return
    offices = organizations_of(write.repository, reference(after.get("requester")))
    if offices and write.access.organization not in offices:
        element = f"{after['resourceType']}.requester"
        raise Forbidden("an office refers in its own name", element)


def _not_taken(write: Write, before: dict, after: dict) -> None:
    """Refuse an Appointment at a time that another one has, unless it is urgent enough to be squeezed in.

    This keeps staff from writing one over another by mistake; against parallel writes `$hold` and `$book` are safe,
    which commit Slot and Appointment together.
    """
    wanted = slots.slots_of(after) if after["status"] in APPOINTMENT_HOLDING else []
    had = slots.slots_of(before) if before.get("status") in APPOINTMENT_HOLDING else []
    if after.get("priority") in OVERBOOKS:
        return
    for slot in wanted:
        others = slots.holding(write.repository, slot, [f"Appointment/{after['id']}"]) if slot not in had else ()
        for other in others:
            if other.resource["status"] in APPOINTMENT_LIVE:  # a hold counts until its end, which claims look at
                raise Conflict(f"{slot} is taken by {other.reference}", "Appointment.slot")


def _practice_only(write: Write, element: str, why: str) -> None:
    if not write.access.is_practice:
        raise Forbidden(why, element)


def _only(before: dict, after: dict, allowed: frozenset[str], why: str) -> None:
    """Raise Forbidden, naming the element, when anything else than the allowed elements differs."""
    for name in sorted((before.keys() | after.keys()) - allowed):
        if dumps(before.get(name)) != dumps(after.get(name)):
            raise Forbidden(why, f"Task.{name.removeprefix('_')}")


def _accession(task_id: str) -> dict:
    """The accession number, given at acceptance: fits DICOM's SH (16 characters), the same at every attempt."""
    digest = int.from_bytes(hashlib.sha256(f"accession|{task_id}".encode()).digest()[:7])
    type_ = {"coding": [{"system": IDENTIFIER_TYPE, "code": "ACSN"}]}
    return {"type": type_, "system": ACCESSION_SYSTEM, "value": f"A{digest % 10**15:015d}"}
