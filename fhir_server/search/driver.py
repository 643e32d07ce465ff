"""The index that the matches of a page are found by: the driver.

Either one that finds what meets some of the conditions, all of which is then put in order in memory; or the one that
has the wanted order, which is walked until the page is full. The first is good for few matches, the second for many.
"""

from collections.abc import Sequence

from fhir_server.search.order import Part
from fhir_server.search.sight import Sight
from fhir_server.search.terms import KEYS, RANGES, UPDATED, Condition

FEW = 2000  # matches that are put in order in memory rather than by walking an index in that order
VERY_FEW = 300  # matches by one index, that it is gone by: to ask whether another has fewer takes as long
SORTED = 20  # times the page: matches that are put in order without asking whether walking is shorter
WALKED = 10  # times the page: so much is looked at in order, to see whether walking fills it soon
_SELECTIVE = (KEYS, UPDATED, RANGES)  # indexes that find matches, the one that does best first


def index_of(conditions: Sequence[Condition]) -> str:
    """For matches in no order: the index that finds them."""
    indexes = {condition.index for condition in conditions}
    return next((index for index in _SELECTIVE if index in indexes), KEYS)


def index_for(
    sight: Sight,
    resource_type: str,
    conditions: Sequence[Condition],
    part: Part,
    bounds: Sequence[Condition] = (),
    limit: int | None = None,
) -> str:
    """For matches in the order of the part. limit: so many of them; None: all. bounds: where in that order they are;
    the conditions have these too."""
    in_order = part.index if sight.has_index(resource_type, part.index) else KEYS
    by_index: dict[str, list[Condition]] = {KEYS: []} if sight.narrows(resource_type) else {}
    for one in conditions:
        if one.index is not None:
            by_index.setdefault(one.index, []).append(one)
    if by_index.keys() <= {in_order}:
        return in_order
    candidates = [index for index in _SELECTIVE if index in by_index]
    for index in candidates:
        if sight.count_up_to(resource_type, by_index[index], index, VERY_FEW + 1) <= VERY_FEW:
            return index
    fewest, best = FEW + 1, in_order
    for index in candidates:
        count = sight.count_up_to(resource_type, by_index[index], index, fewest)
        if count < fewest:
            fewest, best = count, index
    if limit is None or best == in_order or fewest <= SORTED * limit:
        return best
    narrowed = [*bounds, *by_index.get(in_order, [])]
    fills = sight.fills(resource_type, narrowed, conditions, part.sort, limit, WALKED * limit, in_order)
    return in_order if fills else best
