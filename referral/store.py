"""How the rules read and write: always through the Repository, as a part of this server."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fhir_server import references
from fhir_server.access import Access
from fhir_server.errors import Conflict, Gone, NotFound
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from fhir_server.version import Version

RULES = Access.system("referral")
PAGE = 200


@dataclass(frozen=True, slots=True)
class Stored:
    """A current resource and the version number to name in If-Match."""

    resource: dict
    version: int

    @property
    def reference(self) -> str:
        return f"{self.resource['resourceType']}/{self.resource['id']}"


def stored(version: Version) -> Stored:
    return Stored(version.resource(), version.version)


def derived_id(kind: str, *parts: str) -> str:
    """The same id for the same cause, so that doing something again makes nothing new."""
    return f"{kind}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}"


def fetch(repository: Repository, reference: str, access: Access = RULES) -> Stored | None:
    """The resource of ours that a reference leads to; None when it is not (or no longer) there."""
    target = references.local(reference, repository.base_url)
    if target is None:
        return None
    try:
        return stored(repository.read(access, *target))
    except (NotFound, Gone):
        return None


def ensure(repository: Repository, resource: dict, access: Access = RULES) -> bool:
    """Create the resource under its own id unless that id was ever used; whether it is new."""
    resource_type, id = resource["resourceType"], resource["id"]
    if repository.store.newest(resource_type, id) is not None:
        return False
    try:
        repository.write(access, [Draft("create", resource, id=id)])
    except Conflict:  # another worker made it between the look and the write
        return False
    return True


def every(
    repository: Repository, resource_type: str, query: Sequence[tuple[str, str]], access: Access = RULES
) -> Iterator[Version]:
    """All matches of a search, page by page."""
    parameters = [*query, ("_count", str(PAGE))]
    while True:
        result = repository.search(access, resource_type, parameters, strict=True)
        yield from result.matches
        if not result.next:
            return
        parameters = parse_qsl(result.next, keep_blank_values=True)


def update_of(changed: Stored) -> Draft:
    """A write under If-Match, for commits of several resources."""
    return Draft("update", changed.resource, if_match=changed.version)


def previous(repository: Repository, version: Version) -> dict | None:
    """The content before this version; None when there was none."""
    if version.version == 1:
        return None
    before = repository.store.version(version.resource_type, version.id, version.version - 1)
    return None if before is None or before.deleted else before.resource()
