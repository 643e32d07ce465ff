"""Steps for people: Tasks that are part of a coordination Task (rebook, confirm arrival, escalation ...)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from fhir_server.repository import Repository
from referral import store
from referral.codes import BUSINESS_STATUS, TASK, code_of, concept, reference, task_concept
from referral.states import STEP_MOVES, TASK_OPEN, path


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody is asked to do.

    state: the business status of the referral that asks for it. cause: makes the id, so that one cause makes one
    Task. due: until when.
    """

    kind: str
    state: str
    cause: tuple[str, ...]
    owner: dict | None
    requester: dict | None
    focus: str
    description: str
    due: datetime | None = None
    input: tuple[dict, ...] = ()


def task_of(step: Step, referral: dict, now: datetime) -> dict:
    """The Task of the step, part of the referral's coordination Task."""
    task = {
        "resourceType": "Task",
        "id": store.derived_id(step.kind, *step.cause),
        "basedOn": [{"reference": reference(referral["focus"])}],
        "partOf": [{"reference": f"Task/{referral['id']}"}],
        "status": "requested",
        "intent": "order",
        "code": task_concept(step.kind),
        "description": step.description,
        "reasonCode": concept(BUSINESS_STATUS, step.state),
        "focus": {"reference": step.focus},
        "authoredOn": now.isoformat(timespec="seconds"),
        "lastModified": now.isoformat(timespec="milliseconds"),
    }
    optional = {
        # The number goes into groupIdentifier: as an identifier it would make the referral's own number ambiguous.
        "groupIdentifier": next(iter(referral.get("identifier", [])), None),
        "priority": referral.get("priority"),
        "for": referral.get("for"),
        "owner": step.owner,
        "requester": step.requester,
        "restriction": {"period": {"end": step.due.isoformat(timespec="seconds")}} if step.due else None,
        "input": list(step.input),
    }
    return task | {name: value for name, value in optional.items() if value}


def ask(repository: Repository, step: Step, referral: dict, now: datetime) -> bool:
    """Make the step's Task unless it was made before; whether it is new."""
    return store.ensure(repository, task_of(step, referral, now))


def open_steps(repository: Repository, query: list[tuple[str, str]], kind: str | None = None) -> list[store.Stored]:
    """Steps not yet ended, by a search such as [("part-of", "Task/1")]."""
    code = [("code", f"{TASK}|{kind}")] if kind else [("code", f"{TASK}|")]
    found = [store.stored(version) for version in store.every(repository, "Task", [*query, *code])]
    return [step for step in found if step.resource["status"] in TASK_OPEN]


def finish_other_states(
    repository: Repository, task: str, state: str | None, kinds: Iterable[str], now: datetime
) -> None:
    """Complete the open steps of the referral (`Task/1`) that a state it has left asked for."""
    for kind in kinds:
        for step in open_steps(repository, [("part-of", task)], kind):
            if code_of(step.resource.get("reasonCode"), BUSINESS_STATUS) != state:
                finish(repository, step, "completed", "The referral has moved on", now)


def finish(repository: Repository, step: store.Stored, status: str, why: str, now: datetime) -> None:
    """Bring a step to `completed` or `cancelled`, unless somebody has ended it."""

    def change(task: dict) -> dict | None:
        if task["status"] not in TASK_OPEN or path(STEP_MOVES, task["status"], status) is None:
            return None
        ended = {
            "status": status,
            "statusReason": {"text": why},
            "lastModified": now.isoformat(timespec="milliseconds"),
        }
        return task | ended

    repository.amend(store.RULES, "Task", step.resource["id"], change)
