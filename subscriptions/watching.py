"""The Subscriptions that count events, held so that a version finds those it may concern by what it is found by.

A Subscription lies at the places of one of its filters, of that which fewest others lie at; one without such a filter
is looked at for every version of its type. What a version costs does not grow with the Subscriptions that it does not
concern.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from conformance import Topic
from fhir_server.search.held import Facts
from fhir_server.version import Version
from subscriptions import filters
from subscriptions.filters import Clause
from subscriptions.places import Index, Place, choices
from subscriptions.reach import Reach


@dataclass(frozen=True, slots=True)
class Watcher:
    """A Subscription that counts events: those of versions from `position` in the order of commits on, or, where
    positions are not known, of write numbers above `number`."""

    id: str
    version: int
    topic: Topic
    clauses: tuple[Clause, ...]
    owner: str
    active: bool
    position: int = 0
    number: int = 0
    reach: Reach | None = None

    def counts(self, version: Version) -> bool:
        if version.position and self.position:
            return version.position >= self.position
        return version.number > self.number


@dataclass(slots=True)
class _OfType:
    """The watchers of one resource type: at places, and those that look at everything."""

    index: Index = field(default_factory=Index)
    placed: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    everywhere: dict[str, None] = field(default_factory=dict)
    by_ranges: set[str] = field(default_factory=set)  # those that are decided upon by ranges

    def near(self, facts: Facts) -> Iterator[str]:
        yield from self.everywhere
        yield from self.index.near(facts)


class Watchers:
    """All watchers. Not thread safe."""

    def __init__(self) -> None:
        self._by_id: dict[str, Watcher] = {}
        self._types: dict[str, _OfType] = {}

    def get(self, id: str) -> Watcher | None:
        return self._by_id.get(id)

    def add(self, watcher: Watcher) -> None:
        """Take a watcher, in place of the one of the same id."""
        self.remove(watcher.id)
        self._by_id[watcher.id] = watcher
        type = self._types.setdefault(watcher.topic.resource_type, _OfType())
        ways = [places for clause in watcher.clauses for places in choices(clause.filter)]
        if ways:
            places = min(ways, key=type.index.crowd)
            type.placed[watcher.id] = places
            type.index.add(watcher.id, places)
        else:
            type.everywhere[watcher.id] = None
        if any(clause.by_ranges for clause in watcher.clauses):
            type.by_ranges.add(watcher.id)

    def remove(self, id: str) -> None:
        """Forget a watcher; does nothing where there is none."""
        known = self._by_id.pop(id, None)
        if known is None:
            return
        type = self._types[known.topic.resource_type]
        type.index.remove(id, type.placed.pop(id, ()))
        type.everywhere.pop(id, None)
        type.by_ranges.discard(id)
        if not type.placed and not type.everywhere:
            del self._types[known.topic.resource_type]

    def concerned(self, version: Version, facts: Facts) -> list[Watcher]:
        """Those whose filters the version meets, by what it is found by, and who count it; in the order of their
        ids."""
        type = self._types.get(version.resource_type)
        near = sorted(set(type.near(facts))) if type else ()
        return [
            watcher
            for watcher in map(self._by_id.__getitem__, near)
            if watcher.counts(version) and filters.matches(watcher.clauses, facts)
        ]

    def any_of(self, resource_type: str) -> bool:
        """Whether somebody watches this type."""
        return resource_type in self._types

    def by_ranges(self, resource_type: str) -> bool:
        """Whether somebody who watches this type asks for dates, numbers or quantities."""
        return resource_type in self._types and bool(self._types[resource_type].by_ranges)
