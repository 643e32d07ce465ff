"""Searches that find contained resources: `_contained=true` and `both`. https://hl7.org/fhir/R4/search.html#contained

A stored resource has the keys of those that it contains too, behind their type (`fhir_server.index`), which leads to
what comes into question. Whether one contained resource meets all conditions is then asked of MongoDB for the entries
of the contained resources themselves, so by the filters that stored ones have to meet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import conformance
from fhir_server import fhir_json
from fhir_server.errors import BadRequest
from fhir_server.index import Entry, Indexer, inner_key, official_rules
from fhir_server.search.across import in_order, merged_page
from fhir_server.search.condition import merged
from fhir_server.search.driver import index_of
from fhir_server.search.order import NEWEST_CREATED, Order
from fhir_server.search.planner import Planner
from fhir_server.search.request import Request
from fhir_server.search.sight import Sight
from fhir_server.search.terms import KEYS, Condition
from fhir_server.search.values import TooCostly, UnknownParameter
from fhir_server.store import Page
from fhir_server.version import Version

MAX_CONTAINERS = 2000  # resources that are looked into
_NOT_INSIDE = ("_has", "_list")  # what tells of ids, which contained resources have among themselves only
_AT_ONCE = 100  # of them, with what they contain
_ORDERS = (None, "_lastUpdated")


@dataclass(frozen=True, slots=True)
class ContainedSearch:
    """The matches of one search that looks into resources too. Made by `contained_search`."""

    planner: Planner
    sight: Sight
    request: Request
    order: Order
    conditions: list[Condition]
    inside: list[Version]

    def page(self) -> Page:
        """As of a search for stored resources: those behind the position, one more than fits."""
        request, order = self.request, self.order
        limit, upwards = request.count + 1, (order.direction > 0) != request.backward
        page = Page(in_order(self.inside, order, upwards, request.position)[:limit])
        if request.contained != "both":
            return page
        (part,) = order.parts(self.conditions)
        part = part.turned if request.backward else part
        behind = part.behind(request.position) if request.position else []
        found = self.planner.page(request.resource_type, self.conditions, part, behind or [], limit)
        there = {version.reference for version in found.versions}
        page.versions = [version for version in page.versions if version.reference not in there]
        return merged_page(page, found, order, upwards, limit)

    def count(self) -> int:
        if self.request.contained != "both":
            return len(self.inside)
        type, conditions = self.request.resource_type, self.conditions
        return len(self.inside) + self.sight.count(type, conditions, index_of(conditions))


def contained_search(
    planner: Planner, sight: Sight, request: Request, given: Sequence[Condition], base_url: str
) -> ContainedSearch:
    """What is contained and matches, and the caller may see: found whole, since few are. given: conditions of what
    contains it. Raises BadRequest, Forbidden, TooCostly."""
    if request.includes:
        raise BadRequest("_contained takes no includes: contained resources are included with what contains them")
    if not isinstance(request.order, Order) or request.order.code not in _ORDERS:
        raise BadRequest("_sort takes _lastUpdated where contained resources are searched")
    conditions: list[Condition] = []
    keys: list[list[str]] = [[inner_key(request.resource_type)]]
    for name, value in request.filters:
        try:
            if name.partition(":")[0] in _NOT_INSIDE:
                raise BadRequest(f"{name[:80]!r} tells nothing of contained resources")
            condition = planner.condition(request.resource_type, name, value)
        except UnknownParameter as error:
            request.leave_out(error)
            continue
        request.applied.append((name, value))
        conditions.append(condition)
        if name in official_rules(request.resource_type):
            keys += _outer(request.resource_type, condition)
    narrowed = [*given, *(Condition({"keys": {"$in": one}}, KEYS) for one in keys)]
    inside = list(_matches(sight, request, narrowed, conditions, base_url))
    own = [*given, *conditions] if request.contained == "both" else conditions
    order = request.order if isinstance(request.order, Order) else NEWEST_CREATED
    return ContainedSearch(planner, sight, request, order, merged(own), inside)


def _outer(resource_type: str, condition: Condition) -> list[list[str]]:
    """Keys of which what contains a match has one; none where the condition is about something else than keys."""
    wanted = condition.filter.get("keys") if condition.filter.keys() == {"keys"} else None
    if isinstance(wanted, dict) and wanted.keys() == {"$in"} and all(isinstance(one, str) for one in wanted["$in"]):
        return [[inner_key(resource_type, one) for one in wanted["$in"]]]
    return [[inner_key(resource_type, wanted)]] if isinstance(wanted, str) else []


def _matches(
    sight: Sight, request: Request, narrowed: Sequence[Condition], conditions: Sequence[Condition], base_url: str
) -> Iterator[Version]:
    """Each contained resource that matches, or what contains it; the contained ones numbered behind that."""
    looked = 0
    filter = {"$and": [one.filter for one in conditions if one.filter] or [{}]}
    for type in sight.searchable_types(sorted(conformance.resource_types())):
        found = sight.page(type, narrowed, [("n", -1)], MAX_CONTAINERS + 1 - looked, KEYS)
        looked += len(found.versions)
        if looked > MAX_CONTAINERS or found.cut:
            raise TooCostly(f"more than {MAX_CONTAINERS} resources would have to be looked into; narrow the search")
        for begin in range(0, len(found.versions), _AT_ONCE):
            yield from _matching(sight, request, found.versions[begin : begin + _AT_ONCE], filter, base_url)


def _matching(
    sight: Sight, request: Request, containers: Sequence[Version], filter: dict, base_url: str
) -> Iterator[Version]:
    indexer = Indexer(base_url)
    inner = [
        (container, at, one)
        for container in containers
        for at, one in enumerate(container.resource()["contained"])
        if one["resourceType"] == request.resource_type
    ]
    met = sight.matching([_document(indexer.index(one), container) for container, _, one in inner], filter)
    chosen = [inner[place] for place in sorted(met)]
    if request.contained_type == "contained":
        yield from (_inside(*one) for one in chosen)
    else:
        yield from {container.reference: container for container, _, _ in chosen}.values()


def _document(entry: Entry, container: Version) -> dict:
    """The entry, as that of a stored version is looked at."""
    document = {"keys": ["*", *entry.keys], "r": entry.ranges, "s": entry.sorts, "lu": container.last_updated}
    return {"id": "", "n": container.created, **document}


def _inside(container: Version, at: int, resource: dict) -> Version:
    id, created = f"{container.id}#{resource.get('id', '')}", container.created + 1 + at
    return replace(container, id=id, created=created, body=fhir_json.dumps(resource))
