"""The references inside a resource: finding them, replacing them, checking that they lead somewhere.
https://hl7.org/fhir/R4/references.html
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import conformance

RELATIVE = re.compile(r"([A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def each(resource: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Every Reference with a literal `reference`, and its FHIRPath."""
    if isinstance(resource, dict):
        if isinstance(resource.get("reference"), str):
            yield path, resource
        for name, value in resource.items():
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


def rewrite(value: Any, targets: Mapping[str, str]) -> Any:
    """A copy in which each string that is a key of `targets` (a Bundle.entry.fullUrl) is its target.

    Whole strings only: `urn:uuid:` addresses may stand in Reference.reference and in uri elements.
    """
    if isinstance(value, dict):
        return {name: rewrite(child, targets) for name, child in value.items()}
    if isinstance(value, list):
        return [rewrite(child, targets) for child in value]
    return targets.get(value, value) if isinstance(value, str) else value


def conditional(reference: str) -> tuple[str, str] | None:
    """(type, query) of a conditional reference such as `Patient?identifier=sys|1`; else None."""
    resource_type, mark, query = reference.partition("?")
    return (resource_type, query) if mark and resource_type in conformance.resource_types() else None


def missing(
    resource: dict, base_url: str, known: Callable[[set[tuple[str, str]]], set[tuple[str, str]]]
) -> list[tuple[str, str]]:
    """(FHIRPath, reference) of each local reference that leads nowhere. `known` returns those that exist."""
    found = [
        (path, target, element["reference"])
        for path, element in each(resource, resource["resourceType"])
        if (target := local(element["reference"], base_url))
    ]
    there = known({target for _, target, _ in found}) if found else set()
    return [(path, reference) for path, target, reference in found if target not in there]
