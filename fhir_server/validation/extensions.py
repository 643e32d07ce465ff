"""Extensions: ext-1 for all, and what those of the specification itself may hold.
https://hl7.org/fhir/R4/extensibility.html
"""

from functools import lru_cache

from conformance.structures import ExtensionDefinition, extension
from fhir_server.validation import bindings
from fhir_server.validation.run import Run

DEFINED = "http://hl7.org/fhir/StructureDefinition/"


def check(value: dict, path: str, run: Run) -> None:
    """The check of an Extension beyond its elements."""
    has_value = any(name.startswith(("value", "_value")) for name in value)
    if has_value == ("extension" in value):
        run.fault("invariant", "ext-1: an extension has extensions or a value, and not both", path)
        return
    url = value.get("url")
    if isinstance(url, str) and url.startswith(DEFINED):
        definition = _definition(url)
        if definition is not None:
            _check_content(value, definition, path, run)


def _check_content(value: dict, definition: ExtensionDefinition, path: str, run: Run) -> None:
    for name, content in value.items():
        if not name.startswith("value"):
            continue
        if not any(name == f"value{type[0].upper()}{type[1:]}" for type in definition.types):
            told = f"{' or '.join(definition.types)}" if definition.types else "extensions, and no value"
            run.fault("structure", f"this extension has {told}", f"{path}.value")
        elif name == "valueCode" and definition.binding:
            codes = bindings.codes(definition.binding)
            if codes is not None and isinstance(content, str) and content not in codes:
                run.fault("code-invalid", bindings.complaint(definition.binding, codes), f"{path}.value")
    inside = value.get("extension")
    for index, part in enumerate(inside if isinstance(inside, list) else ()):
        known = (
            definition.parts.get(part["url"]) if isinstance(part, dict) and isinstance(part.get("url"), str) else None
        )
        if known is not None:
            _check_content(part, known, f"{path}.extension[{index}]", run)


@lru_cache(maxsize=1024)
def _definition(url: str) -> ExtensionDefinition | None:
    return extension(url)
