"""`_explain=true`: what a search did instead of what it found. For administrators.

The answer is a Parameters resource: `driver` is the index that the matches were found by, `roundTrips` the queries
that went to the database; `examined` and `returned` are documents, all queries together but for what a probe only
counts; a `query` for each of them. It has no values of the search and nothing of what was found.
"""

from fhir_server.access import Access
from fhir_server.errors import Forbidden
from fhir_server.store import VersionStore
from fhir_server.traced_store import Cost, Query, TracedStore

PARAMETER = "_explain"


def traced_for(access: Access, store: VersionStore) -> TracedStore:
    """The store to explain a search by. Raises Forbidden for others than administrators: what a search looks at tells
    of what they don't see."""
    if not access.is_administrator:
        raise Forbidden(f"{PARAMETER} is for administrators and for the practice's own systems")
    return TracedStore(store)


def explanation(store: TracedStore) -> dict:
    """The Parameters resource of what was asked of the store."""
    costs = [(query, store.cost(query)) for query in store.queries]
    drivers = [index for query, cost in costs if query.purpose == "matches" for index in cost.indexes]
    found = [
        *([{"name": "driver", "valueString": drivers[0]}] if drivers else []),
        {"name": "roundTrips", "valueInteger": len(costs)},
        {"name": "examined", "valueInteger": sum(cost.documents for _, cost in costs)},
        {"name": "returned", "valueInteger": sum(cost.returned for query, cost in costs if query.purpose != "probe")},
        *(_described(query, cost) for query, cost in costs),
    ]
    return {"resourceType": "Parameters", "parameter": found}


def _described(query: Query, cost: Cost) -> dict:
    part: list[dict] = [
        {"name": "purpose", "valueCode": query.purpose},
        {"name": "type", "valueCode": query.resource_type},
    ]
    part += [{"name": "index", "valueString": index} for index in cost.indexes]
    numbers = {
        "keysExamined": cost.keys,
        "documentsExamined": cost.documents,
        "returned": cost.returned,
        "milliseconds": cost.milliseconds,
    }
    part += [{"name": name, "valueInteger": value} for name, value in numbers.items()]
    return {"name": "query", "part": part}
