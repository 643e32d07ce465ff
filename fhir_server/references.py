"""The references inside a resource: finding them, replacing them, checking that they lead somewhere.
https://hl7.org/fhir/R4/references.html
"""

import html
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import conformance
from conformance import layout

RELATIVE = re.compile(r"([A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_LINKS = frozenset({"uri", "url", "oid", "uuid", "canonical"})
_LINK_IN_NARRATIVE = re.compile(r"""(\s(?:href|src)\s*=\s*)("[^"]*"|'[^']*')""")

Target = tuple[str, str]  # (type, id)
# What stands in the place of a link; None to leave it.
Resolve = Callable[[str], str | None]


def each(resource: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Every Reference with a literal `reference`, and its FHIRPath."""
    if isinstance(resource, dict):
        if isinstance(resource.get("reference"), str):
            yield path, resource
        for name, value in resource.items():
            if isinstance(value, dict | list):
                yield from each(value, f"{path}.{name}")
    elif isinstance(resource, list):
        for index, value in enumerate(resource):
            yield from each(value, f"{path}[{index}]")


def local(reference: str, base_url: str) -> tuple[str, str] | None:
    """(type, id) of a reference to a resource of this server, written relatively or absolutely; else None."""
    match = RELATIVE.fullmatch(reference.removeprefix(base_url + "/"))
    if match and match[1] in conformance.resource_types():
        return match[1], match[2]
    return None


def rewrite(resource: dict, resolve: Resolve) -> dict:
    """A copy with its links resolved: References, elements of type uri, url, oid, uuid and canonical, and `href` and
    `src` of narratives, contained resources included. A Bundle inside is left as it is: its links are its own.
    https://hl7.org/fhir/R4/http.html#trules
    """
    type = resource.get("resourceType")
    if type == "Bundle" or not isinstance(type, str):
        return dict(resource)
    return _rewritten(resource, type, resolve)


def _rewritten(content: dict, type: str, resolve: Resolve) -> dict:
    elements = layout(type)
    copy: dict[str, Any] = {}
    for name, value in content.items():
        element = elements.get(name)
        if element is not None:
            link = element.type in _LINKS or (type == "Reference" and name == "reference")
            copy[name] = _value(value, element.type, link, resolve)
        else:  # extensions beside a primitive value; whatever else there is has no links
            copy[name] = _value(value, "Element", False, resolve) if name.startswith("_") else value
    return copy


def _value(value: Any, type: str, link: bool, resolve: Resolve) -> Any:
    if isinstance(value, list):
        return [_value(item, type, link, resolve) for item in value]
    if isinstance(value, dict):
        return rewrite(value, resolve) if type == "Resource" else _rewritten(value, type, resolve)
    if not isinstance(value, str):
        return value
    if type == "xhtml":
        return _LINK_IN_NARRATIVE.sub(lambda match: _narrative_link(match, resolve), value)
    return (resolve(value) or value) if link else value


def _narrative_link(match: re.Match, resolve: Resolve) -> str:
    quote, text = match[2][0], html.unescape(match[2][1:-1])
    resolved = resolve(text)
    return match[0] if resolved is None else f"{match[1]}{quote}{html.escape(resolved)}{quote}"


def conditional(reference: str) -> tuple[str, str] | None:
    """(type, query) of a conditional reference such as `Patient?identifier=sys|1`; else None."""
    resource_type, mark, query = reference.partition("?")
    return (resource_type, query) if mark and resource_type in conformance.resource_types() else None


def within(resource: dict, base_url: str) -> list[tuple[str, str, Target]]:
    """(FHIRPath, reference, (type, id)) of all that refers to something on this server."""
    return [
        (path, element["reference"], target)
        for path, element in each(resource, resource["resourceType"])
        if (target := local(element["reference"], base_url))
    ]


def targets(found: Iterable[tuple[str, str, Target]]) -> set[Target]:
    """(type, id) of everything that these refer to."""
    return {target for _, _, target in found}


def missing(
    found: list[tuple[str, str, Target]], known: Callable[[set[Target]], set[Target]]
) -> list[tuple[str, str]]:
    """(FHIRPath, reference) of those that lead nowhere. `known` returns what exists."""
    there = known(targets(found)) if found else set()
    return [(path, reference) for path, reference, target in found if target not in there]
