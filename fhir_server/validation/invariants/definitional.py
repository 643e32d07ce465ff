"""Invariants of definitions: questionnaires, terminology, structures. https://hl7.org/fhir/R4/conformance-module.html"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from fhir_server.validation.invariants.terms import (
    Invariant,
    Verdict,
    any_of,
    distinct,
    has,
    has_choice,
    holds,
    items,
    needs,
)

_WITH_OPTIONS = frozenset("choice open-choice decimal integer date dateTime time string quantity".split())
_WITH_LENGTH = frozenset("boolean decimal integer string text url open-choice".split())
_BOUND = frozenset("code Coding CodeableConcept Quantity string uri".split())
_SLICE = re.compile(r"[a-zA-Z0-9/\-_\[\]@]+")
_PATH_STEP = r"[^\s.,:;'\"/|?!@#$%&*()\[\]{}]{1,64}"
_PATH = re.compile(rf"{_PATH_STEP}(?:\.{_PATH_STEP}(?:\[x\])?(?::[^\s.]+)?)*")


def _que_1(item: dict) -> Verdict:
    nested = has(item, "item")
    return holds(nested if item.get("type") == "group" else item.get("type") != "display" or not nested, "item")


def _not_for(types: tuple[str, ...], *names: str) -> Invariant:
    """Items of these types lack these elements."""

    def check(item: dict) -> Verdict:
        for name in names if item.get("type") in types else ():
            if has(item, name):
                return name
        return True

    return check


def _only_for(types: frozenset[str], *names: str) -> Invariant:
    """Only items of these types have these elements."""

    def check(item: dict) -> Verdict:
        for name in names if item.get("type") not in types else ():
            if has(item, name):
                return name
        return True

    return check


def _que_2(questionnaire: dict) -> Verdict:
    seen = set()
    for path, item in _all_items(questionnaire, ""):
        link = item.get("linkId")
        if link is not None and link in seen:
            return f"{path}.linkId"
        seen.add(link)
    return True


def _all_items(parent: dict, path: str) -> Iterator[tuple[str, dict]]:
    for index, item in enumerate(items(parent, "item")):
        place = f"{path}.item[{index}]" if path else f"item[{index}]"
        yield place, item
        yield from _all_items(item, place)


def _csd_1(code_system: dict) -> Verdict:
    seen: set[str] = set()
    for path, code in _codes(code_system, ""):
        if code in seen:
            return f"{path}.code"
        seen.add(code)
    return True


def _codes(parent: dict, path: str) -> Iterator[tuple[str, str]]:
    for index, concept in enumerate(items(parent, "concept")):
        place = f"{path}.concept[{index}]" if path else f"concept[{index}]"
        yield place, concept["code"]
        yield from _codes(concept, place)


def _cmd_1(target: dict) -> Verdict:
    return holds(has(target, "comment") or target.get("equivalence") not in ("narrower", "inexact"), "comment")


def _cmd_needs(mode: str, name: str) -> Invariant:
    return lambda unmapped: holds(unmapped.get("mode") != mode or has(unmapped, name), name)


def _vsd_2(part: dict) -> Verdict:
    return holds(not (has(part, "concept") or has(part, "filter")) or has(part, "system"), "system")


# Structures


def _elements(structure: dict) -> Iterator[tuple[str, dict]]:
    """Each element of snapshot and differential, and its path."""
    for part in ("snapshot", "differential"):
        for index, element in enumerate(items(structure.get(part, {}), "element")):
            yield f"{part}.element[{index}]", element


def _roots(structure: dict) -> Iterator[tuple[str, dict]]:
    return ((path, element) for path, element in _elements(structure) if "." not in element["path"])


def _unique(part: str, name: str) -> Invariant:
    def check(structure: dict) -> Verdict:
        elements = items(structure.get(part, {}), "element")
        if name == "id" and not all(has(element, "id") for element in elements):
            return f"{part}.element"
        return holds(distinct(element.get(name) for element in elements), f"{part}.element")

    return check


def _sdf_1(structure: dict) -> Verdict:
    return True if structure.get("derivation") == "constraint" else _unique("snapshot", "path")(structure)


def _sdf_9(structure: dict) -> Verdict:
    for path, element in _roots(structure):
        for name in ("label", "code", "requirements"):
            if has(element, name):
                return f"{path}.{name}"
    return True


def _sdf_11(structure: dict) -> Verdict:
    elements = items(structure.get("snapshot", {}), "element")
    if structure.get("kind") == "logical" or not elements:
        return True
    return holds(elements[0].get("path") == structure.get("type"), "snapshot.element[0].path")


def _sdf_14(structure: dict) -> Verdict:
    for path, element in _elements(structure):
        if not has(element, "id"):
            return f"{path}.id"
    return True


def _untyped_first(part: str) -> Invariant:
    def check(structure: dict) -> Verdict:
        elements = items(structure.get(part, {}), "element")
        if structure.get("kind") == "logical" or not elements or "." in elements[0]["path"]:
            return True
        return holds(not has(elements[0], "type"), f"{part}.element[0].type")

    return check


def _no_default(structure: dict) -> Verdict:
    """sdf-22: FHIR's own models never have default values."""
    if not structure.get("url", "").startswith("http://hl7.org/fhir/StructureDefinition"):
        return True
    for path, element in _elements(structure):
        if has_choice(element, "defaultValue"):
            return f"{path}.defaultValue"
    return True


