"""Search keys, ranges and sort values of a resource, worked out once when it is written.

Driven by the R4 SearchParameters alone; nothing here knows a resource type.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Any

import conformance
from conformance import SearchParameter
from fhir_server.errors import TooLarge
from fhir_server.index import encode
from fhir_server.index.active import LAYOUT, Added, Offered, added_to
from fhir_server.index.encode import Keys
from fhir_server.index.path import Compiled, Unsupported, compile_path
from fhir_server.index.spans import DAY, WIDE, base_spans, date_spans, near_spans, number_spans, units
from fhir_server.index.words import MAX_WORDS, content_words, narrative_words

# The date parameters whose element repeats, or is in one that does; all others have one value at most.
REPEATING = frozenset(
    {
        ("AllergyIntolerance", "onset"),
        ("CarePlan", "activity-date"),
        ("Composition", "period"),
        ("Encounter", "location-period"),
        ("Goal", "target-date"),
        ("Immunization", "reaction-date"),
        ("MedicationRequest", "date"),
        ("NamingSystem", "period"),
        ("Substance", "expiry"),
    }
)
MAX_ENTRY_BYTES = 3 * 1024 * 1024  # with the largest resource it still fits a MongoDB document
_BSON_OVERHEAD = 13  # bytes of an array element beside its text
_RANGE_BYTES = 100
_FEW = 2000  # keys and ranges that are within bounds whatever they are
TEXT, CONTENT = "_text", "_content"  # parameters that look at words and have no expression
NEAR = "near"  # the one special parameter of R4 that has an expression
BASE = "^"  # after the parameter's name in the range of a quantity in base units

Encoder = Callable[[str, Any, Keys, str], None]
ENCODERS: Mapping[str, Encoder] = {
    "token": encode.token,
    "reference": encode.reference,
    "string": encode.string,
    "uri": encode.uri,
}
SPANS: Mapping[str, Callable[[Any], Any]] = {"date": date_spans, "number": number_spans, "quantity": number_spans}


@dataclass(slots=True)
class Entry:
    """What a version is found by. ranges: {p: parameter, lo, hi, ...}; sorts: date parameter -> lo.

    layout: names the layout and the parameters that it was made by.
    """

    keys: list[str] = field(default_factory=list)
    ranges: list[dict] = field(default_factory=list)
    sorts: dict[str, Any] = field(default_factory=dict)
    layout: str = LAYOUT


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One parameter of one type, compiled.

    single: a date of which a resource has one at most. components: of a composite, (parameter, path) in order.
    """

    parameter: SearchParameter
    path: Compiled
    single: bool = False
    components: tuple[tuple[SearchParameter, Compiled], ...] = ()


