"""Makes `r4/structures.jsonl.gz`, from which resources are validated, out of the R4 definitions.

One line a structure: a resource, a data type, or a part of one by its path (`Patient.contact`); then one line a value
set that is bound as required and can be enumerated, one line an extension of the specification, one line for all
invariants. A line is `name<tab>JSON`, so that a server parses only what it uses.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFINED = "http://hl7.org/fhir/StructureDefinition/"
SYSTEM_TYPE = "http://hl7.org/fhirpath/System."
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
SIMPLE_QUANTITY = DEFINED + "SimpleQuantity"
# Checked where values and extensions are, not as rules of the elements that repeat them.
EVERYWHERE = frozenset({"ele-1", "ext-1"})


class Builder:
    """Reads a folder of definitions, one JSON file a resource; gives the lines of the table."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._value_sets = {found["url"]: found for found in self._load("ValueSet")}
        self._code_systems = {found["url"]: found for found in self._load("CodeSystem")}
        self._bound: set[str] = set()
        self._invariants: dict[str, str] = {}

    def lines(self) -> Iterator[tuple[str, Any]]:
        """(name, content) of each line."""
        extensions = {}
        for definition in self._load("StructureDefinition"):
            if definition["kind"] in ("resource", "complex-type") and "snapshot" in definition:
                if definition.get("derivation") != "constraint":
                    yield from self._structures(definition)
                elif definition["type"] == "Extension" and definition["url"].startswith(DEFINED):
                    extensions[definition["url"]] = self._extension(definition)
        for url, content in extensions.items():
            yield f"extension {url}", content
        for url in sorted(self._bound):
            codes = self._codes(url)
            if codes is not None:
                yield f"valueset {url}", codes
        yield "invariants", self._invariants

    def _structures(self, definition: dict) -> Iterator[tuple[str, dict]]:
        elements = definition["snapshot"]["element"]
        owners = {element["path"].rpartition(".")[0] for element in elements}
        made: dict[str, dict] = {}
        for element in elements:
            path = element["path"]
            owner, _, name = path.rpartition(".")
            nested = path in owners
            rules = self._rules(element, definition["type"])
            if nested:
                made[path] = {"elements": []} | ({"rules": rules} if rules else {})
            if owner:
                row = self._row(element, name, path if nested else None)
                made[owner]["elements"].append(row | ({"rules": rules} if rules and not nested else {}))
        root = made[definition["type"]]
        root["kind"] = definition["kind"]
        root["base"] = definition.get("baseDefinition", "").removeprefix(DEFINED)
        if definition.get("abstract"):
            root["abstract"] = True
        yield from made.items()

    def _row(self, element: dict, name: str, structure: str | None) -> dict:
        """One element: n name, min, max, t types, r types that a reference may lead to, b value set, a value set of
        an extensible binding, s summary."""
        row: dict[str, Any] = {"n": name}
        if element["min"]:
            row["min"] = element["min"]
        if element["max"] != "1":
            row["max"] = element["max"]
        if element.get("isSummary"):
            row["s"] = True
        if structure or "contentReference" in element:
            return row | {"t": [structure or element["contentReference"].removeprefix("#")]}
        row["t"] = [_type(each) for each in element["type"]]
        targets = _targets(element["type"])
        if targets:
            row["r"] = targets
        bound = self._binding(element)
        if bound:
            row["b"] = bound
        if element.get("binding", {}).get("strength") == "extensible":
            row["a"] = element["binding"]["valueSet"].partition("|")[0]
        if any(SIMPLE_QUANTITY in each.get("profile", ()) for each in element["type"]):
            row["rules"] = ["sqty-1"]
            self._invariants["sqty-1"] = "The comparator is not used on a SimpleQuantity"
        return row

    def _extension(self, definition: dict) -> dict:
        """What an extension may hold: t types of its value, b its value set, e extensions inside it by url."""
        elements = definition["snapshot"]["element"]
        found: dict[str, Any] = {}
        inner: dict[str, dict] = {}
        current = found
        for element in elements:
            path = element["path"]
            if path == "Extension.extension" and element.get("sliceName"):
                current = {}
            elif path == "Extension.extension.url" and "fixedUri" in element:
                inner[element["fixedUri"]] = current
            elif path in ("Extension.value[x]", "Extension.extension.value[x]"):
                target = found if path == "Extension.value[x]" else current
                if element["max"] == "0":
                    continue
                target["t"] = sorted({_type(each) for each in element["type"]})
                bound = self._binding(element)
                if bound:
                    target["b"] = bound
        return found | ({"e": inner} if inner else {})

    def _rules(self, element: dict, root: str) -> list[str]:
        """Keys of the invariants of level error. `inv-1` stands for three rules; it is kept apart by type."""
        keys = []
        for rule in element.get("constraint", ()):
            if rule["severity"] != "error" or rule["key"] in EVERYWHERE:
                continue
            key = f"inv-1@{root}" if rule["key"] == "inv-1" else rule["key"]
            self._invariants[key] = " ".join(rule["human"].split())
            keys.append(key)
        return keys

    def _binding(self, element: dict) -> str | None:
        binding = element.get("binding", {})
        if binding.get("strength") != "required":
            return None
        url = binding["valueSet"].partition("|")[0]
        self._bound.add(url)
        return url

    def _codes(self, url: str) -> dict[str, list[str]] | None:
        """System -> codes; None when the value set cannot be written out from what the definitions hold."""
        definition = self._value_sets.get(url)
        if definition is None:
            return None
        found: dict[str, list[str]] = {}
        for part in definition["compose"]["include"]:
            if part.get("filter") or part.get("valueSet"):
                return None
            if "concept" in part:
                codes = [concept["code"] for concept in part["concept"]]
            elif part.get("system") in self._code_systems:
                codes = list(_all(self._code_systems[part["system"]].get("concept", ())))
            else:
                return None
            found.setdefault(part["system"], []).extend(codes)
        return found

    def _load(self, resource_type: str) -> Iterator[dict]:
        for file in sorted(self._folder.glob(f"{resource_type}-*.json")):
            yield json.loads(file.read_text())


def build(folder: Path, target: Path) -> None:
    """Write the table to `target`."""
    rows = (
        f"{name}\t{json.dumps(content, separators=(',', ':'), ensure_ascii=False)}"
        for name, content in Builder(folder).lines()
    )
    target.write_bytes(gzip.compress("\n".join(rows).encode(), 9, mtime=0))


def _type(given: dict) -> str:
    """The FHIR type; an id or a url is defined by a type of FHIRPath, its FHIR type named beside."""
    if not given["code"].startswith(SYSTEM_TYPE):
        return given["code"]
    named = {found["url"]: found.get("valueUrl") for found in given.get("extension", ())}
    return named.get(FHIR_TYPE) or given["code"].removeprefix(SYSTEM_TYPE).lower()


def _targets(types: list[dict]) -> list[str]:
    profiles = [profile for each in types if each["code"] == "Reference" for profile in each.get("targetProfile", ())]
    targets = sorted({profile.removeprefix(DEFINED) for profile in profiles})
    return [] if "Resource" in targets else targets


def _all(concepts: Any) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from _all(concept.get("concept", ()))