def _sdf_21(structure: dict) -> Verdict:
    if structure.get("derivation") == "specialization":
        return True
    for index, element in enumerate(items(structure.get("differential", {}), "element")):
        if has_choice(element, "defaultValue"):
            return f"differential.element[{index}].defaultValue"
    return True


def _sdf_23(structure: dict) -> Verdict:
    for path, element in _roots(structure):
        if has(element, "sliceName"):
            return f"{path}.sliceName"
    return True


def _all_have(*names: str) -> Invariant:
    def check(part: dict) -> Verdict:
        for index, element in enumerate(items(part, "element")):
            for name in names:
                if not has(element, name):
                    return f"element[{index}].{name}"
        return True

    return check


def _sdf_20(differential: dict) -> Verdict:
    for index, element in enumerate(items(differential, "element")):
        if "." not in element["path"] and has(element, "slicing"):
            return f"element[{index}].slicing"
    return True


def _sdf_8(part: dict) -> Verdict:
    """All paths begin with that of the first element, whose name is checked against the type by sdf-11."""
    elements = items(part, "element")
    root = elements[0]["path"].partition(".")[0] if elements else ""
    for index, element in enumerate(elements[1:], start=1):
        if not element["path"].startswith(f"{root}."):
            return f"element[{index}].path"
    return True


def _sdf_10(element: dict) -> Verdict:
    binding = element.get("binding")
    return holds(binding is None or has(binding, "valueSet") or has(binding, "description"), "binding")


# Elements of structures


def _eld_2(element: dict) -> Verdict:
    low, high = element.get("min"), element.get("max")
    if low is None or high is None or high == "*":
        return True
    return holds(low <= int(high), "max")


def _eld_3(base: dict) -> Verdict:
    high = base.get("max")
    return holds(high is None or high == "*" or high.isdigit(), "max")


def _eld_5(element: dict) -> Verdict:
    if not has(element, "contentReference"):
        return True
    for name in ("type", "example", "maxLength", "binding"):
        if has(element, name):
            return name
    for name in ("defaultValue", "fixed", "pattern", "minValue", "maxValue"):
        if has_choice(element, name):
            return name
    return True


def _one_type(name: str) -> Invariant:
    return lambda element: holds(not has_choice(element, name) or len(items(element, "type")) <= 1, name)


def _both(first: str, second: str) -> Invariant:
    def check(element: dict) -> Verdict:
        present = has_choice(element, first) and (has_choice(element, second) or has(element, second))
        return holds(not present, first)

    return check


def _eld_11(element: dict) -> Verdict:
    codes = {type.get("code") for type in items(element, "type")}
    return holds(not has(element, "binding") or not codes or bool(codes & _BOUND), "binding")


def _eld_12(binding: dict) -> Verdict:
    url = binding.get("valueSet", "http:")
    return holds(url.startswith(("http:", "https:", "urn:", "#")), "valueSet")


def _only_type(name: str) -> Invariant:
    return lambda type: holds(not has(type, name) or type.get("code") in ("Reference", "canonical"), name)


def _eld_18(element: dict) -> Verdict:
    return holds(element.get("isModifier") is not True or has(element, "isModifierReason"), "isModifierReason")


def _nsd_1(system: dict) -> Verdict:
    if system.get("kind") != "root":
        return True
    for index, identifier in enumerate(items(system, "uniqueId")):
        if identifier.get("type") == "uuid":
            return f"uniqueId[{index}].type"
    return True


def _nsd_2(system: dict) -> Verdict:
    return holds(
        distinct(it.get("type") for it in items(system, "uniqueId") if it.get("preferred") is True), "uniqueId"
    )


def _opd_3(parameter: dict) -> Verdict:
    return holds(
        not has(parameter, "targetProfile") or parameter.get("type") in ("Reference", "canonical"), "targetProfile"
    )


def _mea_1(measure: dict) -> Verdict:
    for i, group in enumerate(items(measure, "group")):
        for j, stratifier in enumerate(items(group, "stratifier")):
            single = any(has(stratifier, name) for name in ("code", "description", "criteria"))
            if single == has(stratifier, "component"):
                return f"group[{i}].stratifier[{j}]"
    return True


def _ig_1(definition: dict) -> Verdict:
    known = {grouping.get("id") for grouping in items(definition, "grouping")}
    for index, resource in enumerate(items(definition, "resource")):
        if "groupingId" in resource and resource["groupingId"] not in known:
            return f"resource[{index}].groupingId"
    return True


def _ig_2(guide: dict) -> Verdict:
    for index, resource in enumerate(items(guide.get("definition", {}), "resource")):
        if not set(items(resource, "fhirVersion")) <= set(items(guide, "fhirVersion")):
            return f"definition.resource[{index}].fhirVersion"
    return True


