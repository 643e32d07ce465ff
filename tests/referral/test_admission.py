"""What may be written in the loop, and by whom: the placer's order, the practice's Task, nobody's shortcuts."""

from typing import Any

import pytest

from fhir_server.errors import Conflict, FhirError, Forbidden, PreconditionFailed, Unprocessable
from fhir_server.prepare import Draft
from referral.codes import (
    ACCESSION_SYSTEM,
    EVENT,
    IDENTIFIER_TYPE,
    STATE_SINCE,
    code_of,
    extension,
    task_concept,
    with_extension,
)
from tests.referral.conftest import BASE, HILLCREST, LAKESIDE, MONDAY, STAFF, Loop, a_task, an_order


def refused(error: type[FhirError], write: Any, *arguments: Any, **named: Any) -> str:
    """The element that the refusal names."""
    with pytest.raises(error) as refusal:
        write(*arguments, **named)
    return refusal.value.outcome()["issue"][0].get("expression", [""])[0]


class TestOrder:
    """Only the placer changes it."""

    def test_its_placer_changes_it(self, loop: Loop) -> None:
        loop.refer()
        order = loop.get("ServiceRequest/order-lk-1")
        loop.repository.update(LAKESIDE, order | {"priority": "stat"})
        assert loop.get("ServiceRequest/order-lk-1")["priority"] == "stat"

    def test_the_practice_does_not(self, loop: Loop) -> None:
        loop.refer()
        order = loop.get("ServiceRequest/order-lk-1") | {"status": "revoked"}
        assert refused(Forbidden, loop.repository.update, STAFF, order) == "ServiceRequest"

    def test_but_staff_acts_for_a_placer_whose_order_they_entered(self, loop: Loop) -> None:
        tag = {"tag": [{"system": "https://radloop.example/fhir/CodeSystem/origin", "code": "fax"}]}
        order = an_order("faxed", "F-1", "Organization/lakeside", meta=tag)
        loop.put(order)
        loop.repository.update(STAFF, loop.get("ServiceRequest/faxed") | {"priority": "asap"})
        assert loop.get("ServiceRequest/faxed")["priority"] == "asap"

    def test_another_office_neither_sees_nor_changes_it(self, loop: Loop) -> None:
        loop.refer()
        order = loop.get("ServiceRequest/order-lk-1") | {"status": "revoked"}
        refused(Forbidden, loop.repository.update, HILLCREST, order)
        assert loop.get("ServiceRequest/order-lk-1")["status"] == "active"

    def test_an_office_orders_in_its_own_name(self, loop: Loop) -> None:
        order = an_order("o", "X-1", "Organization/hillcrest")
        assert refused(Forbidden, loop.repository.update, LAKESIDE, order) == "ServiceRequest.requester"

    def test_its_status_moves_as_request_status_says(self, loop: Loop) -> None:
        loop.refer()
        order = loop.get("ServiceRequest/order-lk-1") | {"status": "draft"}
        assert refused(Unprocessable, loop.repository.update, LAKESIDE, order) == "ServiceRequest.status"


