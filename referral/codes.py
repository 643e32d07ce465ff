"""Coded values of the referral loop: systems, task codes, and how to read and build the concepts of a resource."""

from typing import Any

from conformance import CANONICAL

BUSINESS_STATUS = f"{CANONICAL}/CodeSystem/referral-business-status"
BSER = "http://hl7.org/fhir/us/bser/CodeSystem/TaskBusinessStatusCS"
TASK = f"{CANONICAL}/CodeSystem/task"
TASK_CODE = "http://hl7.org/fhir/CodeSystem/task-code"
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
ORIGIN = f"{CANONICAL}/CodeSystem/origin"  # meta.tag of what staff entered for a placer: web, fax, phone
ORIGINS_OF_STAFF = frozenset({"web", "fax", "phone"})
MESSAGE_CLASS = f"{CANONICAL}/CodeSystem/message-class"
FEEDBACK = f"{CANONICAL}/Questionnaire/referral-feedback"
ACCESSION_SYSTEM = f"{CANONICAL}/accession-number"
REFERRAL_NUMBER_SYSTEM = f"{CANONICAL}/referral-number"
IMAGING = ("http://snomed.info/sct", "363679005")

SCHEDULING = "https://profiles.ihe.net/ITI/Scheduling"
STATUS_REASON = f"{SCHEDULING}/StructureDefinition/extension-status-reason"
STATUS_REASONS = f"{SCHEDULING}/CodeSystem/status-reason"
CANCELLATION_REASON = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"

EVENT = f"{CANONICAL}/StructureDefinition/referral-event"
STATE_SINCE = f"{CANONICAL}/StructureDefinition/referral-state-since"
NOSHOW_COUNT = f"{CANONICAL}/StructureDefinition/no-show-count"
HELD_UNTIL = f"{CANONICAL}/StructureDefinition/held-until"

FULFILL, ABORT = "fulfill", "abort"
REBOOK, CONFIRM_ARRIVAL, ESCALATION, INFORMATION = "rebook", "confirm-arrival", "escalation", "complete-information"
OURS = {
    REBOOK: "Rebook or withdraw a missed appointment",
    CONFIRM_ARRIVAL: "Confirm whether the patient came",
    ESCALATION: "A referral waits too long",
    INFORMATION: "Complete the missing information",
}

# Appointment.priority is an unsigned integer in R4; 0 is no priority, so ours begin with 1.
APPOINTMENT_PRIORITY = {"stat": 1, "asap": 2, "urgent": 3, "routine": 5}


def concept(system: str, code: str, text: str | None = None) -> dict:
    """A CodeableConcept of one coding."""
    return {"coding": [{"system": system, "code": code}]} | ({"text": text} if text else {})


def task_concept(code: str) -> dict:
    """Task.code of one of our own tasks."""
    return concept(TASK, code, OURS[code])


def code_of(value: Any, system: str) -> str | None:
    """The code that a CodeableConcept has in the system."""
    if not isinstance(value, dict):
        return None
    return next((c.get("code") for c in value.get("coding", []) if c.get("system") == system), None)


def task_kind(task: dict) -> str | None:
    """`fulfill` or `abort`, one of our own task codes, or None for a Task that is no part of the loop."""
    code, focus = task.get("code"), reference(task.get("focus"))
    if code_of(code, TASK_CODE) == FULFILL:
        return FULFILL if focus.startswith("ServiceRequest/") else None
    if code_of(code, TASK_CODE) == ABORT:
        return ABORT if focus.startswith(("ServiceRequest/", "Task/")) else None
    ours = code_of(code, TASK)
    return ours if ours in OURS else None


def reference(value: Any) -> str:
    """The literal reference, without the version it may name; empty when there is none."""
    text = value.get("reference") if isinstance(value, dict) else None
    return text.partition("/_history/")[0] if isinstance(text, str) else ""


def references(values: Any, resource_type: str) -> list[str]:
    """Relative references to resources of one type among a list of References."""
    found = [reference(value) for value in values or []]
    return [text for text in found if text.startswith(f"{resource_type}/")]


# Elements of the loop's resources that lead to others of its resources.
LINKS = frozenset({"basedOn", "focus", "for", "owner", "partOf", "performer", "requester", "slot", "subject"})


def with_relative_links(resource: dict, base_url: str) -> dict:
    """The resource with its links to others of ours as relative references."""

    def written(value: Any) -> Any:
        if isinstance(value, list):
            return [written(child) for child in value]
        text = value.get("reference") if isinstance(value, dict) else None
        return value | {"reference": text.removeprefix(f"{base_url}/")} if isinstance(text, str) else value

    return {name: written(value) if name in LINKS else value for name, value in resource.items()}


def extension(resource: dict, url: str) -> dict | None:
    """The first extension with the url."""
    return next((e for e in resource.get("extension", []) if e.get("url") == url), None)


def with_extension(resource: dict, url: str, value: dict | None) -> dict:
    """The resource with that extension replaced (`value` is its value[x] or nested extensions), or removed."""
    kept = [e for e in resource.get("extension", []) if e.get("url") != url]
    if value is not None:
        kept.append({"url": url, **value})
    rest = {name: child for name, child in resource.items() if name != "extension"}
    return rest | ({"extension": kept} if kept else {})


def entered_by_staff(order: dict) -> bool:
    """Whether staff entered the order for a placer who has no system of their own (web form, fax, phone)."""
    tags = order.get("meta", {}).get("tag", [])
    return any(tag.get("system") == ORIGIN and tag.get("code") in ORIGINS_OF_STAFF for tag in tags)
