"""The search parameters of this server beside the official ones, as one request or job takes them to be.

They are resources and can change at any time, in any process. Whoever reads or writes takes one set of them for as
long as that takes (`ParameterSet.applied`), so that nothing is understood half by the old and half by the new ones.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from fhir_server.errors import Unavailable

if TYPE_CHECKING:
    from fhir_server.index import Rule

LAYOUT = "3"  # of what is stored to search by; any other is made anew before it is searched
_RETRY_AFTER_S = "10"


class BeingIndexed(Unavailable):
    """A search whose answer would not be whole yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """What a type has beside the official parameters. rules: by code, all that are to be indexed.

    ready: those that every resource is indexed by. layout: names what a resource is indexed by now; other than
    `LAYOUT` when there is more to it. closed: the stored resources are in an older layout, and cannot be searched.
    sources_by_code: the versions of SearchParameters that the rules are from, such as `1/3`.
    """

    rules: Mapping[str, "Rule"] = field(default_factory=dict)
    ready: frozenset[str] = frozenset()
    layout: str = LAYOUT
    closed: bool = False
    sources_by_code: Mapping[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> frozenset[str]:
        return frozenset(self.sources_by_code.values())


_NOTHING = Added()


@dataclass(frozen=True, slots=True, eq=False)
class ParameterSet:
    """What all types have beside the official parameters, at one time."""

    by_type: Mapping[str, Added] = field(default_factory=dict)

    def of(self, resource_type: str) -> Added:
        return self.by_type.get(resource_type, _NOTHING)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, this is the set that resources are indexed and searched by."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)


class Offered(Mapping[str, "Rule"]):
    """The rules that a type can be searched by. One that is not ready raises BeingIndexed, whoever asks for it."""

    def __init__(self, official: Mapping[str, "Rule"], added: Added) -> None:
        self._waiting = frozenset(added.rules) - added.ready
        self._rules = MappingProxyType({**official, **{code: added.rules[code] for code in added.ready}})

    def __getitem__(self, code: str) -> "Rule":
        if code in self._waiting:
            text = f"{code!r} is new here and is being indexed; search by it once that is done"
            raise BeingIndexed(text, headers={"Retry-After": _RETRY_AFTER_S})
        return self._rules[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


_OFFICIAL = ParameterSet()
_ACTIVE: ContextVar[ParameterSet] = ContextVar("search parameters of this server", default=_OFFICIAL)


def added_to(resource_type: str) -> Added:
    """What the type has beside the official parameters, in the set that is applied."""
    return _ACTIVE.get().of(resource_type)


def require_searchable(resource_type: str) -> None:
    """Raises BeingIndexed while the stored resources of the type are being brought to this layout."""
    if added_to(resource_type).closed:
        text = f"{resource_type} is being indexed anew after an upgrade of the server; search it once that is done"
        raise BeingIndexed(text, headers={"Retry-After": _RETRY_AFTER_S})
