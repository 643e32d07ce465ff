"""FHIR operations ($name) as values: packages declare them, `fhir_server.routes` serves them.
https://hl7.org/fhir/R4/operations.html
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fhir_server.access import Access


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """One call. `parameters` are the entries of Parameters.parameter; a GET query becomes valueString entries."""

    access: Access
    resource_type: str | None
    id: str | None
    parameters: list[dict] = field(default_factory=list)

    def all(self, name: str) -> list[Any]:
        """The values (value[x], else the resource, else the parts) of every parameter of that name."""
        return [_value(entry) for entry in self.parameters if entry.get("name") == name]

    def one(self, name: str) -> Any | None:
        """The first value of that name, or None."""
        return next(iter(self.all(name)), None)


@dataclass(frozen=True, slots=True)
class Operation:
    """A declared operation; `affects_state` operations answer POST only."""

    name: str
    definition: str
    resource_type: str | None
    instance: bool
    type_level: bool
    affects_state: bool
    handler: Callable[[OperationRequest], dict]


def _value(entry: dict) -> Any:
    for key, value in entry.items():
        if key.startswith("value"):
            return value
    return entry.get("resource", entry.get("part"))
