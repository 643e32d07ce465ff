"""Which slice an element belongs to. https://hl7.org/fhir/R4/profiling.html#slicing"""

import re
from collections.abc import Callable, Iterable

from fhir_server.fhirpath.nodes import Node, children, is_a
from fhir_server.validation.profiles.content import has_pattern, is_fixed
from fhir_server.validation.profiles.judgement import Judgement
from fhir_server.validation.profiles.tree import Element, Slicing

Matcher = Callable[[Node, Judgement], bool]
BY_URL = Slicing((("value", "url"),), "open", ordered=False)
BY_TYPE = Slicing((("type", "$this"),), "open", ordered=False)
_STEP = re.compile(
    r"(?:\.|^)(?:(?P<this>\$this)|(?P<resolve>resolve\(\))|ofType\((?P<type>\w+)\)"
    r"|extension\('(?P<url>[^']+)'\)|(?P<name>\w+)(?:\[x\])?)"
)
MAX_STEPS = 8
Steps = tuple[tuple[str, str], ...]


def slicing_of(element: Element) -> Slicing:
    """How the element is sliced; extensions by url and choices by type, where nothing is said of it."""
    if element.slicing is not None and element.slicing.discriminators:
        return element.slicing
    default = BY_URL if element.name in ("extension", "modifierExtension") else BY_TYPE
    if element.slicing is None:
        return default
    usual = default.discriminators if default is BY_URL or _by_type(element) else ()
    return Slicing(usual, element.slicing.rules, element.slicing.ordered)


def _by_type(element: Element) -> bool:
    return bool(element.slices) and all(slice.types or slice.kind for slice in element.slices.values())


def matcher_of(slice: Element, slicing: Slicing) -> Matcher | None:
    """What tells an element of the slice; None where the definition gives nothing to tell it by."""
    if not slicing.discriminators:
        return None
    found: list[Matcher] = []
    for type, path in slicing.discriminators:
        steps = steps_of(path)
        made = None if steps is None else _DISCRIMINATORS.get(type, _nothing)(slice, steps)
        if made is None:
            return None
        found.append(made)
    return lambda node, run: all(match(node, run) for match in found)


def steps_of(path: str) -> Steps | None:
    """The steps of a discriminator; None for a path that is none."""
    steps: list[tuple[str, str]] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or len(steps) > MAX_STEPS:
            return None
        kind = str(match.lastgroup)
        if kind != "this":
            steps.append((kind, match[kind]))
        at = match.end()
    return tuple(steps)


def _nothing(_element: Element, _steps: Steps) -> Matcher | None:
    return None


def _value(element: Element, steps: Steps) -> Matcher | None:
    """By fixed values, patterns and required codes at the path, above it and below it."""
    tests: list[Matcher] = []
    own = _own(element, at_end=not steps)
    if own is not None:
        tests.append(own)
    if steps:
        for target in _targets(element, steps[0]):
            tests += _some(_value(target, steps[1:]), steps[0])
    else:
        for name, child in element.children.items():
            for one in (child, *_needed(child)):
                tests += _some(_value(one, ()), ("name", name))
    return _all(tests)


def _own(element: Element, at_end: bool) -> Matcher | None:
    fixed, pattern, binding = element.fixed, element.pattern, element.binding
    if fixed is not None:
        return lambda node, run: is_fixed(node.value, fixed, run.work)
    if pattern is not None:
        return lambda node, run: has_pattern(node.value, pattern, run.work)
    if at_end and binding is not None and binding.required is not None:
        url = binding.required
        return lambda node, run: run.in_value_set(node, url) is True
    return None


def _type(element: Element, steps: Steps) -> Matcher | None:
    if not steps:
        codes = [rule.code for rule in element.types] or ([element.kind] if element.kind else [])
        return (lambda node, _run: any(is_a(node.type, code) for code in codes)) if codes else None
    if steps == (("resolve", "resolve()"),):
        urls = [url for rule in element.types for url in rule.targets]
        return (lambda node, run: _leads_to(node, urls, run)) if urls else None
    return _along(element, steps, _type)


def _leads_to(node: Node, urls: list[str], run: Judgement) -> bool:
    found = run.target_type(node)
    return found is not None and any(run.type_of(url) in (found, "Resource") for url in urls)


def _profile(element: Element, steps: Steps) -> Matcher | None:
    from fhir_server.validation.profiles.check import conforms  # it needs what is here

    if not steps:
        urls = [url for rule in element.types for url in rule.profiles]
        return (lambda node, run: any(conforms(node, url, run) is True for url in urls)) if urls else None
    if steps == (("resolve", "resolve()"),):
        targets = [url for rule in element.types for url in rule.targets]

        def match(node: Node, run: Judgement) -> bool:
            found = run.resolve(node)
            if found is None:
                return _leads_to(node, targets, run)
            return any(conforms(found, url, run) is True for url in targets)

        return match if targets else None
    return _along(element, steps, _profile)


def _exists(element: Element, steps: Steps) -> Matcher | None:
    if len(steps) != 1:
        return _along(element, steps, _exists) if steps else None
    for target in _targets(element, steps[0]):
        if target.maximum == 0:
            return lambda node, run: not walk(node, steps[0], run)
        if target.minimum > 0:
            return lambda node, run: bool(walk(node, steps[0], run))
    return None


_DISCRIMINATORS: dict[str, Callable[[Element, Steps], Matcher | None]] = {
    "value": _value,
    "pattern": _value,
    "exists": _exists,
    "type": _type,
    "profile": _profile,
}


def _along(element: Element, steps: Steps, rest: Callable[[Element, Steps], Matcher | None]) -> Matcher | None:
    tests: list[Matcher] = []
    for target in _targets(element, steps[0]):
        tests += _some(rest(target, steps[1:]), steps[0])
    return _all(tests)


def _targets(element: Element, step: tuple[str, str]) -> Iterable[Element]:
    """What is demanded of the elements that a step leads to, in slices that must be there too."""
    kind, name = step
    if kind == "url":
        extensions = element.children.get("extension")
        for slice in extensions.slices.values() if extensions else ():
            url = slice.children.get("url")
            if url is not None and url.fixed == name:
                yield slice
    elif kind == "name" and name in element.children:
        yield element.children[name]
        yield from _needed(element.children[name])
    elif kind == "resolve":
        yield element
    elif kind == "type":
        yield element
        yield from (slice for slice in element.slices.values() if slice.kind == name)


def _needed(element: Element) -> list[Element]:
    return [slice for slice in element.slices.values() if slice.minimum > 0]


def walk(node: Node, step: tuple[str, str], run: Judgement) -> list[Node]:
    kind, name = step
    run.work.spend()
    if kind == "resolve":
        found = run.resolve(node)
        return [found] if found else []
    if kind == "type":
        return [node] if is_a(node.type, name) else []
    if kind == "url":
        extensions = children(node, "extension")
        return [one for one in extensions if isinstance(one.value, dict) and one.value.get("url") == name]
    return children(node, name)


def _some(test: Matcher | None, step: tuple[str, str]) -> list[Matcher]:
    if test is None:
        return []
    return [lambda node, run: any(test(one, run) for one in walk(node, step, run))]


def _all(tests: list[Matcher]) -> Matcher | None:
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda node, run: all(test(node, run) for test in tests)
