"""The index that the matches of a page are found by: the driver.

Either one that finds what meets some of the conditions, all of which is then put in order in memory; or the one that
has the wanted order, which is walked until the page is full. The first is good for few matches, the second for many.
"""

from collections.abc import Mapping, Sequence

from fhir_server.search.order import Part
from fhir_server.search.sight import Sight
from fhir_server.search.terms import KEYS, RANGES, UPDATED, Condition
from fhir_server.store import Page

FEW = 2000  # matches that are put in order in memory rather than by walking an index in that order
VERY_FEW = 300  # matches by one index, that it is gone by: to ask whether another has fewer takes as long
SORTED = 5  # times the page: matches that are put in order without trying whether walking is shorter
WALKED = 10  # times the page: so much is looked at in order, in which it may be full already
_SELECTIVE = (KEYS, UPDATED, RANGES)  # indexes that find matches, the one that does best first


def index_of(conditions: Sequence[Condition]) -> str:
    """For matches in no order: the index that finds them."""
    indexes = {condition.index for condition in conditions}
    return next((index for index in _SELECTIVE if index in indexes), KEYS)


def index_for(sight: Sight, resource_type: str, conditions: Sequence[Condition], part: Part) -> str:
    """For all matches in the order of the part."""
    in_order, by_index = _indexes(sight, resource_type, conditions, part)
    if by_index.keys() <= {in_order}:
        return in_order
    return _fewest(sight, resource_type, by_index, FEW) or in_order


def page_of(
    sight: Sight,
    resource_type: str,
    conditions: Sequence[Condition],
    part: Part,
    bounds: Sequence[Condition],
    limit: int,
) -> Page:
    """The first so many matches in the order of the part. bounds: where in that order they are; the conditions have
    these too."""
    in_order, by_index = _indexes(sight, resource_type, conditions, part)
    index: str | None = in_order
    if not by_index.keys() <= {in_order}:
        index = _fewest(sight, resource_type, by_index, min(FEW, SORTED * limit))
    if index is None:
        narrowed = [*_in_reach(part, bounds), *by_index.get(in_order, [])]
        found = sight.walked_page(resource_type, narrowed, conditions, part.sort, limit, WALKED * limit, in_order)
        if found is not None:
            return found
        index = _fewest(sight, resource_type, by_index, FEW)
    return sight.page(resource_type, conditions, part.sort, limit, index or in_order)


def _indexes(
    sight: Sight, resource_type: str, conditions: Sequence[Condition], part: Part
) -> tuple[str, Mapping[str, list[Condition]]]:
    """The one in the order of the part, and those that find what meets some conditions, with these."""
    by_index: dict[str, list[Condition]] = {KEYS: []} if sight.narrows(resource_type) else {}
    for one in conditions:
        if one.index is not None:
            by_index.setdefault(one.index, []).append(one)
    return part.index if sight.has_index(resource_type, part.index) else KEYS, by_index


def _in_reach(part: Part, bounds: Sequence[Condition]) -> list[Condition]:
    """The bounds that an index in the order of the part tells by itself. By others more would be looked at."""

    def fields(filter: dict) -> set[str]:
        return {name for one in filter.get("$or", [filter]) for name in one}

    return [one for one in bounds if fields(one.filter) <= {part.field, "n"}]


def _fewest(sight: Sight, resource_type: str, by_index: Mapping[str, Sequence[Condition]], most: int) -> str | None:
    """The index that finds the fewest, or the first that finds very few; None where each finds more than `most`."""
    candidates = [index for index in _SELECTIVE if index in by_index]
    for index in candidates:
        if sight.count_up_to(resource_type, by_index[index], index, VERY_FEW + 1) <= VERY_FEW:
            return index
    fewest, best = most + 1, None
    for index in candidates if most > VERY_FEW else ():
        count = sight.count_up_to(resource_type, by_index[index], index, fewest)
        if count < fewest:
            fewest, best = count, index
    return best
