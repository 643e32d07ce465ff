"""What the definitions of a type tell of its elements: mandatory ones, those of a summary, primitive ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from conformance.structures import ElementDefinition, structure
from fhir_server.validation.primitives import PRIMITIVES


@dataclass(frozen=True, slots=True)
class Element:
    """type: of a complex element, such as `CodeableConcept` or `Task.input`; None for a primitive one."""

    mandatory: bool
    summary: bool
    type: str | None


@cache
def elements(type: str) -> Mapping[str, Element]:
    """The elements of a resource type, a part of one (`Task.input`) or a data type, by their names in JSON."""
    definition = structure(type)
    if definition is None:
        return MappingProxyType({})
    return MappingProxyType(dict(pair for element in definition.elements for pair in _named(element)))


def _named(element: ElementDefinition) -> Iterator[tuple[str, Element]]:
    base = element.name.removesuffix("[x]")
    for type in element.types:
        name = base + type[0].upper() + type[1:] if element.is_choice else base
        yield name, Element(element.required, element.summary, None if type in PRIMITIVES else type)


def is_primitive(resource_type: str, path: list[str]) -> bool:
    """Whether a path of element names leads to a primitive value, such as a code without a system beside it."""
    type: str | None = resource_type
    for name in path[:-1]:
        found = elements(type).get(name) if type else None
        type = found.type if found else None
    last = elements(type).get(path[-1]) if type and path else None
    return last is not None and last.type is None
