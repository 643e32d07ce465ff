"""Ending a referral before its end: Task, appointments and slots in one commit."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from fhir_server.errors import Conflict, PreconditionFailed
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from referral import appointments, slots, store, tracker
from referral.codes import reference
from referral.event import Event
from referral.states import TASK_MOVES, TASK_OPEN

ATTEMPTS = 5


def close(
    repository: Repository,
    task_id: str,
    event: Event,
    now: datetime,
    *,
    reason: dict | None = None,
    also: Sequence[store.Stored] = (),
) -> bool:
    """Cancel what is still open of a referral: its Task, its appointments not yet begun, their slots.

    The Task becomes cancelled, or failed when work had begun. also: written in the same commit.
    reason: CodeableConcept for Task.statusReason. Returns: whether there was anything to close.
    """
    event = replace(event, reason=reason)
    for attempt in range(1, ATTEMPTS + 1):
        task = store.fetch(repository, f"Task/{task_id}")
        if task is None:
            return False
        drafts = [store.update_of(changed) for changed in also]
        if task.resource["status"] in (*TASK_OPEN, "draft"):
            status = "cancelled" if "cancelled" in TASK_MOVES[task.resource["status"]] else "failed"
            ended = tracker.moved(task.resource, event, now, status)
            drafts.append(store.update_of(store.Stored(ended, task.version)))
        drafts += visits_cancelled(repository, reference(task.resource.get("focus")))
        if not drafts:
            return False
        try:
            repository.write(store.RULES, drafts)
            return True
        except (Conflict, PreconditionFailed):
            if attempt == ATTEMPTS or also:  # what goes along was read by the caller, who reads it again
                raise
    raise AssertionError("unreachable")


def visits_cancelled(repository: Repository, order: str) -> list[Draft]:
    """Writes that cancel the order's appointments not yet begun and free their slots."""
    open_ones = appointments.cancellable(appointments.of_order(repository, order))
    cancelled = [appointments.cancelled(appointment, "other") for appointment in open_ones]
    return [store.update_of(changed) for changed in (*cancelled, *slots.released(repository, open_ones))]
