"""What imaging, reports and answers mean for the referral."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from dicomweb.imaging_study import is_attached
from fhir_server.version import Version
from referral import appointments, store, tracker
from referral.codes import FEEDBACK, entered_by_staff, reference, references
from referral.context import Practice
from referral.event import Event, event_of, moment

REPORT_STATES = {
    "registered": "awaiting-interpretation",
    "partial": "preliminary-report",
    "preliminary": "preliminary-report",
    "final": "report-final",
    "amended": "report-amended",
    "corrected": "report-amended",
    "appended": "report-amended",
}
KEPT = ("booked", "arrived", "checked-in", "noshow")


def on_imaging_study(practice: Practice, version: Version) -> None:
    """Images that are there prove that the visit was kept."""
    study = version.resource()
    if study["status"] not in ("registered", "available") or is_attached(study):
        return
    _take_back(practice, version, study)
    for order, referral in _newly(practice, version, study):
        keep_visit(practice, order)
        performed = _performed(practice, version, study, order)
        if study["status"] == "registered":
            tracker.move(practice.repository, referral, performed, practice.clock, heard=False)
            continue
        # Two versions, because "kept" and "images there" are two messages.
        tracker.move(practice.repository, referral, performed, practice.clock, heard=False)
        there = replace(event_of(version, "images-available"), outputs=(("images", version.reference),))
        tracker.move(practice.repository, referral, there, practice.clock)


def on_report(practice: Practice, version: Version) -> None:
    """A report in a new status."""
    report = version.resource()
    code = REPORT_STATES.get(report["status"])
    if code is None:
        return
    for order, referral in _newly(practice, version, report):
        if code in ("report-final", "report-amended"):
            keep_visit(practice, order)
        event = event_of(version, code, report.get("issued"))
        if code != "awaiting-interpretation":
            event = replace(event, outputs=(("report", version.reference),))
        tracker.move(practice.repository, referral, event, practice.clock)
        if code == "report-final":
            _complete_order(practice, order)


def on_response(practice: Practice, version: Version) -> None:
    """The referring physician's feedback."""
    response = version.resource()
    if response["status"] != "completed" or response.get("questionnaire", "").partition("|")[0] != FEEDBACK:
        return
    for _, referral in _newly(practice, version, response):
        event = event_of(version, "feedback-received", response.get("authored"))
        event = replace(event, outputs=(("feedback", version.reference),))
        tracker.move(practice.repository, referral, event, practice.clock)


def _take_back(practice: Practice, version: Version, study: dict) -> None:
    """Images that were another's by mistake are no result of that referral."""
    before = store.previous(practice.repository, version) or {}
    now = references(study.get("basedOn"), "ServiceRequest")
    for order in references(before.get("basedOn"), "ServiceRequest"):
        for task in tracker.trackers(practice.repository, order) if order not in now else ():
            practice.repository.amend(store.RULES, "Task", task.resource["id"], without_output(version.reference))


def without_output(target: str) -> Callable[[dict], dict | None]:
    """Change of a Task that no longer has `target` among its outputs."""

    def change(task: dict) -> dict | None:
        outputs = task.get("output", [])
        left = [output for output in outputs if reference(output.get("valueReference")) != target]
        if len(left) == len(outputs):
            return None
        rest = {name: value for name, value in task.items() if name != "output"}
        return rest | ({"output": left} if left else {})

    return change


def _performed(practice: Practice, version: Version, study: dict, order: str) -> Event:
    """The exam, at the time that the images tell; when that is before the order was placed (a modality's clock gone
    wrong, older images sent along), at the time that we learned of it."""
    event = event_of(version, "exam-performed", study.get("started"))
    ordered = store.fetch(practice.repository, order)
    placed = moment(ordered.resource.get("authoredOn")) if ordered else None
    return replace(event, at=version.last_updated) if placed and event.at < placed else event


def keep_visit(practice: Practice, order: str) -> None:
    """Mark the appointment that the exam belongs to as fulfilled, even one that was marked as missed."""
    visit = appointments.visit_of(appointments.of_order(practice.repository, order), practice.clock())
    if visit is None:
        return

    def change(appointment: dict) -> dict | None:
        if appointment["status"] not in KEPT:
            return None
        return appointments.with_status_reason(appointment | {"status": "fulfilled"}, None)

    practice.repository.amend(store.RULES, "Appointment", visit.resource["id"], change)


def _newly(practice: Practice, version: Version, resource: dict) -> Iterator[tuple[str, str]]:
    """(order, Task id) of the referrals for which this version's status, or the link to the order, is new."""
    before = store.previous(practice.repository, version) or {}
    known = references(before.get("basedOn"), "ServiceRequest") if before.get("status") == resource["status"] else []
    for order in references(resource.get("basedOn"), "ServiceRequest"):
        referral = tracker.tracker_of(practice.repository, order)
        if order not in known and referral is not None:
            yield order, referral.resource["id"]


def _complete_order(practice: Practice, order: str) -> None:
    """The placer completes the order; for one that staff entered for a placer, we do."""

    def change(resource: dict) -> dict | None:
        if resource["status"] != "active" or not entered_by_staff(resource):
            return None
        return resource | {"status": "completed"}

    practice.repository.amend(store.RULES, "ServiceRequest", order.partition("/")[2], change)
