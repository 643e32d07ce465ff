"""The R4 StructureDefinitions, required value sets and extensions, as tables from which resources are validated.

A table is parsed when it is asked for and not kept: whoever compiles it keeps what he made of it.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class ElementDefinition:
    """One element of a structure.

    name: as defined, `value[x]` for a choice. many: whether it repeats (R4 knows 1 and * only). types: data types,
    or the path of the part that it is (`Patient.contact`). targets: resource types that a reference may lead to;
    empty for any. binding: the value set that its codes must come from; advised: from which they should, if it has
    one that fits (extensible). rules: keys of invariants that it must meet.
    """

    name: str
    required: bool
    many: bool
    types: tuple[str, ...]
    targets: tuple[str, ...]
    binding: str | None
    rules: tuple[str, ...]
    summary: bool
    advised: str | None = None

    @property
    def is_choice(self) -> bool:
        return self.name.endswith("[x]")


@dataclass(frozen=True, slots=True)
class StructureDefinition:
    """A resource, a data type, or a part of one. kind: resource, complex-type or part. rules: keys of invariants."""

    name: str
    kind: str
    elements: tuple[ElementDefinition, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExtensionDefinition:
    """An extension of the specification.

    types: of its value; none when it has no value. binding: the value set of the value. parts: the extensions inside
    it by their url.
    """

    types: tuple[str, ...]
    binding: str | None
    parts: Mapping[str, "ExtensionDefinition"]


def structure(name: str) -> StructureDefinition | None:
    """The structure of a resource type, a data type or a part such as `Patient.contact`; None when R4 has none."""
    found = row(name)
    if found is None:
        return None
    elements = tuple(
        ElementDefinition(
            name=element["n"],
            required=element.get("min", 0) > 0,
            many="max" in element,
            types=tuple(element["t"]),
            targets=tuple(element.get("r", ())),
            binding=element.get("b"),
            rules=tuple(element.get("rules", ())),
            summary=element.get("s", False),
            advised=element.get("a"),
        )
        for element in found["elements"]
    )
    return StructureDefinition(name, found.get("kind", "part"), elements, tuple(found.get("rules", ())))


def value_set(url: str) -> Mapping[str, frozenset[str]] | None:
    """System -> codes of a value set that R4 binds as required; None when its codes cannot be listed.

    Those are mime types, currencies, units of UCUM and answers of LOINC: their code systems are not HL7's.
    """
    found = row(f"valueset {url}")
    return None if found is None else {system: frozenset(codes) for system, codes in found.items()}


def extension(url: str) -> ExtensionDefinition | None:
    """An extension that the specification itself defines; None for any other."""
    found = row(f"extension {url}")
    return None if found is None else _extension(found)


@cache
def invariants() -> Mapping[str, str]:
    """Key -> sentence of every invariant of level error.

    `inv-1`, which R4 uses for three rules, is told apart by the type after an @. ele-1 and ext-1 are not among them.
    """
    return row("invariants") or {}


def structures() -> list[str]:
    """The names of all structures."""
    return [name for name in _lines() if " " not in name and name != "invariants"]


def _extension(found: dict) -> ExtensionDefinition:
    parts = {url: _extension(part) for url, part in found.get("e", {}).items()}
    return ExtensionDefinition(tuple(found.get("t", ())), found.get("b"), parts)


def row(name: str) -> Any:
    """A line of the table as it is, parsed (`conformance.build_structures` says how it is made); None for no line."""
    line = _lines().get(name)
    return None if line is None else json.loads(line)


@cache
def _lines() -> dict[str, bytes]:
    text = gzip.decompress((files("conformance") / "r4" / "structures.jsonl.gz").read_bytes())
    pairs = (line.split(b"\t", 1) for line in text.split(b"\n"))
    return {name.decode(): content for name, content in pairs}
