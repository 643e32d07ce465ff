"""What the definitions of a type tell of its elements: mandatory ones, those of a summary, primitive ones.

Read from the fhir.resources R4B classes; types that R4 has and R4B dropped tell nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from fhir.resources.R4B import get_fhir_model_class

_COMPLEX = re.compile(r"\.(\w+)Type\b")


@dataclass(frozen=True, slots=True)
class Element:
    """type: of a complex element, such as `CodeableConcept` or `TaskInput`; None for a primitive one."""

    mandatory: bool
    summary: bool
    type: str | None


@cache
def elements(type: str) -> Mapping[str, Element]:
    """The elements of a resource type, a part of one (`TaskInput`) or a data type, by name."""
    try:
        model = get_fhir_model_class(type)
    except ValueError:
        return MappingProxyType({})
    return MappingProxyType({field.alias or name: _element(field) for name, field in model.model_fields.items()})


def _element(field: Any) -> Element:
    told = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    nested = _COMPLEX.search(str(field.annotation))
    return Element(
        mandatory=field.is_required() or bool(told.get("element_required") or told.get("one_of_many_required")),
        summary=bool(told.get("summary_element_property")),
        type=nested[1] if nested else None,
    )


def is_primitive(resource_type: str, path: list[str]) -> bool:
    """Whether a path of element names leads to a primitive value, such as a code without a system beside it."""
    type: str | None = resource_type
    for name in path[:-1]:
        found = elements(type).get(name) if type else None
        type = found.type if found else None
    last = elements(type).get(path[-1]) if type and path else None
    return last is not None and last.type is None
