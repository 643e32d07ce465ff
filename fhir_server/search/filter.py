"""`_filter`: what each of its tests asks of the keys and ranges of a version.
https://hl7.org/fhir/R4/search_filter.html#ops
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from fhir_server.errors import BadRequest
from fhir_server.index import rules
from fhir_server.index.text import MAX_KEY, escaped, fold
from fhir_server.search.coded import unescape_token
from fhir_server.search.condition import condition, overlapping
from fhir_server.search.filter_grammar import Both, Filter, Not, Step, Test, parse
from fhir_server.search.terms import KEYS, RANGES, UPDATED, Asked, Condition
from fhir_server.search.values import bad_value, unescape

# What meets the rest of a chain, on a type, given other conditions that hold as well.
Meet = Callable[[str, Sequence[Condition]], Condition]


class Chains(Protocol):
    """Follows chains: the planner."""

    def asked(self, resource_type: str, code: str, modifier: str, value: str) -> Asked:
        """Raises UnknownParameter."""

    def linked(self, resource_type: str, name: str, knows: Callable[[str], bool], meet: Meet) -> Condition:
        """What refers to something that meets the rest."""

    def linked_back(self, resource_type: str, source: str, by: str, meet: Meet) -> Condition:
        """What something refers to that meets the rest."""


def filtered(resource_type: str, text: str, chains: Chains) -> Condition:
    """Raises BadRequest, UnknownParameter, Forbidden, TooCostly."""
    return _Reading(chains).of(resource_type, parse(text))


class _Reading:
    def __init__(self, chains: Chains) -> None:
        self._chains = chains

    def of(self, resource_type: str, filter: Filter) -> Condition:
        if isinstance(filter, Not):
            return Condition({"$nor": [self.of(resource_type, filter.filter).filter]})
        if isinstance(filter, Both):
            left, right = self.of(resource_type, filter.left), self.of(resource_type, filter.right)
            return _both(left, right) if filter.is_and else _either(left, right)
        return self._test(resource_type, filter, filter.links)

    def _test(self, resource_type: str, test: Test, links: tuple[Step, ...]) -> Condition:
        if not links:
            return _tested(self._chains, resource_type, test)
        first, *rest = links

        def meet(type: str, _given: Sequence[Condition]) -> Condition:
            met = self._test(type, test, tuple(rest))
            return met if first.where is None else _both(self.of(type, first.where), met)

        if first.reverse:
            return self._chains.linked_back(resource_type, first.name, first.by, meet)
        following = rest[0] if rest else None
        wanted = test.name if following is None else following.name.partition(":")[0]

        def knows(type: str) -> bool:
            return (following is not None and following.reverse) or wanted in rules(type)

        return self._chains.linked(resource_type, first.name, knows, meet)


def _both(left: Condition, right: Condition) -> Condition:
    index = min((one.index for one in (left, right) if one.index), key=_SELECTIVE.index, default=None)
    return Condition({"$and": [left.filter, right.filter]}, index)


def _either(left: Condition, right: Condition) -> Condition:
    return Condition({"$or": [left.filter, right.filter]}, left.index if left.index == right.index else None)


_SELECTIVE = (KEYS, UPDATED, RANGES)


def _tested(chains: Chains, resource_type: str, test: Test) -> Condition:
    asked = replace(chains.asked(resource_type, test.name, "", test.value), value=_searched(test))
    type = asked.parameter.type
    if test.operator == "pr":
        return condition(replace(asked, modifier="missing", value=_absent(test)))
    if test.operator in _MODIFIED.get(type, {}):
        return condition(replace(asked, modifier=_MODIFIED[type][test.operator]))
    if test.operator == "re" and type != "reference":
        raise BadRequest(f"_filter: re is for references, and {test.name[:80]!r} is none")
    if test.operator in _PREFIXES and type in ("date", "number", "quantity"):
        return condition(replace(asked, value=f"{test.operator}{asked.value}"))
    if test.operator == "po" and type == "date" and test.name != "_lastUpdated":
        return overlapping(asked)
    if type in ("string", "uri") and test.operator in ("eq", "ne", "co", "sw", "ew"):
        return _text(asked, test)
    if test.operator in ("eq", "re") and type in ("token", "reference", "composite", "special"):
        return condition(asked)
    if test.operator == "ne" and type in ("token", "reference"):
        return _unequal(asked)
    raise BadRequest(f"_filter: {test.operator} cannot be asked of {test.name[:80]!r}, which is of type {type}")


_PREFIXES = frozenset("eq ne gt lt ge le ap sa eb".split())
_MODIFIED: Mapping[str, Mapping[str, str]] = {"token": {"ss": "below", "sb": "above", "in": "in"}}


def _searched(test: Test) -> str:
    """The value as a search parameter has it: of a filter it is one, so that a comma separates nothing."""
    signs = r"[\\,|$]" if test.is_string and test.operator in ("co", "sw", "ew") else r"(?<!\\),"
    return re.sub(signs, lambda sign: f"\\{sign[0]}", test.value)


def _absent(test: Test) -> str:
    if test.value not in ("true", "false"):
        raise bad_value("_filter", "true or false behind pr")
    return "false" if test.value == "true" else "true"


def _text(asked: Asked, test: Test) -> Condition:
    """An item of the set that is, is not, has in it, begins or ends with this text."""
    code = re.escape(asked.parameter.code)
    plain = test.value if test.is_string else unescape(test.value)
    text = fold(plain) if asked.parameter.type == "string" else plain
    if not text or len(text) > MAX_KEY - len(asked.parameter.code) - 1:
        raise bad_value("_filter", f"text of at most {MAX_KEY - len(code) - 1} characters behind {test.operator}")
    found = re.escape(text)
    patterns = {
        "eq": f"^{code}={found}$",
        "ne": f"^{code}=(?!{found}$)",
        "co": f"^{code}=.*{found}",
        "sw": f"^{code}={found}",
        "ew": f"^{code}=.*{found}$",
    }
    return Condition({"keys": {"$regex": patterns[test.operator]}}, KEYS)


_BARE = re.compile(r"exists\(\)|\.telecom\b")  # what is found without a system though it is no plain code


def _unequal(asked: Asked) -> Condition:
    """An item of the set that is another one. Of the keys of a coding, the one with system and code is the item."""
    code = re.escape(asked.parameter.code)
    if asked.parameter.type == "reference":
        equal = condition(asked).filter["keys"]
        same = "|".join(re.escape(key) for key in (equal["$in"] if isinstance(equal, dict) else [equal]))
        return Condition({"keys": {"$regex": f"^(?!(?:{same})$){code}="}}, KEYS)
    parts = [re.escape(escaped(part)) for part in unescape_token(asked.name, asked.value)]
    system = r"(?:[^|\\]|\\.)*"
    if asked.is_plain or _BARE.search(asked.parameter.expression):
        return Condition({"keys": {"$regex": f"^{code}=(?!{parts[-1]}$)"}}, KEYS)
    if len(parts) == 1:
        return Condition({"keys": {"$regex": rf"^{code}={system}\|(?!{parts[0]}$)."}}, KEYS)
    if not parts[1]:
        return Condition({"keys": {"$regex": rf"^{code}=(?!{parts[0]}\|){system}\|."}}, KEYS)
    return Condition({"keys": {"$regex": rf"^{code}=(?!{parts[0]}\|{parts[1]}$){system}\|."}}, KEYS)
