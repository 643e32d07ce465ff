"""Which elements each R4 type has, in the order of the specification. https://hl7.org/fhir/R4/structuredefinition.html"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType


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
    text = _lines().get(type)
    if text is None:
        return MappingProxyType({})
    structure = json.loads(text)
    found: dict[str, Element] = {}
    for row in structure["elements"]:
        many = row.get("max", "1") not in ("0", "1")
        if row["n"].endswith("[x]"):
            choice = row["n"].removesuffix("[x]")
            for each in row["t"]:
                name = choice + each[0].upper() + each[1:]
                found[name] = Element(name, each, many, choice)
            continue
        attribute = _is_attribute(row["n"], type, structure)
        found[row["n"]] = Element(row["n"], row["t"][0], many, attribute=attribute)
    return MappingProxyType(found)


def _is_attribute(name: str, type: str, structure: dict) -> bool:
    """The id of anything but a resource, and the url of an extension. https://hl7.org/fhir/R4/xml.html"""
    return (name == "id" and structure.get("kind") != "resource") or (name == "url" and type == "Extension")


@cache
def _lines() -> Mapping[str, str]:
    packed = (files("conformance") / "r4" / "structures.jsonl.gz").read_bytes()
    lines = (line.partition("\t") for line in gzip.decompress(packed).decode().splitlines())
    return {name: content for name, _, content in lines if not name.startswith(("extension ", "valueset "))}
