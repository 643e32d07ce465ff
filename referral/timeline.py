"""The time line of one referral: what happened, when, by whom, and what was told about it.

It is read from the Task's own versions (each carries the event that made it) and the messages sent about it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from fhir_server.access import Access
from fhir_server.errors import NotFound
from fhir_server.repository import Repository
from fhir_server.version import Version
from referral import store, tracker
from referral.codes import BUSINESS_STATUS, FULFILL, TASK, code_of, entered_by_staff, reference, task_kind
from referral.context import Practice
from referral.event import moment, recorded
from referral.naming import concept_text
from referral.states import STATES

OFFICE, PRACTICE, SERVER, IMAGING = "referring office", "practice", "automatic", "imaging system"
OFFICES_OWN = frozenset({"submitted", "cancellation-requested", "feedback-received"})
PRIORITY, MESSAGE = "priority", "message"  # codes of entries that no business status stands for


@dataclass(frozen=True, slots=True)
class Link:
    """Something that came out of the referral. kind: images, report, feedback; reference: `ImagingStudy/1`."""

    kind: str
    reference: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    at: when it happened; heard: when this server learned of it. code: a business status, or `priority`, `message`.
    text: what the referring office is told. reason: why, where one was given. actor: in words, `practice`,
    `referring office`, `imaging system` or `automatic`. late: it came after the referral had gone further, so it
    moved nothing. visit: the start of the appointment that the entry is about, as it was then. version: the Task's
    version that tells it; None for a message of its own.
    """

    at: datetime
    heard: datetime
    code: str
    display: str
    text: str
    reason: str
    actor: str
    late: bool
    links: tuple[Link, ...] = ()
    visit: datetime | None = None
    version: int | None = None


def timeline(practice: Practice, access: Access, task_id: str) -> list[Entry]:
    """All entries in the order in which they became known. Raises NotFound when the caller sees no such referral."""
    repository = practice.repository
    versions = repository.history(access, "Task", task_id, count=tracker.HISTORY)
    versions = [version for version in reversed(versions) if not version.deleted]
    if not versions or task_kind(versions[-1].resource()) != FULFILL:
        raise NotFound(f"Task/{task_id} is no referral")
    entries = _with_messages(list(_entries(repository, versions)), _messages(repository, access, task_id))
    return sorted(entries, key=lambda entry: entry.heard)


def _entries(repository: Repository, versions: list[Version]) -> Iterator[Entry]:
    placer = _placer(repository, versions[0])
    before: dict = {}
    for version in versions:
        task = version.resource()
        entry = _entry(repository, version, task, before, placer)
        if entry is not None:
            yield replace(entry, links=_new_links(task, before), version=version.version)
        before = task


def _entry(repository: Repository, version: Version, task: dict, before: dict, placer: str) -> Entry | None:
    event = recorded(task)
    if event is not None and event != recorded(before):
        actor = _actor(event.code, event.actor, event.source, placer)
        told = _told(version, task, event.code, event.at, actor, event.late)
        return replace(told, visit=_visit(repository, event.source))
    code = code_of(task.get("businessStatus"), BUSINESS_STATUS)
    if code in STATES and code != code_of(before.get("businessStatus"), BUSINESS_STATUS):
        actor = _actor(code, version.by, version.reference, placer)
        return _told(version, task, code, version.last_updated, actor, late=False)
    if before and task.get("priority") != before.get("priority"):
        text = f"The priority is now {task.get('priority', 'routine')}."
        at = version.last_updated
        return Entry(at, at, PRIORITY, "Priority changed", text, "", OFFICE, late=False)
    if task["status"] == "entered-in-error" and before.get("status") != "entered-in-error":
        at, reason = version.last_updated, concept_text(task.get("statusReason"))
        actor = _actor("", version.by, version.reference, placer)
        return Entry(at, at, MESSAGE, "Entered in error", "", reason, actor, late=False)
    return None


def _told(version: Version, task: dict, code: str, at: datetime, actor: str, late: bool) -> Entry:
    state, reason = STATES[code], "" if late else concept_text(task.get("statusReason"))
    heard = version.last_updated
    return Entry(at, heard, code, state.display, state.message, reason, actor, late)


def _visit(repository: Repository, source: str) -> datetime | None:
    """The start that an Appointment had in the version that told us; None when something else told us."""
    resource_type, _, rest = source.partition("/")
    id, _, number = rest.partition("/_history/")
    if resource_type != "Appointment" or not number.isdecimal():
        return None
    version = repository.store.version("Appointment", id, int(number))
    return None if version is None or version.deleted else moment(version.resource().get("start"))


def _actor(code: str, subject: str, source: str, placer: str) -> str:
    if source.startswith("ImagingStudy/"):
        return IMAGING
    if subject.startswith("system:") or (code == "received" and "/_history/" in source):
        return SERVER  # the source of the receipt is what was sent, but nobody sends a receipt by hand
    return OFFICE if code in OFFICES_OWN or subject == placer else PRACTICE


def _placer(repository: Repository, first: Version) -> str:
    """Who placed the order, as a subject; empty when staff entered it for an office."""
    order = repository.store.version("ServiceRequest", reference(first.resource()["focus"]).partition("/")[2], 1)
    if order is None:
        return first.by
    return "" if entered_by_staff(order.resource()) else order.by


def _new_links(task: dict, before: dict) -> tuple[Link, ...]:
    def links(resource: dict) -> list[Link]:
        outputs = [
            (code_of(o.get("type"), TASK), reference(o.get("valueReference"))) for o in resource.get("output", [])
        ]
        return [Link(kind, target) for kind, target in outputs if kind and target]

    known = links(before)
    return tuple(link for link in links(task) if link not in known)


@dataclass(frozen=True, slots=True)
class _Message:
    code: str
    sent: datetime
    heard: datetime
    text: str
    by: str


def _messages(repository: Repository, access: Access, task_id: str) -> Iterator[_Message]:
    for version in store.every(repository, "Communication", [("part-of", f"Task/{task_id}")], access):
        communication = version.resource()
        codes = [code_of(reason, BUSINESS_STATUS) for reason in communication.get("reasonCode", [])]
        texts = [part["contentString"] for part in communication.get("payload", []) if "contentString" in part]
        code = next(iter(filter(None, codes)), MESSAGE)
        sent = moment(communication.get("sent")) or version.last_updated
        yield _Message(code, sent, version.last_updated, " ".join(texts), version.by)


def _with_messages(entries: list[Entry], messages: Iterator[_Message]) -> list[Entry]:
    """Each message's words on the entry that it tells of; a message that tells of none is an entry of its own."""
    told: set[int] = set()
    for message in sorted(messages, key=lambda message: message.heard):
        same = [i for i, entry in enumerate(entries) if entry.code == message.code and i not in told]
        index = next((i for i in same if entries[i].heard <= message.heard), None)
        if index is not None:
            entries[index] = replace(entries[index], text=message.text)
            told.add(index)
        else:
            actor = SERVER if message.by.startswith("system:") else PRACTICE
            entry = Entry(message.sent, message.heard, MESSAGE, "Message", message.text, "", actor, late=False)
            entries.append(entry)
            told.add(len(entries) - 1)
    return entries
