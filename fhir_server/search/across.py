"""Searches that go over several types: of the whole system, and of all that is in a compartment.
https://hl7.org/fhir/R4/http.html#search

Each type is searched for itself; their matches are merged in order of creation, or of the last update. Both are the
same for all types, so that one position says for each of them where a page goes on.
"""

from collections.abc import Callable, Sequence

import conformance
from fhir_server.access import Access
from fhir_server.errors import BadRequest, Forbidden, NotFound
from fhir_server.paging import Seal
from fhir_server.search.condition import merged
from fhir_server.search.driver import index_of
from fhir_server.search.explain import traced_for
from fhir_server.search.order import NEWEST_CREATED, Order, Position
from fhir_server.search.pages import Pages
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request, is_chain, read_request
from fhir_server.search.result import SearchResult, answer
from fhir_server.search.sight import Sight
from fhir_server.search.terms import KEYS, Condition, Vocabulary
from fhir_server.search.values import UnknownParameter
from fhir_server.store import Page, VersionStore
from fhir_server.validation import check_type
from fhir_server.version import Version

_ORDERS = (None, "_lastUpdated")  # that are the same for all types


def in_compartment(name: str, id: str, resource_type: str) -> Condition:
    """To be in the compartment of this resource. Raises NotFound where the type never is.

    https://hl7.org/fhir/R4/compartmentdefinition.html
    """
    members = compartment_types(name)
    if resource_type not in members:
        raise NotFound(f"a {resource_type} is never in the compartment of a {name}")
    keys = [f"{code}={name}/{id}" for code in conformance.compartment(name).get(resource_type, ())]
    return Condition({"keys": {"$in": [*keys, *([f"_id={id}"] if resource_type == name else [])]}}, KEYS)


def compartment_types(name: str) -> list[str]:
    """The types that can be in such a compartment, its own among them. Raises NotFound."""
    if name not in conformance.compartments():
        raise NotFound(f"there is no compartment of a {name}, only of {', '.join(conformance.compartments())}")
    members = conformance.compartment(name)
    return sorted({name, *(type for type, codes in members.items() if codes)})


def search_across(
    store: VersionStore,
    access: Access,
    parameters: Sequence[tuple[str, str]],
    *,
    base_url: str,
    strict: bool,
    default_count: int,
    seal: Seal,
    vocabulary: Vocabulary | None = None,
    compartment: tuple[str, str] | None = None,
) -> SearchResult:
    """A page of what matches in all types, or in those of `_type`, and the caller may see.

    compartment: only what is in that of this (type, id). Raises BadRequest, Gone, Forbidden, NotFound, TooCostly.
    """
    sight = Sight(store, access)
    named = [value for name, value in parameters if name == "_type"]
    types = _types(sight, named, compartment_types(compartment[0]) if compartment else None)
    rest = [(name, value) for name, value in parameters if name != "_type"]
    if any(name.startswith("_include") and value == "*" for name, value in rest):
        raise BadRequest("_include takes Type:parameter or Type:* where several types are searched")
    request = read_request(types[0] if types else "Basic", rest, strict, default_count)
    request.applied = [*(("_type", value) for value in named), *request.applied]
    if request.contained != "false":
        raise BadRequest("_contained is for searches of one type")
    if not isinstance(request.order, Order) or request.order.code not in _ORDERS:
        raise BadRequest("_sort takes _lastUpdated where several types are searched")
    traced = traced_for(access, store) if request.explain else None
    if traced is not None:
        sight = Sight(traced, access)
    path = "/".join((*compartment, "*")) if compartment else ""
    pages = Pages(request, seal, access, path, parameters)
    planner = Planner(sight, base_url, vocabulary)
    conditions: dict[str, list[Condition]] = {
        type: [in_compartment(*compartment, type)] if compartment else [] for type in types
    }
    _add_filters(planner, request, conditions)

    def page() -> Page:
        return _page(planner, request, conditions)

    def count() -> int:
        return sum(sight.count(type, met, index_of(met)) for type, met in conditions.items())

    return answer(request, pages, page, count, sight, base_url, traced)


def _types(sight: Sight, named: Sequence[str], possible: Sequence[str] | None) -> list[str]:
    """The types to search: those named, which the caller must be allowed, or all that he is allowed."""
    if len(named) > 1:
        raise BadRequest("_type is given twice")
    if named:
        types = list(dict.fromkeys(named[0].split(",")))
        for type in types:
            check_type(type)
            sight.require(type)
            if possible is not None and type not in possible:
                raise NotFound(f"a {type} is never in this compartment")
    else:
        types = sight.searchable_types(possible or sorted(conformance.resource_types()))
        if not types and not sight.searches_anything:
            raise Forbidden("no granted scope allows search")
    return types


def _add_filters(planner: Planner, request: Request, conditions: dict[str, list[Condition]]) -> None:
    """What the filters say of each type. One that some type does not know is none of a search of all of them."""
    understood: set[int] = set()
    for at in sorted(range(len(request.filters)), key=lambda at: is_chain(request.filters[at][0])):
        try:
            found = {type: planner.condition(type, *request.filters[at], met) for type, met in conditions.items()}
        except UnknownParameter as error:
            request.leave_out(error)
            continue
        understood.add(at)
        for type, condition in found.items():
            conditions[type].append(condition)
    request.applied += [request.filters[at] for at in sorted(understood)]
    for type, met in conditions.items():
        conditions[type] = merged(met)


def _page(planner: Planner, request: Request, conditions: dict[str, list[Condition]]) -> Page:
    """The matches of all types behind the request's position, one more than fits the page. What is in memory at once
    is what a page of one type has and what is kept of the others."""
    order = request.order if isinstance(request.order, Order) else NEWEST_CREATED
    limit, page = request.count + 1, Page()
    upwards = (order.direction > 0) != request.backward
    for type, met in conditions.items():
        (part,) = order.parts(met)
        part = part.turned if request.backward else part
        behind = part.behind(request.position) if request.position else []
        found = planner.page(type, met, part, behind or [], limit)
        page = merged_page(page, found, order, upwards, limit)
    return page


def merged_page(page: Page, found: Page, order: Order, upwards: bool, limit: int) -> Page:
    """The first of what is on both pages. order: by creation, or by the last update."""
    versions = in_order([*page.versions, *found.versions], order, upwards)
    ends = [one.versions[-1] for one in (page, found) if one.cut]
    if ends:  # behind the end of what was cut, nothing is known of that type
        end = (min if upwards else max)(ends, key=_place(order))
        versions = versions[: versions.index(end) + 1]
    return Page(versions[:limit], cut=bool(ends) and len(versions) <= limit)


def in_order(
    versions: Sequence[Version], order: Order, upwards: bool, position: Position | None = None
) -> list[Version]:
    """Those behind the position, the next one first."""
    place = _place(order)
    if position is not None:
        at = (position.value, position.n) if order.code else (position.n,)
        versions = [one for one in versions if (place(one) > at if upwards else place(one) < at)]
    return sorted(versions, key=place, reverse=not upwards)


def _place(order: Order) -> Callable[[Version], tuple]:
    def place(version: Version) -> tuple:
        return (version.last_updated, version.created) if order.code else (version.created,)

    return place
