"""What is in a ValueSet: its expansion, and whether a code is in it.
https://hl7.org/fhir/R4/valueset.html#compositions
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.errors import Unprocessable
from fhir_server.terminology.code_system import CodeSystem, Concept
from fhir_server.terminology.source import Terminology

MAX_CODES = 10_000  # of an expansion
MAX_NESTING = 10  # value sets that draw on one another
MAX_WORK = 300_000  # concepts looked at in one call
_PART = 100  # as much work as finding the code system of an include


class CannotExpand(Unprocessable):
    """A value set that cannot be enumerated here: it is too large, open, or draws on what is not loaded."""

    issue_code = "too-costly"


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One code of a value set. concept: what its code system says of it; None where that is not loaded."""

    system: str
    code: str
    version: str | None = None
    display: str | None = None
    designations: tuple[dict, ...] = ()
    concept: Concept | None = None

    @property
    def abstract(self) -> bool:
        return self.concept is not None and self.concept.abstract

    @property
    def inactive(self) -> bool:
        return self.concept is not None and self.concept.inactive


Members = dict[tuple[str, str], Member]


@dataclass(frozen=True, slots=True)
class Versions:
    """Which version of a code system to use, by its URL. default: where the value set names none; check: it must be
    this one; force: this one, whatever the value set names."""

    default: Mapping[str, str] = field(default_factory=dict)
    check: Mapping[str, str] = field(default_factory=dict)
    force: Mapping[str, str] = field(default_factory=dict)


class Composer:
    """Works out what value sets have in them. used: the code systems it drew on, as `url|version`."""

    def __init__(self, terminology: Terminology, versions: Versions | None = None) -> None:
        self._terminology = terminology
        self._versions = versions or Versions()
        self.used: dict[str, None] = {}
        self._work = 0

    def expand(self, value_set: dict) -> list[Member]:
        """The members, in the order of the definition. Raises CannotExpand."""
        return list(self._expand(value_set, ()).values())

    def find(self, value_set: dict, system: str, code: str) -> Member | None:
        """The member with this code, without enumerating what need not be. Raises CannotExpand."""
        return self._find(value_set, system, code, ())

    def _expand(self, value_set: dict, through: tuple[str, ...]) -> Members:
        through, compose = _entered(value_set, through), value_set.get("compose")
        if compose is None:
            return {(member.system, member.code): member for member in _expanded(value_set)}
        members: Members = {}
        for include in compose.get("include", []):
            for key, member in self._included(include, through).items():
                members.setdefault(key, member)
            if len(members) > MAX_CODES:
                raise CannotExpand(f"the value set has more than {MAX_CODES} codes")
        for exclude in compose.get("exclude", []):
            for key in self._included(exclude, through):
                members.pop(key, None)
        if compose.get("inactive") is False:
            return {key: member for key, member in members.items() if not member.inactive}
        return members

    def _find(self, value_set: dict, system: str, code: str, through: tuple[str, ...]) -> Member | None:
        through, compose = _entered(value_set, through), value_set.get("compose")
        if compose is None:
            found = (one for one in _expanded(value_set) if (one.system, one.code) == (system, code))
            return next(found, None)
        member, fault = None, None
        for include in compose.get("include", []):
            try:
                member = self._in_part(include, system, code, through)
            except CannotExpand as error:
                fault = error  # another part may have it
            if member is not None:
                break
        if member is None:
            if fault is not None:
                raise fault
            return None
        if any(self._in_part(part, system, code, through) for part in compose.get("exclude", [])):
            return None
        return None if compose.get("inactive") is False and member.inactive else member

    def _included(self, part: dict, through: tuple[str, ...]) -> Members:
        """The codes of one include or exclude: those of its system that are in all of its value sets too."""
        self._spend(_PART)
        chosen: Members | None = None
        if "system" in part:
            chosen = {(member.system, member.code): member for member in self._of_system(part)}
        for url in part.get("valueSet", []):
            others = self._expand(self._value_set(url), through)
            chosen = others if chosen is None else {key: one for key, one in chosen.items() if key in others}
        return chosen or {}

    def _in_part(self, part: dict, system: str, code: str, through: tuple[str, ...]) -> Member | None:
        self._spend(_PART)
        member: Member | None = None
        if "system" in part:
            if part["system"] != system:
                return None
            member = self._of_system_with(part, code)
            if member is None:
                return None
        for url in part.get("valueSet", []):
            found = self._find(self._value_set(url), system, code, through)
            if found is None:
                return None
            member = member or found
        return member

    def _of_system(self, part: dict) -> Iterator[Member]:
        code_system = self._code_system(part)
        if "concept" in part:
            for row in part["concept"]:
                if "code" in row:
                    yield _listed(part, row, code_system)
            return
        code_system = _enumerable(part, code_system)
        self._spend(len(code_system) * (1 + len(part.get("filter", []))))
        tests = [_test(code_system, one) for one in part.get("filter", [])]
        for concept in code_system.concepts.values():
            if all(test(concept) for test in tests):
                yield _member(code_system, concept)

    def _of_system_with(self, part: dict, code: str) -> Member | None:
        code_system = self._code_system(part)
        if "concept" in part:
            rows = (row for row in part["concept"] if row.get("code") == code)
            return next((_listed(part, row, code_system) for row in rows), None)
        code_system = _enumerable(part, code_system)
        self._spend(len(code_system) * len(part.get("filter", [])))
        concept = code_system.find(code)
        if concept is None or not all(_test(code_system, one)(concept) for one in part.get("filter", [])):
            return None
        return _member(code_system, concept)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise CannotExpand("the value set is defined in more steps than one call may take")

    def _code_system(self, part: dict) -> CodeSystem | None:
        """The code system of an include, in the version to use; None when that is not loaded."""
        url, versions = part["system"], self._versions
        version = versions.force.get(url) or part.get("version") or versions.default.get(url)
        found = self._terminology.code_system(url, version)
        in_use = found.version if found else version
        if url in versions.check and versions.check[url] != in_use:
            raise Unprocessable(f"{url[:200]} would be used in another version than the one to be checked")
        if in_use:
            self.used[f"{url}|{in_use}"] = None
        return found

    def _value_set(self, url: str) -> dict:
        found = self._terminology.value_set(url)
        if found is None:
            raise CannotExpand(f"it draws on the value set {url[:200]}, which is not loaded here")
        return found


