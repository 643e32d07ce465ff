"""The coordination Task of a referral: finding it, and moving it by events, once each and never backwards."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from enum import Enum

from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.version import Version
from referral import store
from referral.codes import (
    BUSINESS_STATUS,
    FULFILL,
    STATE_SINCE,
    TASK,
    TASK_CODE,
    code_of,
    extension,
    reference,
    task_kind,
)
from referral.event import Event, moment, record, recorded
from referral.states import PASSED_STATE, STATES, TASK_ENDED, TASK_MOVES, TASK_OPEN, State, business_status, path

HISTORY = 500
CHUNK = 50  # orders in one search


class Verdict(Enum):
    """What an event may do to a Task as it is now."""

    MOVE = "it leads on"
    LATE = "the referral is further already"


def tracker_of(repository: Repository, order: str) -> store.Stored | None:
    """The coordination Task of an order (`ServiceRequest/1`): the oldest that is no mistake, a living one first."""
    found = [task for task in trackers(repository, order) if task.resource["status"] != "entered-in-error"]
    living = [task for task in found if task.resource["status"] not in TASK_ENDED]
    return next(iter(living or found), None)


def trackers(repository: Repository, order: str) -> list[store.Stored]:
    """All coordination Tasks of an order, oldest first."""
    versions = sorted(store.every(repository, "Task", [("focus", order)]), key=lambda version: version.created)
    found = [store.stored(version) for version in versions]
    return [task for task in found if task_kind(task.resource) == FULFILL]


def of_orders(repository: Repository, orders: Iterable[str], access: Access = store.RULES) -> dict[str, dict]:
    """The coordination Task of each of the orders that has one, a living one before an ended one."""
    orders = list(dict.fromkeys(orders))
    found: dict[str, dict] = {}
    for first in range(0, len(orders), CHUNK):
        query = [("code", f"{TASK_CODE}|{FULFILL}"), ("focus", ",".join(orders[first : first + CHUNK]))]
        for version in store.every(repository, "Task", query, access):
            task = version.resource()
            order = reference(task["focus"])
            if order not in found or task["status"] in TASK_OPEN:
                found[order] = task
    return found


def since_of(task: dict) -> datetime | None:
    """When the referral came into its present state."""
    return moment((extension(task, STATE_SINCE) or {}).get("valueDateTime"))


def state_of(task: dict) -> State | None:
    """The business status; where none of ours is written, the one that Task.status means."""
    code = code_of(task.get("businessStatus"), BUSINESS_STATUS) or PASSED_STATE.get(task.get("status", ""))
    return STATES.get(code) if code else None


def judge(task: dict, event: Event) -> Verdict:
    """Whether the event leads on from the Task's present state."""
    state = STATES[event.code]
    if task["status"] in TASK_ENDED or (state.status and path(TASK_MOVES, task["status"], state.status) is None):
        return Verdict.LATE
    now = state_of(task)
    if now is None or state.rank > now.rank or event.over >= now.rank:
        return Verdict.MOVE
    return Verdict.MOVE if state.rank == now.rank and state.repeatable else Verdict.LATE


def moved(task: dict, event: Event, now: datetime, status: str) -> dict:
    """The Task after the event."""
    task = {**task, "status": status, "businessStatus": business_status(event.code)}
    task.pop("statusReason", None)
    if event.reason:
        task["statusReason"] = event.reason
    return record(_with_outputs(task, event, now), event, late=False)


def move(
    repository: Repository,
    task_id: str,
    event: Event,
    clock: Callable[[], datetime],
    *,
    heard: bool = True,
    also: Callable[[dict], dict] = lambda task: task,
) -> bool:
    """Take the Task where the event leads, each status on the way being a version of its own.

    An event that comes too late is kept on the time line without moving anything, unless `heard` is False (it only
    follows from what the Task knows already). An event that the Task's history has is not taken again.
    also: further changes of the version that the event makes.
    Returns: whether the Task has moved by this event, now or before.
    """
    arrived = False
    has_moved = False

    def change(task: dict) -> dict | None:
        nonlocal arrived, has_moved
        known = find_record(repository, task_id, event)
        arrived, has_moved = True, known is True
        if known is not None:
            return None
        now = clock()
        if judge(task, event) is Verdict.LATE:
            outputs = _with_outputs(task, event, now)
            if heard and task["status"] != "entered-in-error":
                return record(outputs, event, late=True)
            return outputs if outputs.get("output") != task.get("output") else None
        target = STATES[event.code].status or task["status"]
        way = path(TASK_MOVES, task["status"], target) or [task["status"]]
        arrived = has_moved = len(way) == 1
        if not arrived:  # such as accepted, on the way from received to in-progress
            return moved(task, _passing(event, way[0]), now, way[0])
        return also(moved(task, event, now, way[0]))

    while not arrived:
        repository.amend(store.RULES, "Task", task_id, change)
    return has_moved


def note(repository: Repository, task_id: str, event: Event, clock: Callable[[], datetime]) -> None:
    """Keep the event on the time line, once, without moving the Task."""

    def change(task: dict) -> dict | None:
        if find_record(repository, task_id, event) is not None or task["status"] == "entered-in-error":
            return None
        return record(_with_outputs(task, event, clock()), event, late=True)

    repository.amend(store.RULES, "Task", task_id, change)


def state_before(repository: Repository, task: dict, code: str) -> State | None:
    """The state that the Task was in before it came to the business status `code`; its own if it is not in it."""
    state = state_of(task)
    if state is None or state.code != code:
        return state
    for version in history(repository, task["id"]):
        earlier = None if version.deleted else state_of(version.resource())
        if earlier is not None and earlier.code != code:
            return earlier
    return None


def find_record(repository: Repository, task_id: str, event: Event) -> bool | None:
    """Whether the Task's history has the event, and if so whether it moved the Task; None when it has it not."""
    needle = event.source.encode()
    for version in history(repository, task_id):
        if version.body is not None and needle in version.body:
            known = recorded(version.resource())
            if known is not None and (known.code, known.source) == (event.code, event.source):
                return not known.late
    return None


def history(repository: Repository, task_id: str) -> list[Version]:
    """The Task's versions, newest first."""
    return repository.history(store.RULES, "Task", task_id, count=HISTORY)


def _passing(event: Event, status: str) -> Event:
    return replace(event, code=PASSED_STATE[status], outputs=(), reason=None)


def _with_outputs(task: dict, event: Event, now: datetime) -> dict:
    task = {**task, "lastModified": now.isoformat(timespec="milliseconds")}
    there = {(code_of(o.get("type"), TASK), reference(o.get("valueReference"))) for o in task.get("output", [])}
    new = [
        {
            "type": {"coding": [{"system": TASK, "code": kind}], "text": kind.capitalize()},
            "valueReference": {"reference": target},
        }
        for kind, target in event.outputs
        if (kind, target) not in there
    ]
    if new:
        task["output"] = [*task.get("output", []), *new]
    return task
