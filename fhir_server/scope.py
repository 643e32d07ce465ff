"""Who may see a resource: the scope keys that the Repository stores with it and adds to every query.

The rules are data (`conformance.access_rules()`); nothing here knows a resource type.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import conformance
from fhir_server.access import Access
from fhir_server.references import RELATIVE
from fhir_server.store import VersionStore
from fhir_server.version import Version

MAX_HOPS = 3  # Communication -> Task -> ServiceRequest

Pending = Callable[[str, str], dict | None]


class Scoping:
    """Works out scope keys; `pending` gives the content of resources that are committed together with it."""

    def __init__(self, store: VersionStore, pending: Pending) -> None:
        self._store = store
        self._pending = pending
        self._rules = conformance.access_rules()

    def scope_of(self, resource: dict, keys: list[str], writer: Access, before: Version | None) -> set[str]:
        """The scope keys of this version. What an organization could see before, it still can, unless it was
        another's by mistake."""
        if before is not None and resource["resourceType"] in self._rules.owner_only:
            return set(before.scope)  # whoever updates it, it stays its owner's
        scope = self._own(resource, writer, hops=0) | _patients(resource, keys)
        if before is not None and not self._corrected(resource, before):
            scope |= {key for key in before.scope if key.startswith("@Organization/")}
        return scope

    def shown(self, resource: dict, scope: set[str]) -> dict[tuple[str, str], set[str]]:
        """What the organizations of this scope may see because of this resource: (type, id) -> their keys."""
        organizations = {key for key in scope if key.startswith("@Organization/")}
        paths = self._rules.grants.get(resource["resourceType"], ()) if organizations else ()
        return {target: organizations for path in paths for target in _targets(resource, path)}

    def _corrected(self, resource: dict, before: Version) -> bool:
        """Whether it is another one's now: of a type that this is said of, with other links than before."""
        if resource["resourceType"] not in self._rules.corrected or before.deleted:
            return False
        paths, old = self._rules.inherited.get(resource["resourceType"], ()), before.resource()
        lost = [set(_targets(old, path)) - set(_targets(resource, path)) for path in paths]
        return any(lost)

    def _own(self, resource: dict, writer: Access, hops: int) -> set[str]:
        resource_type, rules = resource["resourceType"], self._rules
        if resource_type in rules.catalogue or writer.subject in rules.publishers:
            return {"@any"}
        if resource_type in rules.owner_only:
            return {f"@owner/{writer.subject}"}
        scope: set[str] = set()
        if resource_type in rules.writer_organization and writer.organization:
            scope.add(f"@{writer.organization}")
        for path in rules.organizations.get(resource_type, ()):
            scope |= self._organizations(_targets(resource, path))
        for path in rules.inherited.get(resource_type, ()):
            for target in _targets(resource, path):
                scope |= self._inherited(target, writer, hops + 1)
        return scope

    def _organizations(self, targets: Iterable[tuple[str, str]]) -> set[str]:
        """The targets that are organizations, and the organizations that others of them stand for."""
        found: set[str] = set()
        for target in targets:
            if target[0] == "Organization":
                found.add(f"@Organization/{target[1]}")
            for path in self._rules.standing_for.get(target[0], ()):
                member = self._pending(*target) or self._current(target) or {}
                found |= {f"@{type}/{id}" for type, id in _targets(member, path) if type == "Organization"}
        return found

    def _inherited(self, target: tuple[str, str], writer: Access, hops: int) -> set[str]:
        pending, newest = self._pending(*target), self._store.newest(*target)
        scope = set(newest.scope) if newest else set()
        if pending is not None and hops <= MAX_HOPS:
            scope |= self._own(pending, writer, hops)
        return {key for key in scope if key.startswith("@Organization/")}

    def _current(self, target: tuple[str, str]) -> dict | None:
        newest = self._store.newest(*target)
        return newest.resource() if newest is not None and not newest.deleted else None


def _patients(resource: dict, keys: list[str]) -> set[str]:
    """One key per patient compartment that the resource is in. https://hl7.org/fhir/R4/compartmentdefinition.html"""
    resource_type = resource["resourceType"]
    if resource_type == "Patient":
        return {f"@Patient/{resource['id']}"}
    prefixes = tuple(f"{code}=Patient/" for code in conformance.compartment("Patient").get(resource_type, ()))
    return {"@" + key.partition("=")[2] for key in keys if key.startswith(prefixes)} if prefixes else set()


def _targets(resource: Any, path: str) -> Iterator[tuple[str, str]]:
    """(type, id) of the local references at a dotted element path such as `context.related`."""
    values = [resource]
    for name in path.split("."):
        values = [
            child
            for value in values
            if isinstance(value, dict) and name in value
            for child in (value[name] if isinstance(value[name], list) else [value[name]])
        ]
    for value in values:
        reference = value.get("reference") if isinstance(value, dict) else None
        if isinstance(reference, str) and (match := RELATIVE.fullmatch(reference)):
            yield match[1], match[2]
