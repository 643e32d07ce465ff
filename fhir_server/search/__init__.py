"""Search: from a query to a page of stored versions. https://hl7.org/fhir/R4/search.html

Conditions become one MongoDB filter over the search keys of newest versions; the caller's audience is part of each
(`sight`). Pages go on by position and not by number, so that nothing is lost or repeated while others write.
"""

from collections.abc import Sequence

from fhir_server.access import Access
from fhir_server.search.across import in_compartment, search_across
from fhir_server.search.condition import merged
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request, is_chain, read_request
from fhir_server.search.result import SearchResult, complete, fill
from fhir_server.search.selection import Selection, check_queries, deletions, walk
from fhir_server.search.sight import Sight
from fhir_server.search.sorting import Sorting
from fhir_server.search.terms import Condition, Vocabulary
from fhir_server.search.values import UnknownParameter
from fhir_server.store import Page, VersionStore

__all__ = ["SearchResult", "Selection", "check_queries", "deletions", "search", "search_across", "walk"]


def search(
    store: VersionStore,
    access: Access,
    resource_type: str,
    parameters: Sequence[tuple[str, str]],
    *,
    base_url: str,
    strict: bool,
    default_count: int,
    vocabulary: Vocabulary | None = None,
    compartment: tuple[str, str] | None = None,
) -> SearchResult:
    """A page of what matches and the caller may see.

    strict: a parameter that is not known here is refused; otherwise it is left out, and the outcome says so.
    compartment: only what is in that of this (type, id).
    Raises BadRequest for values that cannot be read, Forbidden, NotFound, TooCostly.
    """
    sight = Sight(store, access)
    sight.require(resource_type)
    request = read_request(resource_type, parameters, strict, default_count)
    planner = Planner(sight, base_url, vocabulary)
    given = [in_compartment(*compartment, resource_type)] if compartment else []
    conditions = _conditions(planner, request, given)
    result = SearchResult()
    if not request.only_total:
        fill(result, request, _page(request, planner, conditions), sight, base_url)
    if request.only_total or request.total in ("accurate", "estimate"):
        result.total = sight.count(resource_type, conditions, planner.index_of(conditions))
    return complete(result, request)


def _conditions(planner: Planner, request: Request, given: Sequence[Condition]) -> list[Condition]:
    """What is given and what the filters say. Chains come last, since they may have to be followed from what meets
    the others."""
    conditions = list(given)
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


def _page(request: Request, planner: Planner, conditions: list[Condition]) -> Page:
    """The matches behind the request's position, one more than fits the page so as to know that there is more."""
    position, limit = request.position, request.count + 1
    if isinstance(request.order, Sorting):
        return planner.sorted_page(request.resource_type, conditions, request.order, position, limit)
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
