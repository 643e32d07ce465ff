"""One search parameter as a condition on stored versions. https://hl7.org/fhir/R4/search.html#modifiers"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import conformance
from conformance import SearchParameter
from fhir_server.errors import BadRequest
from fhir_server.index import BASE, Rule, encode, rules, ucum
from fhir_server.index.spans import WIDE, Span
from fhir_server.index.text import MAX_KEY, bounded, fold
from fhir_server.references import RELATIVE
from fhir_server.search.coded import called, implied, token, token_key
from fhir_server.search.near import near
from fhir_server.search.ranges import approximate, date_bounds, number_bounds
from fhir_server.search.terms import KEYS, MAX_SCANS, RANGES, UPDATED, Asked, Condition, any_of, having
from fhir_server.search.values import bad_value, date_value, number_value, split, unescape
from fhir_server.search.window import Window, both, window
from fhir_server.validation import ID

__all__ = [
    "KEYS",
    "MAX_SCANS",
    "RANGES",
    "UPDATED",
    "Asked",
    "Condition",
    "condition",
    "merged",
    "modifiers",
    "overlapping",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*:.+", re.DOTALL)
_MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "token": ("not", "text", "in", "not-in", "below", "above", "of-type", "missing"),
    "reference": ("identifier", "text", "below", "above", "missing"),
    "string": ("exact", "contains", "text", "missing"),
    "uri": ("below", "above", "missing"),
    "date": ("missing",),
    "number": ("missing",),
    "quantity": ("missing",),
    "composite": ("missing",),
    "special": ("missing",),
}


def condition(asked: Asked) -> Condition:
    """Raises BadRequest for a modifier that is not offered and for values that cannot be read."""
    parameter, modifier = asked.parameter, asked.modifier
    typed = parameter.type == "reference" and modifier in (parameter.targets or conformance.resource_types())
    offered = modifiers(asked.resource_type, asked.rule)
    if modifier and modifier not in offered and not (typed and not asked.is_plain):
        raise BadRequest(f"{parameter.code!r} does not have this modifier; it has {', '.join(offered)}")
    if modifier == "missing":
        return _missing(asked)
    if parameter.code == "_lastUpdated":
        return any_of([_updated(*date_value(asked.name, value)) for value in asked.values], UPDATED)
    return _OF_TYPE[parameter.type](asked)


def modifiers(resource_type: str, rule: Rule) -> tuple[str, ...]:
    """What a parameter of the type offers, types of what a reference leads to aside."""
    offered = _MODIFIERS[rule.parameter.type]
    if rule.parameter.type not in ("reference", "token"):
        return offered
    asked = Asked(resource_type, rule, "", "", "")
    if rule.parameter.type == "reference":  # a canonical is an address
        return ("below", "above", "missing") if asked.is_plain else ("identifier", "text", "missing")
    if not asked.is_plain:
        return offered
    return ("not", "in", "not-in", "below", "above", "missing") if implied(asked) else ("not", "missing")


def _missing(asked: Asked) -> Condition:
    if asked.value not in ("true", "false"):
        raise bad_value(asked.name, "true or false")
    if asked.parameter.code in ("_id", "_lastUpdated"):  # every resource has them
        return Condition({"keys": {"$in": []}} if asked.value == "true" else {})
    marker = f"+{asked.parameter.code}"
    return Condition({"keys": {"$ne": marker}}) if asked.value == "true" else Condition({"keys": marker}, KEYS)


def _reference(asked: Asked) -> Condition:
    code = asked.parameter.code
    if asked.modifier == "identifier":
        return having([token_key(f"{code}:identifier", asked.name, value) for value in asked.values])
    if asked.modifier == "text":
        return called(asked)
    if asked.modifier in ("below", "above"):  # of a canonical, which is an address
        return _uri(asked)
    targets = (asked.modifier,) if asked.modifier else asked.parameter.targets
    keys = []
    for value in asked.values:
        keys += [bounded(f"{code}={target}") for target in _targets(asked, targets, unescape(value))]
    return having(keys)


def _targets(asked: Asked, types: tuple[str, ...], value: str) -> list[str]:
    """The references that a value can mean: several when it is an id alone."""
    target = encode.normal(value, asked.base_url)
    if ID.fullmatch(target):
        return [f"{type}/{target}" for type in types or sorted(conformance.resource_types())]
    relative = RELATIVE.fullmatch(target)
    if relative and (
        relative[1] not in conformance.resource_types() or (asked.modifier and relative[1] not in types)
    ):
        raise bad_value(asked.name, f"a reference to {' or '.join(types) or 'a resource'}")
    if not relative and not _ADDRESS.fullmatch(target):
        raise bad_value(asked.name, "a reference: Type/id, id, or an absolute address")
    return [target]


def _string(asked: Asked) -> Condition:
    code, conditions = asked.parameter.code, []
    if asked.modifier == "exact":
        return having([bounded(f"{code}:exact={unescape(value)}") for value in asked.values])
    for value in asked.values:
        folded = fold(unescape(value))
        key = f"{code}={folded}"
        if not folded or len(key) > MAX_KEY:
            raise bad_value(asked.name, f"text of at most {MAX_KEY - len(code) - 1} characters")
        if asked.modifier == "text":
            conditions.append({"keys": {"$regex": f"^{re.escape(code)}={_words(folded)}"}})
        elif asked.modifier == "contains":
            conditions.append({"keys": {"$regex": f"^{re.escape(code)}=.*{re.escape(folded)}"}})
        else:
            conditions.append({"keys": {"$regex": f"^{re.escape(key)}"}})
    return any_of(conditions, KEYS)


def _words(folded: str) -> str:
    """A pattern of a text in which there is, for each of these words, one that begins so."""
    return "".join(rf"(?=(?:.*[^\w])?{re.escape(word)})" for word in folded.split(" "))


def _uri(asked: Asked) -> Condition:
    code, values = asked.parameter.code, [unescape(value) for value in asked.values]
    if asked.modifier == "below":
        inside = [bounded(f"{code}={folder}") for value in values for folder in _inside(value)]
        below = [{"keys": {"$regex": f"^{re.escape(folder)}"}} for folder in inside]
        return any_of([*below, {"keys": {"$in": [bounded(f"{code}={value}") for value in values]}}], KEYS)
    if asked.modifier == "above":
        return having([bounded(f"{code}={parent}") for value in values for parent in _parents(value)])
    return having([bounded(f"{code}={value}") for value in values])


def _inside(address: str) -> list[str]:
    """What all that lies below an address begins with: `a/` below `a`; with a version, `a|1.` below `a|1`."""
    canonical, bar, version = address.rpartition("|")
    return [f"{canonical}|{version}."] if bar and version else [f"{address.rstrip('/')}/"]


def _parents(address: str) -> list[str]:
    """The address itself and all that it lies below, with and without a / at the end; with a version, the versions
    that it belongs to: `a|1.0` and `a|1` of `a|1.0.3`."""
    canonical, bar, version = address.rpartition("|")
    if bar and version:
        numbers = version.split(".")
        return [f"{canonical}|{'.'.join(numbers[:length])}" for length in range(len(numbers), 0, -1)]
    found, at = [address], len(address)
    while (at := address.rfind("/", 0, at)) > 0:
        found += [address[:at], address[: at + 1]]
    return found


def _date(asked: Asked) -> Condition:
    read = [date_value(asked.name, value) for value in asked.values]
    if len(read) > MAX_SCANS:
        raise BadRequest(f"a date parameter may have {MAX_SCANS} values")
    return _within(window(asked.parameter.code, asked.rule.single, read, _now()))


def overlapping(asked: Asked) -> Condition:
    """A date that has at least an instant in common with the one asked for."""
    conditions = []
    for value in asked.values:
        prefix, (start, end) = date_value(asked.name, value)
        if prefix != "eq":
            raise bad_value(asked.name, "a date without a prefix here")
        bounds = {"lo": {"$lt": end}, "hi": {"$gt": start}}
        conditions += [_span(asked.parameter.code, bounds), _span(asked.parameter.code + WIDE, bounds)]
    return any_of(conditions, RANGES)


def _within(dates: Window) -> Condition:
    return Condition(dates.filter, RANGES, dates)


def merged(conditions: Sequence[Condition]) -> list[Condition]:
    """The same, with the conditions on a single date made one, so that the index is read between its two ends."""
    windows: dict[str, Window] = {}
    others: list[Condition] = []
    for one in conditions:
        if one.window is None or not one.window.single:
            others.append(one)
        elif one.window.code in windows:
            windows[one.window.code] = both(windows[one.window.code], one.window)
        else:
            windows[one.window.code] = one.window
    return [*others, *map(_within, windows.values())]


def _number(asked: Asked) -> Condition:
    code = asked.parameter.code
    read = [number_value(asked.name, value) for value in asked.values]
    return any_of([_span(code, number_bounds(prefix, number)) for prefix, number in read], RANGES)


def _quantity(asked: Asked) -> Condition:
    filters = []
    for value in asked.values:
        bounds, based = quantity_bounds(asked.name, value)
        filters.append(_span(asked.parameter.code + BASE if based else asked.parameter.code, bounds))
    return any_of(filters, RANGES)


def quantity_bounds(name: str, value: str, position: str = "", based: str = "") -> tuple[dict, bool]:
    """The bounds of `5.4|system|code`, `5.4||unit` or `5.4`, and whether they are in base units of UCUM.

    based: what the names of fields end with that are in base units.
    """
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) not in (1, 3) or (len(parts) == 3 and not parts[2]):
        raise bad_value(name, "a quantity: number, number|system|code or number||unit")
    prefix, number = number_value(name, parts[0])
    scale = ucum.scale(parts[2]) if len(parts) == 3 and parts[1] == ucum.SYSTEM else None
    if scale is not None:
        position += based
        return number_bounds(prefix, number, position, scale.base) | {f"u{position}": scale.dimension}, True
    bounds = number_bounds(prefix, number, position)
    return bounds | ({f"u{position}": f"{parts[1]}|{parts[2]}"} if len(parts) == 3 else {}), False


def _composite(asked: Asked) -> Condition:
    """Each value has a part for each component, between $; one entry has to meet all of them."""
    conditions = []
    for value in asked.values:
        parts = split(value, "$")
        components = asked.rule.components
        if len(parts) != len(components) or not all(parts):
            raise bad_value(asked.name, f"{len(components)} values joined by $")
        met = [
            _component(asked, component, str(position), part)
            for position, ((component, _), part) in enumerate(zip(components, parts, strict=True))
        ]
        conditions.append({"$and": [*_anchors(asked, parts), _span(asked.parameter.code, {"$and": met})]})
    return any_of(conditions, KEYS)


def _component(asked: Asked, parameter: SearchParameter, position: str, value: str) -> dict:
    field = f"c{position}"
    if parameter.type == "token":
        return {field: token_key("", asked.name, value).removeprefix("=")}
    if parameter.type == "reference":
        component = Asked(asked.resource_type, Rule(parameter, asked.rule.path), "", value, asked.base_url)
        return {field: {"$in": _targets(component, parameter.targets, unescape(value))}}
    if parameter.type == "string":
        return {field: {"$regex": f"^{re.escape(fold(unescape(value)))}"}}
    if parameter.type == "uri":
        return {field: unescape(value)}
    if parameter.type == "date":
        return date_bounds(*date_value(asked.name, value), _now(), position)
    if parameter.type == "quantity":
        return quantity_bounds(asked.name, value, position, BASE)[0]
    return number_bounds(*number_value(asked.name, value), position)


def _anchors(asked: Asked, parts: list[str]) -> list[dict]:
    """Keys that a version has if it has the composite: those of its token components' own parameters."""
    own = {rule.parameter.url: code for code, rule in rules(asked.resource_type).items()}
    return [
        {"keys": token_key(own[component.url], asked.name, part)}
        for (component, _), part in zip(asked.rule.components, parts, strict=True)
        if component.type == "token" and component.url in own
    ] or [{"keys": f"+{asked.parameter.code}"}]


