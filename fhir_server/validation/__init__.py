"""Whether content is a valid FHIR R4 resource, told with every fault and the element it is in.

Checked are: names, cardinality and JSON types of elements, syntax of primitive values, choices, extensions, required
bindings, types of reference targets, narratives, and the invariants. https://hl7.org/fhir/R4/validation.html
"""

import re
from typing import Any

import conformance
from fhir_server.errors import BadRequest, InvalidStructure, Issue, NotFound
from fhir_server.validation.compiled import check_resource
from fhir_server.validation.run import MAX_DEPTH, MAX_ISSUES, Enough, Run

__all__ = [
    "ID",
    "INVALID",
    "MAX_DEPTH",
    "MAX_ISSUES",
    "check_id",
    "check_structure",
    "check_type",
    "examine",
    "faults",
]

INVALID = "this is no valid resource"
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def check_type(resource_type: str) -> None:
    """Raise NotFound, as http.html#create asks for, unless this is a concrete R4 resource type."""
    if resource_type not in conformance.resource_types():
        raise NotFound(f"{resource_type[:64]!r} is no FHIR R4 resource type", issues=[_unknown_type(resource_type)])


def check_id(id: object) -> str:
    """Return the id. Raises BadRequest unless it has the syntax of https://hl7.org/fhir/R4/datatypes.html#id."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise BadRequest("an id has 1 to 64 letters, digits, - or .", "Resource.id")
    return id


def check_structure(resource: Any, *, invariants: bool = True) -> None:
    """Raise InvalidStructure with one issue for each fault, Unprocessable when it is nested too deeply.

    invariants: whether those of R4 must hold, as they must for whatever is stored.
    """
    if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
        check_type(resource["resourceType"])
    found = faults(resource, invariants=invariants)
    if found:
        raise InvalidStructure(INVALID, issues=found)


def faults(resource: Any, *, invariants: bool = True) -> list[Issue]:
    """Every fault of a resource, at most MAX_ISSUES of them. Raises Unprocessable when it is nested too deeply."""
    return examine(resource, invariants=invariants).issues


def examine(resource: Any, *, invariants: bool = True) -> Run:
    """The faults of a resource, and the profiles that it and those in it name. Raises as `faults`."""
    run = Run(invariants=invariants)
    told: Any = resource.get("resourceType") if isinstance(resource, dict) else None
    try:
        check_resource(resource, told if _is_type(told) else "Resource", run)
    except Enough:
        pass
    return run


def _is_type(told: object) -> bool:
    return isinstance(told, str) and told in conformance.resource_types()


def _unknown_type(resource_type: str) -> Issue:
    return Issue("not-supported", f"{resource_type[:64]!r} is no FHIR R4 resource type")
