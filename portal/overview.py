"""A page of referrals as lines in plain words, each with the time of its appointment where one is set."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fhir_server.access import Access
from portal.words import Words, words_of
from referral import appointments, board, store
from referral.board import Card
from referral.codes import references
from referral.context import Practice
from referral.states import APPOINTMENT_LIVE


@dataclass(frozen=True, slots=True)
class Line:
    """One referral. appointment: start of the visit that is to come or going on."""

    card: Card
    words: Words
    appointment: datetime | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Lines, newest first; next: for the page after this one, None at the end."""

    lines: tuple[Line, ...]
    next: str | None


def overview(practice: Practice, access: Access, after: str | None) -> Overview:
    """The referrals that the caller may see. after: `next` of the page before."""
    found = board.my_referrals(practice, access, after)
    starts = _starts(practice, access, [card.order for card in found.cards])
    lines = tuple(Line(card, words_of(card.code), starts.get(card.order)) for card in found.cards)
    return Overview(lines, found.next)


def _starts(practice: Practice, access: Access, orders: list[str]) -> Mapping[str, datetime]:
    if not orders:
        return {}
    query = [("based-on", ",".join(orders)), ("status", ",".join(sorted(APPOINTMENT_LIVE)))]
    starts: dict[str, datetime] = {}
    for version in store.every(practice.repository, "Appointment", query, access):
        appointment = version.resource()
        start = appointments.start_of(appointment)
        if start is not None:
            starts |= dict.fromkeys(references(appointment.get("basedOn"), "ServiceRequest"), start)
    return starts
