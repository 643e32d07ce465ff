"""What the practice decides for itself: times, limits, its name and number. No rule has a figure of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

PRIORITIES = ("stat", "asap", "urgent", "routine")


def _limits(*rows: tuple[str, str]) -> Mapping[str, Mapping[str, timedelta]]:
    """A row for each state: `15m 1h 4h 2d` in the order of PRIORITIES."""
    units = {"m": "minutes", "h": "hours", "d": "days"}
    return MappingProxyType(
        {
            state: {
                priority: timedelta(**{units[text[-1]]: int(text[:-1])})
                for priority, text in zip(PRIORITIES, texts.split(), strict=True)
            }
            for state, texts in rows
        }
    )


#                                 stat asap urgent routine
ESCALATION = _limits(
    ("submitted", "5m 5m 10m 30m"),
    ("received", "15m 1h 4h 1d"),
    ("awaiting-information", "1h 4h 1d 7d"),
    ("awaiting-scheduling", "30m 2h 1d 5d"),
    ("appointment-cancelled", "30m 2h 1d 5d"),
    ("appointment-noshow", "1h 4h 1d 7d"),
    ("patient-arrived", "1h 2h 4h 8h"),
    ("exam-performed", "1h 2h 4h 1d"),
    ("images-available", "1h 4h 1d 2d"),
    ("awaiting-interpretation", "1h 4h 1d 2d"),
    ("preliminary-report", "12h 1d 2d 4d"),
    ("cancellation-requested", "15m 30m 1h 4h"),
)


@dataclass(frozen=True, slots=True)
class Policy:
    """The practice's own rules.

    grace: after an appointment's start before the front desk is asked whether the patient came.
    correction: after that, before the appointment counts as missed. hold: how long a held time is kept.
    overbook: priorities for which staff may book a time that is taken.
    escalation: longest stay in a state, by business status and priority; each multiple is the next level.
    """

    practice: str = "Organization/practice"
    phone: str = ""
    time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    grace: timedelta = timedelta(minutes=15)
    correction: timedelta = timedelta(minutes=30)
    hold: timedelta = timedelta(minutes=10)
    max_holds: int = 5  # open holds of one caller outside the practice
    overbook: frozenset[str] = frozenset({"stat", "asap"})
    max_noshows: int = 3  # of one referral, before staff is asked what to do
    escalation: Mapping[str, Mapping[str, timedelta]] = field(default_factory=lambda: ESCALATION)
    max_level: int = 3

    def limit(self, state: str, priority: str) -> timedelta | None:
        """How long a referral of this priority may stay in the state; None: as long as it takes."""
        row = self.escalation.get(state)
        return None if row is None else row.get(priority, row["routine"])
