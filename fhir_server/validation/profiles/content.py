"""Fixed values and patterns. https://hl7.org/fhir/R4/elementdefinition.html#fixed"""

from typing import Any

from fhir_server.fhirpath.evaluate import Work
from fhir_server.fhirpath.values import same


def is_fixed(value: Any, fixed: Any, work: Work) -> bool:
    """Whether the value is exactly this one."""
    work.spend(1 if isinstance(fixed, str | int) else len(str(fixed)) // 20)
    return same(value, fixed)


def has_pattern(value: Any, pattern: Any, work: Work) -> bool:
    """Whether the value has at least what the pattern has; each item of a list in it, in any order."""
    work.spend()
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and has_pattern(value[name], part, work) for name, part in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(
            any(has_pattern(item, part, work) for item in value) for part in pattern
        )
    return same(value, pattern)
