"""Search: from a query to a page of stored versions. https://hl7.org/fhir/R4/search.html

Conditions become one MongoDB filter over the search keys of newest versions; the caller's audience is part of each
(`sight`). Pages go on by position and not by number, so that nothing is lost or repeated while others write.
"""

from collections.abc import Sequence

from fhir_server.access import Access
from fhir_server.paging import Seal
from fhir_server.search.across import in_compartment, search_across
from fhir_server.search.condition import merged
from fhir_server.search.contained import contained_search
from fhir_server.search.driver import index_of
from fhir_server.search.explain import traced_for
from fhir_server.search.pages import Pages
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request, is_chain, read_request
from fhir_server.search.result import SearchResult, answer
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
    seal: Seal,
    vocabulary: Vocabulary | None = None,
    compartment: tuple[str, str] | None = None,
) -> SearchResult:
    """A page of what matches and the caller may see.

    strict: a parameter that is not known here is refused; otherwise it is left out, and the outcome says so.
    compartment: only what is in that of this (type, id).
    Raises BadRequest for values that cannot be read, Gone for a link whose day is over, Forbidden, NotFound,
    TooCostly.
    """
    sight = Sight(store, access)
    sight.require(resource_type)
    request = read_request(resource_type, parameters, strict, default_count)
    traced = traced_for(access, store) if request.explain else None
    if traced is not None:
        sight = Sight(traced, access)
    path = "/".join((*compartment, resource_type)) if compartment else resource_type
    pages = Pages(request, seal, access, path, parameters)
    planner = Planner(sight, base_url, vocabulary)
    given = [in_compartment(*compartment, resource_type)] if compartment else []
    if request.contained != "false":
        inside = contained_search(planner, sight, request, given, base_url)
        return answer(request, pages, inside.page, inside.count, sight, base_url, traced)
    conditions = _conditions(planner, request, given)

    def page() -> Page:
        return _page(request, planner, conditions)

    def count() -> int:
        return sight.count(resource_type, conditions, index_of(conditions))

    return answer(request, pages, page, count, sight, base_url, traced)


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
    """The matches behind the request's position, the nearest first, one more than fits the page so as to know that
    there is more."""
    position, limit = request.position, request.count + 1
    if isinstance(request.order, Sorting):
        sorting = request.order.turned if request.backward else request.order
        return planner.sorted_page(request.resource_type, conditions, sorting, position, limit)
    page = Page()
    parts = request.order.parts(conditions)
    for part in [one.turned for one in reversed(parts)] if request.backward else parts:
        behind = part.behind(position) if position else []
        if behind is not None:
            found = planner.page(request.resource_type, conditions, part, behind, limit - len(page.versions))
            page.versions += found.versions
            page.cut = found.cut
        if page.cut or len(page.versions) == limit:
            break
    return page
