"""Our own definitions as FHIR resources, one JSON file each in `definitions/`; loaded at the start of a server."""

import json
from functools import cache
from importlib.resources import files

from conformance.canonical import CANONICAL


@cache
def _texts() -> tuple[str, ...]:
    folder = files("conformance") / "definitions"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".json"))
    return tuple((folder / name).read_text() for name in names)


def conformance_resources() -> list[dict]:
    """CodeSystems, ValueSets, StructureDefinitions and Questionnaires with ids and canonical URLs of ours."""
    return [json.loads(text.replace("{{CANONICAL}}", CANONICAL)) for text in _texts()]
