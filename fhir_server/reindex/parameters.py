"""The search parameters of this server beside the official ones: its active SearchParameter resources."""

import logging
import threading
import time
from collections.abc import Mapping
from hashlib import sha256

from fhir_server.errors import FhirError
from fhir_server.index import Rule
from fhir_server.index.active import LAYOUT, Added, ParameterSet
from fhir_server.index.custom import rules_of
from fhir_server.reindex.state import IndexState, TypeState
from fhir_server.store import VersionStore
from fhir_server.version import Version

log = logging.getLogger(__name__)

REFRESH_S = 1.0  # within which every process knows of a change
MAX_PARAMETERS = 200
_TYPE = "SearchParameter"


class Parameters:
    """Gives the set that applies now; looks after changes when that was not done for a second. Thread safe."""

    def __init__(self, store: VersionStore, refresh_s: float = REFRESH_S) -> None:
        self._store = store
        self._state = IndexState(store.database)
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._known: tuple[object, ...] = ()
        self._definitions: tuple[object, list[tuple[Version, dict[str, Rule]]]] = (None, [])
        self._set = ParameterSet()
        self._looked = float("-inf")

    def current(self) -> ParameterSet:
        """The set. The same object for as long as nothing changes."""
        if time.monotonic() - self._looked > self._refresh_s:
            with self._lock:
                if time.monotonic() - self._looked > self._refresh_s:
                    looked = time.monotonic()
                    self._refresh()
                    self._looked = looked
        return self._set

    def forget(self) -> None:
        """Look again next time, as after a change of our own."""
        self._looked = float("-inf")

    def _refresh(self) -> None:
        mark = self._state.mark_of(_TYPE)
        states = self._state.all()
        # What matters of a state is not how far it is, but what it allows.
        known = (mark, sorted((type, _relevant(state)) for type, state in states.items()))
        if known != self._known:
            if self._definitions[0] != mark:
                self._definitions = (mark, self._read() if any(mark) else [])
            self._set = ParameterSet(_by_type(self._definitions[1], states))
            self._known = known

    def _read(self) -> list[tuple[Version, dict[str, Rule]]]:
        """Active definitions with what they make; of those with the same code, the first one that was created."""
        found: list[tuple[Version, dict[str, Rule]]] = []
        for version in self._store.walk(_TYPE, {"keys": "*"}, [("n", 1)], "k"):
            try:
                made = rules_of(version.resource())
            except FhirError:
                log.warning("%s is not searched by: it was stored before it could be refused", version.reference)
                continue
            if made and len(found) < MAX_PARAMETERS:
                found.append((version, made))
        return found


def _relevant(state: TypeState) -> tuple[object, ...]:
    return state.layout, sorted(state.ready), state.rebuilds, state.closed


def _by_type(definitions: list[tuple[Version, dict[str, Rule]]], states: Mapping[str, TypeState]) -> dict[str, Added]:
    rules: dict[str, dict[str, Rule]] = {type: {} for type in states}
    made_by: dict[str, dict[str, str]] = {type: {} for type in states}
    for version, made in definitions:
        for type, rule in made.items():
            if rule.parameter.code not in rules.setdefault(type, {}):
                rules[type][rule.parameter.code] = rule
                # By the version, so that one that goes and comes again is not taken for what was indexed before.
                made_by.setdefault(type, {})[rule.parameter.code] = f"{version.id}/{version.version}"
    return {type: _added(rules[type], made_by[type], states.get(type, TypeState())) for type in rules}


def _added(rules: dict[str, Rule], made_by: dict[str, str], state: TypeState) -> Added:
    ready = frozenset(code for code, name in made_by.items() if name in state.ready)
    return Added(rules, ready, _layout(made_by, state.rebuilds), state.closed, made_by)


def _layout(made_by: dict[str, str], rebuilds: int) -> str:
    """A name for what resources of a type are indexed by."""
    if not made_by and not rebuilds:
        return LAYOUT
    text = "\n".join([str(rebuilds), *(f"{code} {name}" for code, name in sorted(made_by.items()))])
    return f"{LAYOUT}-{sha256(text.encode()).hexdigest()[:12]}"
