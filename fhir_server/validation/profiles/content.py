"""Fixed values and patterns. https://hl7.org/fhir/R4/elementdefinition.html#fixed"""

from typing import Any

from fhir_server.fhirpath.values import same


def has_pattern(value: Any, pattern: Any) -> bool:
    """Whether the value has at least what the pattern has; each item of a list in it, in any order."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and has_pattern(value[name], part) for name, part in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(has_pattern(item, part) for item in value) for part in pattern)
    return same(value, pattern)
