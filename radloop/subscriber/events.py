"""Notifications read: what a history Bundle of the Backport guide says."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fhir_server import fhir_json


@dataclass(frozen=True, slots=True)
class Event:
    """focus: address of what it is about, None where that is not told. resource: as of the event, if it is told."""

    number: int
    timestamp: str
    focus: str | None = None
    resource: dict | None = None

    def line(self) -> str:
        """For people: number, time, focus, its status."""
        focus = "/".join(self.focus.split("/")[-2:]) if self.focus else ""
        status = str((self.resource or {}).get("status", ""))
        return "  ".join(filter(None, (f"{self.number:>6}", self.timestamp, focus, status)))

    def json(self) -> str:
        """For programs: one object in one line."""
        told: dict[str, Any] = {"number": self.number, "timestamp": self.timestamp}
        told |= {"focus": self.focus} if self.focus else {}
        told |= {"resource": self.resource} if self.resource else {}
        return fhir_json.dumps(told).decode()


@dataclass(frozen=True, slots=True)
class Notification:
    """kind: `handshake`, `event-notification` ...; total: events since the start; kept_from: the oldest that $events
    still has, where it says so; errors: what the Subscription says is wrong."""

    kind: str
    status: str
    total: int
    kept_from: int | None = None
    events: tuple[Event, ...] = ()
    errors: tuple[str, ...] = field(default=())


def read(bundle: dict) -> Notification:
    """What the Bundle tells. Raises ValueError when it is no notification."""
    try:
        status, *others = bundle["entry"]
        said = defaultdict(list)
        for parameter in status["resource"]["parameter"]:
            said[parameter["name"]].append(parameter)
        resources = defaultdict(list)
        for entry in others:  # a focus may be there in several versions: they come in the order of their events
            resources[entry["fullUrl"]].append(entry.get("resource"))
        kept = said["oldest-kept-event"]
        return Notification(
            kind=said["type"][0]["valueCode"],
            status=said["status"][0]["valueCode"],
            total=int(said["events-since-subscription-start"][0]["valueString"]),
            kept_from=int(kept[0]["valueString"]) if kept else None,
            events=tuple(_events(said["notification-event"], resources)),
            errors=tuple(one["valueCodeableConcept"].get("text", "") for one in said["error"]),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError("the server sent what is no notification of the Backport guide") from None


def _events(told: list[dict], resources: dict[str, list[dict | None]]) -> Iterator[Event]:
    for one in told:
        parts = {part["name"]: part for part in one["part"]}
        focus = parts["focus"]["valueReference"]["reference"] if "focus" in parts else None
        versions = resources.get(focus or "", [])
        yield Event(
            int(parts["event-number"]["valueString"]),
            parts["timestamp"]["valueInstant"] if "timestamp" in parts else "",
            focus,
            versions.pop(0) if versions else None,
        )
