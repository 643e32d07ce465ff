"""Chains that lead through so many that they cannot be followed at once: `ServiceRequest?patient.gender=female`.

What meets the other conditions is gone through in the wanted order, some at a time, and the chain is followed from
these. That finds the first page soon where much matches. Where little does a page ends after so many that were looked
at, with fewer matches than were asked for or none, and the next one goes on behind them.
"""

from collections.abc import Sequence

from fhir_server.index import Indexer
from fhir_server.search.matches import page_behind
from fhir_server.search.order import position_of
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request
from fhir_server.search.terms import Condition
from fhir_server.store import MAX_PAGE_BYTES, Page

AT_ONCE = 250  # resources that the chains are followed from together
MOST = 5_000  # that a page looks at


def page_through(
    request: Request,
    planner: Planner,
    conditions: Sequence[Condition],
    chains: Sequence[tuple[str, str]],
    indexer: Indexer,
) -> Page:
    """The matches of the conditions and the chains behind the request's position, one more than fits the page."""
    page, position, wanted = Page(), request.position, request.count + 1
    for _ in range(0, MOST, AT_ONCE):
        found = page_behind(request, planner, conditions, position, AT_ONCE)
        if found.versions:
            met = planner.meeting(request.resource_type, [version.id for version in found.versions], chains)
            page.versions += [version for version in found.versions if version.id in met]
            page.reached = found.versions[-1]
            position = position_of(request.order, page.reached, indexer)
        if len(page.versions) >= wanted:
            return Page(page.versions[:wanted])
        if not found.cut and len(found.versions) < AT_ONCE:
            return Page(page.versions)
        if sum(len(version.body or b"") for version in page.versions) > MAX_PAGE_BYTES:
            break
    page.cut = True
    return page
