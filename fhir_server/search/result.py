"""What a search answers: a page of matches, what they include, and what there is to be said of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fhir_server.errors import Issue
from fhir_server.index import Indexer
from fhir_server.search.explain import explanation
from fhir_server.search.include import MAX_INCLUDED, collect
from fhir_server.search.pages import Pages
from fhir_server.search.request import Request
from fhir_server.search.sight import Sight
from fhir_server.search.subset import reduced
from fhir_server.store import Page
from fhir_server.traced_store import TracedStore
from fhir_server.version import Version


@dataclass(slots=True)
class SearchResult:
    """A page. applied, first, previous, next: the queries of the links; outcome: an OperationOutcome of warnings.

    explanation: what the search did, a Parameters resource, when that was asked for.
    """

    matches: list[Version] = field(default_factory=list)
    included: list[Version] = field(default_factory=list)
    total: int | None = None
    applied: str = ""
    first: str = ""
    previous: str | None = None
    next: str | None = None
    outcome: dict | None = None
    explanation: dict | None = None


def answer(
    request: Request,
    pages: Pages,
    page: Callable[[], Page],
    count: Callable[[], int],
    sight: Sight,
    base_url: str,
    traced: TracedStore | None,
) -> SearchResult:
    """What a search answers. page: its matches, one more than are asked for where there are more. count: all that
    match. traced: the store, where it is to be told what was done."""
    result = SearchResult()
    if request.only_total:
        result.total = count()
    else:
        _fill(result, request, pages, page(), sight, base_url, count)
    result.applied, result.first = request.query, request.first
    if traced is not None:
        result.explanation = explanation(traced)
    if request.ignored:
        issues = [issue.as_fhir() for issue in request.ignored]
        result.outcome = {"resourceType": "OperationOutcome", "issue": issues}
    return result


def _fill(
    result: SearchResult,
    request: Request,
    pages: Pages,
    page: Page,
    sight: Sight,
    base_url: str,
    count: Callable[[], int],
) -> None:
    """Take the page, what it includes, and the total as far as it is wanted."""
    found, indexer = pages.divide(page), Indexer(base_url)
    result.matches = found.versions
    wanted = request.total in ("accurate", "estimate")
    if request.page is None and not found.after:
        result.total = None if request.total == "none" else len(found.versions)  # all are here: it costs nothing
    elif wanted:
        # The same on all pages of a traversal, whatever is written meanwhile.
        result.total = count() if pages.total is None else pages.total
    carried = result.total if wanted else None
    result.previous = pages.previous(found, indexer, carried)
    result.next = pages.next(found, indexer, carried)
    result.included, complete = collect(sight, request.includes, result.matches)
    if request.subset is not None:
        result.matches = [reduced(version, request.subset) for version in result.matches]
    if not complete:
        text = f"this page includes more than {MAX_INCLUDED} resources, not all are here; ask for fewer with _count"
        request.ignored.append(Issue("too-costly", text, severity="warning"))