def _md_1(parameter: dict) -> Verdict:
    high = parameter.get("max")
    return holds(high is None or high == "*" or Decimal(high) > 0, "max")


def _sdf_5(structure: dict) -> Verdict:
    extends = structure.get("type") == "Extension" and structure.get("derivation") != "specialization"
    return holds(not extends or has(structure, "context"), "context")


INVARIANTS: Mapping[str, Invariant] = {
    "cmd-1": _cmd_1,
    "cmd-2": _cmd_needs("fixed", "code"),
    "cmd-3": _cmd_needs("other-map", "url"),
    "csd-1": _csd_1,
    "eld-1": any_of("discriminator", "description"),
    "eld-2": _eld_2,
    "eld-3": _eld_3,
    "eld-4": _only_type("aggregation"),
    "eld-5": _eld_5,
    "eld-6": _one_type("fixed"),
    "eld-7": _one_type("pattern"),
    "eld-8": _both("pattern", "fixed"),
    "eld-11": _eld_11,
    "eld-12": _eld_12,
    "eld-13": lambda it: holds(distinct(type.get("code") for type in items(it, "type")), "type"),
    "eld-14": lambda it: holds(distinct(rule.get("key") for rule in items(it, "constraint")), "constraint"),
    "eld-15": _both("defaultValue", "meaningWhenMissing"),
    "eld-16": lambda it: holds("sliceName" not in it or bool(_SLICE.fullmatch(it["sliceName"])), "sliceName"),
    "eld-17": _only_type("targetProfile"),
    "eld-18": _eld_18,
    "eld-19": lambda element: holds(bool(_PATH.fullmatch(element["path"])), "path"),
    "eld-22": needs("sliceIsConstraining", "sliceName"),
    "ig-1": _ig_1,
    "ig-2": _ig_2,
    "md-1": _md_1,
    "mea-1": _mea_1,
    "nsd-1": _nsd_1,
    "nsd-2": _nsd_2,
    "opd-1": any_of("type", "part"),
    "opd-2": lambda it: holds(not has(it, "searchType") or it.get("type") == "string", "searchType"),
    "opd-3": _opd_3,
    "qrs-1": lambda item: holds(not (has(item, "answer") and has(item, "item"))),
    "que-1": _que_1,
    "que-2": _que_2,
    "que-3": _not_for(("display",), "code"),
    "que-4": lambda item: holds(not (has(item, "answerOption") and has(item, "answerValueSet")), "answerValueSet"),
    "que-5": _only_for(_WITH_OPTIONS, "answerValueSet", "answerOption"),
    "que-6": _not_for(("display",), "required", "repeats"),
    "que-7": lambda it: holds(it.get("operator") != "exists" or "answerBoolean" in it, "answer"),
    "que-8": _not_for(("group", "display"), "initial"),
    "que-9": _not_for(("display",), "readOnly"),
    "que-10": _only_for(_WITH_LENGTH, "maxLength"),
    "que-11": lambda item: holds(not (has(item, "answerOption") and has(item, "initial")), "initial"),
    "que-12": lambda it: holds(len(items(it, "enableWhen")) <= 2 or has(it, "enableBehavior"), "enableBehavior"),
    "que-13": lambda it: holds(it.get("repeats") is True or len(items(it, "initial")) <= 1, "initial"),
    "sdf-1": _sdf_1,
    "sdf-2": any_of("name", "uri"),
    "sdf-3": _all_have("definition", "min", "max"),
    "sdf-4": lambda it: holds(it.get("abstract") is True or has(it, "baseDefinition"), "baseDefinition"),
    "sdf-5": _sdf_5,
    "sdf-6": any_of("snapshot", "differential"),
    "sdf-8": _sdf_8,
    "sdf-8a": _sdf_8,
    "sdf-8b": _all_have("base"),
    "sdf-9": _sdf_9,
    "sdf-10": _sdf_10,
    "sdf-11": _sdf_11,
    "sdf-14": _sdf_14,
    "sdf-15": _untyped_first("snapshot"),
    "sdf-15a": _untyped_first("differential"),
    "sdf-16": _unique("snapshot", "id"),
    "sdf-17": _unique("differential", "id"),
    "sdf-18": lambda it: holds(not has(it, "contextInvariant") or it.get("type") == "Extension", "contextInvariant"),
    "sdf-20": _sdf_20,
    "sdf-21": _sdf_21,
    "sdf-22": _no_default,
    "sdf-23": _sdf_23,
    "smp-1": needs("element", "context"),
    "smp-2": needs("context", "contextType"),
    "spd-1": needs("xpath", "xpathUsage"),
    "spd-2": lambda it: holds(not has(it, "chain") or it.get("type") == "reference", "chain"),
    "vsd-1": any_of("valueSet", "system"),
    "vsd-2": _vsd_2,
    "vsd-3": lambda part: holds(not (has(part, "concept") and has(part, "filter")), "filter"),
    "vsd-6": any_of("code", "display"),
    "vsd-9": lambda it: holds(has(it, "code") or it.get("abstract") is True, "code"),
    "vsd-10": needs("code", "system"),
}
