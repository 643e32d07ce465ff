"""Taking and giving back times: Slots and Appointment change in one commit, so that no time is ever given twice.

Each Slot is written under If-Match. Of any number of parallel claims one commits; the others read again, find the
time taken, and say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from fhir_server.access import Access
from fhir_server.errors import Conflict, FhirError, Issue, NotFound, PreconditionFailed, Unprocessable
from fhir_server.prepare import Draft
from fhir_server.version import Version
from referral import appointments, slots, store
from referral.codes import HELD_UNTIL, reference, with_extension
from referral.context import Practice
from referral.scheduling.proposals import is_due
from referral.states import APPOINTMENT_HOLDING

ATTEMPTS = 8
MAX_SLOTS = 20  # of one visit


@dataclass(frozen=True, slots=True)
class Claim:
    """Slots that are to be ours, and the holds that have run out on them."""

    slots: tuple[store.Stored, ...]
    lapsed: tuple[store.Stored, ...]

    def drafts(self, status: str, until: datetime | None = None) -> list[Draft]:
        """Writes that give the slots this status, and the appointments that held them back to proposed."""
        taken = [store.update_of(slots.with_status(slot, status, until)) for slot in self.slots]
        return [*taken, *(store.update_of(unheld(appointment)) for appointment in self.lapsed)]


def gone(path: str | None) -> FhirError:
    """What IHE Scheduling answers for a time that can no longer be had."""
    text = "this time is no longer available; please find another"
    return NotFound(text, path, issues=[Issue("not-found", text, path, severity="fatal")])


def acting(access: Access) -> Access:
    """The caller as one whom the rules let write appointments; what is written still bears the caller's name."""
    return Access(access.subject, store.RULES.scopes, None, client_id=access.client_id, fhir_user=access.fhir_user)


def claim(
    practice: Practice,
    wanted: Sequence[str],
    path: str | None,
    mine: store.Stored | None = None,
    *,
    overbook: bool = False,
) -> Claim:
    """The Slots (`Slot/1` ...) for one visit, in order of time. mine: an Appointment that may have them already.
    overbook: take them although somebody has them.

    Raises NotFound (severity fatal) when one is taken or over, Unprocessable when they do not adjoin.
    """
    repository, now = practice.repository, practice.clock()
    if not 0 < len(wanted) <= MAX_SLOTS or len(set(wanted)) < len(wanted):
        raise Unprocessable(f"a visit has 1 to {MAX_SLOTS} different slots", path)
    found, lapsed = [], {}
    own = slots.slots_of(mine.resource) if mine and mine.resource["status"] in APPOINTMENT_HOLDING else []
    for text in wanted:
        slot = store.fetch(repository, text)
        if slot is None or not is_due(slot.resource, now):
            raise gone(path)
        # The slot was read before its holders: whoever takes it in between changes its version.
        for other in slots.holding(repository, text, [mine.reference] if mine else []):
            until = slots.held_until(other.resource)
            if other.resource["status"] == "pending" and until is not None and until <= now:
                lapsed[other.reference] = other
            elif not overbook:
                raise gone(path)
        if not (slots.is_free(slot.resource, now) or text in own or overbook):
            raise gone(path)
        found.append(slot)
    found.sort(key=lambda slot: appointments.start_of(slot.resource) or now)
    for one, following in pairwise(found):
        same_schedule = reference(one.resource["schedule"]) == reference(following.resource["schedule"])
        if not same_schedule or appointments.end_of(one.resource) != appointments.start_of(following.resource):
            raise Unprocessable("the slots of a visit adjoin, on one schedule", path)
    return Claim(tuple(found), tuple(lapsed.values()))


def unheld(appointment: store.Stored) -> store.Stored:
    """The appointment after its hold has run out: a proposal as before."""
    resource = with_extension({**appointment.resource, "status": "proposed"}, HELD_UNTIL, None)
    return store.Stored(resource, appointment.version)


def commit(
    practice: Practice, access: Access, make: Callable[[], "list[Draft] | Version"], path: str | None
) -> Version:
    """Write what `make` returns, made anew while others are quicker; the version that the first draft becomes.

    make: returns drafts under If-Match, or the version that is there when nothing is left to do. Raises what it
    raises; NotFound (severity fatal) when others keep being quicker.
    """
    for _ in range(ATTEMPTS):
        made = make()
        if isinstance(made, Version):
            return made
        try:
            return practice.repository.write(acting(access), made)[0].version
        except (Conflict, PreconditionFailed):
            continue
    raise gone(path)
