"""What references may lead to. https://hl7.org/fhir/R4/references.html"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import conformance
from fhir_server.validation.run import Run

# Type/id, alone or at the end of an address, with or without a version; or Type?criteria.
_LITERAL = re.compile(
    r"(?:.*/)?([A-Z][A-Za-z]+)(?:/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?|\?.*)", re.DOTALL
)

# Beyond the definitions: what examples in the specification itself lead to, so that others write it too.
TOLERATED: Mapping[tuple[str, str], frozenset[str]] = MappingProxyType(
    {
        ("DeviceMetric", "parent"): frozenset({"DeviceDefinition"}),
        ("DeviceUseStatement", "reasonReference"): frozenset({"Procedure"}),
        ("MedicationRequest.dispenseRequest", "performer"): frozenset({"Practitioner"}),
        ("Observation", "performer"): frozenset({"Encounter"}),
    }
)


def check_contained(value: dict, path: str, run: Run) -> None:
    """ref-1: `#id` leads to a contained resource; `#` to the one around."""
    reference = value.get("reference")
    if not isinstance(reference, str) or not reference.startswith("#") or reference == "#":
        return
    if reference[1:] not in run.contained:
        run.fault("invariant", "ref-1: no contained resource has this id", f"{path}.reference")


def check_of(owner: str, name: str, defined: frozenset[str]) -> Callable[[dict, str, Run], None]:
    """The check that a Reference leads to one of the resource types, as far as it tells where it leads."""
    names = ", ".join(sorted(defined))
    allowed = defined | TOLERATED.get((owner, name), frozenset())

    def check(value: dict, path: str, run: Run) -> None:
        target = _target(value.get("reference"), run)
        if target is not None and target not in allowed:
            run.fault("structure", f"a reference to {target} where {names} is expected", f"{path}.reference")
        told = value.get("type")
        if isinstance(told, str) and told in conformance.resource_types() and told not in allowed:
            run.fault("structure", f"a reference to {told} where {names} is expected", f"{path}.type")

    return check


def _target(reference: object, run: Run) -> str | None:
    """The resource type that a literal reference names."""
    if not isinstance(reference, str):
        return None
    if reference.startswith("#"):
        return run.contained.get(reference[1:])
    return literal_target(reference)


def literal_target(reference: object) -> str | None:
    """The resource type in `Type/id`, wherever that resource is."""
    match = _LITERAL.fullmatch(reference) if isinstance(reference, str) else None
    return match[1] if match and match[1] in conformance.resource_types() else None
