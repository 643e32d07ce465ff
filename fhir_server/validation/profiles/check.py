"""An element against what a profile demands of it. https://hl7.org/fhir/R4/profiling.html"""

from collections.abc import Sequence
from typing import Any

from fhir_server.fhirpath.evaluate import holds
from fhir_server.fhirpath.nodes import Node, children, is_a
from fhir_server.fhirpath.parse import Unsupported
from fhir_server.fhirpath.values import compare
from fhir_server.validation.profiles.advice import complaint
from fhir_server.validation.profiles.content import has_pattern, is_fixed
from fhir_server.validation.profiles.judgement import MAX_RECURSION, Judgement, codings
from fhir_server.validation.profiles.slicing import matcher_of, slicing_of
from fhir_server.validation.profiles.tree import Element, Rule, TypeRule

_UNNAMED = "@default"  # the slice of all that is in no other


def check_profile(node: Node, url: str, run: Judgement) -> bool | None:
    """Tell every fault of the element against a profile; None when the profile is not known.

    A profile that is met again in the same element, by way of references or of itself, is taken to hold there.
    """
    profile = run.profile(url)
    if profile is None:
        return None
    key = (id(node.value), profile.url)
    if key in run.active:
        return True
    if profile.type != node.type and not is_a(node.type, profile.type):
        run.tell("structure", f"the profile {profile.url[:200]} is one of {profile.type}", node.path)
        return False
    run.active.add(key)
    before = len(run.issues)
    try:
        if profile.root is not None:
            check_element(profile.root, node, run)
    finally:
        run.active.discard(key)
    return not any(issue.severity == "error" for issue in list(run.issues)[before:])


def conforms(node: Node, url: str, run: Judgement) -> bool | None:
    """Whether it meets the profile, without telling of faults; None when the profile is not known."""
    with run.on_trial():
        return check_profile(node, url, run)


def check_element(element: Element, node: Node, run: Judgement) -> None:
    run.work.spend()
    run.depth += 1
    if run.depth > MAX_RECURSION:
        run.work.spend(run.work.left + 1)
    around = run.around
    if isinstance(node.value, dict) and node.type == node.value.get("resourceType"):
        run.around = node
    try:
        _check_value(element, node, run)
        for child in element.children.values():
            _check_child(child, node, run)
    finally:
        run.around = around
        run.depth -= 1


def _check_value(element: Element, node: Node, run: Judgement) -> None:
    if element.types:
        _check_types(element.types, node, run)
    if element.fixed is not None and not is_fixed(node.value, element.fixed, run.work):
        run.tell("value", f"the profile fixes this to another value{_quoted(element.fixed)}", node.path)
    if element.pattern is not None and not has_pattern(node.value, element.pattern, run.work):
        run.tell("value", f"the profile demands a value with a pattern{_quoted(element.pattern)}", node.path)
    if element.binding is not None:
        _check_binding(element, node, run)
    if element.max_length is not None and isinstance(node.value, str) and len(node.value) > element.max_length:
        run.tell("too-long", f"the profile allows {element.max_length} characters", node.path)
    for limit, sign in ((element.lowest, -1), (element.highest, 1)):
        if limit is not None and (compare(node, Node(limit[1], limit[0])) or 0) * sign > 0:
            run.tell("value", f"the profile allows no {'smaller' if sign < 0 else 'larger'} value", node.path)
    for rule in element.rules:
        _check_rule(node, rule, run)


def _check_rule(node: Node, rule: Rule, run: Judgement) -> None:
    try:
        broken = not holds(rule.expression, node, run.context(node))
    except Unsupported:
        text = f"{rule.key[:60]} of the profile cannot be evaluated here"
        run.tell("not-supported", text, node.path, "information")
        return
    if broken:
        severity = "warning" if rule.severity == "warning" else "error"
        run.tell("invariant", f"{rule.key[:60]}: {' '.join(rule.human.split())[:300]}", node.path, severity)


def _check_types(rules: Sequence[TypeRule], node: Node, run: Judgement) -> None:
    """Of the types allowed, the value has one; and meets a profile of it, where any is named."""
    fitting = [rule for rule in rules if is_a(node.type, rule.code)]
    if not fitting:
        if node.type != "Resource":  # of an unknown type, which is another fault
            names = " or ".join(sorted({rule.code for rule in rules}))[:200]
            run.tell("structure", f"the profile allows {names} here", node.path)
        return
    if all(rule.profiles for rule in fitting):
        _check_one_of([url for rule in fitting for url in rule.profiles], node, run, "the element")
    if node.type == "Reference" and all(rule.targets for rule in fitting):
        _check_target([url for rule in fitting for url in rule.targets], node, run)


