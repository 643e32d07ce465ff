"""Search: from a query to a page of stored versions. https://hl7.org/fhir/R4/search.html

Conditions become one MongoDB filter over the search keys of newest versions; the caller's audience is part of each
(`sight`). Pages go on by position and not by number, so that nothing is lost or repeated while others write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fhir_server.access import Access
from fhir_server.errors import Issue
from fhir_server.index import Indexer
from fhir_server.search.condition import Condition, merged
from fhir_server.search.include import MAX_INCLUDED, collect
from fhir_server.search.order import position_of
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request, is_chain, read_request
from fhir_server.search.selection import Selection, check_queries, deletions, walk
from fhir_server.search.sight import Sight
from fhir_server.search.subset import reduced
from fhir_server.search.values import UnknownParameter
from fhir_server.store import Page, VersionStore
from fhir_server.version import Version

__all__ = ["SearchResult", "Selection", "check_queries", "deletions", "search", "walk"]


@dataclass(slots=True)
class SearchResult:
    """A page. applied, next: the queries of the self and next links; outcome: an OperationOutcome of warnings."""

    matches: list[Version] = field(default_factory=list)
    included: list[Version] = field(default_factory=list)
    total: int | None = None
    applied: str = ""
    next: str | None = None
    outcome: dict | None = None


def search(
    store: VersionStore,
    access: Access,
    resource_type: str,
    parameters: Sequence[tuple[str, str]],
    *,
    base_url: str,
    strict: bool,
    default_count: int,
) -> SearchResult:
    """A page of what matches and the caller may see.

    strict: a parameter that is not known here is refused; otherwise it is left out, and the outcome says so.
    Raises BadRequest for values that cannot be read, Forbidden, TooCostly.
    """
    sight = Sight(store, access)
    sight.require(resource_type)
    request = read_request(resource_type, parameters, strict, default_count)
    planner = Planner(sight, base_url)
    conditions = _conditions(planner, request)
    result = SearchResult(applied=request.query)
    if not request.only_total:
        _fill(result, request, sight, planner, conditions, base_url)
    if request.only_total or request.total in ("accurate", "estimate"):
        result.total = sight.count(resource_type, conditions, planner.index_of(conditions))
    elif request.total is None and request.position is None and result.next is None:
        result.total = len(result.matches)  # they are all on this page, so the total costs nothing
    if request.ignored:
        issues = [issue.as_fhir() for issue in request.ignored]
        result.outcome = {"resourceType": "OperationOutcome", "issue": issues}
    return result


def _conditions(planner: Planner, request: Request) -> list[Condition]:
    """What the filters say. Chains come last, since they may have to be followed from what meets the others."""
    conditions: list[Condition] = []
    understood: set[int] = set()
    for at in sorted(range(len(request.filters)), key=lambda at: is_chain(request.filters[at][0])):
        try:
            conditions.append(planner.condition(request.resource_type, *request.filters[at], conditions))
        except UnknownParameter as error:
            request.leave_out(error)
        else:
            understood.add(at)
    request.applied += [request.filters[at] for at in sorted(understood)]
    return merged(conditions)


def _fill(
    result: SearchResult, request: Request, sight: Sight, planner: Planner, conditions: list[Condition], base_url: str
) -> None:
    """Find the page and what it includes."""
    page = _page(request, planner, conditions)
    result.matches = page.versions[: request.count]
    if page.cut or len(page.versions) > request.count:
        result.next = request.following(position_of(request.order, result.matches[-1], Indexer(base_url)))
    result.included, complete = collect(sight, request.includes, result.matches)
    if request.subset is not None:
        result.matches = [reduced(version, request.subset) for version in result.matches]
    if not complete:
        text = f"this page includes more than {MAX_INCLUDED} resources, not all are here; ask for fewer with _count"
        request.ignored.append(Issue("too-costly", text, severity="warning"))


def _page(request: Request, planner: Planner, conditions: list[Condition]) -> Page:
    """The matches behind the request's position, one more than fits the page so as to know that there is more."""
    position, limit = request.position, request.count + 1
    page = Page()
    for part in request.order.parts(conditions):
        behind = part.behind(position) if position else []
        if behind is not None:
            met = [*conditions, *part.conditions, *behind]
            found = planner.page(request.resource_type, met, part, limit - len(page.versions))
            page.versions += found.versions
            page.cut = found.cut
        if page.cut or len(page.versions) == limit:
            break
    return page
