"""Search: from a query to a page of stored versions. https://hl7.org/fhir/R4/search.html

Conditions become one MongoDB filter over the search keys of newest versions; the caller's audience is part of each
(`sight`). Pages go on by position and not by number, so that nothing is lost or repeated while others write.
"""

from collections.abc import Sequence

from fhir_server.access import Access
from fhir_server.index import Indexer
from fhir_server.paging import Seal
from fhir_server.search import through
from fhir_server.search.across import in_compartment, search_across
from fhir_server.search.condition import merged
from fhir_server.search.contained import contained_search
from fhir_server.search.driver import index_of
from fhir_server.search.explain import traced_for
from fhir_server.search.matches import page_behind
from fhir_server.search.pages import Pages
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request, is_chain, read_request
from fhir_server.search.result import SearchResult, answer
from fhir_server.search.selection import Selection, check_queries, deletions, walk
from fhir_server.search.sight import Sight
from fhir_server.search.sorting import Sorting
from fhir_server.search.terms import Condition, Vocabulary
from fhir_server.search.values import TooManyLinked, UnknownParameter
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
    # An order that no index has would be made anew for each few that are gone through, and a total needs all.
    at_once = request.only_total or isinstance(request.order, Sorting)
    first = planner if at_once else Planner(sight, base_url, vocabulary, through.MANY)
    conditions, far = _conditions(planner, first, request, given)
    if at_once:
        for refusal in far.values():
            raise refusal

    def whole() -> list[Condition]:
        met = list(conditions)
        for name, value in far:
            met.append(planner.condition(resource_type, name, value, met))
        return met

    def page() -> Page:
        if far:
            return through.page_through(request, planner, conditions, list(far), Indexer(base_url), whole)
        return page_behind(request, planner, conditions, request.position, request.count + 1)

    def count() -> int:
        met = whole()
        return sight.count(resource_type, met, index_of(met))

    return answer(request, pages, page, count, sight, base_url, traced)


def _conditions(
    planner: Planner, first: Planner, request: Request, given: Sequence[Condition]
) -> tuple[list[Condition], dict[tuple[str, str], TooManyLinked]]:
    """What is given and what the filters say; and the chains that lead through too much for the planner that is to
    follow them first, with the reason. Chains come last, since they may have to be followed from what meets the
    others."""
    conditions = list(given)
    understood: set[int] = set()
    far: dict[tuple[str, str], TooManyLinked] = {}
    for at in sorted(range(len(request.filters)), key=lambda at: is_chain(request.filters[at][0])):
        chained = is_chain(request.filters[at][0])
        follows = first if chained else planner
        try:
            conditions.append(follows.condition(request.resource_type, *request.filters[at], conditions))
        except UnknownParameter as error:
            request.leave_out(error)
            continue
        except TooManyLinked as error:
            if not chained:
                raise
            far[request.filters[at]] = error
        understood.add(at)
    request.applied += [request.filters[at] for at in sorted(understood)]
    return merged(conditions), far
