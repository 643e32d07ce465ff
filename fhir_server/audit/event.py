"""One audited event as the process that saw it notes it: a line of text, checked by a sum in front."""

import uuid
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from zlib import crc32

import orjson

OK, CLIENT_FAULT, SERVER_FAULT = "0", "4", "8"  # AuditEvent.outcome


class BadLine(ValueError):
    """A line that no process wrote in full, or that was changed since."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it. subject: as `Access.subject`, empty for nobody known. client, user, roles: as Access has them.

    token: the id of the token (jti), never the token. address: of the network.
    """

    subject: str = ""
    client: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    token: str | None = None
    address: str = ""


@dataclass(frozen=True, slots=True)
class Datum:
    """What an event is about: a reference, versioned where there is a version, and the patients whose it is."""

    reference: str
    patients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """kind: of `KINDS`. at: milliseconds since 1970. request: the X-Request-Id.

    query: the request as it was sent; description: what there is to say of it. patients: beside those of `data`.
    why: of a failure; detail: its OperationOutcome. recipient: whom data went to. Events of the same id are one.
    """

    kind: str
    actor: Actor = Actor()
    outcome: str = OK
    data: tuple[Datum, ...] = ()
    patients: tuple[str, ...] = ()
    query: str = ""
    description: str = ""
    why: str = ""
    detail: dict | None = None
    recipient: str = ""
    request: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at: int = field(default_factory=lambda: int(datetime.now(UTC).timestamp() * 1000))

    @property
    def recorded(self) -> datetime:
        return datetime.fromtimestamp(self.at / 1000, UTC)


def to_line(event: Event) -> bytes:
    """The event as a line, its end included."""
    said = {name: value for name in _NAMES if (value := getattr(event, name))}
    said["actor"] = {name: value for name in _OF_ACTOR if (value := getattr(event.actor, name))}
    said["data"] = [(datum.reference, datum.patients) for datum in event.data]
    text = orjson.dumps(said)
    return b"%08x %s\n" % (crc32(text), text)


def from_line(line: bytes) -> Event:
    """What `to_line` made, with or without its end. Raises BadLine."""
    given, _, text = line.rstrip(b"\n").partition(b" ")
    if given != b"%08x" % crc32(text):
        raise BadLine("the sum of the line is not that of its text")
    try:
        said = orjson.loads(text)
        actor = said.pop("actor")
        actor["roles"] = tuple(actor.get("roles", ()))
        said["data"] = tuple(Datum(reference, tuple(patients)) for reference, patients in said["data"])
        said["patients"] = tuple(said.get("patients", ()))
        return Event(**said, actor=Actor(**actor))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadLine("the line is none that this version knows") from None


_NAMES = tuple(each.name for each in fields(Event) if each.name not in ("actor", "data"))
_OF_ACTOR = tuple(each.name for each in fields(Actor))
