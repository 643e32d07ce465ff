"""The page of a search that is asked for, and the links to those beside it.
https://hl7.org/fhir/R4/http.html#paging

A page before another one is read backwards from its first match, so that pages have no numbers either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_server.access import Access
from fhir_server.index import Indexer
from fhir_server.paging import Mark, Seal, audience_of
from fhir_server.search.order import parse_position, position_of, written
from fhir_server.search.request import Request
from fhir_server.store import Page
from fhir_server.version import Version

_END = ""  # stands for the position behind all matches


@dataclass(frozen=True, slots=True)
class Matches:
    """Those of a page, in order, and whether there are others before and after them.

    first, last: from where on to look for these; None where nothing was there.
    """

    versions: list[Version]
    before: bool
    after: bool
    first: Version | None
    last: Version | None


class Pages:
    """The pages of one search. address: what is searched, such as `Task`."""

    def __init__(
        self, request: Request, seal: Seal, access: Access, address: str, query: Sequence[tuple[str, str]]
    ) -> None:
        """Settles the request's position by its token. query: all that was asked, the token included.

        Raises BadRequest, Gone for a link that is not good.
        """
        self._request, self._seal, self._address = request, seal, address
        self._audience = audience_of(access, address)
        self.total: int | None = None  # what the first page found, for callers that see the same
        if request.page is not None:
            self._open(request.page, query)

    def _open(self, token: str, query: Sequence[tuple[str, str]]) -> None:
        mark = self._seal.open(self._address, query, token)
        if mark.position != _END:
            self._request.position = parse_position(self._request.order, mark.position)
        self._request.backward = mark.backward
        if mark.audience == self._audience:
            self.total = mark.total

    def divide(self, found: Page) -> Matches:
        """The matches of the page, of those behind its position, of which there is one more where there is more."""
        request = self._request
        more = found.cut or len(found.versions) > request.count
        versions = found.versions[: request.count]
        begun = request.position is not None
        reached = found.reached if len(found.versions) <= request.count else None
        near, far = (versions[0], reached or versions[-1]) if versions else (reached, reached)
        if request.backward:
            return Matches(versions[::-1], before=more, after=begun, first=far, last=near)
        return Matches(versions, before=begun, after=more, first=near, last=far)

    def previous(self, matches: Matches, indexer: Indexer, total: int | None) -> str | None:
        """The query of the page before these matches: the last one, where they are gone meanwhile."""
        if not matches.before:
            return None
        return self._beside(matches.first, indexer, True, total)

    def next(self, matches: Matches, indexer: Indexer, total: int | None) -> str | None:
        """The query of the page after these matches: the first one, where they are gone meanwhile."""
        if not matches.after:
            return None
        if matches.last is None:
            return self._request.first
        return self._beside(matches.last, indexer, False, total)

    def _beside(self, version: Version | None, indexer: Indexer, backward: bool, total: int | None) -> str:
        position = written(position_of(self._request.order, version, indexer)) if version else _END
        mark = Mark(position, backward, total, self._audience if total is not None else "")
        return self._seal.link(self._address, self._request.applied, mark)
