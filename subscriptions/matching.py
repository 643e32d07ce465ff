"""From versions to events: the consumer of the version stream that decides who is to be told of what.

Subscriptions come by the same stream as everything else, so their order to all other versions is the order of
commits: a Subscription gets the events of all versions after it, whatever happens in between.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from conformance import Topic
from fhir_server.errors import Unprocessable
from fhir_server.index import Indexer
from fhir_server.reach import met
from fhir_server.repository import Repository
from fhir_server.search.held import Facts
from fhir_server.version import Version
from subscriptions.account import Account
from subscriptions.definition import SubscriptionDefinition, parse
from subscriptions.rights import Rights, RightsLost, owner_of
from subscriptions.status import set_status
from subscriptions.store import Happening, State, SubscriptionStore
from subscriptions.watching import Watcher, Watchers

CONSUMER = "subscriptions"
COUNTING = ("requested", "active", "error")  # in these the numbers of events go on

MOST_AT_ONCE = 5000  # events in one insert, or those of one version

# Where positions in the order of commits are not known, write numbers stand for them. Those are taken just before a
# commit, so two versions can be committed against the order of their numbers.
SKEW = 10_000_000 << 12  # ten seconds, as a difference of write numbers


class _Match(NamedTuple):
    """A version with what it is found by, and those whose filters and topic it meets."""

    version: Version
    facts: Facts
    watchers: list[Watcher]


class Matching:
    """What `fhir_server.stream.follow` calls for each version, under the consumer name `CONSUMER`.

    Idempotent: a version that comes again adds no event. Not thread safe; the stream has one consumer at a time.
    """

    def __init__(
        self,
        store: SubscriptionStore,
        repository: Repository,
        topics: Mapping[str, Topic],
        rights: Rights,
        account: Account,
    ) -> None:
        self._store = store
        self._repository = repository
        self._topics = topics
        self._rights = rights
        self._account = account
        self._watchers = Watchers()

    def begin(self) -> None:
        """Take the Subscriptions as the stream had told of them when it was left; call before following it."""
        self._watchers = Watchers()
        self._store.forget_numbers()
        for state in self._store.states():
            version = self._repository.store.version("Subscription", state.id, state.version)
            if version is not None:
                # The stream may begin again from a little earlier; what it had told before this version of the
                # Subscription was decided upon then. Rather once too much than once too little.
                self._watch(version, state.position, version.number - SKEW)

    def __call__(self, version: Version) -> None:
        self.together([version])

    def together(self, versions: Sequence[Version]) -> None:
        """The same for several in the order of commits: their events are added at once, and what they say of
        Subscriptions is recorded after that, so that whoever begins here again decides as it was decided now."""
        found: list[_Match] = []
        states: list[State] = []
        for version in versions:
            if version.resource_type == "Subscription":
                if version.deleted:
                    self._tell(found)
                    self._store.record(states)
                    found, states = [], []
                states += self._take(version)
            elif not version.deleted and self._watchers.any_of(version.resource_type):
                found.append(self._match(version))
        self._tell(found)
        self._store.record(states)

    # Subscriptions

    def _take(self, version: Version) -> list[State]:
        """What is to be recorded of a Subscription; nothing for a deleted one, or a replay."""
        known = self._watchers.get(version.id)
        if known is not None and version.version < known.version:
            return []
        self._account.became(version)
        if version.deleted:
            self._store.remove(version.id, version.version)
            self._watchers.remove(version.id)
            return []
        return [_state(version, self._watch(version))]

    def _watch(self, version: Version, position: int = 0, number: int = 0) -> SubscriptionDefinition | None:
        """Let this version of a Subscription count; returns what it asks for, None when that cannot be read."""
        self._watchers.remove(version.id)
        subscription = version.resource()
        try:
            definition = parse(subscription, self._topics, self._repository.base_url)
        except Unprocessable:
            return None  # its topic is gone; whoever delivers says so in the Subscription
        status = subscription.get("status")
        if status in COUNTING:
            self._watchers.add(
                Watcher(
                    version.id,
                    version.version,
                    definition.topic,
                    definition.clauses,
                    owner_of(version),
                    status == "active",
                    position,
                    number,
                    definition.reach,
                )
            )
        return definition

    # All other versions

    def _match(self, version: Version) -> _Match:
        ranges = self._watchers.by_ranges(version.resource_type)
        facts = facts_of(version, version.resource(), self._repository.indexer, ranges)
        watchers = self._watchers.concerned(version, facts)
        if watchers:
            fired = set(self._fired({watcher.topic.url: watcher.topic for watcher in watchers}.values(), version))
            watchers = [watcher for watcher in watchers if watcher.topic.url in fired]
        return _Match(version, facts, watchers)

    def _tell(self, found: Sequence[_Match]) -> None:
        """Add the events for those who may see what happened, by their rights as they are now."""
        accesses = self._rights.accesses({watcher.owner for _, _, watchers in found for watcher in watchers})
        lost: dict[str, tuple[Watcher, str]] = {}
        happenings = []
        for version, facts, watchers in found:
            told = []
            for watcher in watchers:
                try:
                    access = self._rights.reaching(accesses.get(watcher.owner), version.resource_type, watcher.reach)
                except RightsLost as loss:
                    lost.setdefault(watcher.id, (watcher, str(loss)))
                else:
                    if access.sees(version.scope) and met(access.reach("r", version.resource_type), facts.keys):
                        told.append(watcher.id)
            if told:
                happenings.append(
                    Happening(version.reference, version.version, version.op, version.last_updated, told)
                )
            if sum(len(one.subscriptions) for one in happenings) >= MOST_AT_ONCE:
                self._store.append(happenings)
                happenings = []
        self._store.append(happenings)
        for watcher, why in lost.values():
            if watcher.active:
                set_status(self._repository, watcher.id, watcher.version, "error", why)

    def _fired(self, topics: Collection[Topic], version: Version) -> Iterator[str]:
        after, before = version.resource(), None
        if version.op == "update":
            previous = self._repository.store.version(version.resource_type, version.id, version.version - 1)
            before = previous.resource() if previous is not None and not previous.deleted else None
        return (topic.url for topic in topics if fires(topic, version.op, before, after))


def facts_of(version: Version, resource: dict, indexer: Indexer, ranges: bool = True) -> Facts:
    """What a version is found by, or was while it was the newest. ranges: whether they are asked for."""
    if version.keys and not ranges:
        return Facts(frozenset(version.keys), (), version.last_updated)
    entry = indexer.index(resource)
    return Facts(frozenset(version.keys or entry.keys), entry.ranges, version.last_updated)


def fires(topic: Topic, op: str, before: dict | None, after: dict) -> bool:
    """Whether a version (`after`, written by interaction `op`) is an event of the topic. before: None of a create."""
    if op not in topic.interactions or (topic.statuses and after.get("status") not in topic.statuses):
        return False
    elements = watched(topic)
    return before is None or not elements or any(before.get(name) != after.get(name) for name in elements)


def watched(topic: Topic) -> tuple[str, ...]:
    """The elements of which an update must have changed one; none when every update counts.

    A topic with statuses and nothing watched is about a resource newly coming to one of these statuses.
    """
    return topic.watched or (("status",) if topic.statuses else ())


def _state(version: Version, definition: SubscriptionDefinition | None) -> State:
    subscription = version.resource()
    channel = subscription.get("channel", {})
    return State(
        id=version.id,
        version=version.version,
        born=version.number,
        position=version.position,
        topic=str(subscription.get("criteria")),
        owner=owner_of(version),
        channel=definition.channel if definition else str(channel.get("type")),
        status=str(subscription.get("status")),
        heartbeat_s=definition.heartbeat_s if definition else None,
        end=definition.end if definition else None,
    )
