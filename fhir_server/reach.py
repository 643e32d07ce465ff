"""What the scopes of a caller reach: with parameters, as in `patient/Observation.rs?category=laboratory`, not all.

A parameter is held against the search keys of a resource (`fhir_server.clauses`). These are kept with the newest
version only; those of an older one are made anew from its content.
"""

from collections.abc import Collection, Sequence

from fhir_server.access import Access, Keys, Reach
from fhir_server.index import Indexer
from fhir_server.store import VersionStore
from fhir_server.version import Version


def met(reach: Reach | None, keys: Collection[str]) -> bool:
    """Whether a resource with these search keys is within the reach."""
    if reach is None:
        return True
    return any(all(not wanted.isdisjoint(keys) for wanted in clauses) for clauses in reach)


def reached(access: Access, letters: str, version: Version, store: VersionStore, indexer: Indexer) -> bool:
    """Whether the scopes of the caller reach this version for one of these letters; a deletion is what it deleted."""
    reach = access.reach(letters, version.resource_type)
    return reach is None or met(reach, keys_of(version, store, indexer))


def keys_of(version: Version, store: VersionStore, indexer: Indexer) -> Collection[str]:
    """The search keys that a version has, or had while it was the newest; those of a deletion are of what it deleted.

    There are none where that was expunged.
    """
    if version.deleted:
        before = store.version(version.resource_type, version.id, version.version - 1)
        return () if before is None or before.deleted else keys_of(before, store, indexer)
    return frozenset(version.keys or indexer.index(version.resource()).keys)


def filters(access: Access, letters: str, resource_type: str) -> list[dict]:
    """What a current version of the type has in the database when the caller sees it, and reaches it for one of these
    letters."""
    seen = [{"keys": _one_of(keys)} for keys in access.sights]
    reach = access.reach(letters, resource_type)
    if reach is None:
        return seen
    # The first parameters of all alternatives make one look-up in the index; what is found is held against them all.
    seen.append({"keys": _one_of(frozenset().union(*(clauses[0] for clauses in reach)))})
    if any(len(clauses) > 1 for clauses in reach):
        seen.append({"$or": [_all_of(clauses) for clauses in reach]})
    return seen


def _all_of(clauses: Sequence[Keys]) -> dict:
    return {"$and": [{"keys": _one_of(keys)} for keys in clauses]}


def _one_of(keys: Keys) -> object:
    return next(iter(keys)) if len(keys) == 1 else {"$in": sorted(keys)}
