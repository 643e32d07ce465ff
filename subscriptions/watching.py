"""The Subscriptions that count events, held so that a version finds those it may concern by its search keys.

A Subscription lies under the keys of one of its filters, of that which fewest others lie under; one without such a
filter is looked at for every version of its type. What a version costs does not grow with the Subscriptions that it
does not concern.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from conformance import Topic
from fhir_server.version import Version
from subscriptions import filters
from subscriptions.filters import Clause
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


class Watchers:
    """All watchers. Not thread safe."""

    def __init__(self) -> None:
        self._by_id: dict[str, Watcher] = {}
        self._anchors: dict[str, tuple[str, ...]] = {}  # id -> places it lies at
        self._places: dict[str, dict[str, Watcher]] = {}
        self._types: Counter[str] = Counter()

    def get(self, id: str) -> Watcher | None:
        return self._by_id.get(id)

    def add(self, watcher: Watcher) -> None:
        """Take a watcher, in place of the one of the same id."""
        self.remove(watcher.id)
        places = min(self._choices(watcher), key=self._crowd)
        self._by_id[watcher.id] = watcher
        self._types[watcher.topic.resource_type] += 1
        self._anchors[watcher.id] = places
        for place in places:
            self._places.setdefault(place, {})[watcher.id] = watcher

    def remove(self, id: str) -> None:
        """Forget a watcher; does nothing where there is none."""
        known = self._by_id.pop(id, None)
        if known is None:
            return
        self._types[known.topic.resource_type] -= 1
        for place in self._anchors.pop(id):
            del self._places[place][id]
            if not self._places[place]:
                del self._places[place]

    def concerned(self, version: Version, keys: Collection[str]) -> list[Watcher]:
        """Those whose filters the version meets, by its search keys, and who count it; in the order of their ids."""
        found = {watcher.id: watcher for watcher in self._near(version.resource_type, keys)}
        return [
            watcher
            for _, watcher in sorted(found.items())
            if watcher.counts(version) and filters.matches(watcher.clauses, keys, version.last_updated)
        ]

    def any_of(self, resource_type: str) -> bool:
        """Whether somebody watches this type."""
        return self._types[resource_type] > 0

    def _near(self, resource_type: str, keys: Collection[str]) -> Iterator[Watcher]:
        for place in (resource_type, *(f"{resource_type} {key}" for key in keys)):
            yield from self._places.get(place, {}).values()

    def _choices(self, watcher: Watcher) -> list[tuple[str, ...]]:
        type = watcher.topic.resource_type
        asked = [clause.keys for clause in watcher.clauses if clause.keys and not clause.absent]
        return [tuple(f"{type} {key}" for key in sorted(keys)) for keys in asked] or [(type,)]

    def _crowd(self, places: tuple[str, ...]) -> int:
        return sum(1 + len(self._places.get(place, ())) for place in places)
