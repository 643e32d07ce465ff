"""The front desk's lists in one value, and which moves each line offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fhir_server.access import Access
from portal.office import wish_of
from referral import board, store
from referral.board import Card, OpenStep, Visit
from referral.context import Practice
from referral.states import APPOINTMENT_LIVE

ACCEPT, DECLINE, ASK, BOOK, FAIL = "accept", "decline", "ask", "book", "fail"

# Status of a coordination Task -> what the front desk may do with it.
_MOVES: Mapping[str, tuple[str, ...]] = {
    "requested": (ACCEPT, ASK, DECLINE),
    "received": (ACCEPT, ASK, DECLINE),
    "accepted": (BOOK, ASK, DECLINE),
    "in-progress": (BOOK, FAIL),
}
# Status of an Appointment -> (status to mark it with, words, look of the button).
VISIT_MOVES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "booked": (("arrived", "Arrived", ""), ("noshow", "Missed", "other")),
    "arrived": (("fulfilled", "Done", ""),),
    "checked-in": (("fulfilled", "Done", ""),),
    "noshow": (("undo", "Came after all", "other"),),
}


@dataclass(frozen=True, slots=True)
class Missed:
    """A missed visit that waits for a new time. visit: the one that was missed; wanted: what the referring office
    asked for in words, empty where it just asked, None where it has not."""

    card: Card
    asked: datetime
    visit: Visit | None
    wanted: str | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A referral that waits for the front desk. abort: the request to cancel it, where that is what waits."""

    card: Card
    moves: tuple[str, ...]
    abort: OpenStep | None


@dataclass(frozen=True, slots=True)
class Lists:
    """All lists as they are now. now: by the practice's clock."""

    now: datetime
    incoming: tuple[Waiting, ...]
    today: tuple[Visit, ...]
    missed: tuple[Missed, ...]
    overdue: tuple[OpenStep, ...]

    @property
    def expected(self) -> int:
        """Visits of today that are still to come or going on."""
        return sum(visit.status in APPOINTMENT_LIVE for visit in self.today)

    @property
    def summary(self) -> str:
        """The lists in a sentence, read out by screen readers when it changes."""
        figures = f"{len(self.incoming)} incoming, {self.expected} expected today, {len(self.missed)} missed"
        return figures + (f", {len(self.overdue)} waiting too long" if self.overdue else "")


def lists(practice: Practice, access: Access) -> Lists:
    """What waits for the front desk now."""
    aborts = {step.card.task: step for step in board.abort_requests(practice, access)}
    return Lists(
        practice.clock(),
        tuple(_waiting(card, aborts.get(card.task)) for card in board.incoming(practice, access)),
        tuple(board.today(practice, access)),
        tuple(_missed(practice, access, step) for step in board.missed(practice, access)),
        tuple(board.overdue(practice, access)),
    )


def moves_of(card: Card) -> tuple[str, ...]:
    """What the front desk may do with a referral as it is."""
    moves = _MOVES.get(card.status, ())
    if card.code == "awaiting-information":
        return tuple(move for move in moves if move != ASK)
    if card.status == "in-progress" and card.code not in ("appointment-cancelled", "appointment-noshow"):
        return ()
    return moves


def _waiting(card: Card, abort: OpenStep | None) -> Waiting:
    return Waiting(card, () if abort else moves_of(card), abort)


def _missed(practice: Practice, access: Access, step: OpenStep) -> Missed:
    visits = [visit for visit in board.visits_of(practice, access, step.card.order) if visit.status == "noshow"]
    return Missed(step.card, step.asked, visits[-1] if visits else None, _wanted(practice, access, step))


def _wanted(practice: Practice, access: Access, step: OpenStep) -> str | None:
    found = store.fetch(practice.repository, step.step, access)
    return wish_of(found.resource) if found is not None else None
