"""Makes `r4/profiles.jsonl.gz`: the profiles that R4 itself defines, as far as resources are checked by them.

One line a profile, `url<tab>JSON`: a StructureDefinition with its differential, without texts and mappings.
Extensions are in `r4/structures.jsonl.gz`.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

_OF_DEFINITION = ("url", "version", "name", "kind", "type", "baseDefinition", "derivation")
_OF_ELEMENT = ("id", "path", "sliceName", "slicing", "min", "max", "type", "maxLength", "contentReference")
_OPEN = ("fixed", "pattern", "minValue", "maxValue")
_OF_CONSTRAINT = ("key", "severity", "human", "expression")


def build_profiles(folder: Path, target: Path) -> None:
    """folder: one JSON file a resource, as the npm package of R4 has them."""
    rows = (
        f"{profile['url']}\t{json.dumps(profile, separators=(',', ':'), ensure_ascii=False)}"
        for profile in _profiles(folder)
    )
    target.write_bytes(gzip.compress("\n".join(rows).encode(), 9, mtime=0))


def _profiles(folder: Path) -> Iterator[dict]:
    for file in sorted(folder.glob("StructureDefinition-*.json")):
        definition = json.loads(file.read_text())
        official = definition["url"].startswith("http://hl7.org/fhir/StructureDefinition/")
        if not official or definition.get("derivation") != "constraint" or definition["type"] == "Extension":
            continue
        kept = {name: definition[name] for name in _OF_DEFINITION if name in definition}
        elements = [_element(one) for one in definition["differential"]["element"]]
        yield {"resourceType": "StructureDefinition", **kept, "differential": {"element": elements}}


def _element(element: dict) -> dict:
    kept = {name: value for name, value in element.items() if name in _OF_ELEMENT or name.startswith(_OPEN)}
    if "binding" in element:
        binding = element["binding"]
        kept["binding"] = {name: binding[name] for name in ("strength", "valueSet", "extension") if name in binding}
    if "constraint" in element:
        kept["constraint"] = [
            {name: one[name] for name in _OF_CONSTRAINT if name in one} for one in element["constraint"]
        ]
    return kept
