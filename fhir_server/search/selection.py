"""Everything of a type that is selected, from the first to the last: what a bulk export is made of.

A walk goes in order of creation, which no update changes, so that it can stop anywhere and go on later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import parse_qsl

from fhir_server.access import Access
from fhir_server.errors import BadRequest
from fhir_server.search.condition import merged
from fhir_server.search.order import Order, Position
from fhir_server.search.planner import Planner
from fhir_server.search.request import is_chain, read_request
from fhir_server.search.sight import Sight
from fhir_server.search.terms import KEYS, UPDATED, Condition, Vocabulary
from fhir_server.store import VersionStore, WriteNumbers
from fhir_server.version import Version

OLDEST_CREATED = Order(None, 1)
SLACK = timedelta(minutes=10)  # from the time that a version carries to the number that it gets a little later
FEW_PATIENTS = 100  # whose keys are looked up; of more, their resources are picked out of all


@dataclass(frozen=True, slots=True)
class Selection:
    """Resources of one type as they were at a time.

    queries: of these searches, one must be met; without any, all are selected. since: changed after that.
    patients: in the compartment of one of these (references such as `Patient/12`); in_compartment: of any at all.
    """

    resource_type: str
    at: datetime
    since: datetime | None = None
    queries: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    in_compartment: bool = False


def walk(
    store: VersionStore,
    access: Access,
    selection: Selection,
    after: int,
    base_url: str,
    vocabulary: Vocabulary | None = None,
) -> Iterator[Version]:
    """What is selected and the caller may see, created after the number `after` (see Version.created), in that order.

    A resource that was changed since the selection's time comes as it was then; one that was deleted since does not
    come. Whether it meets the queries is decided by what it is now. Raises BadRequest, Forbidden, TooCostly.
    """
    sight = Sight(store, access)
    sight.require(selection.resource_type)
    planner = Planner(sight, base_url, vocabulary)
    part = OLDEST_CREATED.parts()[0]
    conditions = [*_conditions(planner, selection), *(part.behind(Position(None, after)) or [])]
    found = planner.walk(selection.resource_type, conditions, part)
    return _as_selected(store, access, selection, found)


def _as_selected(
    store: VersionStore, access: Access, selection: Selection, found: Iterator[Version]
) -> Iterator[Version]:
    for version in found:
        then = version if version.last_updated <= selection.at else _as_of(store, access, selection, version)
        if then is not None:
            yield then


def deletions(store: VersionStore, access: Access, selection: Selection, after: int) -> Iterator[Version]:
    """Deletions of what is selected, after its `since`, by write number. A deletion meets every query."""
    if selection.since is None:
        raise ValueError("deletions since when?")
    sight = Sight(store, access)
    sight.require(selection.resource_type)
    filter: dict = {"lu": {"$gt": selection.since, "$lte": selection.at}, **_compartment(selection)}
    return sight.deletions(selection.resource_type, filter, max(after, WriteNumbers.at(selection.since)))


def check_queries(
    store: VersionStore,
    access: Access,
    resource_type: str,
    queries: Sequence[str],
    base_url: str,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Raise what a walk with these queries would raise."""
    sight = Sight(store, access)
    sight.require(resource_type)
    for query in queries:
        _query(Planner(sight, base_url, vocabulary), resource_type, query)


def _conditions(planner: Planner, selection: Selection) -> list[Condition]:
    conditions = [Condition({"n": {"$lt": WriteNumbers.at(selection.at + SLACK)}})]
    if selection.since is not None:
        conditions.append(Condition({"lu": {"$gt": selection.since}}, UPDATED))
    if selection.patients is not None and len(selection.patients) <= FEW_PATIENTS:
        conditions.append(Condition({"keys": {"$in": [f"@{patient}" for patient in selection.patients]}}, KEYS))
    else:
        conditions.append(Condition(_compartment(selection)))
    found = [_query(planner, selection.resource_type, query) for query in selection.queries]
    if len(found) == 1:
        return [*conditions, *found[0]]
    if found:
        either = [{"$and": [condition.filter for condition in one] or [{}]} for one in found]
        conditions.append(Condition({"$or": either}))
    return conditions


def _compartment(selection: Selection) -> dict:
    """On the scope, which has a key for each patient whose compartment a resource is in."""
    if selection.patients is not None:
        return {"scope": {"$in": [f"@{patient}" for patient in selection.patients]}}
    return {"scope": {"$regex": "^@Patient/"}} if selection.in_compartment else {}


def _query(planner: Planner, resource_type: str, query: str) -> list[Condition]:
    request = read_request(resource_type, parse_qsl(query, keep_blank_values=True), strict=True, default_count=1)
    if request.applied:
        raise BadRequest(f"{request.applied[0][0]!r} shapes a page of matches, and here is none")
    conditions: list[Condition] = []
    for name, value in sorted(request.filters, key=lambda filter: is_chain(filter[0])):
        conditions.append(planner.condition(resource_type, name, value, conditions))
    return merged(conditions)


def _as_of(store: VersionStore, access: Access, selection: Selection, version: Version) -> Version | None:
    for then in store.history(version.resource_type, version.id, {"lu": {"$lte": selection.at}}, limit=1):
        is_new = selection.since is None or then.last_updated > selection.since
        if is_new and not then.deleted and access.sees(then.scope):
            return then
    return None
