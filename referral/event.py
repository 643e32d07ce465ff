"""What moved a referral: kept on the Task version that it made, so that the Task's history is its time line."""

from dataclasses import dataclass
from datetime import datetime

from fhir_server.version import Version
from referral.codes import EVENT, extension, with_extension


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a referral.

    code: the business status it leads to. source: the version that told us, `Appointment/a/_history/2`.
    at: when it happened, which may be long before we heard. actor: who wrote the source (Access.subject).
    outputs: (kind, reference) to add to Task.output. over: it may also replace states up to this rank.
    reason: CodeableConcept for Task.statusReason.
    """

    code: str
    source: str
    at: datetime
    actor: str
    outputs: tuple[tuple[str, str], ...] = ()
    over: int = -1
    reason: dict | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The event that a Task version was made by; late: it came after the referral had gone further."""

    code: str
    source: str
    at: datetime
    actor: str
    late: bool


def event_of(version: Version, code: str, at: str | None = None) -> Event:
    """An event told by a version. at: when it happened, where the resource says so."""
    happened = moment(at) or version.last_updated
    return Event(code, version.versioned_reference, happened, version.by)


def record(task: dict, event: Event, late: bool) -> dict:
    """The Task with the event on it."""
    parts: list[dict] = [
        {"url": "code", "valueCode": event.code},
        {"url": "source", "valueUri": event.source},
        {"url": "at", "valueDateTime": event.at.isoformat(timespec="milliseconds")},
        {"url": "actor", "valueString": event.actor},
    ]
    if late:
        parts.append({"url": "late", "valueBoolean": True})
    return with_extension(task, EVENT, {"extension": parts})


def recorded(task: dict) -> Recorded | None:
    """The event on a Task version; None when a person wrote it."""
    found = extension(task, EVENT)
    if found is None:
        return None
    values = {
        part["url"]: value for part in found["extension"] for key, value in part.items() if key.startswith("value")
    }
    at = datetime.fromisoformat(values["at"])
    return Recorded(values["code"], values["source"], at, values["actor"], values.get("late", False))


def moment(text: object) -> datetime | None:
    """A FHIR dateTime that names a moment (time and offset); None for anything less exact."""
    if not isinstance(text, str) or "T" not in text:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value if value.tzinfo else None
