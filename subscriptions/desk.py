"""How Subscriptions stand, for the people behind them, and what they may do about it: pause, resume, replay.

Nothing of what a Subscription tells is here, nor its filters, which can name a patient: who may look after it need
not be who is told.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from conformance import Topic
from fhir_server.access import Access
from fhir_server.errors import Conflict, Forbidden, Gone, NotFound, Unprocessable
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions.definition import topic_of
from subscriptions.rights import owner_of
from subscriptions.status import SERVER, set_status
from subscriptions.store import State, SubscriptionStore

MAX_ROWS = 500
PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Row:
    """One Subscription. about: its topic's title, or the type of its criteria; to: the host or mail domain that it
    goes to; backlog: events that have not arrived; oldest, newest: numbers of the events kept."""

    id: str
    version: int
    about: str
    owner: str
    channel: str
    to: str
    status: str
    backlog: int
    oldest: int | None
    newest: int
    last_success: datetime | None
    failures: int
    trouble: str
    paused: bool


class SubscriptionDesk:
    """What the pages about Subscriptions need."""

    def __init__(self, store: SubscriptionStore, repository: Repository, topics: Mapping[str, Topic]) -> None:
        self._store = store
        self._repository = repository
        self._topics = topics

    def rows(self, access: Access, everybodys: bool, without: Collection[str] = ()) -> list[Row]:
        """One's own Subscriptions, or (for who looks after them) everybody's; those in error first, at most MAX_ROWS.

        without: reasons of those to leave out. Raises Forbidden.
        """
        if everybodys:
            _require_keeper(access)
        states = [state for state in self._store.states() if everybodys or state.owner == access.subject]
        states.sort(key=lambda state: (state.status != "error", state.id))
        last = self._store.last_numbers([state.id for state in states])
        rows = []
        for state in states:
            version = self._repository.store.newest("Subscription", state.id)
            if version is None or version.deleted:
                continue
            if version.resource().get("reason") not in without:
                rows.append(self._row(state, version, last.get(state.id, 0)))
            if len(rows) == MAX_ROWS:
                break
        return rows

    def pause(self, access: Access, id: str) -> None:
        """Send nothing more until it is resumed; events are counted and kept. Raises NotFound, Conflict."""
        version = self._looked_after(access, id)
        if version.resource()["status"] not in ("requested", "active"):
            raise Conflict("only a Subscription that is at work can be paused")
        who = "its owner" if owner_of(version) == access.subject else "the practice"
        set_status(self._repository, id, version.version, "error", f"{PAUSED} by {who}")

    def resume(self, access: Access, id: str) -> None:
        """Ask for a new handshake; what waited follows it. Raises NotFound, Conflict, Unprocessable."""
        version = self._looked_after(access, id)
        if version.resource()["status"] != "error":
            raise Conflict("this Subscription is not paused and has no error")
        set_status(self._repository, id, version.version, "requested")

    def replay(self, access: Access, id: str, number: int) -> None:
        """Send all again from this event on. Raises NotFound, Unprocessable."""
        self._looked_after(access, id)
        oldest = self._store.first_number(id)
        if oldest is None or number < oldest:
            raise Unprocessable(f"events are kept from number {oldest} on" if oldest else "there are no events yet")
        if not self._store.rewind(id, number):
            raise Unprocessable(f"event {number} was not delivered yet, so it will come anyway")

    def _looked_after(self, access: Access, id: str) -> Version:
        """The Subscription of that id, if the caller owns it or looks after all."""
        try:
            version = self._repository.read(SERVER, "Subscription", id)
        except Gone:
            raise NotFound(f"Subscription/{id} is not known here") from None
        if owner_of(version) != access.subject and not is_keeper(access):
            raise NotFound(f"Subscription/{id} is not known here")
        return version

    def _row(self, state: State, version: Version, newest: int) -> Row:
        subscription = version.resource()
        topic = topic_of(state.topic, self._topics)
        trouble = subscription.get("error") or (state.reason if state.failures else "") or ""
        return Row(
            id=state.id,
            version=version.version,
            about=topic.title if topic else state.topic.partition("?")[0],
            owner=state.owner,
            channel=state.channel,
            to=_place(subscription["channel"].get("endpoint", "")),
            status=subscription["status"],
            backlog=max(0, newest - state.delivered),
            oldest=self._store.first_number(state.id),
            newest=newest,
            last_success=state.last_sent,
            failures=state.failures,
            trouble=trouble,
            paused=subscription["status"] == "error" and trouble.startswith(PAUSED),
        )


def is_keeper(access: Access) -> bool:
    """Whether somebody looks after everybody's Subscriptions."""
    return access.is_practice or "admin" in access.roles


def _require_keeper(access: Access) -> None:
    if not is_keeper(access):
        raise Forbidden("this page is for administrators and the practice's staff")


def _place(endpoint: str) -> str:
    """`https://ehr.example/hook?key=1` -> `ehr.example`, `mailto:a@b.example` -> `b.example`"""
    if endpoint.startswith("mailto:"):
        return endpoint.rpartition("@")[2]
    try:
        return urlsplit(endpoint).hostname or ""
    except ValueError:
        return ""
