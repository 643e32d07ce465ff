"""The R4 definitions that a server needs: resource types, search parameters, compartments."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from conformance.resources import conformance_resources


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """One search parameter of one resource type.

    type: number, date, string, token, reference, composite, quantity, uri or special. expression: FHIRPath, the part
    of the definition that is about this type. targets: types that a reference may lead to. components: of a
    composite, (URL of the parameter, expression relative to the composite's own).
    """

    code: str
    type: str
    expression: str
    targets: tuple[str, ...]
    url: str
    components: tuple[tuple[str, str], ...] = ()


@cache
def resource_types() -> frozenset[str]:
    """The concrete R4 resource types."""
    return frozenset(_definitions()["types"])


@cache
def search_parameters(resource_type: str) -> Mapping[str, SearchParameter]:
    """The search parameters of a type by code, `_id` and the like and our own included; empty for an unknown type."""
    rows = [*_definitions()["parameters"].get(resource_type, ()), *_own_parameters(resource_type)]
    found = {
        row["code"]: SearchParameter(
            row["code"],
            row["type"],
            row["expression"],
            tuple(row.get("targets", ())),
            row["url"],
            tuple((url, expression) for url, expression in row.get("components", ())),
        )
        for row in rows
    }
    return MappingProxyType(found)


def _own_parameters(resource_type: str) -> list[dict]:
    """The SearchParameters for this type among our own definitions."""
    return [
        one
        for one in conformance_resources()
        if one["resourceType"] == "SearchParameter" and resource_type in one["base"]
    ]


@cache
def compartment(name: str) -> Mapping[str, tuple[str, ...]]:
    """Resource type -> codes of the search parameters that put a resource into the compartment.

    https://hl7.org/fhir/R4/compartmentdefinition.html
    """
    members = _definitions()["compartments"][name]
    return MappingProxyType({resource_type: tuple(codes) for resource_type, codes in members.items()})


def compartments() -> tuple[str, ...]:
    """The types that have a compartment."""
    return tuple(sorted(_definitions()["compartments"]))


@cache
def _definitions() -> dict[str, Any]:
    packed = (files("conformance") / "r4" / "definitions.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))
