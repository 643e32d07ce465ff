"""Something is missing in an order: a step for the referring office, and back to work when it is done."""

from fhir_server.version import Version
from referral import messages, steps, store, tracker
from referral.codes import BUSINESS_STATUS, INFORMATION, code_of, reference
from referral.context import Practice
from referral.event import Event
from referral.states import STATES

MISSING = "awaiting-information"


def on_missing_information(practice: Practice, version: Version, task: dict) -> None:
    """The practice found something missing: ask the office, with the Questionnaires that the Task names as input.

    What is missing stands in Task.statusReason.
    """
    now = practice.clock()
    what = task.get("statusReason", {}).get("text") or "Please complete the referral."
    asked = tuple(i for i in task.get("input", []) if "Questionnaire" in str(i.get("valueCanonical", "")))
    step = steps.Step(
        INFORMATION,
        MISSING,
        (version.versioned_reference,),
        task.get("requester"),
        task.get("owner"),
        reference(task["focus"]),
        what,
        input=asked,
    )
    steps.ask(practice.repository, step, task, now)
    text = f"Referral {messages.referral_number(task)} needs something more from your office."
    text += messages.call_us(practice.policy.phone)
    messages.send(practice.repository, task, MISSING, version.versioned_reference, text, now)


def on_information(practice: Practice, version: Version, step: dict) -> None:
    """The office has completed the step: the referral is on the practice's desk again."""
    for part_of in step.get("partOf", []):
        referral = store.fetch(practice.repository, reference(part_of))
        if referral is None or code_of(referral.resource.get("businessStatus"), BUSINESS_STATUS) != MISSING:
            continue
        before = {"accepted": "awaiting-scheduling"}.get(referral.resource["status"], "received")
        event = Event(
            before, version.versioned_reference, version.last_updated, version.by, over=STATES[MISSING].rank
        )
        tracker.move(practice.repository, referral.resource["id"], event, practice.clock, heard=False)