class TestTask:
    """The practice moves it; the placer may cancel it before work begins."""

    def test_an_illegal_jump_is_422_naming_from_and_to(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        with pytest.raises(Unprocessable, match="from received to completed") as refusal:
            loop.repository.update(STAFF, task | {"status": "completed"})
        assert refusal.value.status == 422
        assert loop.state(f"Task/{task['id']}") == ("received", "received")

    def test_a_stale_version_is_412_and_changes_nothing(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        with pytest.raises(PreconditionFailed):
            loop.repository.update(STAFF, task | {"status": "accepted"}, if_match=1)
        assert loop.state(f"Task/{task['id']}") == ("received", "received")

    def test_the_office_does_not_accept_for_the_practice(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        assert refused(Forbidden, loop.repository.update, LAKESIDE, task | {"status": "accepted"}) == "Task.status"

    def test_the_office_cancels_before_work_begins(self, loop: Loop) -> None:
        task = loop.accepted()
        loop.set_status(task, "cancelled", LAKESIDE)
        assert loop.state(task) == ("cancelled", "cancelled")

    def test_but_not_from_in_progress(self, loop: Loop) -> None:
        task, _ = loop.booked()
        changed = loop.get(task) | {"status": "cancelled"}
        with pytest.raises(Unprocessable, match="from in-progress to cancelled"):
            loop.repository.update(LAKESIDE, changed)

    def test_another_office_is_403(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        refused(Forbidden, loop.repository.update, HILLCREST, task | {"status": "cancelled"})

    def test_an_office_does_not_begin_beyond_requested(self, loop: Loop) -> None:
        order = an_order("o", "X-1", "Organization/lakeside")
        task = a_task("t", order, "Organization/lakeside", status="accepted")
        drafts = [Draft("update", order), Draft("update", task)]
        assert refused(Forbidden, loop.repository.write, LAKESIDE, drafts) == "Task.status"

    def test_an_order_has_one_task(self, loop: Loop) -> None:
        loop.refer()
        second = a_task("second", loop.get("ServiceRequest/order-lk-1"), "Organization/lakeside")
        assert refused(Conflict, loop.repository.update, LAKESIDE, second) == "Task.focus"

    def test_its_focus_stays(self, loop: Loop) -> None:
        task = loop.refer()
        loop.refer("LK-2")
        moved = loop.get(task) | {"focus": {"reference": "ServiceRequest/order-lk-2"}}
        assert refused(Unprocessable, loop.repository.update, STAFF, moved) == "Task.focus"

    def test_a_business_status_that_is_none_is_refused(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        system = task["businessStatus"]["coding"][0]["system"]
        task["businessStatus"] = {"coding": [{"system": system, "code": "on-the-moon"}]}
        assert refused(Unprocessable, loop.repository.update, STAFF, task) == "Task.businessStatus"

    def test_a_business_status_goes_with_the_status(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        system = task["businessStatus"]["coding"][0]["system"]
        task["businessStatus"] = {"coding": [{"system": system, "code": "report-final"}]}
        assert refused(Unprocessable, loop.repository.update, STAFF, task) == "Task.businessStatus"

    def test_a_bare_status_brings_its_business_status(self, loop: Loop) -> None:
        task = loop.accepted()
        assert loop.state(task) == ("accepted", "awaiting-scheduling")

    def test_acceptance_gives_an_accession_number_that_fits_dicom(self, loop: Loop) -> None:
        task = loop.get(loop.accepted())
        numbers = [i for i in task["identifier"] if code_of(i.get("type"), IDENTIFIER_TYPE) == "ACSN"]
        assert [(n["system"], len(n["value"])) for n in numbers] == [(ACCESSION_SYSTEM, 16)]

    def test_the_time_line_is_not_the_clients_to_write(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        forged = with_extension(task, EVENT, {"extension": [{"url": "code", "valueCode": "report-final"}]})
        loop.repository.update(STAFF, forged | {"status": "accepted"})
        kept = extension(loop.get(f"Task/{task['id']}"), EVENT)
        assert kept == extension(task, EVENT)

    def test_since_when_it_is_in_its_state_is_kept_through_other_changes(self, loop: Loop) -> None:
        task = loop.refer()
        loop.clock.move(hours=2)
        loop.repository.update(STAFF, loop.get(task) | {"description": "seen"})
        since = extension(loop.get(task), STATE_SINCE)
        assert since is not None
        assert since["valueDateTime"].startswith(f"{MONDAY:%Y-%m-%dT%H:%M}")

    def test_the_practice_keeps_its_elements(self, loop: Loop) -> None:
        task = loop.get(loop.refer())
        changed = task | {"owner": {"reference": "Organization/lakeside"}}
        assert refused(Forbidden, loop.repository.update, LAKESIDE, changed) == "Task.owner"

    def test_it_is_ended_not_deleted(self, loop: Loop) -> None:
        task = loop.refer()
        assert refused(Forbidden, loop.repository.delete, LAKESIDE, "Task", task.partition("/")[2]) == "Task"

    def test_a_task_of_another_kind_passes(self, loop: Loop) -> None:
        loop.put({"resourceType": "Task", "id": "own", "status": "draft", "intent": "plan"}, HILLCREST)
        loop.put({"resourceType": "Task", "id": "own", "status": "completed", "intent": "plan"}, HILLCREST)
        assert loop.get("Task/own")["status"] == "completed"

    def test_and_never_becomes_a_referral_later(self, loop: Loop) -> None:
        loop.put({"resourceType": "Task", "id": "own", "status": "draft", "intent": "plan"}, LAKESIDE)
        order = an_order("o", "X-1", "Organization/lakeside")
        loop.put(order, LAKESIDE)
        turned = a_task("own", order, "Organization/lakeside")
        assert refused(Unprocessable, loop.repository.update, LAKESIDE, turned) == "Task.code"


class TestStep:
    def test_an_office_makes_none(self, loop: Loop) -> None:
        task = loop.refer()
        step = {
            "resourceType": "Task",
            "id": "step",
            "status": "requested",
            "intent": "order",
            "code": task_concept("escalation"),
            "partOf": [{"reference": task}],
        }
        assert refused(Forbidden, loop.repository.update, LAKESIDE, step) == "Task.code"

    def test_only_its_owner_does_it(self, loop: Loop) -> None:
        task = loop.refer()
        loop.set_status(task, "received", businessStatus=_missing(), statusReason={"text": "Which side?"})
        step = loop.steps("complete-information")[0]
        refused(Forbidden, loop.repository.update, HILLCREST, step | {"status": "completed"})
        loop.repository.update(LAKESIDE, step | {"status": "completed"})
        assert loop.get(f"Task/{step['id']}")["status"] == "completed"


class TestAbort:
    """A request to abort comes from the placer; the practice answers."""

    def ask(self, focus: str, **changed: Any) -> dict:
        return {
            "resourceType": "Task",
            "id": "abort",
            "status": "requested",
            "intent": "order",
            "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "abort"}]},
            "focus": {"reference": focus},
        } | changed

    def test_another_office_does_not_ask(self, loop: Loop) -> None:
        task = loop.accepted()
        assert refused(Unprocessable, loop.repository.update, HILLCREST, self.ask("ServiceRequest/nobody"))
        with pytest.raises(Unprocessable):
            loop.repository.update(HILLCREST, self.ask(task))
        assert loop.state(task) == ("accepted", "awaiting-scheduling")

    def test_nor_does_its_placer_answer(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        abort = self.ask(task)
        assert refused(Forbidden, loop.repository.update, LAKESIDE, abort | {"status": "accepted"}) == "Task.status"
        loop.put(abort, LAKESIDE)
        answered = loop.get("Task/abort") | {"status": "accepted"}
        assert refused(Forbidden, loop.repository.update, LAKESIDE, answered) == "Task.status"

    def test_nor_does_it_keep_the_request_to_itself(self, loop: Loop) -> None:
        abort = self.ask(loop.accepted(), owner={"reference": "Organization/lakeside"})
        assert refused(Unprocessable, loop.repository.update, LAKESIDE, abort) == "Task.owner"


class TestAppointment:
    def test_an_office_writes_none_directly(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        changed = loop.get(appointment) | {"status": "cancelled"}
        assert refused(Forbidden, loop.repository.update, LAKESIDE, changed) == "Appointment"

    def test_an_illegal_jump_is_422_naming_from_and_to(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        with pytest.raises(Unprocessable, match="from booked to proposed"):
            loop.repository.update(STAFF, loop.get(appointment) | {"status": "proposed"})

    def test_a_no_show_is_never_stored_as_a_cancellation(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        scheduling = "https://profiles.ihe.net/ITI/Scheduling"
        reason = {"coding": [{"system": f"{scheduling}/CodeSystem/status-reason", "code": "no-show"}]}
        url = f"{scheduling}/StructureDefinition/extension-status-reason"
        cancelled = with_extension(loop.get(appointment), url, {"valueCodeableConcept": reason})
        element = refused(Unprocessable, loop.repository.update, STAFF, cancelled | {"status": "cancelled"})
        assert element == "Appointment.status"


class TestTaken:
    """Nobody writes one appointment over another by mistake."""

    def by_hand(self, slot: str, **changed: Any) -> dict:
        patient = [{"actor": {"reference": "Patient/p1"}, "status": "accepted"}]
        return {
            "resourceType": "Appointment",
            "id": "by-hand",
            "status": "booked",
            "start": "2026-03-02T09:00:00Z",
            "end": "2026-03-02T09:30:00Z",
            "slot": [{"reference": f"Slot/{slot}"}],
            "participant": patient,
        } | changed

    def test_a_taken_time_is_409(self, loop: Loop) -> None:
        loop.booked(slot="ct-0900")
        assert refused(Conflict, loop.repository.update, STAFF, self.by_hand("ct-0900")) == "Appointment.slot"
        loop.put(self.by_hand("ct-0930"))
        moved = loop.get("Appointment/by-hand") | {"slot": [{"reference": "Slot/ct-0900"}]}
        assert refused(Conflict, loop.repository.update, STAFF, moved) == "Appointment.slot"

    def test_one_that_is_free_again_is_not(self, loop: Loop) -> None:
        _, appointment = loop.booked(slot="ct-0900")
        loop.set_status(appointment, "cancelled")
        loop.put(self.by_hand("ct-0900"))
        assert loop.get("Slot/ct-0900")["status"] == "busy"

    def test_an_emergency_is_squeezed_in(self, loop: Loop) -> None:
        _, appointment = loop.booked(slot="ct-0900")
        loop.put(self.by_hand("ct-0900", priority=1))
        loop.set_status(appointment, "cancelled")
        assert loop.get("Slot/ct-0900")["status"] == "busy"


def test_links_are_kept_relative_however_they_were_written(loop: Loop) -> None:
    order = an_order("o", "X-1", f"{BASE}/Organization/lakeside")
    loop.repository.update(LAKESIDE, order)
    assert loop.get("ServiceRequest/o")["requester"] == {"reference": "Organization/lakeside"}


def _missing() -> dict:
    system = "https://radloop.example/fhir/CodeSystem/referral-business-status"
    return {"coding": [{"system": system, "code": "awaiting-information"}]}
