"""From parameters to conditions, chains and `_has` resolved to ids on the way, and to the index to go by.
https://hl7.org/fhir/R4/search.html#chaining
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import conformance
from fhir_server.errors import BadRequest
from fhir_server.index import Rule, rules
from fhir_server.search.condition import KEYS, RANGES, UPDATED, Asked, Condition, condition
from fhir_server.search.order import Part
from fhir_server.search.request import unknown
from fhir_server.search.sight import Sight
from fhir_server.search.values import TooCostly, UnknownParameter
from fhir_server.store import Page
from fhir_server.version import Version

MAX_CHAINED = 10_000  # resources that one link of a chain may lead through
FEW = 2000  # matches that are put in order in memory rather than by walking an index in that order
_SELECTIVE = (KEYS, UPDATED, RANGES)  # indexes that find matches, the one that does best first

Ids = TypeVar("Ids", list[str], set[str])


class Planner:
    """Makes the conditions of one search. Every link of a chain is searched as its caller may."""

    def __init__(self, sight: Sight, base_url: str) -> None:
        self._sight = sight
        self._base_url = base_url

    def condition(self, resource_type: str, name: str, value: str, given: Sequence[Condition] = ()) -> Condition:
        """given: conditions that hold as well; a chain that leads through too much is followed from what meets them.

        Raises UnknownParameter, BadRequest, Forbidden, TooCostly.
        """
        if name.startswith("_has:"):
            return self._reverse_chain(resource_type, name, value, given)
        head, dot, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        rule = rules(resource_type).get(code)
        if rule is None:
            raise unknown(resource_type, code)
        if dot:
            return self._chain(resource_type, rule, modifier, rest, value, given)
        return condition(Asked(resource_type, rule, modifier, value, self._base_url))

    def page(self, resource_type: str, conditions: Sequence[Condition], part: Part, limit: int) -> Page:
        """Matches in the order of the part, by the index that finds them when they are few, else by the one that
        has them in that order."""
        index = self._index_for(resource_type, conditions, part)
        return self._sight.page(resource_type, conditions, part.sort, limit, index)

    def walk(self, resource_type: str, conditions: Sequence[Condition], part: Part) -> Iterator[Version]:
        """All matches in the order of the part, by the same choice of index."""
        index = self._index_for(resource_type, conditions, part)
        return self._sight.walk(resource_type, conditions, part.sort, index)

    def index_of(self, conditions: Sequence[Condition]) -> str:
        """For matches in no order: the index that finds them."""
        indexes = {condition.index for condition in conditions}
        return next((index for index in _SELECTIVE if index in indexes), KEYS)

    def _index_for(self, resource_type: str, conditions: Sequence[Condition], part: Part) -> str:
        in_order = part.index if self._sight.has_index(resource_type, part.index) else KEYS
        by_index: dict[str, list[Condition]] = {KEYS: []} if self._sight.is_scoped else {}
        for one in conditions:
            if one.index is not None:
                by_index.setdefault(one.index, []).append(one)
        if by_index.keys() <= {in_order}:
            return in_order
        for index in _SELECTIVE:
            if index in by_index and self._sight.few(resource_type, by_index[index], index, FEW):
                return index
        return in_order

    def _chain(
        self, resource_type: str, rule: Rule, modifier: str, rest: str, value: str, given: Sequence[Condition]
    ) -> Condition:
        """`subject:Patient.family=x`: what refers to a resource that meets the rest."""
        keys: list[str] = []
        for type in self._types(rule, modifier, rest):
            leading = f"{rule.parameter.code}={type}/"

            def referred(leading: str = leading) -> Condition:
                ids = self._sight.tails(resource_type, given, leading, MAX_CHAINED + 1, self.index_of(given))
                return _one_of(f"_id={id}" for id in _checked(ids))

            met = self._met(type, rest, value, referred if self._narrows(given) else None)
            keys += [leading + id for id in _checked(self._sight.ids(type, met, MAX_CHAINED + 1, self.index_of(met)))]
        return _one_of(keys)

    def _reverse_chain(self, resource_type: str, name: str, value: str, given: Sequence[Condition]) -> Condition:
        """`_has:Observation:patient:code=x`: what is referred to by a resource that meets the rest."""
        _, source, code, rest = (*name.split(":", 3), "", "", "")[:4]
        if source not in conformance.resource_types() or not rest:
            raise UnknownParameter("_has is written _has:Type:reference:parameter")
        rule = rules(source).get(code)
        if rule is None or rule.parameter.type != "reference":
            raise UnknownParameter(f"{source} has no reference parameter {code[:80]!r}")
        self._sight.require(source)
        leading = f"{code}={resource_type}/"

        def referring() -> Condition:
            ids = self._sight.ids(resource_type, given, MAX_CHAINED + 1, self.index_of(given))
            return _one_of(leading + id for id in _checked(ids))

        met = self._met(source, rest, value, referring if self._narrows(given) else None)
        ids = self._sight.tails(source, met, leading, MAX_CHAINED + 1, self.index_of(met))
        return _one_of(f"_id={id}" for id in sorted(_checked(ids)))

    def _met(
        self, resource_type: str, name: str, value: str, from_here: Callable[[], Condition] | None
    ) -> list[Condition]:
        """What the resources at the far end of a link meet. from_here: that they are linked to the near end, which
        is asked for only when they are too many otherwise."""
        try:
            met = [self.condition(resource_type, name, value)]
            if from_here is None or self._sight.few(resource_type, met, self.index_of(met), MAX_CHAINED):
                return met
        except TooCostly:
            if from_here is None:
                raise
        linked = from_here()
        return [linked, self.condition(resource_type, name, value, [linked])]

    def _types(self, rule: Rule, modifier: str, rest: str) -> list[str]:
        """The types that a link of a chain leads to."""
        code = rule.parameter.code
        if rule.parameter.type != "reference":
            raise BadRequest(f"{code!r} is no reference, so nothing can be chained to it")
        targets = rule.parameter.targets or tuple(sorted(conformance.resource_types()))
        if modifier and modifier not in targets:
            raise BadRequest(f"{code!r} leads to {', '.join(targets)}, and to nothing else")
        types = [type for type in ([modifier] if modifier else targets) if self._knows(type, rest)]
        if not types:
            raise UnknownParameter(f"nothing that {code!r} leads to can be searched by {rest[:80]!r} here")
        if len(types) == 1:
            self._sight.require(types[0])
            return types
        return self._sight.searchable_types(types)

    def _knows(self, resource_type: str, name: str) -> bool:
        """Whether the type has the parameter that the rest of a chain begins with."""
        return name.startswith("_has:") or name.partition(".")[0].partition(":")[0] in rules(resource_type)

    def _narrows(self, given: Sequence[Condition]) -> bool:
        return self._sight.is_scoped or any(one.index is not None for one in given)


def _one_of(keys: Iterable[str]) -> Condition:
    return Condition({"keys": {"$in": list(keys)}}, KEYS)


def _checked(ids: Ids) -> Ids:
    if len(ids) > MAX_CHAINED:
        raise TooCostly(f"a link of the chain leads through more than {MAX_CHAINED} resources; narrow the search")
    return ids