def _updated(prefix: str, span: Span) -> dict:
    """`_lastUpdated` is an instant of whole milliseconds, so its comparisons are simpler."""
    start, end = map(_moment, approximate(span, _now()) if prefix == "ap" else span)
    rows: dict[str, Any] = {
        "eq": {"lu": {"$gte": start, "$lt": end}},
        "ne": {"$or": [{"lu": {"$lt": start}}, {"lu": {"$gte": end}}]},
        "gt": {"lu": {"$gte": end}},
        "lt": {"lu": {"$lt": start}},
        "ge": {"lu": {"$gte": start}},
        "le": {"lu": {"$lt": end}},
        "sa": {"lu": {"$gte": end}},
        "eb": {"lu": {"$lt": start}},
        "ap": {"lu": {"$gte": start, "$lt": end}},
    }
    return rows[prefix]


def _moment(microseconds: int) -> datetime:
    """Rounded up to the millisecond, since nothing lies between two; within what a datetime can hold."""
    try:
        return _EPOCH + timedelta(milliseconds=-(-microseconds // 1000))
    except OverflowError:
        return datetime(9999 if microseconds > 0 else 1, 1, 1, tzinfo=UTC)


def _now() -> int:
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


def _span(code: str, bounds: dict) -> dict:
    return {"r": {"$elemMatch": {"p": code, **bounds}}}


_OF_TYPE: Mapping[str, Callable[[Asked], Condition]] = {
    "token": token,
    "reference": _reference,
    "string": _string,
    "uri": _uri,
    "date": _date,
    "number": _number,
    "quantity": _quantity,
    "composite": _composite,
    "special": near,
}
