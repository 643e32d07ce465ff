"""`_sort` by several parameters, or by one that repeats or is no date. https://hl7.org/fhir/R4/search.html#sort

Of several values of a parameter the one that comes first in the order asked for counts. What has no value comes
last, whichever the direction. The values are read from the search keys of each match, so that nothing is stored for
it; MongoDB then puts the matches in order and keeps no more of them than a page has.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.errors import BadRequest
from fhir_server.index import BASE, Entry, Indexer, rules
from fhir_server.index.spans import WIDE
from fhir_server.paging import PARAMETER
from fhir_server.search.values import bad_value
from fhir_server.version import Version

MAX_RULES = 8
MAX_SORTED = 100_000  # matches that are looked at to put them in order
MAX_WRITTEN = 8000  # characters of a position
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # of the year 9999
_TYPES = ("string", "token", "date", "number", "quantity")
_PLAIN = r"(?:[^|\\]|\\.)*$"  # of the keys of a token, the one with the code alone
_WRITTEN = re.compile(r"(\d{1,19})~([A-Za-z0-9_\-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class SortRule:
    """One parameter of `_sort`. type: of the parameter; direction: 1 or -1."""

    code: str
    type: str
    direction: int

    @property
    def value(self) -> dict:
        """The aggregation expression of a version's value: null when it has none."""
        pick = "$min" if self.direction > 0 else "$max"
        if self.code == "_id":
            return {"$ifNull": ["$id", None]}
        if self.code == "_lastUpdated":
            return {"$ifNull": ["$lu", None]}
        if self.type in ("string", "token"):
            prefix = f"{self.code}="
            keys = {"$filter": {"input": "$keys", "cond": _matches("$$this", prefix, self.type)}}
            values: dict = {"$map": {"input": keys, "in": {"$substrCP": ["$$this", len(prefix), 1000]}}}
            found = {pick: values}
            return found if self.type == "string" else _unescaped(found)
        return {"$ifNull": [*({pick: _begins(names)} for names in self.ranges), None]}

    @property
    def ranges(self) -> list[tuple[str, ...]]:
        """The names of the ranges that count; the later ones where there is none of the earlier."""
        if self.type == "date":
            return [(self.code, self.code + WIDE)]
        return [(self.code + BASE,), (self.code,)] if self.type == "quantity" else [(self.code,)]

    def of(self, version: Version, entry: Entry) -> Any:
        """The same of a version at hand, by what it is found by."""
        pick: Callable = min if self.direction > 0 else max
        if self.code == "_id":
            return version.id
        if self.code == "_lastUpdated":
            return version.last_updated
        if self.type in ("string", "token"):
            pattern = re.compile(_pattern(f"{self.code}=", self.type), re.DOTALL)
            keys = [key[len(self.code) + 1 :] for key in entry.keys if pattern.match(key)]
            found = pick(keys, default=None)
            return found if found is None or self.type == "string" else _plain(found)
        for names in self.ranges:
            begins = [one["lo"] for one in entry.ranges if one["p"] in names]
            if begins:
                return pick(begins)
        return None


