"""The visits of a referral: which are live, which one images belong to, cancelling them."""

from datetime import UTC, datetime, timedelta

from fhir_server.repository import Repository
from referral import store
from referral.codes import CANCELLATION_REASON, STATUS_REASON, STATUS_REASONS, concept, extension, with_extension
from referral.event import moment
from referral.states import APPOINTMENT_HOLDING, APPOINTMENT_LIVE

EARLY = timedelta(hours=12)  # images may come this long before the start that was booked
SAME_VISIT = timedelta(hours=24)  # a missed appointment this old may still be the one they were late for


def of_order(repository: Repository, order: str) -> list[store.Stored]:
    """Appointments based on the order (`ServiceRequest/1`), by start."""
    found = [store.stored(version) for version in store.every(repository, "Appointment", [("based-on", order)])]
    return sorted(found, key=lambda a: start_of(a.resource) or datetime.max.replace(tzinfo=UTC))


def live(appointments: list[store.Stored], but: str = "") -> list[store.Stored]:
    return [a for a in appointments if a.resource["status"] in APPOINTMENT_LIVE and a.reference != but]


def start_of(appointment: dict) -> datetime | None:
    """The start of an Appointment or a Slot."""
    return moment(appointment.get("start"))


def end_of(appointment: dict) -> datetime | None:
    """The end of an Appointment or a Slot."""
    return moment(appointment.get("end"))


def visit_of(appointments: list[store.Stored], at: datetime) -> store.Stored | None:
    """The appointment that an exam at this time belongs to; None when none was open."""

    def those(
        statuses: set[str], starts_after: datetime | None, starts_before: datetime | None
    ) -> list[store.Stored]:
        return [
            a
            for a in appointments
            if a.resource["status"] in statuses
            and (starts_after is None or (start_of(a.resource) or at) >= starts_after)
            and (starts_before is None or (start_of(a.resource) or at) <= starts_before)
        ]

    choices = (
        those({"arrived", "checked-in"}, None, None)[-1:],
        those({"booked"}, None, at + EARLY)[-1:],
        those({"noshow"}, at - SAME_VISIT, None)[-1:],  # they came late after all
        those({"booked"}, None, None)[:1],
        those({"noshow"}, None, None)[-1:],
    )
    return next((chosen[0] for chosen in choices if chosen), None)


def cancelled(appointment: store.Stored, reason: str) -> store.Stored:
    """The appointment as cancelled. reason: a code of appointment-cancellation-reason."""
    resource = {
        **appointment.resource,
        "status": "cancelled",
        "cancelationReason": concept(CANCELLATION_REASON, reason),
    }
    return store.Stored(resource, appointment.version)


def cancellable(appointments: list[store.Stored]) -> list[store.Stored]:
    """Those that end when the referral does: held, booked, or waited for."""
    ended_with_it = (APPOINTMENT_HOLDING | {"proposed", "waitlist"}) - {"arrived", "checked-in"}
    return [a for a in appointments if a.resource["status"] in ended_with_it]


def status_reason(code: str, text: str) -> dict:
    """Reason of an appointment's status, in the code system of IHE Scheduling."""
    return concept(STATUS_REASONS, code, text)


def with_status_reason(appointment: dict, reason: dict | None) -> dict:
    value = {"valueCodeableConcept": reason} if reason else None
    return with_extension(appointment, STATUS_REASON, value)


def reason_of(appointment: dict) -> dict | None:
    """Why the appointment has its status: the extension of IHE Scheduling, else cancelationReason."""
    found = extension(appointment, STATUS_REASON)
    return found.get("valueCodeableConcept") if found else appointment.get("cancelationReason")