class Indexer:
    """Indexes resources of the server at base_url."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def index(self, resource: dict) -> Entry:
        """The entry of a resource. Content of an unexpected shape is passed over.

        Raises TooLarge when there is so much to find it by that it could not be stored.
        """
        added = added_to(resource["resourceType"])
        always, by_element = _plan(resource["resourceType"], added)
        rules = dict.fromkeys(always)
        for element in resource:
            if element in by_element:
                rules |= dict.fromkeys(by_element[element])
        keys: Keys = {}
        entry = Entry(layout=added.layout)
        nodes = [resource]
        for rule in rules:
            values = [value for value in rule.path.walk(nodes, resource) if value is not None]
            if values:
                self._add(rule, values, resource, keys, entry)
        _add_words(resource, keys)
        keys |= self._inner_keys(resource)
        entry.keys = list(keys)
        _check_size(entry)
        return entry

    def sort_value(self, resource: dict, code: str) -> Any:
        """What `index` has under the code in `sorts`, without all else; None where it has nothing."""
        rule = rules(resource["resourceType"]).get(code)
        if rule is None or not rule.single:
            return None
        entry = Entry()
        self._add(
            rule, [value for value in rule.path.walk([resource], resource) if value is not None], resource, {}, entry
        )
        return entry.sorts.get(code)

    def _inner_keys(self, resource: dict) -> Keys:
        """Of contained resources; those of added parameters among them, which nobody may rely on."""
        keys: Keys = {}
        contained = resource.get("contained")
        for one in contained if isinstance(contained, list) else ():
            type = one.get("resourceType") if isinstance(one, dict) else None
            if isinstance(type, str) and type in conformance.resource_types() and "contained" not in one:
                keys |= dict.fromkeys((inner_key(type), *(inner_key(type, key) for key in self.index(one).keys)))
        return keys

    def _add(self, rule: Rule, values: list, resource: dict, keys: Keys, entry: Entry) -> None:
        code, type = rule.parameter.code, rule.parameter.type
        if type in ENCODERS:
            encode_value = ENCODERS[type]
            for value in values:
                encode_value(code, value, keys, self._base_url)
            keys[f"+{code}"] = None
        elif type == "composite":
            found = [made for value in values for made in self._composite(rule, value, resource)]
            if found:
                entry.ranges += found
                keys[f"+{code}"] = None
        elif type == "date":
            if code == "_lastUpdated":
                return  # the store keeps that one itself
            for value in values:
                for lo, hi in date_spans(value):
                    entry.ranges.append({"p": code if hi - lo <= DAY else code + WIDE, "lo": lo, "hi": hi})
                    if rule.single:
                        entry.sorts[code] = lo
            keys[f"+{code}"] = None
        elif type == "special":
            entry.ranges += [{"p": code, "lo": lat, "hi": lon} for value in values for lat, lon in near_spans(value)]
            keys[f"+{code}"] = None
        else:
            for value in values:
                named = units(value) if type == "quantity" else None
                for low, high in number_spans(value):
                    entry.ranges.append({"p": code, "lo": low, "hi": high} | ({"u": named} if named else {}))
                for low, high, dimension in base_spans(value) if type == "quantity" else ():
                    entry.ranges.append({"p": code + BASE, "lo": low, "hi": high, "u": dimension})
            keys[f"+{code}"] = None

    def _composite(self, rule: Rule, value: Any, resource: dict) -> list[dict]:
        """One entry for each combination of the components' values; keys as `c0`, spans as `lo1`, `hi1`, `u1`, and
        in base units as `lo1^`, `hi1^`, `u1^`."""
        made: list[dict] = [{"p": rule.parameter.code}]
        for position, (component, path) in enumerate(rule.components):
            type = component.type
            values = [found for found in path.walk([value], resource) if found is not None]
            parts: list[dict] = []
            if type in ENCODERS:
                keys: Keys = {}
                for found in values:
                    ENCODERS[type]("", found, keys, self._base_url)
                plain = [key.removeprefix("=") for key in keys if key.startswith("=")]
                if plain:
                    parts.append({f"c{position}": plain})
            else:
                for found in values:
                    for lo, hi in SPANS[type](found):
                        span = {f"lo{position}": lo, f"hi{position}": hi}
                        if type == "quantity":
                            span |= {f"u{position}": units(found)} | _based(position, found)
                        parts.append(span)
            made = [before | part for before in made for part in parts]
        return made


def _based(position: int, value: Any) -> dict:
    """A quantity in base units, as a part of a composite."""
    for low, high, dimension in base_spans(value):
        return {f"lo{position}{BASE}": low, f"hi{position}{BASE}": high, f"u{position}{BASE}": dimension}
    return {}


def _add_words(resource: dict, keys: Keys) -> None:
    """`_text=word` for the words of the narrative, `_content=word` for those of all else that are not among them."""
    narrative = dict.fromkeys(islice(narrative_words(resource), MAX_WORDS))
    content = dict.fromkeys(islice(content_words(resource), MAX_WORDS))
    keys |= dict.fromkeys(f"{TEXT}={word}" for word in narrative)
    keys |= dict.fromkeys(f"{CONTENT}={word}" for word in content if word not in narrative)


def inner_key(resource_type: str, key: str = "") -> str:
    """What a resource has for this key of one of the type that it contains; without a key: for containing one."""
    return f"#{resource_type}|{key}" if key else f"#{resource_type}"


def _check_size(entry: Entry) -> None:
    if len(entry.keys) + len(entry.ranges) <= _FEW:
        return
    size = sum(len(key.encode(errors="replace")) + _BSON_OVERHEAD for key in entry.keys)
    if size + _RANGE_BYTES * len(entry.ranges) > MAX_ENTRY_BYTES:
        raise TooLarge("there is more to find this resource by than can be stored")


def rules(resource_type: str) -> Mapping[str, Rule]:
    """The parameters that a type can be searched by, compiled, by code."""
    added = added_to(resource_type)
    return Offered(official_rules(resource_type), added) if added.rules else official_rules(resource_type)


@cache
def official_rules(resource_type: str) -> Mapping[str, Rule]:
    """The R4 parameters of a type that are indexed, compiled, by code."""
    found = {}
    for code, parameter in conformance.search_parameters(resource_type).items():
        try:
            found[code] = _rule(parameter, resource_type)
        except Unsupported:
            continue  # tests/fhir_server/test_index.py lists these; searching by them is refused
    return MappingProxyType(found)


def searchable(resource_type: str) -> list[SearchParameter]:
    """The parameters that resources of the type can be searched by."""
    return [rule.parameter for rule in rules(resource_type).values()]


def _rule(parameter: SearchParameter, resource_type: str) -> Rule:
    known = (*ENCODERS, *SPANS, "composite")
    if parameter.type not in known and parameter.code != NEAR:
        raise Unsupported(parameter.type)
    components = [(component_of(url), compile_path(expression, None)) for url, expression in parameter.components]
    single = parameter.type == "date" and (resource_type, parameter.code) not in REPEATING
    return Rule(parameter, compile_path(parameter.expression, resource_type), single, tuple(components))


def component_of(url: str) -> SearchParameter:
    """The R4 parameter that a component of a composite is. Raises Unsupported."""
    parameter = _by_url().get(url)
    if parameter is None or (parameter.type not in ENCODERS and parameter.type not in SPANS):
        raise Unsupported(url)
    return parameter


@cache
def _by_url() -> Mapping[str, SearchParameter]:
    return {
        parameter.url: parameter
        for resource_type in sorted(conformance.resource_types())
        for parameter in conformance.search_parameters(resource_type).values()
    }


@lru_cache(maxsize=1024)
def _plan(resource_type: str, added: Added) -> tuple[tuple[Rule, ...], Mapping[str, tuple[Rule, ...]]]:
    """The rules to try always, and those to try when an element is there."""
    always: list[Rule] = []
    by_element: dict[str, list[Rule]] = {}
    for rule in (*official_rules(resource_type).values(), *added.rules.values()):
        if rule.path.tops is None:
            always.append(rule)
        for element in rule.path.tops or ():
            by_element.setdefault(element, []).append(rule)
    return tuple(always), {element: tuple(found) for element, found in by_element.items()}
