"""FHIR operations ($name) as values: packages declare them, `fhir_server.operations.routes` serves them.
https://hl7.org/fhir/R4/operations.html
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.access import Access
from fhir_server.errors import BadRequest, NotFound


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


class Operations:
    """Those that are served, found by where they are called."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self._by_name = {(operation.resource_type, operation.name): operation for operation in operations}

    def find(self, resource_type: str | None, id: str | None, name: str) -> Operation:
        """What `[base]/$name`, `[base]/Type/$name` or `[base]/Type/id/$name` calls. Raises NotFound."""
        operation = self._by_name.get((resource_type, name)) or self._by_name.get((None, name))
        if resource_type is None:
            where, offered = "the system", operation is not None and operation.system
        elif id is None:
            where, offered = resource_type, operation is not None and operation.type_level
        else:
            where, offered = f"a {resource_type}", operation is not None and operation.instance
        if operation is None or not offered:
            raise NotFound(f"{where} has no operation {name[:64]!r} here")
        return operation


def parameters_of(operation: Operation, content: Any) -> tuple[list[dict], bool]:
    """The parameters in the content of a call, and whether it was the bare resource that the operation takes."""
    if not isinstance(content, dict) or not isinstance(content.get("resourceType"), str):
        raise BadRequest("an operation takes a Parameters resource", "Parameters")
    if content["resourceType"] != "Parameters":
        if operation.takes is None:
            raise BadRequest("this operation takes a Parameters resource", "Parameters")
        return [{"name": operation.takes, "resource": content}], True
    entries = content.get("parameter", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("Parameters.parameter is a list of objects", "Parameters.parameter")
    return entries, False


def parameters_in_query(pairs: Iterable[tuple[str, str]]) -> list[dict]:
    """The parameters of an address, of type string; without those that shape the answer."""
    return [{"name": name, "valueString": value} for name, value in pairs if name not in ("_format", "_pretty")]


def _value(entry: dict) -> Any:
    for key, value in entry.items():
        if key.startswith("value"):
            return value
    return entry.get("resource", entry.get("part"))
