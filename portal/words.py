"""Where a referral is, in plain words for the referring office, and what comes next."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

GOOD, PROBLEM = "good", "problem"

PRIORITIES: Mapping[str, str] = {
    "stat": "Stat",
    "asap": "As soon as possible",
    "urgent": "Urgent",
    "routine": "Routine",
}


@dataclass(frozen=True, slots=True)
class Words:
    """A state in words. tone: `good`, `problem` or empty; it is told by colour besides the words, never instead."""

    text: str
    next_step: str
    tone: str = ""


STATES: Mapping[str, Words] = {
    "submitted": Words("Sent", "The practice confirms it within minutes."),
    "received": Words("Received by the practice", "The practice looks at it, and accepts or declines."),
    "awaiting-information": Words(
        "Something is missing", "Please complete the order, or call the practice.", PROBLEM
    ),
    "awaiting-scheduling": Words("Accepted", "The practice is finding an appointment."),
    "declined": Words("Declined", "See the reason; a new referral may help.", PROBLEM),
    "appointment-booked": Words("Appointment set", "The patient is expected at that time."),
    "appointment-rescheduled": Words("Appointment moved", "The patient is expected at the new time."),
    "appointment-cancelled": Words(
        "Appointment cancelled", "Ask for a new appointment, withdraw the referral, or call the practice.", PROBLEM
    ),
    "appointment-noshow": Words(
        "The patient did not come", "Ask for a new appointment, withdraw the referral, or call the practice.", PROBLEM
    ),
    "patient-arrived": Words("The patient has arrived", "The exam is next."),
    "exam-performed": Words("The visit was kept: exam done", "Images and report follow."),
    "images-available": Words("Images are there", "The report follows."),
    "awaiting-interpretation": Words("Images are being read", "The report follows."),
    "preliminary-report": Words("Preliminary report", "Read it; the final one follows."),
    "report-final": Words("The report is there", "Read the report.", GOOD),
    "report-amended": Words("The report was amended", "Read the new version.", GOOD),
    "feedback-received": Words("Complete, with your feedback", "Nothing: thank you.", GOOD),
    "cancellation-requested": Words("Cancellation asked for", "The practice answers."),
    "cancelled": Words("Cancelled", "Nothing: it has ended.", PROBLEM),
    "not-performed": Words("The exam could not be done", "See the reason, or call the practice.", PROBLEM),
}


def words_of(state: str) -> Words:
    """Of a business status; a state that is not ours to know has its code for words."""
    return STATES.get(state) or Words(state.replace("-", " ").capitalize() or "Unknown", "Call the practice.")


def day(moment: datetime, zone: ZoneInfo) -> str:
    """`Tue 24 Nov 2026`, in the practice's time zone."""
    return f"{moment.astimezone(zone):%a} {moment.astimezone(zone).day} {moment.astimezone(zone):%b %Y}"


def clock_time(moment: datetime, zone: ZoneInfo) -> str:
    """`14:05`"""
    return f"{moment.astimezone(zone):%H:%M}"


def when(moment: datetime, zone: ZoneInfo) -> str:
    """`Tue 24 Nov 2026, 14:05`"""
    return f"{day(moment, zone)}, {clock_time(moment, zone)}"
