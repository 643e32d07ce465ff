"""From a SearchParameter resource to the rules that it makes. https://hl7.org/fhir/R4/searchparameter.html

Compiled by the same compiler as the official ones, and refused with the element at fault when that cannot be, or when
it could cost more than a resource's other parameters together.
"""

import re
from collections.abc import Callable
from typing import Any

import conformance
from conformance import SearchParameter
from conformance.structures import structure
from fhir_server.errors import Issue, Unprocessable
from fhir_server.index import ENCODERS, SPANS, Rule, component_of, official_rules
from fhir_server.index.path import Compiled, Unsupported, compile_path

MAX_EXPRESSION = 1000  # characters
MAX_DEPTH = 4  # of parentheses, such as conditions within conditions
MAX_ALTERNATIVES = 20
_NO_DOMAIN_RESOURCES = frozenset({"Binary", "Bundle", "Parameters"})
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9\-_]{0,63}")
_PLAIN = re.compile(r"[A-Z][A-Za-z]+(?:\.[a-z][A-Za-z]*)+")


def rules_of(resource: dict) -> dict[str, Rule]:
    """Type -> the rule that an active SearchParameter makes for it; empty for an inactive or official one.

    Raises Unprocessable, with every fault.
    """
    if resource.get("status") != "active" or is_official(resource):
        return {}
    code, type, expression = resource.get("code"), resource.get("type"), resource.get("expression")
    issues: list[Issue] = []

    def refuse(element: str, text: str) -> None:
        issues.append(Issue("not-supported", text, f"SearchParameter.{element}"))

    types = _types(resource.get("base"))
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        refuse("code", "a code of a letter and up to 63 letters, digits, - and _")
    if not isinstance(type, str) or type not in (*ENCODERS, *SPANS, "composite"):
        refuse("type", "this type of parameter cannot be indexed here")
    for name in types:
        if isinstance(code, str) and code in official_rules(name):
            refuse("code", f"{name} has an official parameter of this code")
    components = _components(resource, refuse) if type == "composite" else ()
    if fault := _too_costly(expression):
        refuse("expression", fault)
    if issues or not isinstance(expression, str):
        raise _refusal(issues)
    made = {}
    for name in types:
        own = _part_for(name, expression, alone=len(types) == 1)
        path = _compiled(name, own, refuse)
        if path is not None:
            targets = tuple(target for target in resource.get("target", ()) if isinstance(target, str))
            parameter = SearchParameter(
                str(code), str(type), own, targets, str(resource.get("url")), _definitions(components)
            )
            single = type == "date" and _is_single(name, own)
            made[name] = Rule(parameter, path, single, components)
    if issues:
        raise _refusal(issues)
    return made


def is_official(resource: dict) -> bool:
    """Whether it is the definition of a parameter that is here anyhow."""
    url = resource.get("url")
    return any(rule.parameter.url == url for name in _types(resource.get("base")) for rule in _official(name))


def _official(resource_type: str) -> list[Rule]:
    return list(official_rules(resource_type).values())


def _types(base: Any) -> list[str]:
    """The concrete types that the bases stand for; validation has seen to it that these are types."""
    every = conformance.resource_types()
    found: set[str] = set()
    for name in base if isinstance(base, list) else ():
        if name == "Resource":
            found |= every
        elif name == "DomainResource":
            found |= every - _NO_DOMAIN_RESOURCES
        elif name in every:
            found.add(name)
    return sorted(found)


def _too_costly(expression: Any) -> str | None:
    """Why an expression is not even compiled."""
    if not isinstance(expression, str) or not expression.strip():
        return "an expression tells where its values are"
    if len(expression) > MAX_EXPRESSION:
        return f"too costly: an expression may have {MAX_EXPRESSION} characters"
    depth = deepest = 0
    for sign in expression:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        return f"too costly: parentheses may be {MAX_DEPTH} deep"
    if expression.count("|") >= MAX_ALTERNATIVES:
        return f"too costly: an expression may have {MAX_ALTERNATIVES} alternatives"
    return None


def _compiled(resource_type: str, expression: str, refuse: Callable[[str, str], None]) -> Compiled | None:
    try:
        path = compile_path(expression, resource_type)
    except (Unsupported, IndexError):
        refuse("expression", "this FHIRPath cannot be indexed: paths, |, as, where(), exists(), extension() can")
        return None
    for alternative in _alternatives(expression):
        plain = alternative.strip("() ")
        if _PLAIN.fullmatch(plain) and not _leads_somewhere(resource_type, plain):
            refuse("expression", f"{resource_type} has no element {plain.partition('.')[2]!r}")
    return path


def _leads_somewhere(resource_type: str, path: str) -> bool:
    base, *names = path.split(".")
    if base not in (resource_type, "Resource", "DomainResource"):
        return False
    return _elements(resource_type, names) is not None


def _is_single(resource_type: str, expression: str) -> bool:
    """Whether a resource has one value at most: a plain path on which nothing repeats."""
    plain = expression.strip("() ")
    if not _PLAIN.fullmatch(plain):
        return False
    found = _elements(resource_type, plain.split(".")[1:])
    return found is not None and not any(found)


def _elements(resource_type: str, names: list[str]) -> list[bool] | None:
    """Of each element on the path, whether it repeats; None when there is no such path."""
    found: list[bool] = []
    type: str | None = resource_type
    for name in names:
        definition = structure(type) if type else None
        if definition is None:
            return None
        bases = {element.name.removesuffix("[x]"): element for element in definition.elements}
        element = bases.get(name)
        if element is None:
            choices = [one for base, one in bases.items() if one.is_choice and name.startswith(base)]
            return [*found, True] if choices else None
        found.append(element.many)
        type = element.types[0] if len(element.types) == 1 else None
    return found


def _part_for(resource_type: str, expression: str, alone: bool) -> str:
    """The alternatives that are about this type."""
    if alone:
        return expression
    about = (resource_type, "Resource", "DomainResource")
    own = [part for part in _alternatives(expression) if part.lstrip("( ").split(".")[0] in about]
    return " | ".join(own) or expression


def _alternatives(expression: str) -> list[str]:
    """The parts of a union: `A.x | (B.y as C)` -> [`A.x`, `(B.y as C)`]."""
    found, depth, begin, quoted = [], 0, 0, False
    for at, sign in enumerate(expression):
        quoted ^= sign == "'"
        if not quoted:
            depth += (sign == "(") - (sign == ")")
            if sign == "|" and depth == 0:
                found.append(expression[begin:at].strip())
                begin = at + 1
    return [*found, expression[begin:].strip()]


def _components(resource: dict, refuse: Callable[[str, str], None]) -> tuple[tuple[SearchParameter, Compiled], ...]:
    found = []
    for at, part in enumerate(resource.get("component") or ()):
        try:
            component = component_of(part["definition"])
        except Unsupported:
            refuse(f"component[{at}].definition", "the components of a composite are official parameters")
            continue
        fault = _too_costly(part["expression"])
        try:
            path = None if fault else compile_path(part["expression"], None)
        except (Unsupported, IndexError):
            fault, path = "this FHIRPath cannot be indexed", None
        if path is None:
            refuse(f"component[{at}].expression", fault or "")
        else:
            found.append((component, path))
    if not found:
        refuse("component", "a composite has components")
    return tuple(found)


def _definitions(components: tuple[tuple[SearchParameter, Compiled], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((parameter.url, parameter.expression) for parameter, _ in components)


def _refusal(issues: list[Issue]) -> Unprocessable:
    return Unprocessable("this parameter cannot be searched by", issues=issues)
