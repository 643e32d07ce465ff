"""A profile as a tree of what it demands beyond its type. https://hl7.org/fhir/R4/profiling.html

The differentials of a profile and of the profiles that it is based on are laid over one another, the nearest to R4
first: a constraint may only narrow, so that what comes out demands what the snapshot does beyond R4 itself, against
which every resource is checked anyway. Where a base is not known, the snapshot stands for the differentials.

Anybody may send a profile: what is wrong in it ends in `Unusable`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhirpath.nodes import members

MAX_ELEMENTS = 3_000  # of all differentials of a chain
MAX_LEVELS = 30
MAX_RESLICES = 5
MANY = 2**31
MAX_VALUE_SET = "http://hl7.org/fhir/StructureDefinition/elementdefinition-maxValueSet"


class Unusable(ValueError):
    """The profile is no definition that resources can be checked against."""


@dataclass(frozen=True, slots=True)
class TypeRule:
    """profiles: of which the value must meet one. targets: of which what a reference leads to must meet one."""

    code: str
    profiles: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """required: the value set that must be met. advised: the one whose codes should be used (extensible)."""

    required: str | None
    advised: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    key: str
    human: str
    expression: str
    severity: str


@dataclass(frozen=True, slots=True)
class Slicing:
    """discriminators: (type, path) each. rules: open, closed or openAtEnd."""

    discriminators: tuple[tuple[str, str], ...]
    rules: str
    ordered: bool


@dataclass(slots=True, eq=False)
class Element:
    """What is demanded of one element, or of a slice of it.

    name: `value` for `value[x]`; of a slice too. kind: the R4 type whose members its children are, where it is known.
    """

    name: str
    kind: str | None = None
    slice_name: str | None = None
    minimum: int = 0
    maximum: int = MANY
    types: tuple[TypeRule, ...] = ()
    fixed: Any = None
    pattern: Any = None
    binding: Binding | None = None
    rules: list[Rule] = field(default_factory=list)
    slicing: Slicing | None = None
    max_length: int | None = None
    lowest: tuple[str, Any] | None = None  # (type, value)
    highest: tuple[str, Any] | None = None
    children: dict[str, "Element"] = field(default_factory=dict)
    slices: dict[str, "Element"] = field(default_factory=dict)
    shortened: tuple[TypeRule, ...] = ()  # the types of a choice that were written as `valueQuantity`
    matchers: Any = None  # what `slicing` makes of the slices when they are first met


def build(type: str, chain: Sequence[list[dict]]) -> Element:
    """The tree of the differentials of a chain, the one nearest to R4 first. Raises Unusable."""
    root = Element(type, type)
    total = 0
    for elements in chain:
        total += len(elements)
        if total > MAX_ELEMENTS:
            raise Unusable(f"more than {MAX_ELEMENTS} elements")
        previous: list[tuple[str, str | None]] = []
        for definition in elements:
            steps = _steps(definition, previous)
            previous = steps
            _read(_place(root, steps), definition)
    _settle(root)
    return root


def _settle(element: Element) -> None:
    """A choice that was written with some of its types only, and not sliced, has no others."""
    if element.shortened and not element.types and element.slicing is None:
        element.types = element.shortened
    for below in (*element.children.values(), *element.slices.values()):
        _settle(below)


def _steps(definition: dict, previous: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """(element, slice) of each level. By the id, which says all; without one by what came before."""
    path, id = definition.get("path"), definition.get("id")
    if not isinstance(path, str) or not path:
        raise Unusable("an element without path")
    names = path.split(".")
    if len(names) > MAX_LEVELS:
        raise Unusable(f"more than {MAX_LEVELS} levels")
    if isinstance(id, str):
        found = [_split(part) for part in id.split(".")]
        told = definition.get("sliceName")
        if [name for name, _ in found] == names and (told is None or found[-1][1] == told):
            return found
    steps: list[tuple[str, str | None]] = []
    for level, name in enumerate(names[:-1]):
        same = level < len(previous) and previous[level][0] == name and steps == previous[:level]
        steps.append(previous[level] if same else (name, None))
    return [*steps, (names[-1], definition.get("sliceName"))]


def _split(part: str) -> tuple[str, str | None]:
    name, _, slice = part.partition(":")
    return name, slice or None


def _place(root: Element, steps: list[tuple[str, str | None]]) -> Element:
    element = root
    for written, slice in steps[1:]:
        name, type = _element_name(element.kind, written)
        if name not in element.children:
            known = members(element.kind).get(name, ()) if element.kind else ()
            if element.kind and not known:
                raise Unusable(f"{element.kind} has no element {written[:60]}")
            element.children[name] = Element(name, known[0][1] if len(known) == 1 else None)
        element = element.children[name]
        if type is not None and slice is None:  # short for `value[x]` of this type, and constraints of that
            slice = written
            if all(rule.code != type for rule in element.shortened):
                element.shortened += (TypeRule(type, (), ()),)
        parts = slice.split("/") if slice else []
        if len(parts) > MAX_RESLICES:
            raise Unusable(f"slices of slices more than {MAX_RESLICES} deep")
        for part in parts:
            if part not in element.slices:
                made = Element(name, element.kind, part)
                if type is not None:
                    made.kind, made.types = type, (TypeRule(type, (), ()),)
                element.slices[part] = made
            element = element.slices[part]
    return element


def _element_name(kind: str | None, written: str) -> tuple[str, str | None]:
    """The name of the element; and the type, where a choice is written with one of its types."""
    if written.endswith("[x]"):
        return written.removesuffix("[x]"), None
    if kind is not None and written not in members(kind):
        for name, known in members(kind).items():
            for json_name, type in known:
                if json_name == written and len(known) > 1:
                    return name, type
    return written, None


def _read(element: Element, definition: dict) -> None:
    """Narrow the element by what a definition says."""
    if isinstance(definition.get("min"), int):
        element.minimum = max(element.minimum, definition["min"])
    most = definition.get("max")
    if isinstance(most, str) and most.isdecimal() and len(most) < 10:
        element.maximum = min(element.maximum, int(most))
    types = tuple(_type_rules(definition.get("type", ())))
    if types:
        element.types = types
        if len(types) == 1 and types[0].code not in ("BackboneElement", "Element") and members(types[0].code):
            element.kind = types[0].code
    for name, value in definition.items():
        if name.startswith("fixed"):
            element.fixed = value
        elif name.startswith("pattern"):
            element.pattern = value
        elif name.startswith("minValue"):
            element.lowest = _typed(name.removeprefix("minValue"), value)
        elif name.startswith("maxValue"):
            element.highest = _typed(name.removeprefix("maxValue"), value)
    if isinstance(definition.get("maxLength"), int):
        element.max_length = definition["maxLength"]
    if "binding" in definition:
        element.binding = _binding(definition["binding"]) or element.binding
    for constraint in definition.get("constraint", ()):
        rule = Rule(
            constraint.get("key", ""),
            constraint.get("human", ""),
            constraint.get("expression", ""),
            constraint.get("severity", "error"),
        )
        if rule.expression and rule not in element.rules and rule.key not in ("ele-1", "ext-1"):
            element.rules.append(rule)
    if "slicing" in definition:
        element.slicing = _slicing(definition["slicing"])
    if element.name in ("extension", "modifierExtension") and element.slice_name:
        _name_by_url(element)


def _typed(type: str, value: Any) -> tuple[str, Any]:
    return type[:1].lower() + type[1:], value


def _type_rules(types: Sequence[dict]) -> Iterator[TypeRule]:
    for given in types:
        code = given.get("code", "")
        if code and not code.startswith("http://hl7.org/fhirpath/"):
            yield TypeRule(code, tuple(given.get("profile", ())), tuple(given.get("targetProfile", ())))


def _binding(given: dict) -> Binding | None:
    strength, url = given.get("strength"), given.get("valueSet")
    limits = [one.get("valueCanonical") for one in given.get("extension", ()) if one.get("url") == MAX_VALUE_SET]
    if strength == "required" and url:
        return Binding(url, None)
    limit = limits[0] if limits else None
    advised = url if strength == "extensible" else None
    return Binding(limit, advised) if limit or advised else None


def _slicing(given: dict) -> Slicing:
    discriminators = tuple((one.get("type", ""), one.get("path", "")) for one in given.get("discriminator", ()))
    return Slicing(discriminators, given.get("rules", "open"), given.get("ordered") is True)


def _name_by_url(slice: Element) -> None:
    """An extension is told by its url, which its slice may give by nothing but its definition."""
    profiles = [url for type in slice.types for url in type.profiles]
    if profiles and "url" not in slice.children:
        slice.children["url"] = Element("url", "uri", fixed=profiles[0].partition("|")[0])