def _entered(value_set: dict, through: tuple[str, ...]) -> tuple[str, ...]:
    url = value_set.get("url", "")
    if (url and url in through) or len(through) >= MAX_NESTING:
        raise CannotExpand(f"value sets draw on one another in a circle, or more than {MAX_NESTING} deep")
    return (*through, url)


def _expanded(value_set: dict) -> Iterator[Member]:
    """The members of a value set that has no definition but an expansion."""
    waiting = deque(value_set.get("expansion", {}).get("contains", []))
    while waiting:
        row = waiting.popleft()
        if "system" in row and "code" in row and not row.get("abstract"):
            designations = tuple(row.get("designation", []))
            yield Member(row["system"], row["code"], row.get("version"), row.get("display"), designations)
        waiting.extendleft(reversed(row.get("contains", [])))


def _listed(part: dict, row: dict, code_system: CodeSystem | None) -> Member:
    """A concept that a value set names, with what it says of it before what the code system says."""
    concept = code_system.find(row["code"]) if code_system else None
    version = code_system.version if code_system else part.get("version")
    display = row.get("display") or (concept.display if concept else None)
    designations = [*row.get("designation", []), *(concept.designations if concept else [])]
    return Member(part["system"], row["code"], version, display, tuple(designations), concept)


def _member(code_system: CodeSystem, concept: Concept) -> Member:
    designations = tuple(concept.designations)
    return Member(code_system.url, concept.code, code_system.version, concept.display, designations, concept)


def _enumerable(part: dict, code_system: CodeSystem | None) -> CodeSystem:
    if code_system is None:
        raise CannotExpand(f"the codes of {part['system'][:200]} are not loaded here")
    if not code_system.is_complete:
        raise CannotExpand(f"not all codes of {part['system'][:200]} are loaded here")
    return code_system


Test = Callable[[Concept], bool]


def _test(code_system: CodeSystem, filter: dict) -> Test:
    """What a filter asks of a concept. https://hl7.org/fhir/R4/valueset-filter-operator.html"""
    name, operator, value = filter.get("property", ""), filter.get("op", ""), filter.get("value", "")
    if name in ("concept", "code") and operator in _HIERARCHY:
        codes = _HIERARCHY[operator](code_system, value)
        return lambda concept: concept.code in codes
    listed = {one.strip() for one in value.split(",")}
    tests: dict[str, Test] = {
        "=": lambda concept: value in _said(concept, name),
        "in": lambda concept: not listed.isdisjoint(_said(concept, name)),
        "not-in": lambda concept: listed.isdisjoint(_said(concept, name)),
        "exists": lambda concept: bool(_said(concept, name)) == (value == "true"),
    }
    if operator not in tests:
        # `regex` among them: a pattern from outside can keep a server busy for ever.
        raise CannotExpand(f"a filter {operator!r} of {name[:64]!r} is not supported here")
    return tests[operator]


_HIERARCHY: Mapping[str, Callable[[CodeSystem, str], set[str]]] = {
    "is-a": lambda system, code: set(system.below(code)),
    "descendent-of": lambda system, code: set(system.below(code)) - {code},
    "is-not-a": lambda system, code: system.concepts.keys() - set(system.below(code)),
    "generalizes": lambda system, code: set(system.above(code)),
}


def _said(concept: Concept, name: str) -> set[str]:
    """The values of a property, the ones that every concept has included."""
    if name in ("concept", "code"):
        return {concept.code}
    if name == "display":
        return {concept.display} if concept.display else set()
    if name == "parent":
        return set(concept.parents)
    if name == "child":
        return set(concept.children)
    return {_plain(value) for value in concept.values(name)}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.get("code", "")) if isinstance(value, dict) else str(value)
