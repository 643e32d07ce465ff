"""Chains that lead through many: `ServiceRequest?patient.gender=female`.

What meets the other conditions is gone through in the wanted order, some at a time, and the chain is followed from
these. That finds the first page soon where much matches. Where the first few do not fill it, the chain is followed
whole if that can be. Else a page ends after so many that were looked at, with fewer matches than were asked for or
none, and the next one goes on behind them.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from fhir_server.index import Indexer
from fhir_server.search.matches import page_behind
from fhir_server.search.order import position_of
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request
from fhir_server.search.terms import Condition
from fhir_server.search.values import TooManyLinked
from fhir_server.store import MAX_PAGE_BYTES, Page

MANY = 2_000  # resources that a link of a chain leads through, from which on this is tried first
FIRST = 3  # times the page: resources that the chains are followed from at first
AT_ONCE = 250  # and later, together
MOST = 5_000  # that a page looks at


def page_through(
    request: Request,
    planner: Planner,
    conditions: Sequence[Condition],
    chains: Sequence[tuple[str, str]],
    indexer: Indexer,
    whole: Callable[[], Sequence[Condition]],
) -> Page:
    """The matches of the conditions and the chains behind the request's position, one more than fits the page.

    whole: gives the conditions with the chains followed; raises TooManyLinked.
    """
    page, position, wanted = Page(), request.position, request.count + 1
    looked, size = 0, min(FIRST * wanted, AT_ONCE)
    while looked < MOST:
        found = page_behind(request, planner, conditions, position, size)
        if found.versions:
            met = planner.meeting(request.resource_type, [version.id for version in found.versions], chains)
            page.versions += [version for version in found.versions if version.id in met]
            page.reached = found.versions[-1]
            position = position_of(request.order, page.reached, indexer)
        if len(page.versions) >= wanted:
            return Page(page.versions[:wanted])
        if not found.cut and len(found.versions) < size:
            return Page(page.versions)
        if not looked:
            with suppress(TooManyLinked):
                return page_behind(request, planner, whole(), request.position, wanted)
        looked, size = looked + size, AT_ONCE
        if sum(len(version.body or b"") for version in page.versions) > MAX_PAGE_BYTES:
            break
    page.cut = True
    return page
