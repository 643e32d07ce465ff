"""Elements of a resource as FHIRPath sees them: a value with its type, its extensions and its place.

https://hl7.org/fhir/R4/fhirpath.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import conformance
from conformance.structures import row, structure
from fhir_server.validation.primitives import PRIMITIVES

SUBTYPES = {  # primitive types that are special cases of another
    "code": "string",
    "id": "string",
    "markdown": "string",
    "positiveInt": "integer",
    "unsignedInt": "integer",
    "canonical": "uri",
    "oid": "uri",
    "url": "uri",
    "uuid": "uri",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One element, or a value that an expression made.

    type: the R4 type, or the part such as `Patient.contact`; of a made value the primitive type it is like. beside:
    id and extensions of a primitive, whose value may then be None. path: FHIRPath of the element.
    """

    value: Any
    type: str
    path: str = ""
    beside: Any = None

    @property
    def is_primitive(self) -> bool:
        return self.type in PRIMITIVES


@cache
def members(name: str) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Element -> (JSON name, type) of each type it can have, of a structure; empty for an unknown one."""
    definition = structure(name)
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for element in definition.elements if definition else ():
        base = element.name.removesuffix("[x]")
        if element.is_choice:
            found[base] = tuple((base + type[0].upper() + type[1:], type) for type in element.types)
        else:
            found[base] = ((base, element.types[0]),)
    return found


@cache
def base_of(type: str) -> str | None:
    """The type that this one is a special case of."""
    if type in SUBTYPES:
        return SUBTYPES[type]
    if type in PRIMITIVES:
        return "Element"
    found = row(type)
    if found is None:
        return None
    return found.get("base") or ("BackboneElement" if "." in type else None)


def is_a(type: str, wanted: str) -> bool:
    """Whether the type is the wanted one or a special case of it."""
    current: str | None = type
    while current is not None:
        if current == wanted:
            return True
        current = base_of(current)
    return False


def resource_node(value: Any, path: str) -> Node:
    """A resource as a node; of the type it says it has."""
    told = value.get("resourceType") if isinstance(value, dict) else None
    known = isinstance(told, str) and told in conformance.resource_types()
    return Node(value, told if isinstance(told, str) and known else "Resource", path)


def children(node: Node, name: str) -> list[Node]:
    """The child elements with this name, `value` for a choice; none where there is no such element."""
    owner = node.beside if node.is_primitive else node.value
    if not isinstance(owner, dict):
        return []
    known = members("Element" if node.is_primitive else node.type).get(name, ())
    found: list[Node] = []
    for json_name, type in known:
        value = owner.get(json_name)
        beside = owner.get(f"_{json_name}") if type in PRIMITIVES else None
        if value is None and beside is None:
            continue
        place = f"{node.path}.{name}"
        if not isinstance(value, list) and not isinstance(beside, list):
            found.append(_node(value, type, place, beside))
            continue
        values = value if isinstance(value, list) else []
        besides = beside if isinstance(beside, list) else []
        for index in range(max(len(values), len(besides))):
            one = values[index] if index < len(values) else None
            other = besides[index] if index < len(besides) else None
            if one is not None or other is not None:
                found.append(_node(one, type, f"{place}[{index}]", other))
    return found


def all_children(node: Node) -> Iterator[Node]:
    for name in members("Element" if node.is_primitive else node.type):
        yield from children(node, name)


def _node(value: Any, type: str, path: str, beside: Any) -> Node:
    return resource_node(value, path) if type == "Resource" else Node(value, type, path, beside)
