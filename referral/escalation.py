"""Referrals that wait longer than their priority allows: nobody forgets them, whatever state they are in.

Each multiple of the limit is a level; a level is one Task for the practice, and takes the place of the one below it.
Beyond the last level a Task is made anew, at every further multiple, as long as nobody has one open.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from fhir_server import periodic
from fhir_server.version import Version
from referral import steps, store, tracker
from referral.codes import BUSINESS_STATUS, ESCALATION, FULFILL, TASK_CODE, reference
from referral.context import Practice
from referral.states import TASK_OPEN, State

NAME = "escalation"
OPEN_REFERRALS = (("code", f"{TASK_CODE}|{FULFILL}"), ("status", ",".join(sorted(TASK_OPEN))))


@dataclass(frozen=True, slots=True)
class Overdue:
    """How long a referral has been in its state. multiple: how many times its limit is over, at least 1."""

    state: State
    since: datetime
    limit: timedelta
    multiple: int


def overdue(practice: Practice, task: dict) -> Overdue | None:
    """Whether the referral of this coordination Task waits too long; None while it does not."""
    state, since = tracker.state_of(task), tracker.since_of(task)
    if task["status"] not in TASK_OPEN or state is None or since is None:
        return None
    limit = practice.policy.limit(state.code, task.get("priority", "routine"))
    if limit is None or practice.clock() - since < limit:
        return None
    return Overdue(state, since, limit, (practice.clock() - since) // limit)


def escalate(practice: Practice) -> int:
    """One pass over the open referrals, idempotent; how many Tasks it made."""
    return periodic.each(NAME, _waiting(practice), lambda v: _escalate(practice, v), lambda v: v.reference)


def step_id(task: dict, found: Overdue, level: int) -> str:
    """The id of the Task of a level; staying in a state anew begins anew."""
    return store.derived_id(ESCALATION, *_cause(task, found, level))


def level_of(practice: Practice, found: Overdue) -> int:
    """The level that the referral has reached."""
    return min(found.multiple, practice.policy.max_level)


def _waiting(practice: Practice) -> Iterator[Version]:
    """Open referrals in states that have a limit, by the index of the states."""
    states = ",".join(f"{BUSINESS_STATUS}|{code}" for code in practice.policy.escalation)
    return store.every(practice.repository, "Task", [*OPEN_REFERRALS, ("business-status", states)])


def _escalate(practice: Practice, version: Version) -> bool:
    task = version.resource()
    found = overdue(practice, task)
    if found is None:
        return False
    level = found.multiple
    if level > practice.policy.max_level:
        highest = _step(practice, task, found, practice.policy.max_level)
        if steps.ask(practice.repository, highest, task, practice.clock()):
            return _supersede(practice, task, found, practice.policy.max_level)
        if steps.open_steps(practice.repository, [("part-of", version.reference)], ESCALATION):
            return False
    if not steps.ask(practice.repository, _step(practice, task, found, level), task, practice.clock()):
        return False
    return _supersede(practice, task, found, level)


def _step(practice: Practice, task: dict, found: Overdue, level: int) -> steps.Step:
    owner = task.get("owner") or {"reference": practice.policy.practice}
    return steps.Step(
        ESCALATION,
        found.state.code,
        _cause(task, found, level),
        owner,
        owner,
        reference(task["focus"]),
        f"{found.state.display}: for more than {_length(found.limit * level)} (level {level})",
    )


def _cause(task: dict, found: Overdue, level: int) -> tuple[str, ...]:
    return f"Task/{task['id']}", found.state.code, found.since.isoformat(), str(level)


def _supersede(practice: Practice, task: dict, found: Overdue, level: int) -> bool:
    """The Tasks of the levels below have nothing more to say."""
    for lower in range(1, min(level, practice.policy.max_level + 1)):
        step = store.fetch(practice.repository, f"Task/{step_id(task, found, lower)}")
        if step is not None:
            steps.finish(practice.repository, step, "cancelled", f"Level {level} has been reached", practice.clock())
    return True


def _length(time: timedelta) -> str:
    """`45 minutes`, `4 hours`, `2 days`."""
    minutes = int(time.total_seconds() // 60)
    count, unit = (minutes, "minute")
    if minutes % 1440 == 0:
        count, unit = minutes // 1440, "day"
    elif minutes % 60 == 0:
        count, unit = minutes // 60, "hour"
    return f"{count} {unit}" + ("" if count == 1 else "s")
