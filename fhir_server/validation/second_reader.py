"""fhir.resources as a second reader for `$validate`: it knows nothing of our tables, so both together see more.

Its classes are of R4B, and it takes up to some milliseconds, so no write waits for it (decision 0006).
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from fhir_server.errors import Issue

# What R4B dropped, and what it changed on the level of the resource.
R4_ONLY = frozenset(
    """
    EffectEvidenceSynthesis MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication
    MedicinalProductIndication MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
    MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect RiskEvidenceSynthesis
    SubstanceNucleicAcid SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
    SubstanceSpecification
    """.split()
)
CHANGED = frozenset({"ActivityDefinition", "Evidence", "EvidenceVariable", "PlanDefinition"})


def second_reading(resource: dict) -> list[Issue]:
    """A warning for each thing that fhir.resources refuses; none for types that R4 and R4B have differently."""
    from pydantic import ValidationError

    resource_type = resource["resourceType"]
    if resource_type in R4_ONLY | CHANGED:
        return []
    try:
        _model(resource_type).model_validate(dict(resource))
    except ValidationError as error:
        return [_warning(fault["msg"], "".join(_path(resource_type, fault["loc"]))) for fault in error.errors()]
    except (KeyError, TypeError, ValueError, AttributeError, LookupError) as error:
        return [_warning(type(error).__name__, resource_type)]  # it meets some faults before pydantic reports them
    return []


@cache
def _model(resource_type: str) -> Any:
    # Not at the start: the classes are needed for `$validate` alone, and cost memory in each process.
    from fhir.resources.R4B import get_fhir_model_class

    return get_fhir_model_class(resource_type)


def _warning(text: str, expression: str) -> Issue:
    return Issue("structure", f"a second reader (fhir.resources) refuses this: {text}", expression, "warning")


def _path(resource_type: str, location: tuple) -> Iterator[str]:
    """FHIRPath of a pydantic location: ("identifier", 0, "system") is ServiceRequest.identifier[0].system."""
    yield resource_type
    for step in location:
        if isinstance(step, int):
            yield f"[{step}]"
        elif step != "root":  # pydantic's name for the value as a whole
            yield f".{step}"
