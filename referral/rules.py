"""The practice's reactions, as a consumer of the stream of versions. Every one is idempotent: versions come at
least once, and one that was handled before changes nothing.
"""

from collections.abc import Callable

from fhir_server.version import Version
from referral import aborting, closing, intake, results, steps, store, tracker, visits
from referral.codes import (
    ABORT,
    BUSINESS_STATUS,
    ESCALATION,
    FULFILL,
    INFORMATION,
    code_of,
    reference,
    task_kind,
)
from referral.context import Practice
from referral.information import on_information, on_missing_information
from referral.states import TASK_OPEN

CONSUMER = "referral"


def on_task(practice: Practice, version: Version) -> None:
    """A version of a Task: of the referral itself, of a request to abort it, or of a step."""
    task = version.resource()
    kind = task_kind(task)
    if kind == FULFILL:
        _on_coordination(practice, version, task)
    elif kind == ABORT:
        aborting.on_abort(practice, version, task)
    elif kind == INFORMATION and task["status"] == "completed":
        on_information(practice, version, task)


def _on_coordination(practice: Practice, version: Version, task: dict) -> None:
    before = store.previous(practice.repository, version) or {}
    if task["status"] == "requested" and before.get("status") != "requested":
        intake.on_referral(practice, version, task)
    if task["status"] == "entered-in-error":
        return  # a mistake: what hangs on the order is another Task's
    code = code_of(task.get("businessStatus"), BUSINESS_STATUS)
    new_state = code != code_of(before.get("businessStatus"), BUSINESS_STATUS)
    if code == "awaiting-information" and new_state:
        on_missing_information(practice, version, task)
    if task["status"] in TASK_OPEN:
        if new_state:
            _leave_state(practice, version.reference)
        return
    if task["status"] != "completed":
        drafts = closing.visits_cancelled(practice.repository, reference(task["focus"]))
        if drafts:
            practice.repository.write(store.RULES, drafts)
    why = "The referral is complete" if task["status"] == "completed" else "The referral has ended"
    _finish_steps(practice, version.reference, "cancelled", why)


def _leave_state(practice: Practice, task: str) -> None:
    current = store.fetch(practice.repository, task)
    state = tracker.state_of(current.resource) if current else None
    if state is not None:
        left_behind = (ESCALATION, INFORMATION)
        steps.finish_other_states(practice.repository, task, state.code, left_behind, practice.clock())


def _finish_steps(practice: Practice, task: str, status: str, why: str) -> None:
    for step in steps.open_steps(practice.repository, [("part-of", task)]):
        steps.finish(practice.repository, step, status, why, practice.clock())


REACTIONS: dict[str, Callable[[Practice, Version], None]] = {
    "ServiceRequest": intake.on_order,
    "Task": on_task,
    "Appointment": visits.on_appointment,
    "ImagingStudy": results.on_imaging_study,
    "DiagnosticReport": results.on_report,
    "QuestionnaireResponse": results.on_response,
}

TYPES = tuple(REACTIONS)  # that the rules react to


def handler(practice: Practice) -> Callable[[Version], None]:
    """What `fhir_server.stream.follow` calls for each version, under the consumer name `CONSUMER`."""

    def handle(version: Version) -> None:
        react = REACTIONS.get(version.resource_type)
        if react is not None and not version.deleted:
            react(practice, version)

    return handle
