"""What a search answers: a page of matches, what they include, and what there is to be said of it."""

from dataclasses import dataclass, field

from fhir_server.errors import Issue
from fhir_server.index import Indexer
from fhir_server.search.include import MAX_INCLUDED, collect
from fhir_server.search.order import position_of
from fhir_server.search.request import Request
from fhir_server.search.sight import Sight
from fhir_server.search.subset import reduced
from fhir_server.store import Page
from fhir_server.version import Version


@dataclass(slots=True)
class SearchResult:
    """A page. applied, next: the queries of the self and next links; outcome: an OperationOutcome of warnings."""

    matches: list[Version] = field(default_factory=list)
    included: list[Version] = field(default_factory=list)
    total: int | None = None
    applied: str = ""
    next: str | None = None
    outcome: dict | None = None


def fill(result: SearchResult, request: Request, page: Page, sight: Sight, base_url: str) -> None:
    """Take the page, which has one match more than is asked for where there are more, and what it includes."""
    result.matches = page.versions[: request.count]
    if page.cut or len(page.versions) > request.count:
        result.next = request.following(position_of(request.order, result.matches[-1], Indexer(base_url)))
    result.included, complete = collect(sight, request.includes, result.matches)
    if request.subset is not None:
        result.matches = [reduced(version, request.subset) for version in result.matches]
    if not complete:
        text = f"this page includes more than {MAX_INCLUDED} resources, not all are here; ask for fewer with _count"
        request.ignored.append(Issue("too-costly", text, severity="warning"))


def complete(result: SearchResult, request: Request) -> SearchResult:
    """The result with its queries, what was left out, and the total where it costs nothing."""
    result.applied = request.query
    if request.total is None and not request.only_total and request.position is None and result.next is None:
        result.total = len(result.matches)  # they are all on this page
    if request.ignored:
        issues = [issue.as_fhir() for issue in request.ignored]
        result.outcome = {"resourceType": "OperationOutcome", "issue": issues}
    return result
