"""The no-show sweeper: nobody is forgotten, nobody is marked unasked, and a hold ends."""

import pytest

from fhir_server.admission import Admission, Write
from referral.codes import HELD_UNTIL, STATUS_REASON, STATUS_REASONS, code_of, extension
from referral.sweeper import sweep
from tests.referral.conftest import LAKESIDE, STAFF, Loop, a_study
from tests.referral.test_scheduling import NUMBER, held


def passes(loop: Loop, count: int = 1) -> list[int]:
    """What each pass did; the rules react in between."""
    done = []
    for _ in range(count):
        done.append(sweep(loop.practice))
        loop.settle()
    return done


def test_within_grace_nothing_happens(loop: Loop) -> None:
    _, appointment = loop.booked()
    loop.clock.move(hours=1, minutes=14)
    assert passes(loop) == [0]
    assert loop.get(appointment)["status"] == "booked"


def test_after_grace_the_front_desk_is_asked_once(loop: Loop) -> None:
    task, appointment = loop.booked()
    loop.clock.move(hours=1, minutes=15)
    assert passes(loop, 3) == [1, 0, 0]
    step = loop.steps("confirm-arrival")[0]
    assert step["focus"] == {"reference": appointment}
    assert step["partOf"] == [{"reference": task}]
    assert step["owner"] == {"reference": "Organization/practice"}
    assert step["restriction"]["period"]["end"] == "2026-03-02T09:45:00+00:00"
    assert loop.get(appointment)["status"] == "booked"


def test_who_is_marked_in_time_is_not_missed(loop: Loop) -> None:
    task, appointment = loop.booked()
    loop.clock.move(hours=1, minutes=20)
    passes(loop)
    loop.set_status(appointment, "arrived")
    loop.clock.move(hours=5)
    assert passes(loop) == [0]
    assert loop.state(task) == ("in-progress", "patient-arrived")
    assert loop.steps("confirm-arrival") == []


def test_unless_corrected_in_time_it_is_a_no_show(loop: Loop) -> None:
    task, appointment = loop.booked()
    loop.clock.move(hours=1, minutes=15)
    passes(loop)
    loop.clock.move(minutes=29)
    assert passes(loop) == [0]
    loop.clock.move(minutes=1)
    assert passes(loop) == [1]
    missed = loop.get(appointment)
    assert missed["status"] == "noshow"
    reason = extension(missed, STATUS_REASON)
    assert reason is not None
    assert code_of(reason["valueCodeableConcept"], STATUS_REASONS) == "no-show"
    assert loop.state(task) == ("in-progress", "appointment-noshow")
    assert len(loop.steps("rebook")) == 1
    assert loop.steps("confirm-arrival") == []


def test_a_clock_moved_past_everything_needs_two_passes(loop: Loop) -> None:
    task, appointment = loop.booked()
    loop.clock.move(days=9)
    assert passes(loop, 3) == [1, 1, 0]
    assert loop.get(appointment)["status"] == "noshow"
    assert loop.state(task) == ("in-progress", "appointment-noshow")


def test_images_that_come_late_correct_it(loop: Loop) -> None:
    task, appointment = loop.booked()
    loop.clock.move(hours=3)
    passes(loop, 2)
    loop.put(a_study("ServiceRequest/order-lk-1"))
    assert loop.get(appointment)["status"] == "fulfilled"
    assert loop.state(task) == ("in-progress", "images-available")


def test_images_that_came_in_time_leave_nothing_to_ask(loop: Loop) -> None:
    loop.booked()
    loop.put(a_study("ServiceRequest/order-lk-1"))
    loop.clock.move(hours=3)
    assert passes(loop) == [0]


def test_a_moved_appointment_is_asked_about_at_its_new_time(loop: Loop) -> None:
    _, appointment = loop.booked()
    loop.clock.move(hours=1, minutes=20)
    passes(loop)
    slot = loop.get("Slot/ct-03-0900")
    loop.put(
        loop.get(appointment)
        | {"slot": [{"reference": "Slot/ct-03-0900"}], "start": slot["start"], "end": slot["end"]}
    )
    assert loop.steps("confirm-arrival") == []
    assert passes(loop) == [0]
    loop.clock.move(days=1)
    assert passes(loop) == [1]
    assert len(loop.steps("confirm-arrival")) == 1


