"""From parameters to conditions, chains and `_has` resolved to ids on the way, and to the index to go by.
https://hl7.org/fhir/R4/search.html#chaining
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import conformance
from fhir_server.errors import BadRequest
from fhir_server.index import Indexer, Rule, rules
from fhir_server.search.condition import condition
from fhir_server.search.driver import index_for, index_of, page_of
from fhir_server.search.filter import Meet, filtered
from fhir_server.search.listed import listed
from fhir_server.search.order import Order, Part, Position, position_of, sortable
from fhir_server.search.request import COMMON, NEVER, unknown
from fhir_server.search.sight import Sight
from fhir_server.search.sorting import MAX_SORTED, Sorting
from fhir_server.search.terms import KEYS, Asked, Condition, Vocabulary
from fhir_server.search.values import TooCostly, TooManyLinked, UnknownParameter
from fhir_server.search.words import worded
from fhir_server.store import Page
from fhir_server.version import Version

MAX_CHAINED = 10_000  # resources that one link of a chain may lead through
FEW_CHAINED = 500  # resources from whichever end of a link they are, that it is simply followed from

Ids = TypeVar("Ids", list[str], set[str])


class Planner:
    """Makes the conditions of one search. Every link of a chain is searched as its caller may."""

    def __init__(
        self, sight: Sight, base_url: str, vocabulary: Vocabulary | None = None, most: int | None = None
    ) -> None:
        """most: resources that one link of a chain may lead through; as many as can be, unless told otherwise."""
        self._most = MAX_CHAINED if most is None else min(most, MAX_CHAINED)
        self._sight = sight
        self._base_url = base_url
        self._vocabulary = vocabulary

    def condition(self, resource_type: str, name: str, value: str, given: Sequence[Condition] = ()) -> Condition:
        """given: conditions that hold as well; a chain that leads through too much is followed from what meets them.

        Raises UnknownParameter, BadRequest, Forbidden, TooCostly.
        """
        if name.startswith("_has:"):
            return self._reverse_chain(resource_type, name, value, given)
        head, dot, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        if dot:

            def meet(type: str, given: Sequence[Condition]) -> Condition:
                return self.condition(type, rest, value, given)

            return self.linked(resource_type, head, lambda type: _knows(type, rest), meet, given)
        if name in COMMON:
            return self._common(resource_type, name, value)
        if name in NEVER:
            raise UnknownParameter(f"{name} is not offered here: {NEVER[name]}")
        return condition(self.asked(resource_type, code, modifier, value))

    def asked(self, resource_type: str, code: str, modifier: str, value: str) -> Asked:
        """One parameter of a type. Raises UnknownParameter."""
        rule = rules(resource_type).get(code)
        if rule is None:
            raise unknown(resource_type, code)
        return Asked(resource_type, rule, modifier, value, self._base_url, self._vocabulary)

    def _common(self, resource_type: str, name: str, value: str) -> Condition:
        """Parameters of every type that look at no element. Raises BadRequest, Forbidden, TooCostly."""
        if name == "_filter":
            return filtered(resource_type, value, self)
        if name == "_list":
            return listed(self._sight, resource_type, value, self._base_url)
        return worded(name, value)

    def page(
        self, resource_type: str, conditions: Sequence[Condition], part: Part, behind: Sequence[Condition], limit: int
    ) -> Page:
        """Matches of the part, in its order. behind: where they begin."""
        bounds = [*part.conditions, *behind]
        met = [*conditions, *bounds]
        return page_of(self._sight, resource_type, met, part, bounds, limit)

    def meeting(self, resource_type: str, ids: Sequence[str], filters: Iterable[tuple[str, str]]) -> set[str]:
        """Those of the few resources that meet the filters, of which each is followed from them.

        Raises BadRequest, Forbidden, TooCostly.
        """
        conditions = [_one_of(f"_id={id}" for id in ids)]
        for name, value in filters:
            conditions.append(self.condition(resource_type, name, value, conditions))
        return set(self._sight.ids(resource_type, conditions, len(ids), KEYS))

    def sorted_page(
        self,
        resource_type: str,
        conditions: Sequence[Condition],
        sorting: Sorting,
        position: Position | None,
        limit: int,
    ) -> Page:
        """The matches behind a position in an order that no index has. Raises TooCostly where they are too many.

        Where an index has the order of the first rule, it tells as far as what value the page can reach.
        """
        conditions, index = list(conditions), index_of(conditions)
        if not self._sight.up_to(resource_type, conditions, MAX_SORTED, index):
            first = sorting.rules[0]
            if first.code not in sortable(resource_type):
                raise TooCostly(f"more than {MAX_SORTED} resources would have to be put in order; narrow the search")
            order = Order(first.code, first.direction)
            part = order.parts()[0]
            reach = self._reach_back if sorting.backward else self._reach
            conditions += reach(resource_type, conditions, order, position, limit)
            index = part.index if self._sight.has_index(resource_type, part.index) else KEYS
            if not self._sight.up_to(resource_type, conditions, MAX_SORTED, index):
                raise TooCostly(f"more than {MAX_SORTED} resources come at the same place of the order")
        behind = sorting.behind(position.value, position.n) if position else None
        return self._sight.sorted_page(resource_type, conditions, sorting, behind, limit, index)

    def _reach(
        self, resource_type: str, conditions: Sequence[Condition], order: Order, position: Position | None, limit: int
    ) -> list[Condition]:
        """Where the value of the order can be on a page: from that of the last match to so many matches on."""
        part = order.parts()[0]
        up, down = ("$gt", "$lt") if order.direction > 0 else ("$lt", "$gt")
        without = {part.field: {"$exists": False}}
        after = position.value[0] if position else None
        if position and after is None:
            return [Condition(without)]
        beyond = [Condition({part.field: {up: after}})] if position else []
        following = self.page(resource_type, conditions, part, beyond, limit).versions
        if len(following) == limit:
            last = position_of(order, following[-1], Indexer(self._base_url)).value
            return [Condition({part.field: {f"{down}e": last} | ({f"{up}e": after} if position else {})})]
        return [Condition({"$or": [{part.field: {f"{up}e": after}}, without]})] if position else []

    def _reach_back(
        self, resource_type: str, conditions: Sequence[Condition], order: Order, position: Position | None, limit: int
    ) -> list[Condition]:
        """The same for a page read backwards: to that of so many matches before, from that of the first match or from
        the end, where those without a value are."""
        part = order.parts()[0].turned
        up, down = ("$gt", "$lt") if part.direction > 0 else ("$lt", "$gt")
        before = position.value[0] if position else None
        beyond = [Condition({part.field: {up: before}})] if before is not None else []
        preceding = self.page(resource_type, conditions, part, beyond, limit).versions
        ends = {f"{down}e": position_of(order, preceding[-1], Indexer(self._base_url)).value} if preceding else {}
        if before is not None:
            return [Condition({part.field: {f"{up}e": before} | (ends if len(preceding) == limit else {})})]
        without = {part.field: {"$exists": False}}
        if len(preceding) == limit:
            return [Condition({"$or": [{part.field: ends}, without]})]
        return []

    def walk(self, resource_type: str, conditions: Sequence[Condition], part: Part) -> Iterator[Version]:
        """All matches in the order of the part, by the same choice of index."""
        index = index_for(self._sight, resource_type, conditions, part)
        return self._sight.walk(resource_type, conditions, part.sort, index)

    def linked(
        self,
        resource_type: str,
        name: str,
        knows: Callable[[str], bool],
        meet: Meet,
        given: Sequence[Condition] = (),
    ) -> Condition:
        """`subject:Patient.family=x`: what refers by `name` to a resource that meets the rest."""
        code, _, modifier = name.partition(":")
        rule = self.asked(resource_type, code, "", "").rule
        keys: list[str] = []
        types, unknown_to = self._types(rule, modifier, knows), 0
        for type in types:
            leading = f"{rule.parameter.code}={type}/"

            def referred(leading: str = leading) -> Condition:
                ids = self._sight.tails(resource_type, given, leading, self._most + 1, index_of(given))
                return _one_of(f"_id={id}" for id in self._checked(ids))

            try:
                met = self._met(type, meet, self._near_end(resource_type, given, referred))
            except UnknownParameter:
                unknown_to += 1
                if unknown_to == len(types):
                    raise
                continue  # a link that the rest cannot follow
            keys += [leading + id for id in self._checked(self._sight.ids(type, met, self._most + 1, index_of(met)))]
        return _one_of(keys)

    def _reverse_chain(self, resource_type: str, name: str, value: str, given: Sequence[Condition]) -> Condition:
        """`_has:Observation:patient:code=x`: what is referred to by a resource that meets the rest."""
        _, source, code, rest = (*name.split(":", 3), "", "", "")[:4]
        if source not in conformance.resource_types() or not rest:
            raise UnknownParameter("_has is written _has:Type:reference:parameter")

        def meet(type: str, given: Sequence[Condition]) -> Condition:
            return self.condition(type, rest, value, given)

        return self.linked_back(resource_type, source, code, meet, given)

    def linked_back(
        self, resource_type: str, source: str, by: str, meet: Meet, given: Sequence[Condition] = ()
    ) -> Condition:
        """What a resource of the type `source`, which meets the rest, refers to by its parameter `by`."""
        rule = rules(source).get(by)
        if rule is None or rule.parameter.type != "reference":
            raise UnknownParameter(f"{source[:80]} has no reference parameter {by[:80]!r}")
        self._sight.require(source)
        leading = f"{by}={resource_type}/"

        def referring() -> Condition:
            ids = self._sight.ids(resource_type, given, self._most + 1, index_of(given))
            return _one_of(leading + id for id in self._checked(ids))

        met = self._met(source, meet, self._near_end(resource_type, given, referring))
        ids = self._sight.tails(source, met, leading, self._most + 1, index_of(met))
        return _one_of(f"_id={id}" for id in sorted(self._checked(ids)))

    def _near_end(
        self, resource_type: str, given: Sequence[Condition], linked: Callable[[], Condition]
    ) -> "_NearEnd | None":
        """The way into a link from what meets the given conditions; None where these narrow nothing."""
        if not self._sight.narrows(resource_type) and all(one.index is None for one in given):
            return None

        def is_small() -> bool:
            index = index_of(given)
            narrowing = [one for one in given if one.index == index]
            return self._sight.few(resource_type, narrowing, index, FEW_CHAINED)

        return _NearEnd(linked, is_small)

    def _met(self, resource_type: str, meet: Meet, near: "_NearEnd | None") -> list[Condition]:
        """What the resources at the far end of a link meet. near: that they are linked to the near end is asked for
        when that has few, and they are not; or when they are too many otherwise."""
        try:
            met = [meet(resource_type, ())]
            if near is None:
                return met
            index = index_of(met)
            if self._sight.few(resource_type, met, index, FEW_CHAINED):
                return met
            if not near.is_small() and self._sight.few(resource_type, met, index, self._most):
                return met
        except TooCostly:
            if near is None:
                raise
        linked = near.linked()
        return [linked, meet(resource_type, [linked])]

    def _checked(self, ids: Ids) -> Ids:
        if len(ids) > self._most:
            raise TooManyLinked(
                f"a link of the chain leads through more than {self._most} resources; narrow the search"
            )
        return ids

    def _types(self, rule: Rule, modifier: str, knows: Callable[[str], bool]) -> list[str]:
        """The types that a link of a chain leads to."""
        code = rule.parameter.code
        if rule.parameter.type != "reference":
            raise BadRequest(f"{code!r} is no reference, so nothing can be chained to it")
        targets = rule.parameter.targets or tuple(sorted(conformance.resource_types()))
        if modifier and modifier not in targets:
            raise BadRequest(f"{code!r} leads to {', '.join(targets)}, and to nothing else")
        types = [type for type in ([modifier] if modifier else targets) if knows(type)]
        if not types:
            raise UnknownParameter(f"nothing that {code!r} leads to can be searched by what follows it here")
        if len(types) == 1:
            self._sight.require(types[0])
            return types
        return self._sight.searchable_types(types)


@dataclass(frozen=True, slots=True)
class _NearEnd:
    """linked: that what is at the far end is linked to what is at this one. is_small: whether few are."""

    linked: Callable[[], Condition]
    is_small: Callable[[], bool]


def _knows(resource_type: str, name: str) -> bool:
    """Whether the type has the parameter that the rest of a chain begins with."""
    first = name.partition(".")[0].partition(":")[0]
    return first == "_has" or first in COMMON or first in rules(resource_type)


def _one_of(keys: Iterable[str]) -> Condition:
    return Condition({"keys": {"$in": list(keys)}}, KEYS)
