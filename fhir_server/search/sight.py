"""What one caller sees of the store. Every query of a search passes here, and here alone gets the audience and what
the scopes reach."""

from collections.abc import Iterable, Iterator, Sequence

from fhir_server.access import Access
from fhir_server.index.active import require_searchable
from fhir_server.reach import filters, met
from fhir_server.search.sorting import Sorting
from fhir_server.search.terms import KEYS, RANGES, Condition
from fhir_server.store import Page, VersionStore
from fhir_server.version import Version

_SEARCHED, _INCLUDED = "s", "rs"  # letters of scopes


class Sight:
    """Queries for current versions that the caller may see."""

    def __init__(self, store: VersionStore, access: Access) -> None:
        self._store = store
        self._access = access

    def require(self, resource_type: str) -> None:
        """Raises Forbidden unless the caller may search the type."""
        self._access.require("search", resource_type)

    def may_search(self, resource_type: str) -> bool:
        return self._access.allows("search", resource_type)

    def may_include(self, resource_type: str) -> bool:
        return self._access.allows("read", resource_type) or self._access.allows("search", resource_type)

    def searchable_types(self, types: Iterable[str]) -> list[str]:
        """Those of the types that the caller may search and that have resources, in order."""
        stored = set(self._store.types())
        return [type for type in types if type in stored and self.may_search(type)]

    @property
    def searches_anything(self) -> bool:
        return any("s" in scope.letters for scope in self._access.scopes)

    def page(
        self,
        resource_type: str,
        conditions: Sequence[Condition],
        sort: list[tuple[str, int]],
        limit: int,
        index: str,
        *,
        included: bool = False,
    ) -> Page:
        """included: what a match brings with it, which the caller may read or search."""
        require_searchable(resource_type)
        letters = _INCLUDED if included else _SEARCHED
        return self._store.bounded_page(
            resource_type, self._filter(resource_type, conditions, index, letters), sort, limit, index
        )

    def sorted_page(
        self,
        resource_type: str,
        conditions: Sequence[Condition],
        sorting: Sorting,
        behind: dict | None,
        limit: int,
        index: str,
    ) -> Page:
        """behind: what of the values that the sorting reckons the matches must meet."""
        require_searchable(resource_type)
        stages = [*sorting.stages, *([{"$match": behind}] if behind else []), {"$sort": dict(sorting.sort)}]
        return self._store.reckoned_page(
            resource_type, self._filter(resource_type, conditions, index), stages, limit, index
        )

    def up_to(self, resource_type: str, conditions: Sequence[Condition], limit: int, index: str) -> bool:
        """Whether no more than so many match."""
        require_searchable(resource_type)
        return (
            self._store.count(resource_type, self._filter(resource_type, conditions, index), limit + 1, index)
            <= limit
        )

    def walk(
        self, resource_type: str, conditions: Sequence[Condition], sort: list[tuple[str, int]], index: str
    ) -> Iterator[Version]:
        require_searchable(resource_type)
        return self._store.walk(resource_type, self._filter(resource_type, conditions, index), sort, index)

    def deletions(self, resource_type: str, filter: dict, after: int) -> Iterator[Version]:
        """Deletions that match, of what the caller could see."""
        seen = [{"scope": {"$in": sorted(keys)}} for keys in self._access.sights]
        return self._store.deletions(resource_type, {"$and": [filter, *seen]}, after)

    def ids(self, resource_type: str, conditions: Sequence[Condition], limit: int, index: str) -> list[str]:
        require_searchable(resource_type)
        return self._store.ids(resource_type, self._filter(resource_type, conditions, index), limit, index)

    def tails(
        self, resource_type: str, conditions: Sequence[Condition], prefix: str, limit: int, index: str
    ) -> set[str]:
        """What follows the prefix in the keys of the matches; a few more than `limit` when there are more."""
        require_searchable(resource_type)
        return self._store.key_tails(
            resource_type, self._filter(resource_type, conditions, index), prefix, limit, index
        )

    def count(self, resource_type: str, conditions: Sequence[Condition], index: str) -> int:
        require_searchable(resource_type)
        if not self.narrows(resource_type) and not any(condition.filter for condition in conditions):
            return self._store.total(resource_type)
        return self._store.count(resource_type, self._filter(resource_type, conditions, index), hint=index)

    def matching(self, documents: list[dict], filter: dict) -> set[int]:
        """The places of those that meet the filter. They are not stored, but parts of what the caller sees."""
        return self._store.matching(documents, filter)

    def current(self, references: Iterable[tuple[str, str]]) -> Iterator[Version]:
        """The current versions of these (type, id) that are there to be seen, by one query."""
        wanted = [target for target in references if self.may_include(target[0])]
        reaches = {type: self._access.reach(_INCLUDED, type) for type, _ in wanted}
        for version in self._store.newest_in_one(wanted):
            if self._access.sees(version.scope) and met(reaches[version.resource_type], version.keys):
                yield version

    def few(self, resource_type: str, conditions: Sequence[Condition], index: str, limit: int) -> bool:
        """Whether finding what meets these by that index looks at no more than `limit` versions."""
        return self.count_up_to(resource_type, conditions, index, limit + 1) <= limit

    def count_up_to(self, resource_type: str, conditions: Sequence[Condition], index: str, limit: int) -> int:
        """How many versions finding what meets these by that index looks at, or `limit` if that is less.

        It tells the way to an answer and is never part of one: the index of keys knows the audience, the others
        don't, and have to look at what others see too.
        """
        if index == KEYS:
            return self._store.count_up_to(
                resource_type, self._filter(resource_type, conditions, index), limit, index
            )
        current = {"keys": {"$exists": True}}
        filter = {"$and": [current, *(one.filter for one in conditions)]}
        return self._store.count_up_to(resource_type, filter, limit, index)

    def walked_page(
        self,
        resource_type: str,
        bounds: Sequence[Condition],
        conditions: Sequence[Condition],
        sort: list[tuple[str, int]],
        limit: int,
        walked: int,
        index: str,
    ) -> Page | None:
        """As `page`, by looking at no more than the first `walked` that meet the bounds; None where these do not fill
        it."""
        require_searchable(resource_type)
        within = [one.filter for one in bounds]
        begin = self._filter(resource_type, bounds, index) if index == KEYS else {"$and": within} if within else {}
        return self._store.walked_page(
            resource_type, begin, self._filter(resource_type, conditions, index), sort, limit, walked, index
        )

    def has_index(self, resource_type: str, index: str) -> bool:
        return self._store.has_index(resource_type, index)

    def narrows(self, resource_type: str) -> bool:
        """Whether who asks narrows by itself what is searched."""
        return bool(self._access.sights) or self._access.reach(_SEARCHED, resource_type) is not None

    def _filter(
        self, resource_type: str, conditions: Sequence[Condition], index: str, letters: str = _SEARCHED
    ) -> dict:
        seen = filters(self._access, letters, resource_type)
        # Only newest versions have keys and ranges, so each of these asks for one. Where a condition does already, it
        # is left alone: the index of keys then answers by itself, without a look at the versions.
        if not seen and not any(condition.index in (KEYS, RANGES) for condition in conditions):
            seen = [{"keys": "*"}]
        wanted = [*seen, *(condition.found_by(index) for condition in conditions if condition.filter)]
        return wanted[0] if len(wanted) == 1 else {"$and": wanted}
