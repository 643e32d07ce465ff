"""Criteria of R4's own Subscriptions: a search, held against each version without asking the store.
http://hl7.org/fhir/R4/subscription.html

Every create and update that the search would find is an event. What needs a look at other resources, or a
terminology, is refused.
"""

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import conformance
from conformance import Topic
from fhir_server.index import official_rules
from fhir_server.search.condition import modifiers
from subscriptions import filters
from subscriptions.filters import BadFilter, Clause

CRITERIA = re.compile(r"(?P<type>[A-Z][A-Za-z]{1,63})(\?(?P<query>.*))?", re.DOTALL)
# Their versions are not matched (Subscriptions make the matching itself), or cannot be searched.
NOT_WATCHED = frozenset({"Subscription", "Binary"})


def is_plain(criteria: object) -> bool:
    """Whether it has the form of a search: `Observation?code=...`."""
    return isinstance(criteria, str) and CRITERIA.fullmatch(criteria) is not None


def parse(criteria: str, base_url: str) -> tuple[Topic, list[Clause]]:
    """What a search asks for, as a topic of its own with its clauses. Raises BadFilter."""
    match = CRITERIA.fullmatch(criteria)
    resource_type = match["type"] if match else ""
    if resource_type not in conformance.resource_types() or resource_type in NOT_WATCHED:
        raise BadFilter(f"'{resource_type}' cannot be watched")
    query = match["query"] if match else ""
    topic = _topic(criteria, resource_type)
    return topic, filters.parse(f"{resource_type}?{query}", topic, base_url) if query else []


def _topic(criteria: str, resource_type: str) -> Topic:
    return Topic(
        url=criteria,
        name="",
        title="",
        description="",
        resource_type=resource_type,
        interactions=frozenset({"create", "update"}),
        watched=(),
        statuses=frozenset(),
        filters=_offered(resource_type),
    )


@cache
def _offered(resource_type: str) -> Mapping[str, tuple[str, ...]]:
    """Parameters of the type with their modifiers, as a search has them."""
    offered = {code: modifiers(resource_type, rule) for code, rule in official_rules(resource_type).items()}
    return MappingProxyType(offered | dict.fromkeys(filters.WORDS, ()))
