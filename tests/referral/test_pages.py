"""What the portal shows and does: the boards, the time line, the front desk's moves."""

from datetime import date, datetime, timedelta

import pytest

from fhir_server.errors import BadRequest, Forbidden, NotFound, PreconditionFailed, Unprocessable
from referral import board, desk
from referral.escalation import escalate
from referral.timeline import Link, timeline
from tests.referral.conftest import HILLCREST, LAKESIDE, MONDAY, STAFF, Loop, a_report, a_slot, a_study

ORDER = "ServiceRequest/order-lk-1"


def id_of(reference: str) -> str:
    return reference.partition("/")[2]


class TestBoard:
    def test_incoming_is_sorted_by_urgency_then_age(self, loop: Loop) -> None:
        for name, priority in (("A", "routine"), ("B", "routine"), ("C", "stat"), ("D", "urgent")):
            loop.refer(f"{name}-1", priority=priority)
            loop.clock.move(minutes=1)
        assert [card.number for card in board.incoming(loop.practice, STAFF)] == ["C-1", "D-1", "A-1", "B-1"]

    def test_a_card_says_what_the_desk_needs(self, loop: Loop) -> None:
        task = loop.refer(priority="urgent")
        loop.clock.move(hours=4, minutes=1)
        card = board.incoming(loop.practice, STAFF)[0]
        assert (card.task, card.order, card.version) == (task, ORDER, loop.version(task))
        assert (card.number, card.priority, card.status, card.code) == ("LK-1", "urgent", "received", "received")
        assert (card.patient_name, card.birth_date) == ("Nowak, Ada", "1970-01-01")
        assert (card.exam, card.office) == ("CT abdomen with contrast", "Lakeside")
        assert card.sent == datetime.fromisoformat("2026-03-02T07:59:00+00:00")
        assert (card.since, card.late) == (MONDAY, True)

    def test_what_is_booked_or_ended_does_not_wait_for_the_desk(self, loop: Loop) -> None:
        loop.booked("LK-1")
        loop.set_status(loop.refer("LK-2"), "rejected", statusReason={"text": "no"})
        accepted = loop.accepted("LK-3")
        assert [card.task for card in board.incoming(loop.practice, STAFF)] == [accepted]

    def test_today_is_the_practices_day(self, loop: Loop) -> None:
        loop.put(a_slot("ct", MONDAY.replace(hour=22, minute=30)))  # 23:30 in Warsaw
        loop.put(a_slot("ct", MONDAY.replace(hour=23)))  # midnight
        for n, slot in enumerate(("ct-2230", "ct-2300", "ct-0900")):
            loop.booked(f"LK-{n}", slot)
        visits = board.today(loop.practice, STAFF)
        assert [visit.start.hour for visit in visits] == [9, 22]
        tomorrow = board.today(loop.practice, STAFF, date(2026, 3, 3))
        assert [visit.start.hour for visit in tomorrow] == [23]

    def test_a_visit_says_who_comes_when_where_and_for_what(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=1, minutes=15)
        visit = board.today(loop.practice, STAFF)[0]
        assert (visit.appointment, visit.version, visit.status) == (appointment, loop.version(appointment), "booked")
        assert (visit.patient_name, visit.room, visit.exam) == ("Nowak, Ada", "CT room", "CT abdomen with contrast")
        assert (visit.task, visit.number, visit.office, visit.late) == (task, "LK-1", "Lakeside", True)
        assert visit.end is not None
        assert visit.end - visit.start == timedelta(minutes=30)

    def test_missed_lists_those_for_whom_nothing_has_happened_since(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        missed = board.missed(loop.practice, STAFF)
        assert [(one.card.task, one.card.noshows) for one in missed] == [(task, 1)]
        loop.book_more(task, "ct-03-0900")
        assert board.missed(loop.practice, STAFF) == []

    def test_overdue_lists_the_open_escalations(self, loop: Loop) -> None:
        loop.refer("LK-1", priority="urgent")
        urgent = loop.refer("LK-2", priority="stat")
        loop.clock.move(hours=5)
        escalate(loop.practice)
        found = board.overdue(loop.practice, STAFF)
        assert [one.card.number for one in found] == ["LK-2", "LK-1"]
        assert found[0].card.task == urgent
        assert found[0].description == "Received: for more than 45 minutes (level 3)"

    def test_an_office_sees_its_own_referrals_page_by_page(self, loop: Loop) -> None:
        for n in range(3):
            loop.refer(f"LK-{n}")
        loop.refer("HC-1", HILLCREST)
        first = board.my_referrals(loop.practice, LAKESIDE, count=2)
        assert [card.number for card in first.cards] == ["LK-2", "LK-1"]
        second = board.my_referrals(loop.practice, LAKESIDE, first.next)
        assert [card.number for card in second.cards] == ["LK-0"]
        assert second.next is None

    def test_and_no_others_by_any_list(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        for look in (board.incoming, board.today, board.missed, board.overdue, board.abort_requests):
            assert look(loop.practice, HILLCREST) == []  # type: ignore[operator]
        assert board.visits_of(loop.practice, HILLCREST, ORDER) == []
        with pytest.raises(NotFound):
            board.card_of(loop.practice, HILLCREST, id_of(task))

    def test_the_visits_of_a_referral_leave_holds_out(self, loop: Loop) -> None:
        task, _ = loop.booked("LK-1", "ct-0930")
        proposal = loop.proposals(**{"visit-type": "77477000"})[0]
        hold = {"appointment-reference": {"reference": f"Appointment/{proposal['id']}"}}
        loop.call(STAFF, "hold", **hold, **{"order-reference": {"reference": ORDER}})
        loop.book_more(task, "ct-03-0900")
        visits = board.visits_of(loop.practice, LAKESIDE, ORDER)
        assert [(visit.start.day, visit.status) for visit in visits] == [(2, "booked"), (3, "booked")]

    def test_a_task_of_another_kind_has_no_card(self, loop: Loop) -> None:
        loop.put({"resourceType": "Task", "id": "own", "status": "draft", "intent": "plan"})
        with pytest.raises(NotFound):
            board.card_of(loop.practice, STAFF, "own")

    def test_a_request_to_cancel_after_check_in_waits_for_an_answer(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        abort = _abort(loop, task)
        assert [(one.step, one.card.task) for one in board.abort_requests(loop.practice, STAFF)] == [(abort, task)]
        assert [card.code for card in board.incoming(loop.practice, STAFF)] == ["cancellation-requested"]


class TestTimeline:
    def test_tells_the_whole_story_in_order(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=1)
        loop.set_status(appointment, "arrived")
        loop.put(a_study(ORDER))
        loop.put(a_report(ORDER))
        told = timeline(loop.practice, LAKESIDE, id_of(task))
        assert [(entry.code, entry.actor) for entry in told] == [
            ("submitted", "referring office"),
            ("received", "automatic"),
            ("awaiting-scheduling", "practice"),
            ("appointment-booked", "practice"),
            ("patient-arrived", "practice"),
            ("exam-performed", "imaging system"),
            ("images-available", "imaging system"),
            ("report-final", "practice"),
        ]
        by_code = {entry.code: entry for entry in told}
        assert by_code["received"].text == "Referral LK-1 has arrived at the practice. Questions: +1-555-0100."
        assert by_code["appointment-booked"].visit == MONDAY + timedelta(hours=1)
        assert by_code["images-available"].links == (Link("images", "ImagingStudy/study"),)
        assert by_code["report-final"].links == (Link("report", "DiagnosticReport/report"),)
        assert all(entry.display and entry.text and entry.version for entry in told)

    def test_a_missed_visit_says_what_to_do_and_a_correction_is_a_line_of_its_own(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.clock.move(hours=2)
        loop.set_status(appointment, "noshow")
        loop.clock.move(minutes=5)
        loop.set_status(appointment, "arrived")
        missed, arrived = timeline(loop.practice, LAKESIDE, id_of(task))[-2:]
        assert (missed.code, arrived.code) == ("appointment-noshow", "patient-arrived")
        assert missed.reason == "The patient did not attend"
        assert missed.text.endswith("or call +1-555-0100.")
        assert arrived.text == "Correction: the patient did come."

    def test_what_comes_too_late_is_there_and_marked(self, loop: Loop) -> None:
        task, _ = loop.booked()
        loop.put(a_report(ORDER))
        loop.put(a_study(ORDER))
        late = timeline(loop.practice, STAFF, id_of(task))[-1]
        assert (late.code, late.late) == ("images-available", True)

    def test_a_declined_referral_says_why(self, loop: Loop) -> None:
        task = loop.refer()
        desk.decline(loop.practice, STAFF, id_of(task), loop.version(task), "We have no PET")
        assert timeline(loop.practice, LAKESIDE, id_of(task))[-1].reason == "We have no PET"

    def test_a_change_of_priority_is_told(self, loop: Loop) -> None:
        task = loop.refer()
        loop.put(loop.get(ORDER) | {"priority": "stat"}, LAKESIDE)
        entry = timeline(loop.practice, STAFF, id_of(task))[-1]
        assert (entry.code, entry.text) == ("priority", "The priority is now stat.")

    def test_a_message_by_hand_is_an_entry(self, loop: Loop) -> None:
        task = loop.refer()
        loop.put({
            "resourceType": "Communication",
            "id": "by-hand",
            "status": "completed",
            "basedOn": [{"reference": ORDER}],
            "partOf": [{"reference": task}],
            "payload": [{"contentString": "Please bring the prior images."}],
        })  # fmt: skip
        entry = timeline(loop.practice, LAKESIDE, id_of(task))[-1]
        assert (entry.code, entry.text, entry.actor) == ("message", "Please bring the prior images.", "practice")

    def test_is_closed_to_others(self, loop: Loop) -> None:
        task = loop.refer()
        with pytest.raises(NotFound):
            timeline(loop.practice, HILLCREST, id_of(task))


class TestDesk:
    def test_accept(self, loop: Loop) -> None:
        task = loop.refer()
        desk.accept(loop.practice, STAFF, id_of(task), loop.version(task))
        assert loop.state(task) == ("accepted", "awaiting-scheduling")

    def test_decline_needs_a_reason(self, loop: Loop) -> None:
        task = loop.refer()
        with pytest.raises(BadRequest):
            desk.decline(loop.practice, STAFF, id_of(task), loop.version(task), "  ")
        with pytest.raises(BadRequest):
            desk.decline(loop.practice, STAFF, id_of(task), loop.version(task), "x" * 1001)
        desk.decline(loop.practice, STAFF, id_of(task), loop.version(task), "We have no PET")
        assert loop.state(task) == ("rejected", "declined")

    def test_ask_for_information(self, loop: Loop) -> None:
        task = loop.refer()
        desk.ask_information(loop.practice, STAFF, id_of(task), loop.version(task), "Which side?")
        loop.settle()
        assert loop.state(task) == ("received", "awaiting-information")
        assert loop.steps("complete-information")[0]["description"] == "Which side?"
        desk.accept(loop.practice, STAFF, id_of(task), loop.version(task))
        assert "statusReason" not in loop.get(task)

    def test_fail(self, loop: Loop) -> None:
        task = loop.accepted()
        desk.fail(loop.practice, STAFF, id_of(task), loop.version(task), "Pacemaker")
        assert loop.state(task) == ("failed", "not-performed")

    def test_who_looks_at_an_old_page_changes_nothing(self, loop: Loop) -> None:
        task = loop.refer()
        seen = loop.version(task)
        desk.accept(loop.practice, STAFF, id_of(task), seen)
        with pytest.raises(PreconditionFailed):
            desk.decline(loop.practice, STAFF, id_of(task), seen, "no")
        assert loop.state(task) == ("accepted", "awaiting-scheduling")

    def test_an_office_has_no_desk(self, loop: Loop) -> None:
        task = loop.refer()
        with pytest.raises(Forbidden):
            desk.accept(loop.practice, LAKESIDE, id_of(task), loop.version(task))
        with pytest.raises(NotFound):
            desk.accept(loop.practice, HILLCREST, id_of(task), loop.version(task))

    def test_arrived_then_done(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        desk.mark_arrived(loop.practice, STAFF, id_of(appointment), loop.version(appointment))
        desk.mark_fulfilled(loop.practice, STAFF, id_of(appointment), loop.version(appointment))
        loop.settle()
        assert loop.states(task)[-2:] == ["patient-arrived", "exam-performed"]

    def test_no_show_and_its_undo(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        with pytest.raises(Unprocessable, match="once it has begun"):
            desk.mark_noshow(loop.practice, STAFF, id_of(appointment), loop.version(appointment))
        loop.clock.move(hours=1)
        desk.mark_noshow(loop.practice, STAFF, id_of(appointment), loop.version(appointment))
        loop.settle()
        assert loop.state(task) == ("in-progress", "appointment-noshow")
        desk.undo_noshow(loop.practice, STAFF, id_of(appointment), loop.version(appointment))
        loop.settle()
        assert loop.state(task) == ("in-progress", "patient-arrived")
        assert "extension" not in loop.get(appointment)
        with pytest.raises(Unprocessable, match="only a no-show"):
            desk.undo_noshow(loop.practice, STAFF, id_of(appointment), loop.version(appointment))

    def test_cancel_a_visit(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        with pytest.raises(BadRequest):
            desk.cancel_visit(loop.practice, STAFF, id_of(appointment), loop.version(appointment), "no-show")
        desk.cancel_visit(
            loop.practice, STAFF, id_of(appointment), loop.version(appointment), "equip-unavail", "Scanner down"
        )
        loop.settle()
        assert loop.state(task) == ("in-progress", "appointment-cancelled")
        assert loop.get(task)["statusReason"]["text"] == "Scanner down"
        assert loop.get(appointment)["cancelationReason"]["coding"][0]["code"] == "maint"

    def test_answer_a_request_to_cancel(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        abort = _abort(loop, task)
        desk.answer_abort(loop.practice, STAFF, id_of(abort), loop.version(abort), accepted=False, reason="Too late")
        loop.settle()
        assert loop.state(task) == ("in-progress", "patient-arrived")

    def test_complete_a_step(self, loop: Loop) -> None:
        task = loop.refer(priority="stat")
        loop.clock.move(hours=1)
        escalate(loop.practice)
        step = loop.steps("escalation")[0]["id"]
        desk.complete_step(loop.practice, STAFF, step, loop.version(f"Task/{step}"), "Called the office")
        assert loop.get(f"Task/{step}")["status"] == "completed"
        with pytest.raises(Unprocessable):
            desk.complete_step(loop.practice, STAFF, id_of(task), loop.version(task))


def _abort(loop: Loop, task: str) -> str:
    code = {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "abort"}]}
    focus = {"reference": task}
    abort = {
        "resourceType": "Task",
        "id": "abort",
        "status": "requested",
        "intent": "order",
        "code": code,
        "focus": focus,
    }
    return loop.put(abort, LAKESIDE)
