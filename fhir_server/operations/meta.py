"""$meta, $meta-add and $meta-delete: profiles, tags and security labels of one resource.
https://hl7.org/fhir/R4/resource-operation-meta.html
"""

from collections.abc import Callable
from functools import partial

from fhir_server.errors import BadRequest, PreconditionFailed
from fhir_server.operation import Operation, OperationRequest
from fhir_server.operations.parameters import Given, Parameters
from fhir_server.repository import Repository
from fhir_server.version import Version

DEFINITION = "http://hl7.org/fhir/OperationDefinition/Resource-meta"
_KNOWN = {"meta": ("Meta", 1)}
_LISTS = ("profile", "security", "tag")

# (what the resource has, what was sent) -> what it has then
Change = Callable[[list, list], list]


def operations(repository: Repository) -> list[Operation]:
    def declared(
        name: str, affects_state: bool, handler: Callable[[Repository, OperationRequest], dict]
    ) -> Operation:
        return Operation(
            name,
            DEFINITION + name.removeprefix("meta"),
            None,
            instance=True,
            type_level=False,
            affects_state=affects_state,
            handler=partial(handler, repository),
            documentation="Of one resource as it is now; a change is a new version, and If-Match is honoured.",
        )

    return [declared("meta", False, meta), declared("meta-add", True, add), declared("meta-delete", True, delete)]


def meta(repository: Repository, request: OperationRequest) -> dict:
    """The meta of the current version."""
    Parameters(request, {})
    return _answer(repository.read(request.access, request.resource_type or "", request.id or ""))


def add(repository: Repository, request: OperationRequest) -> dict:
    """What is sent and not there yet is added, as a new version."""
    return _changed(repository, request, _added)


def delete(repository: Repository, request: OperationRequest) -> dict:
    """What is sent and there is taken away, as a new version."""
    return _changed(repository, request, _left)


def _changed(repository: Repository, request: OperationRequest, change: Change) -> dict:
    given = Parameters(request, _KNOWN).required("meta")
    sent = {name: _listed(given, name) for name in _LISTS}
    resource_type, id = request.resource_type or "", request.id or ""

    def changed(resource: dict) -> dict:
        was = resource.get("meta", {})
        now = {name: change(was.get(name, []), sent[name]) for name in _LISTS}
        rest = {name: value for name, value in was.items() if name not in _LISTS}
        return resource | {"meta": rest | {name: values for name, values in now.items() if values}}

    if request.if_match is None:
        return _answer(repository.amend(request.access, resource_type, id, changed))
    current = repository.read(request.access, resource_type, id)
    if current.version != request.if_match:
        raise PreconditionFailed(f"version {request.if_match} is not the current one")
    written = repository.update(request.access, changed(current.resource()), if_match=request.if_match)
    return _answer(written.version)


def _added(there: list, sent: list) -> list:
    known = {_identity(value) for value in there}
    new = {_identity(value): value for value in sent if _identity(value) not in known}
    return [*there, *new.values()]


def _left(there: list, sent: list) -> list:
    gone = {_identity(value) for value in sent}
    return [value for value in there if _identity(value) not in gone]


def _identity(value: str | dict) -> tuple:
    """A profile is its address; a tag or label is its system and code, whatever it displays."""
    return (value,) if isinstance(value, str) else (value.get("system"), value.get("code"))


def _listed(given: Given, name: str) -> list:
    """The values of one list of the Meta sent."""
    values, path = given.value.get(name, []), f"{given.path}.{name}"
    if not isinstance(values, list):
        raise BadRequest(f"{name} is a list", path)
    for index, value in enumerate(values):
        place = f"{path}[{index}]"
        if name == "profile":
            if not isinstance(value, str):
                raise BadRequest("a profile is a canonical address", place)
        elif not isinstance(value, dict) or not isinstance(value.get("code"), str):
            raise BadRequest("a tag or label is a Coding with a code", place)
        elif not isinstance(value.get("system", ""), str):
            raise BadRequest("a system is an address", f"{place}.system")
    return values


def _answer(version: Version) -> dict:
    meta = version.resource()["meta"]
    return {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": meta}]}
