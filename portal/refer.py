"""The web form for an order: what it asks, and the Patient, Coverage, ServiceRequest and Task it becomes.

The same resources as an EHR sends in a transaction, committed together with the office's own Access.
"""

import re
from collections.abc import Mapping
from typing import Any

from fhir_server.access import Access
from fhir_server.errors import BadRequest, Conflict, Forbidden
from fhir_server.prepare import Draft, instant
from portal.office import AUTHORS
from portal.survey import Filled, Form, Option, Question, fill
from portal.words import PRIORITIES
from referral import store
from referral.codes import FULFILL, IMAGING, ORIGIN, TASK_CODE, concept
from referral.context import Practice

GENDERS = {"female": "female", "male": "male", "other": "other", "unknown": "not known"}
_ONCE = re.compile(r"[\w-]{22}", re.ASCII)


def _text(field: str, words: str, longest: int, kind: str = "string", *, required: bool = True) -> Question:
    return Question(field, field, words, kind, required=required, max_length=longest)


def _choice(field: str, words: str, options: Mapping[str, str]) -> Question:
    """One of FHIR's codes, in words."""
    chosen = tuple(Option(code, text, {"valueString": code}) for code, text in options.items())
    return Question(field, field, words, "choice", required=True, max_length=20, options=chosen)


FORM = Form(
    "",
    "New referral",
    (
        Question("", "patient", "Patient", "group", False, 0, (), (
            _text("family", "Family name", 100),
            _text("given", "Given name", 100),
            _text("birthdate", "Date of birth", 10, "date"),
            _choice("gender", "Sex", GENDERS),
            _text("phone", "Phone", 40),
        )),
        Question("", "order", "Exam", "group", False, 0, (), (
            _text("exam", "Exam, with side and contrast", 200),
            _text("reason", "Reason in words: what is the question?", 1000, "text"),
            _choice("priority", "Priority", dict(reversed(list(PRIORITIES.items())))),
        )),
        Question("", "insurance", "Insurance", "group", False, 0, (), (
            _text("payer", "Who pays", 100, required=False),
            _text("insured", "Number of the insured person", 60, required=False),
        )),
    ),
)  # fmt: skip


def filled(practice: Practice, sent: Mapping[str, str]) -> Filled:
    """Read the sent form; a date of birth does not lie ahead, a number of an insured person is some insurance's."""
    found = fill(FORM, sent)
    answers, faults = _answers(found), dict(found.faults)
    today = practice.clock().astimezone(practice.policy.time_zone).date().isoformat()
    if answers.get("birthdate", today) > today:
        faults["birthdate"] = "This date lies ahead."
    if "insured" in answers and "payer" not in answers:
        faults.setdefault("payer", "Please name the insurance.")
    return Filled(found.items, faults)


def place(practice: Practice, access: Access, order: Filled, once: str) -> str:
    """Send the referral; the id of its Task. once: a random text of the form, so that sending twice refers once."""
    if access.is_practice or access.organization is None:
        raise Forbidden("a referring office sends referrals", "ServiceRequest.requester")
    if order.faults or not _ONCE.fullmatch(once):
        raise BadRequest("the form is incomplete", "ServiceRequest")
    answers, now = _answers(order), practice.clock()
    patient_id, order_id, task_id, coverage_id = (
        store.derived_id(kind, access.subject, once) for kind in ("patient", "order", "task", "coverage")
    )
    subject = {"reference": f"Patient/{patient_id}"}
    person = access.fhir_user if (access.fhir_user or "").startswith(AUTHORS) else access.organization
    shared = {
        "intent": "order",
        "priority": answers["priority"],
        "authoredOn": now.isoformat(timespec="seconds"),
    }
    patient = {
        "resourceType": "Patient",
        "name": [{"use": "official", "family": answers["family"], "given": [answers["given"]]}],
        "telecom": [{"system": "phone", "value": answers["phone"]}],
        "gender": answers["gender"],
        "birthDate": answers["birthdate"],
        "managingOrganization": {"reference": access.organization},
    }
    request = shared | {
        "resourceType": "ServiceRequest",
        "meta": {"tag": [{"system": ORIGIN, "code": "web"}]},
        "status": "active",
        "category": [concept(*IMAGING)],
        "code": {"text": answers["exam"]},
        "subject": subject,
        "requester": {"reference": person},
        "performer": [{"reference": practice.policy.practice}],
        "reasonCode": [{"text": answers["reason"]}],
    }
    task = shared | {
        "resourceType": "Task",
        "status": "requested",
        "code": concept(TASK_CODE, FULFILL),
        "focus": {"reference": f"ServiceRequest/{order_id}"},
        "for": subject,
        "lastModified": instant(now),
        "requester": {"reference": access.organization},
        "owner": {"reference": practice.policy.practice},
    }
    drafts = [
        Draft("create", patient, id=patient_id),
        Draft("create", request, id=order_id),
        Draft("create", task, id=task_id),
    ]
    if "payer" in answers:
        request["insurance"] = [{"reference": f"Coverage/{coverage_id}"}]
        drafts.insert(1, Draft("create", _coverage(answers, subject), id=coverage_id))
    try:
        practice.repository.write(access, drafts)
    except Conflict:  # sent twice: it is there
        practice.repository.read(access, "Task", task_id)
    return task_id


def _coverage(answers: Mapping[str, Any], subject: dict) -> dict:
    """Who pays, by the name that people know."""
    number = {"subscriberId": answers["insured"]} if "insured" in answers else {}
    return number | {
        "resourceType": "Coverage",
        "status": "active",
        "beneficiary": subject,
        "payor": [{"display": answers["payer"]}],
    }


def _answers(order: Filled) -> dict[str, Any]:
    """Field -> answer."""
    items = [inner for group in order.items for inner in group.get("item", [])]
    return {item["linkId"]: next(iter(item["answer"][0].values())) for item in items}