def test_a_visit_that_belongs_to_no_referral_is_marked_all_the_same(loop: Loop) -> None:
    own = {
        "resourceType": "Appointment",
        "id": "own",
        "status": "booked",
        "start": "2026-03-02T09:00:00Z",
        "end": "2026-03-02T09:30:00Z",
        "participant": [{"actor": {"reference": "Patient/p1"}, "status": "accepted"}],
    }
    loop.put(own)
    loop.clock.move(hours=1, minutes=30)
    assert passes(loop) == [0]
    loop.clock.move(minutes=15)
    assert passes(loop) == [1]
    assert loop.get("Appointment/own")["status"] == "noshow"


def test_one_that_cannot_be_handled_does_not_keep_the_others(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says class and place of the fault, never its text."""
    _, first = loop.booked("LK-1", "ct-0900")
    _, second = loop.booked("LK-2", "mr-0900")
    loop.repository.admissions["Task"] = (_refusing(first),)
    loop.clock.move(hours=1, minutes=20)
    assert sweep(loop.practice) == 1
    assert [step["focus"]["reference"] for step in loop.steps("confirm-arrival")] == [second]
    assert "Nowak" not in caplog.text
    assert f"sweeper, {first}: RuntimeError" in caplog.text


def _refusing(appointment: str) -> Admission:
    def admission(write: Write) -> dict | None:
        if write.after and write.after["focus"] == {"reference": appointment}:
            patient = "Ada " + "Nowak"
            raise RuntimeError(patient)
        return write.after

    return admission


class TestHolds:
    def test_what_is_held_too_long_is_free_again(self, loop: Loop) -> None:
        appointment = held(loop)
        loop.clock.move(minutes=9)
        assert passes(loop) == [0]
        loop.clock.move(minutes=1)
        assert passes(loop, 2) == [1, 0]
        released = loop.get(f"Appointment/{appointment['id']}")
        assert (released["status"], extension(released, HELD_UNTIL)) == ("proposed", None)
        slot = loop.get("Slot/ct-0900")
        assert (slot["status"], extension(slot, HELD_UNTIL)) == ("free", None)

    def test_and_may_still_be_booked_while_nobody_else_has_it(self, loop: Loop) -> None:
        task = loop.accepted()
        appointment = held(loop, LAKESIDE, **{"referral-identifier": NUMBER})
        loop.clock.move(minutes=10)
        passes(loop)
        reference = {"reference": f"Appointment/{appointment['id']}"}
        loop.call(LAKESIDE, "book", **{"appointment-reference": reference})
        loop.settle()
        assert loop.state(task) == ("in-progress", "appointment-booked")
        assert loop.get("Slot/ct-0900")["status"] == "busy"

    def test_a_slot_that_somebody_else_has_by_now_stays_theirs(self, loop: Loop) -> None:
        held(loop)
        loop.clock.move(minutes=10)
        held(loop)
        assert passes(loop) == [0]
        assert loop.get("Slot/ct-0900")["status"] == "busy-tentative"

    def test_a_proposal_whose_time_has_passed_is_over(self, loop: Loop) -> None:
        appointment = held(loop)
        loop.clock.move(hours=2)
        assert passes(loop, 3) == [2, 0, 0]
        assert loop.get(f"Appointment/{appointment['id']}")["status"] == "cancelled"

    def test_a_hold_that_staff_made_without_an_end_stays(self, loop: Loop) -> None:
        appointment = held(loop)
        without = loop.get(f"Appointment/{appointment['id']}")
        del without["extension"]
        loop.repository.update(STAFF, without)
        loop.clock.move(minutes=50)
        assert passes(loop) == [0]
        assert loop.get(f"Appointment/{appointment['id']}")["status"] == "pending"
