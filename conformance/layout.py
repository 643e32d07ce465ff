"""Which elements each R4 type has, in the order of the specification. https://hl7.org/fhir/R4/structuredefinition.html"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from conformance.structures import row


@dataclass(frozen=True, slots=True)
class Element:
    """One element by its JSON name; each type of a choice has its own (`valueQuantity`).

    type: a primitive (`code`), a data type (`HumanName`), a part of a resource by its path (`Patient.contact`), or
    `Resource` for any resource. choice: `value` of `value[x]`. attribute: in XML it is an attribute.
    """

    name: str
    type: str
    many: bool
    choice: str | None = None
    attribute: bool = False


@cache
def layout(type: str) -> Mapping[str, Element]:
    """The elements of a resource type, a part of one or a data type by JSON name; empty for a primitive type."""
    structure = row(type)
    if structure is None:
        return MappingProxyType({})
    found: dict[str, Element] = {}
    for element in structure["elements"]:
        many = element.get("max", "1") not in ("0", "1")
        if element["n"].endswith("[x]"):
            choice = element["n"].removesuffix("[x]")
            for each in element["t"]:
                name = choice + each[0].upper() + each[1:]
                found[name] = Element(name, each, many, choice)
            continue
        attribute = _is_attribute(element["n"], type, structure)
        found[element["n"]] = Element(element["n"], element["t"][0], many, attribute=attribute)
    return MappingProxyType(found)


def _is_attribute(name: str, type: str, structure: dict) -> bool:
    """The id of anything but a resource, and the url of an extension. https://hl7.org/fhir/R4/xml.html"""
    return (name == "id" and structure.get("kind") != "resource") or (name == "url" and type == "Extension")
