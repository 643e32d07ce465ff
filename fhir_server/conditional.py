"""Conditional create, update, patch and delete: which resources the criteria mean.
https://hl7.org/fhir/R4/http.html#cond-update

The criteria are met by what is stored before the commit, less what the commit itself deletes.
"""

import uuid
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fhir_server.access import Access
from fhir_server.errors import BadRequest, NotFound, PreconditionFailed, Unprocessable
from fhir_server.store import Guard
from fhir_server.version import Version

if TYPE_CHECKING:
    from fhir_server.prepare import Draft
    from fhir_server.repository import Repository


class Conditions:
    """Finds what the drafts of one commit ask for, and holds the places of those that will be new."""

    def __init__(self, repository: "Repository", access: Access) -> None:
        self._repository = repository
        self._access = access
        self._first: dict[str, Draft] = {}
        self.guards: list[Guard] = []

    def meet(self, draft: "Draft", resource_type: str, deleted: Collection[tuple[str, str]]) -> None:
        """Settle the id of a draft that has criteria, and what it is based on.

        Raises PreconditionFailed when several resources match; NotFound for a patch that none does.
        """
        criteria = draft.criteria or ""
        name = self._name(resource_type, criteria)
        if name in self._first:
            self._repeat(draft, self._first[name])
            return
        # The guard is read before the search: whoever commits after that changes it, and we start anew.
        holder = self._repository.store.guard(name)
        if draft.interaction == "delete" and self._repository.deletes_at_once > 1:
            self._meet_several(draft, resource_type, deleted)
            return
        found = match_one(self._repository, self._access, resource_type, criteria, draft.path, deleted)
        if found is not None:
            self._found(draft, found)
        elif draft.interaction == "patch":
            raise NotFound("no resource meets the conditions", draft.path)
        elif draft.interaction == "delete":
            draft.id = str(uuid.uuid4())  # nobody's, so there is nothing to delete
        else:
            given = draft.resource.get("id") if draft.interaction == "update" else None
            draft.id = given if isinstance(given, str) else str(uuid.uuid4())
            draft.unmet = True
            self._first[name] = draft
            self.guards.append(Guard(name, draft.id, replaces=holder))

    def _meet_several(self, draft: "Draft", resource_type: str, deleted: Collection[tuple[str, str]]) -> None:
        """All that match are deleted, each as it was found."""
        most = self._repository.deletes_at_once
        criteria = draft.criteria or ""
        found = matching(self._repository, self._access, resource_type, criteria, draft.path, most, deleted)
        if not found:
            draft.id = str(uuid.uuid4())  # nobody's, so there is nothing to delete
            return
        if draft.if_match is not None and len(found) > 1:
            raise PreconditionFailed("If-Match is about one resource, and the criteria match several", draft.path)
        draft.id, draft.met = found[0].id, found[0]
        draft.others = tuple(replace(draft, id=other.id, met=other) for other in found[1:])

    def _found(self, draft: "Draft", found: Version) -> None:
        if draft.interaction == "create":
            draft.existing = found
        elif draft.interaction == "update" and draft.resource.get("id", found.id) != found.id:
            raise BadRequest("the resource that meets the conditions has another id", _id_of(draft))
        draft.id, draft.met = found.id, found

    def _repeat(self, draft: "Draft", first: "Draft") -> None:
        """The second draft of a commit with these criteria, of which the first will make the resource."""
        if draft.interaction != "create" or first.interaction != "create":
            raise BadRequest("two entries have these conditions, and nothing meets them yet", draft.path)
        draft.id, draft.twin = first.id, first

    def _name(self, resource_type: str, criteria: str) -> str:
        # Callers who see different resources don't compete, so the guard is one of the audience too.
        access = self._access
        audience = "*" if access.audience is None else ",".join(sorted(access.audience))
        within = "" if access.compartment is None else f"&{','.join(sorted(access.compartment))}"
        limits = f"&{' '.join(sorted(map(str, access.scopes)))}" if access.is_limited else ""
        return f"{audience}{within}{limits}|{resource_type}?{criteria}"


def match_one(
    repository: "Repository",
    access: Access,
    resource_type: str,
    query: str,
    path: str | None,
    without: Collection[tuple[str, str]] = (),
) -> Version | None:
    """The one resource that conditional criteria match. Raises PreconditionFailed when several do."""
    found = matching(repository, access, resource_type, query, path, 1, without)
    return found[0] if found else None


def matching(
    repository: "Repository",
    access: Access,
    resource_type: str,
    query: str,
    path: str | None,
    most: int,
    without: Collection[tuple[str, str]] = (),
) -> list[Version]:
    """The resources that conditional criteria match. Raises PreconditionFailed when they are more than `most`."""
    reader = access.of_the_server()
    if access.is_limited:  # scopes with parameters keep the rest out of sight, whatever it is looked for by
        reader = replace(reader, scopes=tuple(replace(scope, letters="cruds") for scope in access.scopes))
    parameters = parse_qsl(query, keep_blank_values=True)
    if not parameters:
        raise Unprocessable("conditional criteria must not be empty", path)
    shaping = next((name for name, _ in parameters if name in _SHAPING), None)
    if shaping:
        raise BadRequest(f"{shaping} is no condition", path)
    count = most + 1 + sum(1 for type, _ in without if type == resource_type)
    result = repository.search(reader, resource_type, [*parameters, ("_count", str(count))], strict=True)
    matches = [found for found in result.matches if (resource_type, found.id) not in without]
    if len(matches) > most or result.next is not None:
        several = "more than one resource" if most == 1 else f"more than {most} resources"
        raise PreconditionFailed(f"the conditional criteria match {several}", path)
    return matches


_SHAPING = frozenset(
    "_count _total _summary _elements _sort _include _revinclude _contained _containedType _format _pretty".split()
)


def _id_of(draft: "Draft") -> str:
    return f"{draft.path or draft.resource['resourceType']}.id"
