"""One search parameter as a condition on stored versions. https://hl7.org/fhir/R4/search.html#modifiers"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import conformance
from conformance import SearchParameter
from fhir_server.elements import is_primitive
from fhir_server.errors import BadRequest
from fhir_server.index import Rule, encode, rules
from fhir_server.index.spans import Span
from fhir_server.index.text import MAX_KEY, bounded, escaped, fold
from fhir_server.references import RELATIVE
from fhir_server.search.ranges import approximate, date_bounds, number_bounds
from fhir_server.search.values import alternatives, bad_value, date_value, number_value, split, unescape
from fhir_server.search.window import Window, both, window
from fhir_server.validation import ID

KEYS, RANGES, UPDATED = "k", "r", "lu"  # indexes of the store
MAX_SCANS = 100  # values of a parameter that each take a scan of their own
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*:.+", re.DOTALL)
_MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "token": ("not", "of-type", "missing"),
    "reference": ("identifier", "missing"),
    "string": ("exact", "contains", "missing"),
    "uri": ("below", "above", "missing"),
    "date": ("missing",),
    "number": ("missing",),
    "quantity": ("missing",),
    "composite": (),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What a version must meet. index: the one that finds the versions that do; None where none helps.

    window: of a date, where its matches begin.
    """

    filter: dict
    index: str | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One parameter of a search on one type: `code:modifier=value`."""

    resource_type: str
    rule: Rule
    modifier: str
    value: str
    base_url: str

    @property
    def parameter(self) -> SearchParameter:
        return self.rule.parameter

    @property
    def name(self) -> str:
        return f"{self.parameter.code}:{self.modifier}" if self.modifier else self.parameter.code


def condition(asked: Asked) -> Condition:
    """Raises BadRequest for a modifier that is not offered and for values that cannot be read."""
    parameter, modifier = asked.parameter, asked.modifier
    typed = parameter.type == "reference" and modifier in (parameter.targets or conformance.resource_types())
    if modifier and modifier not in _MODIFIERS[parameter.type] and not typed:
        offered = ", ".join(_MODIFIERS[parameter.type]) or "no modifier"
        raise BadRequest(f"{parameter.code!r} does not have this modifier; it has {offered}")
    if modifier == "missing":
        return _missing(asked)
    if parameter.code == "_lastUpdated":
        return _any([_updated(*date_value(asked.name, value)) for value in _values(asked)], UPDATED)
    return _OF_TYPE[parameter.type](asked)


def _values(asked: Asked) -> list[str]:
    return alternatives(asked.name, asked.value)


def _missing(asked: Asked) -> Condition:
    if asked.value not in ("true", "false"):
        raise bad_value(asked.name, "true or false")
    if asked.parameter.code in ("_id", "_lastUpdated"):  # every resource has them
        return Condition({"keys": {"$in": []}} if asked.value == "true" else {})
    marker = f"+{asked.parameter.code}"
    return Condition({"keys": {"$ne": marker}}) if asked.value == "true" else Condition({"keys": marker}, KEYS)


def _token(asked: Asked) -> Condition:
    _check_system(asked)
    if asked.modifier == "of-type":
        return _having([_of_type(asked, value) for value in _values(asked)])
    keys = [token_key(asked.parameter.code, asked.name, value) for value in _values(asked)]
    return Condition({"keys": {"$nin": keys}}) if asked.modifier == "not" else _having(keys)


def _check_system(asked: Asked) -> None:
    """A code without a coding, a boolean or a string has no system beside it: its definition implies one, which is
    not stored. To find nothing by another would be wrong, and with :not it would be everything."""
    if asked.modifier != "of-type" and any(len(split(value, "|")) > 1 for value in _values(asked)):
        paths = asked.parameter.expression.split(" | ")
        if all(is_primitive(asked.resource_type, path.split(".")[1:]) for path in paths):
            raise bad_value(asked.name, "values without a system, since they all have the same")


def token_key(prefix: str, name: str, value: str) -> str:
    """The key of `code`, `system|code`, `|code` or `system|`; the prefix names the parameter, if it is needed."""
    parts = [escaped(unescape(part)) for part in split(value, "|")]
    if len(parts) > 2 or not any(parts):
        raise bad_value(name, r"a token: code, system|code, |code or system|; a | of the code itself is \|")
    return bounded(f"{prefix}={'|'.join(parts)}")


def _of_type(asked: Asked, value: str) -> str:
    parts = [escaped(unescape(part)) for part in split(value, "|")]
    if len(parts) != 3 or not all(parts):
        raise bad_value(asked.name, "system|code|value")
    return bounded(f"{asked.parameter.code}:of-type={'|'.join(parts)}")


def _reference(asked: Asked) -> Condition:
    code = asked.parameter.code
    if asked.modifier == "identifier":
        return _having([token_key(f"{code}:identifier", asked.name, value) for value in _values(asked)])
    targets = (asked.modifier,) if asked.modifier else asked.parameter.targets
    keys = []
    for value in _values(asked):
        keys += [bounded(f"{code}={target}") for target in _targets(asked, targets, unescape(value))]
    return _having(keys)


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
        return _having([bounded(f"{code}:exact={unescape(value)}") for value in _values(asked)])
    for value in _values(asked):
        folded = fold(unescape(value))
        key = f"{code}={folded}"
        if not folded or len(key) > MAX_KEY:
            raise bad_value(asked.name, f"text of at most {MAX_KEY - len(code) - 1} characters")
        if asked.modifier == "contains":
            conditions.append({"keys": {"$regex": f"^{re.escape(code)}=.*{re.escape(folded)}"}})
        else:
            conditions.append({"keys": {"$regex": f"^{re.escape(key)}"}})
    return _any(conditions, KEYS)


def _uri(asked: Asked) -> Condition:
    code, values = asked.parameter.code, [unescape(value) for value in _values(asked)]
    if asked.modifier == "below":
        folders = [f"{code}={value.rstrip('/')}/" for value in values]
        below = [{"keys": {"$regex": f"^{re.escape(bounded(folder))}"}} for folder in folders]
        return _any([*below, {"keys": {"$in": [bounded(f"{code}={value}") for value in values]}}], KEYS)
    if asked.modifier == "above":
        return _having([bounded(f"{code}={parent}") for value in values for parent in _parents(value)])
    return _having([bounded(f"{code}={value}") for value in values])


def _parents(address: str) -> list[str]:
    """The address itself and all that it lies below, with and without a / at the end."""
    found, at = [address], len(address)
    while (at := address.rfind("/", 0, at)) > 0:
        found += [address[:at], address[: at + 1]]
    return found


def _date(asked: Asked) -> Condition:
    read = [date_value(asked.name, value) for value in _values(asked)]
    if len(read) > MAX_SCANS:
        raise BadRequest(f"a date parameter may have {MAX_SCANS} values")
    return _within(window(asked.parameter.code, asked.rule.single, read, _now()))


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
    read = [number_value(asked.name, value) for value in _values(asked)]
    return _any([_span(code, number_bounds(prefix, number)) for prefix, number in read], RANGES)


def _quantity(asked: Asked) -> Condition:
    bounds = [quantity_bounds(asked.name, value) for value in _values(asked)]
    return _any([_span(asked.parameter.code, bound) for bound in bounds], RANGES)


def quantity_bounds(name: str, value: str, position: str = "") -> dict:
    """`5.4|system|code`, `5.4||unit` or `5.4`."""
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) not in (1, 3) or (len(parts) == 3 and not parts[2]):
        raise bad_value(name, "a quantity: number, number|system|code or number||unit")
    bounds = number_bounds(*number_value(name, parts[0]), position)
    return bounds | {f"u{position}": f"{parts[1]}|{parts[2]}"} if len(parts) == 3 else bounds


def _composite(asked: Asked) -> Condition:
    """Each value has a part for each component, between $; one entry has to meet all of them."""
    conditions = []
    for value in _values(asked):
        parts = split(value, "$")
        components = asked.rule.components
        if len(parts) != len(components) or not all(parts):
            raise bad_value(asked.name, f"{len(components)} values joined by $")
        met = [
            _component(asked, component, str(position), part)
            for position, ((component, _), part) in enumerate(zip(components, parts, strict=True))
        ]
        conditions.append({"$and": [*_anchors(asked, parts), _span(asked.parameter.code, {"$and": met})]})
    return _any(conditions, KEYS)


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
        return quantity_bounds(asked.name, value, position)
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


def _having(keys: list[str]) -> Condition:
    keys = list(dict.fromkeys(keys))
    return Condition({"keys": keys[0] if len(keys) == 1 else {"$in": keys}}, KEYS)


def _any(filters: list[dict], index: str | None) -> Condition:
    if len(filters) > MAX_SCANS:
        raise BadRequest(f"of dates, numbers and texts a parameter may have {MAX_SCANS} values")
    return Condition(filters[0] if len(filters) == 1 else {"$or": filters}, index)


_OF_TYPE: Mapping[str, Callable[[Asked], Condition]] = {
    "token": _token,
    "reference": _reference,
    "string": _string,
    "uri": _uri,
    "date": _date,
    "number": _number,
    "quantity": _quantity,
    "composite": _composite,
}
