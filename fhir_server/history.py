"""History of a resource, of a type, of all. https://hl7.org/fhir/R4/http.html#history

Pages go on by position: in the history of one resource by its version, else by the number of the write. What is
written meanwhile comes before the first page, so nothing is lost or repeated. The page before another one is read
upwards from its first entry.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import urlencode

from fhir_server.access import Access
from fhir_server.errors import BadRequest
from fhir_server.index.spans import date_span
from fhir_server.paging import PARAMETER, Mark, Seal
from fhir_server.store import VersionStore
from fhir_server.version import Version

DEFAULT_COUNT = 100
MAX_COUNT = 1000
CHUNK = 200
SCANNED = 20_000  # versions that one page looks at, when most of them may be left out
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """count: entries of a page. since: from this moment on. at: [begin, end) in which a version was current.

    position: only versions (of one resource), else write numbers, below this one; with `backward` the next ones above
    it. asked: the parameters understood, but for that one.
    """

    count: int = DEFAULT_COUNT
    since: datetime | None = None
    at: tuple[datetime, datetime] | None = None
    position: int | None = None
    backward: bool = False
    asked: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class HistoryPage:
    """Versions, newest first. next: the position below which the page after it begins, None at the end; previous:
    that above which the one before it ends, None where there is none."""

    versions: list[Version] = field(default_factory=list)
    next: int | None = None
    previous: int | None = None


def read_request(parameters: Sequence[tuple[str, str]], address: str, seal: Seal) -> HistoryRequest:
    """The request of a query. address: what it is asked of, such as `Task/1/_history`.

    Raises BadRequest for values that cannot be read and for a parameter given twice, Gone for a link whose day is
    over; other parameters are passed over.
    """
    known = [(name, value) for name, value in parameters if name in ("_count", "_since", "_at", PARAMETER)]
    given = dict(known)
    if len(given) < len(known):
        twice = next(name for name in given if sum(name == other for other, _ in known) > 1)
        raise BadRequest(f"{twice} may be given once")
    token = given.pop(PARAMETER, None)
    count = min(_whole_number("_count", given.get("_count", str(DEFAULT_COUNT))), MAX_COUNT)
    since = at = None
    if "_since" in given:
        since = _span("_since", given["_since"])[0]
    if "_at" in given:
        at = _span("_at", given["_at"])
    asked = tuple(given.items())
    if token is None:
        return HistoryRequest(count, since, at, asked=asked)
    mark = seal.open(address, asked, token)
    return HistoryRequest(count, since, at, int(mark.position), mark.backward, asked)


def links(base_url: str, address: str, request: HistoryRequest, page: HistoryPage, seal: Seal) -> list[dict]:
    """The links to the page itself, to the first one, and to those beside it where there are such."""

    def link(relation: str, position: int | None, backward: bool = False) -> dict:
        mark = None if position is None else Mark(str(position), backward)
        query = urlencode(request.asked) if mark is None else seal.link(address, request.asked, mark)
        return {"relation": relation, "url": f"{base_url}/{address}?{query}" if query else f"{base_url}/{address}"}

    found = [link("self", request.position, request.backward), link("first", None)]
    if page.previous is not None:
        found.append(link("previous", page.previous, True))
    if page.next is not None:
        found.append(link("next", page.next))
    return found


def page(
    store: VersionStore,
    access: Access,
    types: Sequence[str],
    id: str | None,
    request: HistoryRequest,
    reached: Callable[[Version], bool] | None = None,
) -> HistoryPage:
    """The versions of one resource (that the caller may see), or those of the types that the caller may see.

    reached: which of them the caller's scopes reach; None for all.
    """
    if request.count == 0:
        return HistoryPage()
    read = _Versions(store, access, types, id, request, reached)
    versions = list(islice(read.current(), request.count + 1))
    more = len(versions) > request.count
    versions = versions[: request.count]
    beyond = read.position(versions[-1]) if more else read.gave_up_at
    if request.backward:
        versions.reverse()
    return HistoryPage(versions, *_beside(request, [read.position(version) for version in versions], beyond))


def _beside(request: HistoryRequest, shown: Sequence[int], beyond: int | None) -> tuple[int | None, int | None]:
    """The positions of the pages after and before one with these, in their order. beyond: where reading it on would
    begin, None at the end."""
    if request.backward:
        # Behind a page that ends where another begins is that one, also when what was on this one is gone.
        return (shown[-1] if shown else (request.position or 0) + 1), beyond
    if request.position is None:
        return beyond, None
    return beyond, (shown[0] if shown else request.position - 1)


class _Versions:
    """The versions that a request is about, newest first; backward, oldest first."""

    def __init__(
        self,
        store: VersionStore,
        access: Access,
        types: Sequence[str],
        id: str | None,
        request: HistoryRequest,
        reached: Callable[[Version], bool] | None,
    ) -> None:
        self._store, self._types, self._id, self._request = store, types, id, request
        self._sights = access.sights if id is None else ()
        self._reached = reached
        self.position: Callable[[Version], int] = _version if id is not None else _number
        self.gave_up_at: int | None = None

    def current(self) -> Iterator[Version]:
        """All of them that are reached, or with `_at` those that were current then."""
        if self._request.at is None and self._reached is None:
            yield from self._all()
            return
        versions, scanned = self._all(), 0
        while chunk := list(islice(versions, CHUNK)):
            found = chunk if self._request.at is None else _current_from(self._store, chunk, self._request.at[0])
            yield from found if self._reached is None else filter(self._reached, found)
            scanned += len(chunk)
            if scanned >= SCANNED and len(chunk) == CHUNK:
                self.gave_up_at = self.position(chunk[-1])
                return

    def _all(self) -> Iterator[Version]:
        streams = [self._of_type(resource_type) for resource_type in self._types]
        return heapq.merge(*streams, key=self.position, reverse=not self._request.backward)

    def _of_type(self, resource_type: str) -> Iterator[Version]:
        position, upwards = self._request.position, self._request.backward
        size = min(self._request.count + 1, CHUNK)
        while True:
            found = self._store.history(resource_type, self._id, self._filter(position), size, oldest_first=upwards)
            yield from found
            if len(found) < size:
                return
            position = self.position(found[-1])

    def _filter(self, position: int | None) -> dict:
        query: dict = {}
        if self._sights:
            query["$and"] = [{"scope": {"$in": sorted(keys)}} for keys in self._sights]
        if position is not None:
            beyond = "$gt" if self._request.backward else "$lt"
            query["v" if self._id is not None else "_id"] = {beyond: position}
        times: dict = {}
        if self._request.since is not None:
            times["$gte"] = self._request.since
        if self._request.at is not None:
            times["$lt"] = self._request.at[1]
        return query | ({"lu": times} if times else {})


def _current_from(store: VersionStore, versions: list[Version], begin: datetime) -> list[Version]:
    """Those that were not yet followed by another version at `begin`."""
    older = [version for version in versions if version.last_updated <= begin]
    followed = store.followed_by(older, begin)
    return [version for version in versions if (version.resource_type, version.id, version.version) not in followed]


def _version(version: Version) -> int:
    return version.version


def _number(version: Version) -> int:
    return version.number


def _span(name: str, text: str) -> tuple[datetime, datetime]:
    found = date_span(text.strip().replace(" ", "+"))  # the + of an offset reads as a space
    if found is None:
        raise BadRequest(f"{name} is a date or an instant such as 2026-01-31T10:00:00Z")
    try:
        return _EPOCH + timedelta(microseconds=found[0]), _EPOCH + timedelta(microseconds=found[1])
    except OverflowError:
        raise BadRequest(f"{name} is beyond all times") from None


def _whole_number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise BadRequest(f"{name} is a whole number")
    return int(text)