def _check_target(urls: list[str], node: Node, run: Judgement) -> None:
    found = run.target_type(node)
    types = {url: run.type_of(url) for url in urls}
    if found is None or None in types.values():
        return  # it does not tell, or what it may lead to is not known
    possible = [url for url, type in types.items() if type is not None and is_a(found, type)]
    if not possible:
        names = ", ".join(sorted({str(type) for type in types.values()}))
        run.tell("structure", f"a reference to {found} where {names[:200]} is expected", f"{node.path}.reference")
        return
    target = run.resolve(node)
    if target is not None:
        around, run.around = run.around, target
        _check_one_of(possible, target, run, "what the reference leads to")
        run.around = around


def _check_one_of(urls: list[str], node: Node, run: Judgement, what: str) -> None:
    """One profile tells its own faults; of several, one must be met."""
    if len(urls) == 1:
        if check_profile(node, urls[0], run) is None:
            run.unknown(urls[0], node.path)
        return
    verdicts = [conforms(node, url, run) for url in urls]
    if True in verdicts:
        return
    if None in verdicts:
        run.unknown(urls[verdicts.index(None)], node.path)
    else:
        run.tell("structure", f"{what} meets none of the profiles {', '.join(urls)[:300]}", node.path)


def _check_binding(element: Element, node: Node, run: Judgement) -> None:
    binding = element.binding
    if binding is None or node.value is None:
        return
    if not codings(node) and isinstance(node.value, dict):
        if binding.required and node.type in ("CodeableConcept", "Coding") and "extension" not in node.value:
            run.tell("code-invalid", f"no code of the value set {binding.required[:200]}", node.path)
        return
    if binding.required and run.in_value_set(node, binding.required) is False:
        run.tell("code-invalid", f"no code of the value set {binding.required[:200]}", node.path)
    elif binding.advised and run.in_value_set(node, binding.advised) is False:
        run.tell("code-invalid", complaint(binding.advised), node.path, "warning")


def _check_child(child: Element, parent: Node, run: Judgement) -> None:
    found = children(parent, child.name)
    _check_count(child, len(found), f"{parent.path}.{child.name}", run)
    for node in found:
        check_element(child, node, run)
    if child.slices:
        _check_slices(child, found, f"{parent.path}.{child.name}", run)


def _check_count(element: Element, count: int, path: str, run: Judgement) -> None:
    what = f"the slice {element.slice_name[:80]}" if element.slice_name else "the element"
    if count < element.minimum:
        needed = "" if element.minimum == 1 else f" {element.minimum} times"
        run.tell("required", f"the profile demands {what}{needed}", path)
    if count > element.maximum:
        allowed = f"{element.maximum} times at most" if element.maximum else "not at all"
        run.tell("structure", f"the profile allows {what} {allowed}", path)


def _check_slices(element: Element, nodes: list[Node], path: str, run: Judgement) -> None:
    slicing = slicing_of(element)
    if element.matchers is None:
        named = [slice for name, slice in element.slices.items() if name != _UNNAMED]
        element.matchers = [(slice, matcher_of(slice, slicing)) for slice in named]
    groups: dict[Element, list[Node]] = {slice: [] for slice in element.slices.values()}
    order = list(groups)
    if any(match is None for _, match in element.matchers):
        text = "the profile does not say how its slices are told from one another"
        run.tell("not-supported", text, path, "information")
        return
    at, others = 0, False
    for node in nodes:
        run.work.spend(len(element.matchers))
        slice = next((slice for slice, match in element.matchers if match(node, run)), element.slices.get(_UNNAMED))
        if slice is None:
            others = True
            if slicing.rules == "closed":
                run.tell("structure", "it is of no slice of the profile, which allows no others", node.path)
            continue
        if slicing.rules == "openAtEnd" and others:
            run.tell("structure", "the profile allows what is of no slice at the end only", node.path)
        if slicing.ordered and order.index(slice) < at:
            run.tell("structure", f"the profile has the slice {slice.slice_name} before this", node.path)
        at = max(at, order.index(slice))
        groups[slice].append(node)
        check_element(slice, node, run)
    for slice, members in groups.items():
        _check_count(slice, len(members), path, run)
        if slice.slices:
            _check_slices(slice, members, path, run)


def _quoted(value: Any) -> str:
    """What a profile, not the resource, says; where it is short."""
    text = str(value) if isinstance(value, str | int | bool) else ""
    return f" ({text[:80]})" if text else ""
