"""Makes the tables in `r4/` from the official R4 definitions: `python -m conformance.build FOLDER`.

FOLDER holds one JSON file a resource, as the npm package `hl7.fhir.r4.examples` 4.0.1 does (CC0; `r4/LICENCE.md`).
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from conformance import build_structures
from conformance.build_profiles import build_profiles
from conformance.build_terminology import build_operations, build_terminology

OFFICIAL = "http://hl7.org/fhir/SearchParameter/"
ALL_TYPES = ("Resource", "DomainResource")
COMPARTMENTS = ("Patient", "Encounter", "Practitioner", "RelatedPerson", "Device")


def build(folder: Path, target: Path) -> None:
    """Write `definitions.json.gz`: resource types, search parameters by type, compartments."""
    types = sorted(_concrete_types(folder))
    parameters: dict[str, list[dict]] = {resource_type: [] for resource_type in types}
    for definition in _load(folder, "SearchParameter"):
        if not _is_official(definition):
            continue
        for base in definition["base"]:
            for resource_type in types if base in ALL_TYPES else [base]:
                parameters[resource_type].append(_row(definition, base))
    for rows in parameters.values():
        rows.sort(key=lambda row: row["code"])
    compartments = {
        name: {
            resource["code"]: resource["param"]
            for resource in _read(folder / f"CompartmentDefinition-{name[0].lower() + name[1:]}.json")["resource"]
            if "param" in resource
        }
        for name in COMPARTMENTS
    }
    content = {"types": types, "parameters": parameters, "compartments": compartments}
    text = json.dumps(content, indent=0, sort_keys=True, ensure_ascii=False)
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def parts(expression: str) -> list[str]:
    """The parts of a union: `A.x | (B.y as C)` -> [`A.x`, `(B.y as C)`]."""
    found, depth, current, quoted = [], 0, "", False
    for sign in expression:
        quoted ^= sign == "'"
        if not quoted:
            depth += (sign == "(") - (sign == ")")
            if sign == "|" and depth == 0:
                found.append(current.strip())
                current = ""
                continue
        current += sign
    return [*found, current.strip()]


def _concrete_types(folder: Path) -> Iterator[str]:
    for definition in _load(folder, "StructureDefinition"):
        resource = definition.get("kind") == "resource" and not definition.get("abstract")
        if resource and definition.get("derivation") == "specialization":
            yield definition["type"]


def _is_official(definition: dict) -> bool:
    """Whether it stands in the specification itself: no example, and none of an extension."""
    path = definition["url"].removeprefix(OFFICIAL)
    official = path != definition["url"] and "-extensions-" not in path and not path.startswith("example")
    return official and "base" in definition and bool(definition.get("expression"))


def _row(definition: dict, base: str) -> dict:
    expression = definition["expression"]
    if len(definition["base"]) > 1:
        own = [part for part in parts(expression) if part.lstrip("(").split(".")[0] == base]
        expression = " | ".join(own) or expression
    row = {
        "code": definition["code"],
        "type": definition["type"],
        "url": definition["url"],
        "expression": expression,
        "targets": definition.get("target", []),
    }
    components = [[part["definition"], part["expression"]] for part in definition.get("component", [])]
    return row | ({"components": components} if components else {})


def _load(folder: Path, resource_type: str) -> Iterator[dict]:
    for file in sorted(folder.glob(f"{resource_type}-*.json")):
        yield _read(file)


def _read(file: Path) -> dict:
    return json.loads(file.read_text())


if __name__ == "__main__":
    source, tables = Path(sys.argv[1]), Path(__file__).parent / "r4"
    build(source, tables / "definitions.json.gz")
    build_structures.build(source, tables / "structures.jsonl.gz")
    build_profiles(source, tables / "profiles.jsonl.gz")
    build_terminology(source, tables / "terminology.jsonl.gz")
    build_operations(source, tables / "operations.jsonl.gz")
