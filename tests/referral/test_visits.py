"""What becomes of a booked visit: kept, missed, corrected, cancelled; images, report, feedback."""

from datetime import UTC, datetime

import pytest

from referral.codes import NOSHOW_COUNT, STATUS_REASON, STATUS_REASONS, code_of, extension
from referral.tracker import state_of
from tests.referral.conftest import LAKESIDE, Loop, a_report, a_study

ORDER = "ServiceRequest/order-lk-1"


def feedback(order: str, id: str = "answer") -> dict:
    return {
        "resourceType": "QuestionnaireResponse",
        "id": id,
        "questionnaire": "https://radloop.example/fhir/Questionnaire/referral-feedback|1.0.0",
        "status": "completed",
        "basedOn": [{"reference": order}],
    }


class TestKept:
    def test_from_arrival_to_the_closed_loop(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        loop.put(a_study(ORDER))
        loop.put(a_report(ORDER, "registered"))
        loop.put(a_report(ORDER, "preliminary"))
        loop.put(a_report(ORDER, "final"))
        loop.put(feedback(ORDER), LAKESIDE)
        assert loop.states(task) == [
            "submitted",
            "received",
            "awaiting-scheduling",
            "appointment-booked",
            "patient-arrived",
            "exam-performed",
            "images-available",
            "awaiting-interpretation",
            "preliminary-report",
            "report-final",
            "feedback-received",
        ]
        assert loop.get(task)["status"] == "completed"
        outputs = {o["type"]["text"]: o["valueReference"]["reference"] for o in loop.get(task)["output"]}
        assert outputs == {
            "Images": "ImagingStudy/study",
            "Report": "DiagnosticReport/report",
            "Feedback": "QuestionnaireResponse/answer",
        }

    def test_images_prove_that_the_patient_came(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.put(a_study(ORDER))
        assert loop.get(appointment)["status"] == "fulfilled"
        assert loop.states(task)[-2:] == ["exam-performed", "images-available"]

    def test_a_registered_study_says_that_the_exam_is_done(self, loop: Loop) -> None:
        task, _ = loop.booked()
        loop.put(a_study(ORDER, "registered"))
        assert loop.state(task) == ("in-progress", "exam-performed")

    @pytest.mark.parametrize("status", ["registered", "available"])
    def test_the_exam_has_the_time_that_the_images_tell(self, loop: Loop, status: str) -> None:
        task, _ = loop.booked()
        loop.put(a_study(ORDER, status) | {"started": "2026-03-02T10:15:00+01:00"})
        assert loop.happened(task, "exam-performed") == datetime(2026, 3, 2, 9, 15, tzinfo=UTC)

    @pytest.mark.parametrize("status", ["registered", "available"])
    def test_images_older_than_the_order_tell_no_time(self, loop: Loop, status: str) -> None:
        task, _ = loop.booked()
        study = loop.put(a_study(ORDER, status) | {"started": "2003-04-28T10:15:00Z"})
        learned = datetime.fromisoformat(loop.get(study)["meta"]["lastUpdated"])
        assert loop.happened(task, "exam-performed") == learned

    def test_a_report_ends_a_referral_that_never_had_an_appointment(self, loop: Loop) -> None:
        task = loop.refer()
        loop.put(a_report(ORDER, "final"))
        assert loop.states(task)[-3:] == ["awaiting-scheduling", "exam-performed", "report-final"]

    @pytest.mark.parametrize("status", ["amended", "corrected", "appended"])
    def test_an_amended_report_is_told_after_the_end(self, loop: Loop, status: str) -> None:
        task, _ = loop.booked()
        loop.put(a_report(ORDER, "final"))
        loop.put(a_report(ORDER, status))
        assert loop.state(task) == ("completed", "report-amended")

    def test_late_images_move_nothing_back_and_are_kept(self, loop: Loop) -> None:
        task, _ = loop.booked()
        loop.put(a_report(ORDER, "final"))
        loop.put(a_study(ORDER))
        assert loop.state(task) == ("completed", "report-final")
        assert "ImagingStudy/study" in [o["valueReference"]["reference"] for o in loop.get(task)["output"]]

    def test_an_order_that_staff_entered_is_completed_with_the_report(self, loop: Loop) -> None:
        tag = {"tag": [{"system": "https://radloop.example/fhir/CodeSystem/origin", "code": "web"}]}
        loop.refer("LK-1", meta=tag)
        loop.put(a_report(ORDER, "final"))
        assert loop.get(ORDER)["status"] == "completed"

    def test_the_placer_completes_its_own(self, loop: Loop) -> None:
        loop.refer("LK-1")
        loop.put(a_report(ORDER, "final"))
        assert loop.get(ORDER)["status"] == "active"

    def test_everything_once_more_changes_nothing(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        loop.put(a_study(ORDER))
        loop.put(a_report(ORDER))
        before = (loop.version(task), loop.version(appointment), len(loop.find("Communication")))
        loop.settle_again()
        assert (loop.version(task), loop.version(appointment), len(loop.find("Communication"))) == before


class TestMissed:
    def test_the_referrer_is_told_with_the_next_step(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        assert loop.state(task) == ("in-progress", "appointment-noshow")
        assert loop.get(ORDER)["status"] == "active"
        told = "The patient did not attend. Rebook, withdraw the referral, or call +1-555-0100."
        assert loop.messages("appointment-noshow") == [told]
        step = loop.steps("rebook")[0]
        assert step["owner"] == {"reference": "Organization/lakeside"}
        assert step["focus"] == {"reference": ORDER}
        assert step["description"] == told
        assert extension(loop.get(task), NOSHOW_COUNT) == {"url": NOSHOW_COUNT, "valueUnsignedInt": 1}

    def test_the_message_says_why(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        message = next(m for m in loop.find("Communication") if len(m["reasonCode"]) == 2)
        assert code_of(message["reasonCode"][1], STATUS_REASONS) == "no-show"

    def test_a_new_appointment_answers_the_rebook_step(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        second = loop.book_more(task, "ct-03-0900")
        assert loop.state(task) == ("in-progress", "appointment-booked")
        assert loop.steps("rebook") == []
        assert len(loop.steps("rebook", status="completed")) == 1
        loop.clock.move(hours=25)
        loop.set_status(second, "arrived")
        assert loop.state(task) == ("in-progress", "patient-arrived")

    def test_who_came_late_after_all_is_corrected_with_a_message(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        loop.set_status(appointment, "arrived")
        assert loop.state(task) == ("in-progress", "patient-arrived")
        assert loop.messages("patient-arrived") == ["Correction: the patient did come."]
        assert loop.steps("rebook") == []
        assert extension(loop.get(task), NOSHOW_COUNT) is None

    def test_late_images_correct_it_too(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        loop.put(a_study(ORDER))
        fulfilled = loop.get(appointment)
        assert (fulfilled["status"], extension(fulfilled, STATUS_REASON)) == ("fulfilled", None)
        assert loop.state(task) == ("in-progress", "images-available")
        assert loop.messages("exam-performed") == ["Correction: the patient did come."]
        assert loop.steps("rebook") == []

    def test_with_another_visit_booked_the_state_follows_that_one(self, loop: Loop) -> None:
        task, first = loop.booked("LK-1", "ct-0900")
        loop.book_more(task, "ct-03-0900")
        loop.clock.move(hours=2)
        loop.set_status(first, "noshow")
        assert loop.state(task) == ("in-progress", "appointment-booked")
        assert loop.steps("rebook") == []
        assert len(loop.messages("appointment-noshow")) == 1

    def test_after_too_many_staff_is_asked(self, loop: Loop) -> None:
        task, appointment = loop.booked("LK-1", "ct-0900")
        for slot in ("ct-0930", "ct-03-0900", None):
            loop.clock.move(hours=1)
            loop.set_status(appointment, "noshow")
            if slot is not None:
                appointment = loop.book_more(task, slot)
        assert extension(loop.get(task), NOSHOW_COUNT) == {"url": NOSHOW_COUNT, "valueUnsignedInt": 3}
        assert [step["description"] for step in loop.steps("escalation")] == [
            "3 appointments of this referral were missed: decide how to go on."
        ]


class TestCancelled:
    def test_the_slot_is_free_and_the_referral_waits(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "cancelled")
        assert loop.get("Slot/ct-0900")["status"] == "free"
        assert loop.state(task) == ("in-progress", "appointment-cancelled")

    def test_a_moved_appointment_is_told(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        moved = {
            "slot": [{"reference": "Slot/ct-0930"}],
            "start": "2026-03-02T09:30:00Z",
            "end": "2026-03-02T10:00:00Z",
        }
        loop.put(loop.get(appointment) | moved)
        assert loop.state(task) == ("in-progress", "appointment-rescheduled")
        assert [loop.get(f"Slot/ct-{at}")["status"] for at in ("0900", "0930")] == ["free", "busy"]

    def test_the_referral_that_ends_frees_its_times(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(task, "failed", statusReason={"text": "Pacemaker"})
        assert loop.get(appointment)["status"] == "cancelled"
        assert loop.get("Slot/ct-0900")["status"] == "free"
        assert loop.state(task) == ("failed", "not-performed")


class TestAbort:
    """From in-progress on, the placer asks with a Task `abort`; the practice answers on it."""

    def ask(self, loop: Loop, focus: str, id: str = "abort") -> str:
        return loop.put(
            {
                "resourceType": "Task",
                "id": id,
                "status": "requested",
                "intent": "order",
                "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "abort"}]},
                "focus": {"reference": focus},
            },
            LAKESIDE,
        )

    @pytest.mark.parametrize("by_order", [False, True])
    def test_until_check_in_it_is_accepted_at_once(self, loop: Loop, by_order: bool) -> None:
        task, appointment = loop.booked()
        abort = self.ask(loop, ORDER if by_order else task)
        assert loop.get(abort)["status"] == "accepted"
        assert loop.state(task) == ("failed", "cancelled")
        assert loop.states(task)[-2:] == ["cancellation-requested", "cancelled"]
        assert loop.get(appointment)["status"] == "cancelled"
        assert loop.get("Slot/ct-0900")["status"] == "free"

    def test_after_check_in_the_practice_answers(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        abort = self.ask(loop, task)
        assert loop.get(abort)["status"] == "received"
        assert loop.state(task) == ("in-progress", "cancellation-requested")
        loop.set_status(abort, "rejected", statusReason={"text": "The exam has begun"})
        assert loop.state(task) == ("in-progress", "patient-arrived")

    def test_and_may_agree(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        abort = self.ask(loop, task)
        loop.set_status(abort, "accepted")
        assert loop.state(task) == ("failed", "cancelled")

    def test_the_office_may_take_it_back(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        abort = self.ask(loop, task)
        loop.set_status(abort, "cancelled", LAKESIDE)
        assert loop.state(task) == ("in-progress", "patient-arrived")

    def test_a_report_that_comes_meanwhile_counts(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        self.ask(loop, task)
        loop.put(a_report(ORDER))
        assert loop.state(task) == ("completed", "report-final")

    def test_the_practice_asks_the_placer_to_withdraw_a_wrong_order(self, loop: Loop) -> None:
        task = loop.refer()
        loop.set_status(task, "rejected", statusReason={"text": "Not for this question"})
        code = {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "abort"}]}
        abort = loop.put(
            {
                "resourceType": "Task",
                "id": "withdraw",
                "status": "requested",
                "intent": "order",
                "code": code,
                "focus": {"reference": ORDER},
                "owner": {"reference": "Organization/lakeside"},
            }
        )
        assert loop.get(abort)["status"] == "requested"
        assert loop.get(ORDER)["status"] == "active"
        loop.set_status(abort, "accepted", LAKESIDE)
        loop.put(loop.get(ORDER) | {"status": "revoked"}, LAKESIDE)
        assert loop.get(abort)["status"] == "accepted"
        assert loop.state(task) == ("rejected", "declined")

    def test_an_ended_referral_is_not_ended_again(self, loop: Loop) -> None:
        task, _ = loop.booked()
        loop.put(a_report(ORDER))
        abort = self.ask(loop, task)
        assert loop.get(abort)["status"] == "rejected"
        assert loop.state(task) == ("completed", "report-final")


def test_a_task_without_business_status_means_what_its_status_says() -> None:
    state = state_of({"resourceType": "Task", "status": "in-progress"})
    assert state is not None
    assert state.code == "exam-performed"
