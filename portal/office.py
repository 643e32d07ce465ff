"""What a referring office may do with its own referral: withdraw it, ask for a new time, tell how it went.

Each is one write with the office's own Access; the admissions of `referral` decide whether it is theirs to make.
"""

from fhir_server.access import Access
from fhir_server.errors import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed, Unprocessable
from fhir_server.prepare import instant
from portal.survey import Filled, Form, form_of
from referral import store
from referral.board import Card
from referral.codes import ABORT, FEEDBACK, FULFILL, REBOOK, TASK, TASK_CODE, concept, reference, task_kind
from referral.context import Practice
from referral.desk import MAX_REASON
from referral.states import ORDER_MOVES, TASK_MOVES, TASK_OPEN

WITHDRAWN = "The referring office withdrew the referral"
ASKED_OF_DESK = frozenset({"accepted", "in-progress"})  # a rebook step that the office has handed to the front desk
AUTHORS = ("Practitioner/", "PractitionerRole/")


def may_withdraw(card: Card) -> bool:
    return card.status in (*TASK_OPEN, "draft") and card.code != "cancellation-requested"


def may_answer(card: Card) -> bool:
    """Whether the survey is open: the report is there, and nobody has answered yet."""
    return card.status == "completed" and card.code != "feedback-received"


def withdraw(practice: Practice, access: Access, task_id: str, version: int, reason: str) -> None:
    """Cancel the referral; once an appointment is set, ask the practice to, which it does unless the patient is
    there. reason: in words, may be empty."""
    repository, why = practice.repository, _checked(reason) or WITHDRAWN
    task = _referral(practice, access, task_id)
    if task.version != version:
        raise PreconditionFailed("the referral has changed in the meantime; look at it again")
    status = task.resource["status"]
    if "cancelled" in TASK_MOVES.get(status, ()):
        ended = {
            "status": "cancelled",
            "statusReason": {"text": why},
            "lastModified": instant(practice.clock()),
        }
        drafts = [store.update_of(store.Stored(task.resource | ended, version))]
        order = store.fetch(repository, reference(task.resource["focus"]), access)
        if order is not None and "revoked" in ORDER_MOVES.get(order.resource["status"], ()):
            drafts.append(store.update_of(store.Stored(order.resource | {"status": "revoked"}, order.version)))
        repository.write(access, drafts)
    elif status in TASK_OPEN:
        store.ensure(repository, _abort(practice, task, why), access)
    else:
        raise Unprocessable(f"the referral has ended already; it is {status}", "Task.status")


def rebook_step(practice: Practice, access: Access, task_id: str) -> store.Stored | None:
    """The open question to the office whether to rebook; None when there is none."""
    query = [
        ("part-of", f"Task/{task_id}"),
        ("code", f"{TASK}|{REBOOK}"),
        ("status", ",".join(sorted(TASK_OPEN))),
    ]
    found = list(store.every(practice.repository, "Task", query, access))
    return store.stored(found[-1]) if found else None


def ask_rebook(practice: Practice, access: Access, task_id: str, wish: str) -> None:
    """Hand the step to the front desk. wish: when it would suit, may be empty; asking again changes the wish."""
    step = rebook_step(practice, access, task_id)
    if step is None:
        raise Conflict("no new time is asked for any more; look at the referral again")
    now = instant(practice.clock())
    notes = [{"time": now, "text": text}] if (text := _checked(wish)) else []
    asked = step.resource | {"status": _handed_over(step.resource["status"]), "lastModified": now}
    if notes:
        asked["note"] = [*asked.get("note", []), *notes]
    practice.repository.update(access, asked, if_match=step.version)


def wish_of(step: dict) -> str | None:
    """What the office asked for in a rebook step: its latest words, empty when it gave none; None if not asked."""
    if step["status"] not in ASKED_OF_DESK:
        return None
    return next((note["text"] for note in reversed(step.get("note", []))), "")


def survey(practice: Practice, access: Access) -> Form:
    """The feedback survey as it is now. Raises NotFound when the practice has none."""
    query = [("url", FEEDBACK), ("status", "active"), ("_sort", "-date"), ("_count", "1")]
    found = practice.repository.search(access, "Questionnaire", query, strict=True).matches
    if not found:
        raise NotFound("there is no survey")
    return form_of(found[0].resource())


def answer_survey(practice: Practice, access: Access, card: Card, form: Form, filled: Filled) -> None:
    """Store the answers; once for each referral, however often the form is sent."""
    if filled.faults:
        raise BadRequest("the survey has answers that do not fit", "QuestionnaireResponse.item")
    if access.is_practice:
        raise Forbidden("the referring office answers the survey", "QuestionnaireResponse.author")
    if card.status != "completed":
        raise Unprocessable("the survey opens once the report is there", "QuestionnaireResponse.basedOn")
    response = {
        "resourceType": "QuestionnaireResponse",
        "id": store.derived_id("feedback", card.task),
        "basedOn": [{"reference": card.order}],
        "questionnaire": form.canonical,
        "status": "completed",
        "subject": {"reference": card.patient},
        "authored": instant(practice.clock()),
        "item": list(filled.items),
    }
    author = access.fhir_user if (access.fhir_user or "").startswith(AUTHORS) else access.organization
    response |= {"author": {"reference": author}} if author else {}
    store.ensure(practice.repository, response, access)


def _abort(practice: Practice, task: store.Stored, why: str) -> dict:
    now = practice.clock()
    abort = {
        "resourceType": "Task",
        # Of this version of the referral: sending the form twice asks once, asking again later asks anew.
        "id": store.derived_id("abort", task.reference, str(task.version)),
        "status": "requested",
        "intent": "order",
        "code": concept(TASK_CODE, ABORT),
        "description": why,
        "focus": {"reference": task.reference},
        "basedOn": [task.resource["focus"]],
        "authoredOn": now.isoformat(timespec="seconds"),
        "lastModified": instant(now),
    }
    return abort | {
        name: task.resource[name] for name in ("priority", "for", "requester", "owner") if name in task.resource
    }


def _referral(practice: Practice, access: Access, task_id: str) -> store.Stored:
    task = store.stored(practice.repository.read(access, "Task", task_id))
    if task_kind(task.resource) != FULFILL:
        raise NotFound(f"Task/{task_id} is no referral")
    return task


def _handed_over(status: str) -> str:
    return status if status in ASKED_OF_DESK else "accepted"


def _checked(text: str) -> str:
    text = text.strip()
    if len(text) > MAX_REASON:
        raise BadRequest(f"at most {MAX_REASON} characters, please")
    return text
