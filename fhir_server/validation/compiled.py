"""Checks compiled from the R4 StructureDefinitions: one function a structure, made when it is first met.

Each walks an object once, by a table from the names of JSON members to functions; nothing but a fault costs more.
https://hl7.org/fhir/R4/json.html
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import conformance
from conformance.structures import ElementDefinition, StructureDefinition, invariants, structure
from fhir_server.errors import Unprocessable
from fhir_server.validation import bindings, extensions, targets
from fhir_server.validation.invariants import INVARIANTS, Invariant
from fhir_server.validation.narrative import narrative_fault
from fhir_server.validation.primitives import MAX_STRING, PRIMITIVES
from fhir_server.validation.run import MAX_DEPTH, Run, member

Value = Any
Check = Callable[[Value, str, Run], None]  # the value of an element, its FHIRPath
Member = Callable[[Value, dict, str, Run], None]  # the value of a JSON member, the object around it, its FHIRPath

# Beyond the elements of their definition.
_ALSO: Mapping[str, Check] = {"Extension": extensions.check, "Reference": targets.check_contained}


@cache
def check_of(name: str) -> Check:
    """The check of the structure with this name: a resource type, a data type or a part such as `Patient.contact`."""
    definition = structure(name)
    if definition is None:
        raise LookupError(f"R4 defines no {name}")
    return _object(definition)


def check_resource(value: Value, path: str, run: Run) -> None:
    """Any resource but a contained one: its `#` references lead to what it contains itself."""
    around, run.contained = run.contained, _contained(value)
    above, run.root = run.root, (value, path)
    _resource(value, path, run)
    run.contained, run.root = around, above


def _resource(value: Value, path: str, run: Run) -> None:
    if not isinstance(value, dict):
        run.fault("structure", "a resource is a JSON object", path)
        return
    resource_type = value.get("resourceType")
    if not isinstance(resource_type, str):
        run.fault("required", "a resource has a resourceType", member(path, "resourceType"))
    elif resource_type not in conformance.resource_types():
        run.fault("structure", "this is no FHIR R4 resource type", member(path, "resourceType"))
    else:
        if "meta" in value:
            run.note_profiles(value, path)
        check_of(resource_type)(value, path, run)


def _contained(resource: Value) -> dict[str, str]:
    found = resource.get("contained") if isinstance(resource, dict) else None
    if not isinstance(found, list):
        return {}
    return {
        each["id"]: each["resourceType"]
        for each in found
        if isinstance(each, dict) and isinstance(each.get("id"), str) and isinstance(each.get("resourceType"), str)
    }


def _object(definition: StructureDefinition) -> Check:
    """The check of an object with these elements."""
    kind = definition.name
    members = _members(definition)
    choices = {
        element.name.removesuffix("[x]"): frozenset(_choice_names(element))
        for element in definition.elements
        if element.is_choice
    }
    required = [
        (_names(element), element.name.removesuffix("[x]")) for element in definition.elements if element.required
    ]
    rules = _rules(definition.rules)
    also = _ALSO.get(kind)

    def check(value: Value, path: str, run: Run) -> None:
        if not isinstance(value, dict):
            run.fault("structure", f"{_json_type(value)} where {kind} is a JSON object", path)
            return
        if not value:
            run.fault("structure", "an empty object; leave out what has no content", path)
            return
        run.depth += 1
        if run.depth > MAX_DEPTH:
            raise Unprocessable(f"the resource is nested deeper than {MAX_DEPTH} levels", path)
        for name, child in value.items():
            known = members.get(name)
            if known is None:
                _unknown(name, kind, choices, path, run)
            else:
                known(child, value, path, run)
        for names, name in required:
            if names.isdisjoint(value):
                run.fault("required", f"{kind} must have {name}", f"{path}.{name}")
        for name, names in choices.items():
            if len(names & value.keys()) > 1:
                run.fault("structure", f"{name} has one type, not several", f"{path}.{name}")
        for key, holds in rules:
            _judge(key, holds, value, path, run)
        if also is not None:
            also(value, path, run)
        run.depth -= 1

    return check


def _members(definition: StructureDefinition) -> dict[str, Member]:
    """JSON name -> what checks it."""
    found: dict[str, Member] = {}
    if definition.kind == "resource":
        found["resourceType"] = lambda *_: None
    for element in definition.elements:
        name = element.name.removesuffix("[x]")
        for type in element.types:
            json_name, path_name = name, name
            if element.is_choice:
                json_name = name + type[0].upper() + type[1:]
                if definition.name == "Parameters.parameter":  # where nothing but the value tells its type
                    path_name = f"{name}.ofType({type})"
            if type in PRIMITIVES:
                primitive = "id" if name == "id" and definition.kind == "resource" else type
                found[json_name] = _primitive(element, primitive, json_name, path_name)
                found[f"_{json_name}"] = _beside_primitive(element.many, json_name, path_name)
            else:
                found[json_name] = _complex(definition.name, element, type, path_name)
                found[f"_{json_name}"] = _beside_complex(path_name)
    return found


def _primitive(element: ElementDefinition, type: str, json_name: str, path_name: str) -> Member:
    is_valid = PRIMITIVES[type]
    codes = bindings.codes(element.binding) if element.binding and type == "code" else None
    url, beside = element.binding, f"_{json_name}"

    def one(child: Value, _owner: dict, path: str, run: Run) -> None:
        if not is_valid(child):
            _invalid(child, type, f"{path}.{path_name}", run)
        elif codes is not None and child not in codes:
            run.fault("code-invalid", bindings.complaint(url, codes), f"{path}.{path_name}")

    def many(child: Value, owner: dict, path: str, run: Run) -> None:
        if not _is_list(child, f"{path}.{path_name}", run):
            return
        for index, item in enumerate(child):
            if item is None:
                if not _has_extension(owner.get(beside), index):
                    run.fault("structure", "null where no extension stands beside", f"{path}.{path_name}[{index}]")
            else:
                if not is_valid(item):
                    _invalid(item, type, f"{path}.{path_name}[{index}]", run)
                elif codes is not None and item not in codes:
                    run.fault("code-invalid", bindings.complaint(url, codes), f"{path}.{path_name}[{index}]")

    return many if element.many else one


def _beside_primitive(many: bool, json_name: str, path_name: str) -> Member:
    """`_birthDate`: id and extensions of a primitive value, which may itself be missing."""

    def one(child: Value, owner: dict, path: str, run: Run) -> None:
        place = f"{path}.{path_name}"
        check_of("Element")(child, place, run)
        if isinstance(child, dict) and child and json_name not in owner and "extension" not in child:
            run.fault("invariant", "ele-1: an element has a value or children", place)

    def several(child: Value, owner: dict, path: str, run: Run) -> None:
        place = f"{path}.{path_name}"
        if not _is_list(child, place, run):
            return
        values = owner.get(json_name)
        values = values if isinstance(values, list) else []
        if not values and all(item is None for item in child):
            run.fault("structure", "nothing but nulls; leave out what has no content", place)
        for index, item in enumerate(child):
            if item is None:
                continue
            check_of("Element")(item, f"{place}[{index}]", run)
            if index >= len(values) and isinstance(item, dict) and item and "extension" not in item:
                run.fault("invariant", "ele-1: an element has a value or children", f"{place}[{index}]")

    return several if many else one


def _beside_complex(path_name: str) -> Member:
    def check(_child: Value, _owner: dict, path: str, run: Run) -> None:
        run.fault("structure", "only a primitive element has a member with _", f"{path}.{path_name}")

    return check


def _complex(owner: str, element: ElementDefinition, type: str, path_name: str) -> Member:
    extras = [*_extras(owner, element, type)]
    inner = _late(element, type)

    def one(child: Value, _owner: dict, path: str, run: Run) -> None:
        place = f"{path}.{path_name}"
        inner(child, place, run)
        if extras and isinstance(child, dict):
            for extra in extras:
                extra(child, place, run)

    def many(child: Value, _owner: dict, path: str, run: Run) -> None:
        place = f"{path}.{path_name}"
        if not _is_list(child, place, run):
            return
        for index, item in enumerate(child):
            at = f"{place}[{index}]"
            inner(item, at, run)
            if extras and isinstance(item, dict):
                for extra in extras:
                    extra(item, at, run)

    return many if element.many else one


def _late(element: ElementDefinition, type: str) -> Check:
    """The check of the type, compiled when it is first needed: definitions contain themselves."""
    if type == "Resource":
        return _resource if element.name == "contained" else check_resource
    found: list[Check] = []

    def check(value: Value, path: str, run: Run) -> None:
        if not found:
            found.append(check_of(type))
        found[0](value, path, run)

    return check


def _extras(owner: str, element: ElementDefinition, type: str) -> Iterable[Check]:
    """What an element demands beyond its type: codes, targets, invariants."""
    if element.binding:
        codes = bindings.concepts(element.binding)
        if codes is not None and type in ("Coding", "CodeableConcept"):
            yield bindings.check_of(type, element.binding, codes)
    if type == "Reference" and element.targets:
        yield targets.check_of(owner, element.name, frozenset(element.targets))
    for key, holds in _rules(element.rules):
        yield lambda value, path, run, key=key, holds=holds: _judge(key, holds, value, path, run)  # type: ignore[misc]


def _rules(keys: Iterable[str]) -> list[tuple[str, Invariant]]:
    return [(key, INVARIANTS[key]) for key in keys if key in INVARIANTS]


def _judge(key: str, holds: Invariant, value: dict, path: str, run: Run) -> None:
    """Note a broken invariant. One looks into content that may be misshapen; that is told by another fault."""
    if not run.invariants:
        return
    try:
        verdict = holds(value)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, ArithmeticError):
        return
    if verdict is not True:
        place = f"{path}.{verdict}" if verdict else path
        run.fault("invariant", f"{key.partition('@')[0]}: {invariants()[key]}", place)


def _is_list(child: Value, path: str, run: Run) -> bool:
    if not isinstance(child, list):
        run.fault("structure", f"{_json_type(child)} where the element repeats, so that it is an array", path)
        return False
    if not child:
        run.fault("structure", "an empty array; leave out what has no content", path)
        return False
    return True


def _has_extension(beside: Value, index: int) -> bool:
    if not isinstance(beside, list) or index >= len(beside):
        return False
    return isinstance(beside[index], dict) and bool(beside[index].get("extension"))


def _invalid(value: Value, type: str, path: str, run: Run) -> None:
    if value is None or isinstance(value, dict | list):
        run.fault("structure", f"{_json_type(value)} where a {type} is expected", path)
    elif isinstance(value, str) and len(value) > MAX_STRING and type in ("string", "code", "markdown"):
        run.fault("too-long", f"a {type} may have {MAX_STRING} characters", path)
    elif isinstance(value, str) and type == "xhtml":
        run.fault("invariant", narrative_fault(value) or "this is no narrative", path)
    else:
        run.fault("value", f"this is no valid {type}", path)


def _unknown(name: str, kind: str, choices: Mapping[str, frozenset[str]], path: str, run: Run) -> None:
    for choice in choices:
        if name.removeprefix("_").startswith(choice) and name.removeprefix("_")[len(choice) :][:1].isupper():
            run.fault("structure", f"{choice} of {kind} cannot have this type", f"{path}.{choice}")
            return
    run.fault("structure", f"{kind} has no such element", member(path, name))


def _json_type(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list) else "a plain value"


def _names(element: ElementDefinition) -> frozenset[str]:
    """The JSON names of which one must be there."""
    if element.is_choice:
        return frozenset(_choice_names(element)) | {f"_{name}" for name in _choice_names(element)}
    return frozenset({element.name, f"_{element.name}"})


def _choice_names(element: ElementDefinition) -> list[str]:
    base = element.name.removesuffix("[x]")
    return [base + type[0].upper() + type[1:] for type in element.types]
