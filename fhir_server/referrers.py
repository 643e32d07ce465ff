"""Who refers to a resource, found by the search keys of references; what is referred to is not deleted."""

from collections.abc import Collection
from functools import cache

from fhir_server.holds import Target
from fhir_server.index import official_rules
from fhir_server.store import VersionStore
from fhir_server.version import Version

CHUNK = 200  # targets looked for at once


def referrer(
    store: VersionStore, targets: Collection[Target], without: Collection[Target]
) -> tuple[Version, Target] | None:
    """A current resource that refers to one of the targets, and to which; it is none of `without`. None: nobody does.

    References that no search parameter is about are not found.
    """
    types, ordered = store.types_of_data(), sorted(targets)  # what is audited may be deleted
    for begin in range(0, len(ordered), CHUNK):
        chunk = ordered[begin : begin + CHUNK]
        for referring in types:
            keys = {f"{code}={type}/{id}": (type, id) for type, id in chunk for code in _codes(referring, type)}
            if not keys:
                continue
            filter: dict = {"keys": {"$in": list(keys)}}
            excluded = [other for type, other in without if type == referring]
            if excluded:
                filter["id"] = {"$nin": excluded}
            for version in store.page(referring, filter, [("n", -1)], 1, "k"):
                return version, next(keys[key] for key in version.keys if key in keys)
    return None


@cache
def _codes(resource_type: str, target: str) -> tuple[str, ...]:
    """The reference parameters of a type that can lead to the target."""
    return tuple(
        code
        for code, rule in official_rules(resource_type).items()
        if rule.parameter.type == "reference" and (not rule.parameter.targets or target in rule.parameter.targets)
    )
