"""Structure of a resource by fhir.resources (R4B classes), and the syntax of ids and instants.

Types that R4 has and R4B dropped (such as EffectEvidenceSynthesis) have no class; they are kept as sent.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

import conformance
from fhir_server.errors import BadRequest, InvalidStructure, Issue

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
MAX_DEPTH = 60
_CODES = {"missing": "required", "extra_forbidden": "structure", "list_type": "structure"}


def check_type(resource_type: str) -> None:
    """Raise BadRequest unless this is a concrete R4 resource type."""
    if resource_type not in conformance.resource_types():
        raise BadRequest(f"{resource_type[:64]!r} is no FHIR R4 resource type", issues=[_unknown_type(resource_type)])


def check_id(id: object) -> str:
    """Return the id. Raises BadRequest unless it has the syntax of https://hl7.org/fhir/R4/datatypes.html#id."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise BadRequest("an id has 1 to 64 letters, digits, - or .", "Resource.id")
    return id


def check_structure(resource: Any) -> None:
    """Raise InvalidStructure with one issue per fault, each naming its element in FHIRPath."""
    if not isinstance(resource, dict):
        raise InvalidStructure("a resource is a JSON object")
    resource_type = resource.get("resourceType")
    if not isinstance(resource_type, str):
        raise InvalidStructure("resourceType is missing", "Resource")
    check_type(resource_type)
    _check_depth(resource)
    model = _model(resource_type)
    if model is None:
        return
    try:
        model.model_validate(dict(resource))
    except ValidationError as error:
        issues = [_issue(resource_type, fault) for fault in error.errors(include_url=False)]
        raise InvalidStructure(f"this is no valid {resource_type}", issues=issues) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # fhir.resources meets some faults (an unknown contained type, say) before pydantic reports them
        raise InvalidStructure(f"this is no valid {resource_type}: {type(error).__name__}", resource_type) from None


@cache
def _model(resource_type: str) -> Any:
    try:
        return get_fhir_model_class(resource_type)
    except (KeyError, ValueError, LookupError):
        return None


def _issue(resource_type: str, fault: Any) -> Issue:
    return Issue(_CODES.get(fault["type"], "value"), fault["msg"], "".join(_path(resource_type, fault["loc"])))


def _path(resource_type: str, location: tuple) -> Iterator[str]:
    """FHIRPath of a pydantic location: ("identifier", 0, "system") is ServiceRequest.identifier[0].system."""
    yield resource_type
    for step in location:
        if isinstance(step, int):
            yield f"[{step}]"
        elif step != "root":  # pydantic's name for the value as a whole
            yield f".{step}"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise InvalidStructure(f"the resource is nested deeper than {MAX_DEPTH} levels")


def _unknown_type(resource_type: str) -> Issue:
    return Issue("not-supported", f"{resource_type[:64]!r} is no FHIR R4 resource type")