@dataclass(frozen=True, slots=True)
class Sorting:
    """An order by several rules; of matches with the same values, by creation as the last rule goes.

    backward: the same order, read from its end.
    """

    rules: tuple[SortRule, ...]
    backward: bool = False

    @property
    def turned(self) -> "Sorting":
        """The same matches, the last one first."""
        return replace(self, backward=not self.backward)

    @property
    def stages(self) -> list[dict]:
        """The aggregation stages that reckon `sv<n>`, the values of each match, and `sm<n>`, whether it has none."""
        values = {f"sv{at}": rule.value for at, rule in enumerate(self.rules)}
        missing = {f"sm{at}": {"$cond": [{"$eq": [f"$sv{at}", None]}, 1, 0]} for at in range(len(self.rules))}
        return [{"$set": values}, {"$set": missing}]

    @property
    def sort(self) -> list[tuple[str, int]]:
        order = [pair for at, rule in enumerate(self.rules) for pair in ((f"sm{at}", 1), (f"sv{at}", rule.direction))]
        turn = -1 if self.backward else 1
        return [(name, turn * direction) for name, direction in (*order, ("n", self.rules[-1].direction))]

    def behind(self, values: Sequence[Any], n: int) -> dict:
        """What the matches behind a position meet, in the fields that are reckoned."""
        equal: dict = {}
        cases: list[dict] = []
        for at, (rule, value) in enumerate(zip(self.rules, values, strict=True)):
            if value is None:
                if self.backward:  # before those without a value come all that have one
                    cases.append({**equal, f"sm{at}": 0})
                equal[f"sm{at}"] = 1
                continue
            following: list[dict] = [{f"sv{at}": {self._beyond(rule): value}}]
            if not self.backward:
                following.append({f"sm{at}": 1})
            cases.append({**equal, "$or": following})
            equal[f"sv{at}"] = value
        return {"$or": [*cases, {**equal, "n": {self._beyond(self.rules[-1]): n}}]}

    def _beyond(self, rule: SortRule) -> str:
        return "$gt" if (rule.direction > 0) != self.backward else "$lt"

    def values_of(self, version: Version, indexer: Indexer) -> tuple[Any, ...]:
        """The values by which this version was put in order."""
        entry = indexer.index(version.resource())
        return tuple(rule.of(version, entry) for rule in self.rules)

    def parse_position(self, text: str) -> tuple[tuple[Any, ...], int]:
        """(values, n). Raises BadRequest unless `written` could have written this for the order."""
        match = _WRITTEN.fullmatch(text) if len(text) <= MAX_WRITTEN else None
        try:
            values = json.loads(base64.urlsafe_b64decode(match[2] + "==")) if match else None
        except (binascii.Error, ValueError, RecursionError):
            values = None
        if match is None or not isinstance(values, list) or len(values) != len(self.rules):
            raise bad_value(PARAMETER, "what the links of a page say")
        n = int(match[1])
        if n >= 2**63:
            raise bad_value(PARAMETER, "what the links of a page say")
        return tuple(_checked(rule, value) for rule, value in zip(self.rules, values, strict=True)), n


def written(values: Sequence[Any], n: int) -> str:
    """A position, as a link carries it."""
    plain = [(one - _EPOCH) // timedelta(milliseconds=1) if isinstance(one, datetime) else one for one in values]
    packed = base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")
    return f"{n}~{packed}"


def parse_sort(resource_type: str, text: str) -> Sorting:
    """Raises BadRequest, which names what can be sorted by."""
    names = text.split(",")
    if len(names) > MAX_RULES:
        raise BadRequest(f"_sort takes {MAX_RULES} parameters at most")
    return Sorting(tuple(_rule(resource_type, name) for name in names))


def sort_codes(resource_type: str) -> list[str]:
    """The parameters that a type can be sorted by."""
    return sorted(code for code, rule in rules(resource_type).items() if rule.parameter.type in _TYPES)


def _rule(resource_type: str, name: str) -> SortRule:
    code, direction = (name[1:], -1) if name.startswith("-") else (name, 1)
    if "." in code or ":" in code:
        raise BadRequest("_sort takes parameters of the type itself; it does not follow chains")
    known = sort_codes(resource_type)
    if code not in known:
        raise BadRequest(f"_sort takes some of {', '.join(known)}; with - before it, the greatest come first")
    return SortRule(code, rules(resource_type)[code].parameter.type, direction)


def _checked(rule: SortRule, value: Any) -> Any:
    """A value of a position. Raises BadRequest unless the rule can have it."""
    fits = isinstance(value, str)
    if rule.code == "_lastUpdated":
        fits = type(value) is int and 0 <= value <= _LAST_MS
        value = _EPOCH + timedelta(milliseconds=value) if fits else None
    elif rule.type == "date":
        fits = type(value) is int and abs(value) < 2**63
    elif rule.type in ("number", "quantity"):
        fits = type(value) is float and not math.isnan(value)
    if value is not None and not fits:
        raise bad_value(PARAMETER, "what the links of a page say")
    return value


def _pattern(prefix: str, type: str) -> str:
    return f"^{re.escape(prefix)}" + (_PLAIN if type == "token" else "")


def _matches(key: str, prefix: str, type: str) -> dict:
    return {"$regexMatch": {"input": key, "regex": _pattern(prefix, type), "options": "s"}}


def _begins(names: Sequence[str]) -> dict:
    """Where the ranges of these names begin."""
    ranges = {"$ifNull": ["$r", []]}
    named = {"$filter": {"input": ranges, "cond": {"$in": ["$$this.p", list(names)]}}}
    return {"$map": {"input": named, "in": "$$this.lo"}}


def _unescaped(value: dict) -> dict:
    r"""A code as it is written: `\|` is a |, and `\\` a \."""
    bars = {"$replaceAll": {"input": value, "find": "\\|", "replacement": "|"}}
    return {"$replaceAll": {"input": bars, "find": "\\\\", "replacement": "\\"}}


def _plain(escaped: str) -> str:
    return escaped.replace("\\|", "|").replace("\\\\", "\\")
