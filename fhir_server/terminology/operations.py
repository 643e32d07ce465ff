"""The operations of ValueSet, CodeSystem and ConceptMap, as values to be served.
https://hl7.org/fhir/R4/terminology-service.html
"""

from collections.abc import Callable
from functools import partial

from fhir_server.operation import Operation, OperationRequest
from fhir_server.repository import Repository
from fhir_server.terminology.code_system_operations import lookup, subsumes, validate_in_code_system
from fhir_server.terminology.concept_map_operations import translate
from fhir_server.terminology.source import Terminology
from fhir_server.terminology.value_set_operations import expand, validate_in_value_set

BASE = "http://hl7.org/fhir/OperationDefinition"

_DOCUMENTATION = {
    "expand": "Not offered: context, contextDirection, date. Expansions are flat; the filter regex is not supported.",
    "validate-code": "Not offered: context, date.",
    "lookup": "Not offered: date.",
    "translate": "Not offered: dependency.",
}

# (type, name, answers it, whether it can be called on one resource, the parameter that a bare resource is)
_OFFERED: tuple[tuple[str, str, Callable[[Terminology, OperationRequest], dict], bool, str | None], ...] = (
    ("ValueSet", "expand", expand, True, "valueSet"),
    ("ValueSet", "validate-code", validate_in_value_set, True, "valueSet"),
    ("CodeSystem", "lookup", lookup, False, None),
    ("CodeSystem", "validate-code", validate_in_code_system, True, "codeSystem"),
    ("CodeSystem", "subsumes", subsumes, True, None),
    ("ConceptMap", "translate", translate, True, "conceptMap"),
)


def operations(repository: Repository) -> list[Operation]:
    """All of them, over what is in the store and what R4 itself defines."""
    terminology = Terminology(repository)
    return [
        Operation(
            name,
            f"{BASE}/{resource_type}-{name}",
            resource_type,
            instance=instance,
            type_level=True,
            affects_state=False,
            handler=partial(handler, terminology),
            takes=takes,
            documentation=_DOCUMENTATION.get(name, ""),
        )
        for resource_type, name, handler, instance, takes in _OFFERED
    ]
