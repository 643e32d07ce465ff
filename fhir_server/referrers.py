"""Who refers to a resource, found by the search keys of references; what is referred to is not deleted."""

from collections.abc import Collection
from functools import cache

from fhir_server.index import rules
from fhir_server.store import VersionStore
from fhir_server.version import Version


def referrer(
    store: VersionStore, resource_type: str, id: str, without: Collection[tuple[str, str]]
) -> Version | None:
    """A current resource that refers to this one, none of `without`; None when there is none.

    References that no search parameter is about are not found.
    """
    reference = f"{resource_type}/{id}"
    for referring in store.types():
        codes = _codes(referring, resource_type)
        if not codes:
            continue
        filter: dict = {"keys": {"$in": [f"{code}={reference}" for code in codes]}}
        excluded = [other for type, other in without if type == referring]
        if excluded:
            filter["id"] = {"$nin": excluded}
        for version in store.page(referring, filter, [("n", -1)], 1, "k"):
            return version
    return None


@cache
def _codes(resource_type: str, target: str) -> tuple[str, ...]:
    """The reference parameters of a type that can lead to the target."""
    return tuple(
        code
        for code, rule in rules(resource_type).items()
        if rule.parameter.type == "reference" and (not rule.parameter.targets or target in rule.parameter.targets)
    )
