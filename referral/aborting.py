"""A request to abort: accepted at once until the patient has checked in, else for the staff to answer."""

from fhir_server.errors import Conflict, PreconditionFailed
from fhir_server.version import Version
from referral import appointments, closing, store, tracker
from referral.codes import BUSINESS_STATUS, code_of, reference
from referral.context import Practice
from referral.event import Event, event_of
from referral.parties import organizations_of
from referral.states import ARRIVED_RANK, CHECKED_IN, FINAL_RANK, PERFORMED_RANK, TASK_OPEN

ATTEMPTS = 5
ASKED = "cancellation-requested"


def on_abort(practice: Practice, version: Version, abort: dict) -> None:
    """A version of an abort Task, whoever wrote it."""
    referral = _referral(practice, abort)
    if referral is None or _is_for_placer(practice, abort, referral.resource):
        return
    if abort["status"] == "requested":
        _answer(practice, version, referral)
    elif abort["status"] == "accepted":
        reason = abort.get("statusReason") or {"text": "The referring office asked to cancel"}
        event = event_of(version, "cancelled")
        closing.close(practice.repository, referral.resource["id"], event, practice.clock(), reason=reason)
    elif abort["status"] in ("rejected", "cancelled", "failed", "entered-in-error"):
        _restore(practice, version, referral)


def _referral(practice: Practice, abort: dict) -> store.Stored | None:
    focus = reference(abort.get("focus"))
    if focus.startswith("Task/"):
        return store.fetch(practice.repository, focus)
    return tracker.tracker_of(practice.repository, focus)


def _is_for_placer(practice: Practice, abort: dict, referral: dict) -> bool:
    """Whether the practice asks the placer to revoke the order: theirs to answer, and done by revoking it."""
    owners = organizations_of(practice.repository, reference(abort.get("owner")))
    placers = organizations_of(practice.repository, reference(referral.get("requester")))
    return practice.policy.practice not in owners and not set(owners).isdisjoint(placers)


def _answer(practice: Practice, version: Version, referral: store.Stored) -> None:
    repository, task_id = practice.repository, referral.resource["id"]
    event = Event(ASKED, version.versioned_reference, version.last_updated, version.by, over=FINAL_RANK - 1)
    for attempt in range(1, ATTEMPTS + 1):
        asked = store.fetch(repository, version.reference)
        if asked is None or asked.resource["status"] != "requested":
            return  # answered or taken back in the meantime
        current = store.fetch(repository, referral.reference)
        if current is None or current.resource["status"] not in TASK_OPEN:
            answered, why = "rejected", "The referral has ended already"
        elif _has_begun(practice, current.resource):
            answered, why = "received", "The patient has checked in: the practice will answer"
        else:
            answered, why = "accepted", "The patient has not checked in yet"
        if answered != "rejected":
            tracker.move(repository, task_id, event, practice.clock)
        now = practice.clock()
        status = {
            "status": answered,
            "statusReason": {"text": why},
            "lastModified": now.isoformat(timespec="milliseconds"),
        }
        answer = store.Stored(asked.resource | status, asked.version)
        try:
            if answered == "accepted":
                reason = {"text": "The referring office asked to cancel"}
                event_ = event_of(version, "cancelled")
                closing.close(repository, task_id, event_, now, reason=reason, also=[answer])
            else:
                repository.write(store.RULES, [store.update_of(answer)])
            return
        except (Conflict, PreconditionFailed):
            if attempt == ATTEMPTS:
                raise


def _has_begun(practice: Practice, task: dict) -> bool:
    """Whether the patient has checked in, or images prove it."""
    visits = appointments.of_order(practice.repository, reference(task["focus"]))
    state = tracker.state_before(practice.repository, task, ASKED)
    performed = state is not None and state.rank >= PERFORMED_RANK
    return performed or any(visit.resource["status"] in CHECKED_IN for visit in visits)


def _restore(practice: Practice, version: Version, referral: store.Stored) -> None:
    """The request is off the table: the referral is where it was."""
    task = referral.resource
    if task["status"] not in TASK_OPEN or code_of(task.get("businessStatus"), BUSINESS_STATUS) != ASKED:
        return
    state = tracker.state_before(practice.repository, task, ASKED)
    if state is not None:
        event = Event(state.code, version.versioned_reference, version.last_updated, version.by, over=ARRIVED_RANK)
        tracker.move(practice.repository, task["id"], event, practice.clock, heard=False)
