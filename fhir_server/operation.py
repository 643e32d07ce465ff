"""FHIR operations ($name) as values: packages declare them, `fhir_server.operations.routes` serves them.
https://hl7.org/fhir/R4/operations.html
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.access import Access


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """One call. `parameters` are the entries of Parameters.parameter; a GET query becomes valueString entries.

    resource_type: None for a call of the system (`[base]/$name`); id: None unless of one resource.
    sent: how many of the entries stood in the body; those of the query follow. bare: the body was no Parameters but
    the one resource that the operation takes (`Operation.takes`). if_match: the version named by the header.
    prefer: the header as sent.
    """

    access: Access
    resource_type: str | None
    id: str | None
    parameters: list[dict] = field(default_factory=list)
    sent: int = 0
    bare: bool = False
    if_match: int | None = None
    prefer: str = ""

    def all(self, name: str) -> list[Any]:
        """The values (value[x], else the resource, else the parts) of every parameter of that name."""
        return [_value(entry) for entry in self.parameters if entry.get("name") == name]

    def one(self, name: str) -> Any | None:
        """The first value of that name, or None."""
        return next(iter(self.all(name)), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers when it is not simply a resource with status 200.

    content: a resource, one as JSON bytes, or None for an answer without content.
    """

    content: dict | bytes | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[OperationRequest], dict | Answer]


@dataclass(frozen=True, slots=True)
class Operation:
    """A declared operation; `affects_state` operations answer POST only.

    resource_type: None for one of every type, or of the system. takes: the parameter that a resource sent bare, not
    in Parameters, stands for. documentation: what of the definition is not offered here, for the CapabilityStatement.
    """

    name: str
    definition: str
    resource_type: str | None
    instance: bool
    type_level: bool
    affects_state: bool
    handler: Handler
    system: bool = False
    takes: str | None = None
    documentation: str = ""


def _value(entry: dict) -> Any:
    for key, value in entry.items():
        if key.startswith("value"):
            return value
    return entry.get("resource", entry.get("part"))
