"""The tables of states and moves: standards checklist of the referral loop, sections 2, 3 and 6."""

import pytest

from fhir_server.errors import Unprocessable
from referral.states import (
    ABORT_MOVES,
    APPOINTMENT_MOVES,
    DEFAULT_STATE,
    STATES,
    STEP_MOVES,
    TASK_MOVES,
    Moves,
    business_status,
    check_move,
    fits,
    path,
)

# Row by row from the checklist: from, and to which.
TASK_TABLE = {
    "draft": "requested",
    "requested": "received accepted rejected cancelled",
    "received": "accepted rejected cancelled",
    "accepted": "in-progress on-hold cancelled rejected failed",
    "in-progress": "on-hold completed failed",
    "on-hold": "in-progress failed cancelled",
}
APPOINTMENT_TABLE = {
    "proposed": "pending booked cancelled",
    "pending": "booked cancelled proposed",
    "booked": "arrived checked-in cancelled noshow fulfilled",
    "arrived": "checked-in fulfilled cancelled",
    "checked-in": "fulfilled cancelled",
    "noshow": "arrived fulfilled",
    "waitlist": "booked cancelled",
}
TASK_STATUSES = "draft requested received accepted rejected cancelled in-progress on-hold failed completed".split()
APPOINTMENT_STATUSES = "proposed pending booked arrived checked-in fulfilled cancelled noshow waitlist".split()


def allowed(moves: Moves, before: str, after: str) -> bool:
    try:
        check_move(moves, "Task.status", before, after)
    except Unprocessable:
        return False
    return True


@pytest.mark.parametrize("before", TASK_STATUSES)
def test_a_task_moves_as_the_table_says_and_no_other_way(before: str) -> None:
    may = {after for after in TASK_STATUSES if after != before and allowed(TASK_MOVES, before, after)}
    # A draft that nobody sends may be dropped; the checklist is silent on it.
    assert may == set(TASK_TABLE.get(before, "").split()) | ({"cancelled"} if before == "draft" else set())


@pytest.mark.parametrize("before", APPOINTMENT_STATUSES)
def test_an_appointment_moves_as_the_table_says_and_no_other_way(before: str) -> None:
    may = {after for after in APPOINTMENT_STATUSES if after != before and allowed(APPOINTMENT_MOVES, before, after)}
    assert may == set(APPOINTMENT_TABLE.get(before, "").split())


@pytest.mark.parametrize("moves", [TASK_MOVES, ABORT_MOVES, STEP_MOVES, APPOINTMENT_MOVES])
def test_whatever_it_is_it_may_have_been_a_mistake(moves: Moves) -> None:
    for before in moves:
        check_move(moves, "Task.status", before, "entered-in-error")


def test_an_illegal_move_names_from_and_to() -> None:
    with pytest.raises(Unprocessable) as refusal:
        check_move(TASK_MOVES, "Task.status", "in-progress", "cancelled")
    issue = refusal.value.outcome()["issue"][0]
    assert issue["expression"] == ["Task.status"]
    assert "from in-progress to cancelled" in issue["diagnostics"]


@pytest.mark.parametrize("code, status, bser", [
    ("submitted", "requested", "2.0"),
    ("received", "received", "2.0"),
    ("awaiting-information", "received", None),
    ("awaiting-scheduling", "accepted", "3.0"),
    ("declined", "rejected", "4.0"),
    ("appointment-booked", "in-progress", "5.1.1"),
    ("appointment-rescheduled", "in-progress", "5.1.1"),
    ("appointment-cancelled", "in-progress", "5.1.3"),
    ("patient-arrived", "in-progress", None),
    ("appointment-noshow", "in-progress", "5.1.2"),
    ("exam-performed", "in-progress", "5.1.4"),
    ("images-available", "in-progress", "5.1.4"),
    ("awaiting-interpretation", "in-progress", None),
    ("preliminary-report", "in-progress", None),
    ("report-final", "completed", "7.0"),
    ("report-amended", "completed", None),
    ("cancellation-requested", None, "5.2"),
    ("cancelled", "cancelled", "6.0"),
    ("not-performed", "failed", None),
    ("feedback-received", "completed", None),
])  # fmt: skip
def test_each_state_has_its_status_and_its_bser_code(code: str, status: str | None, bser: str | None) -> None:
    assert STATES[code].status == status
    codes = {coding["system"]: coding["code"] for coding in business_status(code)["coding"]}
    assert codes.get("http://hl7.org/fhir/us/bser/CodeSystem/TaskBusinessStatusCS") == bser


def test_every_state_has_words_for_the_office() -> None:
    assert [state.code for state in STATES.values() if not state.message] == []


@pytest.mark.parametrize("status, code", DEFAULT_STATE.items())
def test_what_a_bare_status_means_goes_with_it(status: str, code: str) -> None:
    assert fits(STATES[code], status)


def test_cancelled_also_goes_with_failed_once_work_had_begun() -> None:
    assert fits(STATES["cancelled"], "failed")
    assert not fits(STATES["cancelled"], "completed")


@pytest.mark.parametrize("before, after, way", [
    ("received", "in-progress", ["accepted", "in-progress"]),
    ("received", "completed", ["accepted", "in-progress", "completed"]),
    ("on-hold", "completed", ["in-progress", "completed"]),
    ("received", "received", []),
    ("completed", "in-progress", None),
    ("rejected", "completed", None),
])  # fmt: skip
def test_the_way_between_two_statuses_is_the_shortest_allowed_one(before: str, after: str, way: list | None) -> None:
    assert path(TASK_MOVES, before, after) == way
