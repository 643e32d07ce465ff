"""The newest versions that one commit needs, read in one go rather than one by one."""

from collections.abc import Iterable

from fhir_server.holds import Generations
from fhir_server.store import VersionStore
from fhir_server.version import Version

SMALL_BYTES = 64 * 1024  # larger bodies are read when they are needed, so that many of them don't fill the memory


class ReadAhead(VersionStore):
    """The store, with the newest versions of some resources as they were a moment ago.

    For one commit only: whoever writes one of them in between takes the version, and the commit begins anew.
    """

    def __init__(self, store: VersionStore, targets: Iterable[tuple[str, str]]) -> None:
        # All else is the store's own: its connection, its numbers, what it knows of its indexes.
        self.__dict__.update(store.__dict__)
        self._known = store.generations()
        self._asked = set(targets)
        self._current: dict[tuple[str, str], Version] = {}
        for version in store.glance(self._asked, SMALL_BYTES):
            self._current[version.resource_type, version.id] = version
        self._unused = self._asked - self._current.keys()
        self._unused -= store.used(self._unused)

    def newest(self, resource_type: str, id: str) -> Version | None:
        if (resource_type, id) in self._unused:
            return None
        found = self._current.get((resource_type, id))
        return found if found is not None and found.body is not None else super().newest(resource_type, id)

    def generations(self) -> Generations:
        return self._known

    def scopes(self, references: Iterable[tuple[str, str]]) -> list[Version]:
        wanted = set(references)
        found = [self._current[key] for key in wanted & self._current.keys()]
        return [*found, *super().scopes(wanted - self._asked)]
