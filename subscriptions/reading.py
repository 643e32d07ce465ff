"""Many Subscriptions read at once: how each is now, and what is to be told next, by rights as they are now.

Each kind of thing costs one round trip, however many Subscriptions are asked for: newest versions, states, events,
the accesses of subscribers, and the versions that events are about.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from conformance import Topic
from fhir_server.errors import Unprocessable
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions.definition import SubscriptionDefinition, parse
from subscriptions.notification import Notified, fitting
from subscriptions.rights import Rights, RightsLost
from subscriptions.store import Event, Span, State, SubscriptionStore

MOST_PARSED = 10_000  # definitions kept


@dataclass(frozen=True, slots=True)
class Case:
    """A Subscription as it is now. error: what it says of itself. state: None until the stream has told of it."""

    version: Version
    definition: SubscriptionDefinition
    error: str | None
    state: State | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A Subscription that asks for what there is no more, as its topic; `why` says what."""

    version: Version
    why: str


@dataclass(frozen=True, slots=True)
class Want:
    """The events of a Subscription from number `first` on, as `subject` may be told of them; at most so many.
    withheld: as in `State`."""

    id: str
    definition: SubscriptionDefinition
    subject: str
    first: int
    most: int
    withheld: int


@dataclass(frozen=True, slots=True)
class Telling:
    """The next events, as many as fit into one notification. newest: number of the newest event of the Subscription;
    more: there are more events after these."""

    events: Sequence[Notified]
    newest: int
    more: bool


class Reading:
    """Thread safe."""

    def __init__(
        self, store: SubscriptionStore, repository: Repository, topics: Mapping[str, Topic], rights: Rights
    ) -> None:
        self._store = store
        self._repository = repository
        self._topics = topics
        self._rights = rights
        self._parsed: dict[int, tuple[SubscriptionDefinition, str | None]] = {}  # by write numbers

    def cases(self, ids: Collection[str]) -> dict[str, Case | Unreadable]:
        """The Subscriptions of these ids; not those that are deleted or unknown."""
        return self.of({state.id: state for state in self._store.states(ids)}, ids)

    def of(self, states: Mapping[str, State], ids: Collection[str]) -> dict[str, Case | Unreadable]:
        """The same where their states have been read already."""
        found: dict[str, Case | Unreadable] = {}
        for version in self._repository.store.newest_many(("Subscription", id) for id in ids):
            try:
                definition, error = self._definition(version)
            except Unprocessable as fault:
                found[version.id] = Unreadable(version, fault.diagnostics)
            else:
                found[version.id] = Case(version, definition, error, states.get(version.id))
        return found

    def told(self, wants: Sequence[Want]) -> list[Telling | RightsLost]:
        """What each wants; RightsLost in the place of one whose subscriber may not be told (any more)."""
        if not wants:
            return []
        found, newest = self._events(wants)
        accesses = self._rights.accesses({want.subject for want in wants})
        sources = self._rights.sources(event for events in found for event in events)
        answers: list[Telling | RightsLost] = []
        for want, events in zip(wants, found, strict=True):
            definition = want.definition
            try:
                access = self._rights.reaching(
                    accesses.get(want.subject), definition.topic.resource_type, definition.reach
                )
                notified = self._rights.told(events, access, want.withheld, sources)
            except RightsLost as loss:
                answers.append(loss)
                continue
            notified = fitting(notified, definition.content)
            last = notified[-1].number if notified else want.first - 1
            answers.append(Telling(notified, newest[want.id], last < newest[want.id]))
        return answers

    def _events(self, wants: Sequence[Want]) -> tuple[list[list[Event]], dict[str, int]]:
        """What there is for each want, at most so many, and the number of the newest event of each Subscription."""
        spans = [Span(want.id, want.first, want.first + want.most + 1) for want in wants]
        found = self._store.spans(set(spans))
        # Numbers have no gaps: whoever found some, and none at the end of the span, has found the newest.
        newest = {
            span.id: events[-1].number
            for span, events in found.items()
            if events and events[-1].number < span.end - 1
        }
        unknown = {span.id for span in spans} - newest.keys()
        if unknown:
            newest |= dict.fromkeys(unknown, 0) | self._store.last_numbers(unknown)
        for span, events in found.items():
            if not events and newest[span.id] >= span.end:  # the first of them are not kept any more
                found[span] = self._store.events(span.id, span.first, limit=span.end - span.first - 1)
        return [found[span][: span.end - span.first - 1] for span in spans], newest

    def _definition(self, version: Version) -> tuple[SubscriptionDefinition, str | None]:
        known = self._parsed.get(version.number)
        if known is None:
            resource = version.resource()
            known = parse(resource, self._topics, self._repository.base_url), resource.get("error")
            if len(self._parsed) >= MOST_PARSED:
                self._parsed.clear()
            self._parsed[version.number] = known
        return known
