"""The states of a referral and the moves between them, as tables.

Task.status follows HL7 Clinical Order Workflows, the business statuses follow BSeR (second coding), Appointment
follows IHE Scheduling. Nothing here reads or writes a store.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fhir_server.errors import Unprocessable
from referral.codes import BSER, BUSINESS_STATUS

Moves = Mapping[str, frozenset[str]]


def _moves(table: dict[str, str]) -> Moves:
    return {status: frozenset(targets.split()) for status, targets in table.items()}


# Every status may also become entered-in-error, which is a correction.
TASK_MOVES = _moves(
    {
        "draft": "requested cancelled",
        "requested": "received accepted rejected cancelled",
        "received": "accepted rejected cancelled",
        "accepted": "in-progress on-hold cancelled rejected failed",
        "in-progress": "on-hold completed failed",
        "on-hold": "in-progress failed cancelled",
    }
)
# A request to abort: the practice answers on it; its placer may take it back before that.
ABORT_MOVES = _moves(
    {
        "draft": "requested cancelled",
        "requested": "received accepted rejected cancelled",
        "received": "accepted rejected cancelled",
        "accepted": "in-progress completed failed",
        "in-progress": "completed failed",
    }
)
# Steps for people (rebook, confirm arrival, escalation ...): whoever owns one may simply complete it.
STEP_MOVES = _moves(
    {
        "draft": "requested cancelled",
        "requested": "received accepted rejected in-progress on-hold completed failed cancelled",
        "received": "accepted rejected in-progress on-hold completed failed cancelled",
        "accepted": "in-progress on-hold completed failed cancelled",
        "in-progress": "on-hold completed failed cancelled",
        "on-hold": "in-progress completed failed cancelled",
    }
)
APPOINTMENT_MOVES = _moves(
    {
        "proposed": "pending booked cancelled",
        "pending": "booked cancelled proposed",
        "booked": "arrived checked-in cancelled noshow fulfilled",
        "arrived": "checked-in fulfilled cancelled",
        "checked-in": "fulfilled cancelled",
        "noshow": "arrived fulfilled",
        "waitlist": "booked cancelled",
    }
)
# https://hl7.org/fhir/R4/valueset-request-status.html
ORDER_MOVES = _moves(
    {
        "draft": "active on-hold revoked",
        "active": "on-hold revoked completed",
        "on-hold": "active revoked completed",
        "unknown": "draft active on-hold revoked completed",
    }
)

TASK_OPEN = frozenset({"requested", "received", "accepted", "in-progress", "on-hold"})
TASK_ENDED = frozenset({"cancelled", "rejected", "failed", "entered-in-error"})
APPOINTMENT_LIVE = frozenset({"booked", "arrived", "checked-in"})
APPOINTMENT_HOLDING = APPOINTMENT_LIVE | {"pending"}  # those whose slots nobody else may have
CHECKED_IN = frozenset({"arrived", "checked-in", "fulfilled"})


def check_move(moves: Moves, element: str, before: str | None, after: str | None) -> None:
    """Raise Unprocessable, naming from and to, unless the move stands in the table. element: `Task.status`."""
    if before == after or before is None or after == "entered-in-error":
        return
    if after not in moves.get(before, ()):
        raise Unprocessable(f"{element} may not go from {before} to {after}", element)


def path(moves: Moves, before: str, after: str) -> list[str] | None:
    """The shortest way by allowed moves, without `before`; None when there is none. Never through on-hold."""
    ways: list[list[str]] = [[before]]
    seen = {before}
    while ways:
        way = ways.pop(0)
        if way[-1] == after:
            return way[1:]
        for status in sorted(moves.get(way[-1], ())):
            if status not in seen and (status == after or status != "on-hold"):
                seen.add(status)
                ways.append([*way, status])
    return None


@dataclass(frozen=True, slots=True)
class State:
    """One business status.

    status: the Task.status it goes with; None for any. rank: how far the referral is; a late message never takes
    it to a lower rank. repeatable: may follow a state of the same rank.
    """

    code: str
    display: str
    status: str | None
    bser: str | None
    rank: int
    repeatable: bool
    message: str


ARRIVED_RANK = 40
PERFORMED_RANK = 50
FINAL_RANK = 80

STATES = {
    state.code: state
    for state in (
        State("submitted", "Submitted", "requested", "2.0", 0, False, "The referral was sent."),
        State("received", "Received", "received", "2.0", 10, False, "The practice has received the referral."),
        State(
            "awaiting-information",
            "Awaiting information",
            "received",
            None,
            15,
            False,
            "Something is missing: please complete it.",
        ),
        State(
            "awaiting-scheduling",
            "Accepted, awaiting scheduling",
            "accepted",
            "3.0",
            20,
            False,
            "The practice has accepted the referral.",
        ),
        State("declined", "Declined", "rejected", "4.0", 100, False, "The practice has declined the referral."),
        State("appointment-booked", "Appointment booked", "in-progress", "5.1.1", 30, True, "An appointment is set."),
        State(
            "appointment-rescheduled",
            "Appointment rescheduled",
            "in-progress",
            "5.1.1",
            30,
            True,
            "The appointment has a new time.",
        ),
        State(
            "appointment-cancelled",
            "Appointment cancelled",
            "in-progress",
            "5.1.3",
            30,
            True,
            "The appointment was cancelled. Next step: rebook or withdraw.",
        ),
        State(
            "appointment-noshow",
            "Patient did not attend",
            "in-progress",
            "5.1.2",
            30,
            True,
            "The patient did not attend. Next step: rebook, withdraw, or call the practice.",
        ),
        State(
            "patient-arrived", "Patient arrived", "in-progress", None, ARRIVED_RANK, False, "The patient has arrived."
        ),
        State(
            "exam-performed",
            "Exam performed",
            "in-progress",
            "5.1.4",
            PERFORMED_RANK,
            False,
            "The visit was kept: the exam is done.",
        ),
        State("images-available", "Images available", "in-progress", "5.1.4", 60, False, "The images are there."),
        State("awaiting-interpretation", "Being read", "in-progress", None, 65, False, "The images are being read."),
        State(
            "preliminary-report",
            "Preliminary report",
            "in-progress",
            None,
            70,
            False,
            "A preliminary report is there.",
        ),
        State("report-final", "Report final", "completed", "7.0", FINAL_RANK, False, "The report is there."),
        State("report-amended", "Report amended", "completed", None, 85, True, "The report was amended."),
        State("feedback-received", "Feedback received", "completed", None, 85, True, "Thank you for your feedback."),
        State(
            "cancellation-requested",
            "Cancellation requested",
            None,
            "5.2",
            ARRIVED_RANK,
            True,
            "The referring office asked to cancel.",
        ),
        State("cancelled", "Cancelled", "cancelled", "6.0", 100, False, "The referral was cancelled."),
        State("not-performed", "Not performed", "failed", None, 100, False, "The exam cannot be done."),
    )
}

# The business status that a bare change of Task.status means.
DEFAULT_STATE = {
    "requested": "submitted",
    "received": "received",
    "accepted": "awaiting-scheduling",
    "completed": "report-final",
    "rejected": "declined",
    "cancelled": "cancelled",
    "failed": "not-performed",
}
# What a status passed on the way says: a report proves that the exam was done, a booking that we accepted.
PASSED_STATE = DEFAULT_STATE | {"in-progress": "exam-performed"}

# Task.status values that a business status is at home with besides State.status.
ALSO = {"cancelled": {"failed"}, "not-performed": {"rejected"}, "awaiting-information": {"accepted"}}


def fits(state: State, status: str) -> bool:
    """Whether a Task may have this business status with this status."""
    if state.status is None or status in ("on-hold", "entered-in-error"):
        return True
    return status == state.status or status in ALSO.get(state.code, ())


def business_status(code: str) -> dict:
    """Task.businessStatus: our coding first, then BSeR's where it has one."""
    state = STATES[code]
    coding = [{"system": BUSINESS_STATUS, "code": code, "display": state.display}]
    if state.bser:
        coding.append({"system": BSER, "code": state.bser})
    return {"coding": coding, "text": state.display}
