"""Makes `r4/terminology.jsonl.gz` and `r4/operations.jsonl.gz` from the official R4 definitions, one resource a line:
the value sets of required and extensible bindings, the code systems and value sets that these draw on, and all
concept maps; and the operation definitions. Called by `conformance.build`.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

STRENGTHS = ("required", "extensible")
# Of no use to a terminology service, or told by the licence file.
_LEFT_OUT = frozenset(
    """
    contact copyright date experimental identifier immutable jurisdiction meta publisher purpose text useContext
    """.split()
)


def build_terminology(folder: Path, target: Path) -> None:
    value_sets = {one["url"]: one for one in _load(folder, "ValueSet")}
    code_systems = {one["url"]: one for one in _load(folder, "CodeSystem")}
    needed: dict[str, None] = {}
    systems: dict[str, None] = {}
    waiting = sorted(_bound(folder))
    while waiting:
        url = waiting.pop()
        if url in needed or url not in value_sets:
            continue
        needed[url] = None
        for part in _parts(value_sets[url]):
            if "system" in part:
                systems[part["system"]] = None
            waiting += [other.partition("|")[0] for other in part.get("valueSet", [])]
    chosen = [value_sets[url] for url in sorted(needed)]
    chosen += [code_systems[url] for url in sorted(systems) if url in code_systems]
    chosen += sorted(_load(folder, "ConceptMap"), key=lambda one: one["url"])
    _write(target, (_compact(one) for one in chosen))


def build_operations(folder: Path, target: Path) -> None:
    """Only those of the specification itself: its examples have other addresses."""
    found = _load(folder, "OperationDefinition")
    official = [one for one in found if one["url"].startswith("http://hl7.org/fhir/OperationDefinition/")]
    _write(target, ({name: value for name, value in one.items() if name not in ("meta", "text")} for one in official))


def _bound(folder: Path) -> Iterator[str]:
    """The value sets that elements of R4 are bound to."""
    for definition in _load(folder, "StructureDefinition"):
        if definition.get("derivation") != "specialization":
            continue
        for element in definition.get("snapshot", {}).get("element", []):
            binding = element.get("binding", {})
            if binding.get("strength") in STRENGTHS and "valueSet" in binding:
                yield binding["valueSet"].partition("|")[0]


def _parts(value_set: dict) -> list[dict]:
    compose = value_set.get("compose", {})
    return compose.get("include", []) + compose.get("exclude", [])


def _compact(resource: dict) -> dict:
    return _without({name: value for name, value in resource.items() if name not in _LEFT_OUT})


def _without(value: Any) -> Any:
    """Without extensions, line breaks, and definitions that say no more than the display."""
    if isinstance(value, list):
        return [_without(child) for child in value]
    if isinstance(value, str):
        return " ".join(value.split())
    if not isinstance(value, dict):
        return value
    repeats = _words(value.get("definition")) == _words(value.get("display"))
    return {
        name: _without(child)
        for name, child in value.items()
        if name not in ("extension", "modifierExtension") and not (name == "definition" and repeats)
    }


def _words(text: object) -> str:
    return text.strip(" .\n").casefold() if isinstance(text, str) else ""


def _load(folder: Path, resource_type: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"{resource_type}-*.json"))]


def _write(target: Path, resources: Iterable[dict]) -> None:
    lines = (json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in resources)
    target.write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))
