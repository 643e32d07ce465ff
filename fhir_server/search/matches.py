"""The matches of a search in its order, from a position on."""

from collections.abc import Sequence

from fhir_server.search.order import Position
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request
from fhir_server.search.sorting import Sorting
from fhir_server.search.terms import Condition
from fhir_server.store import Page


def page_behind(
    request: Request, planner: Planner, conditions: Sequence[Condition], position: Position | None, limit: int
) -> Page:
    """Up to so many that meet the conditions, the nearest first. Raises TooCostly."""
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
