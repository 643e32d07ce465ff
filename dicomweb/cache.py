"""What was made or read last, in the memory of one process: the same few things are asked for again and again.

Not on disk: nothing is left of a picture when its instance is deleted and the server restarted.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from dicomweb.prepared import Prepared, SeriesMetadata, Thumbnail
from dicomweb.records import InstanceFile, StoredInstance
from dicomweb.store import DicomStore

REMEMBERED_BYTES = 12 * 1024 * 1024
_RECORD_BYTES = 700  # of a record in memory beside its metadata, about

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Thread safe. Holds values of up to `max_bytes`, the least recently used making room."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep it, unless it alone would push out an eighth of the others. size: bytes that it takes."""
        if size > self._max_bytes // 8:
            return
        with self._lock:
            if (before := self._values.pop(key, None)) is not None:
                self._bytes -= before[1]
            self._values[key] = value, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= self._values.popitem(last=False)[1][1]


class Remembered:
    """Instances as the store knows them, without asking it for each frame. Thread safe.

    What was read is remembered with the state that the study was in before it was read. `DicomStore.check_visible`
    tells the state and the caller's right to the study with each request, so nothing is shown after its deletion or
    change, and nothing has to be dropped then.
    """

    def __init__(self, store: DicomStore, max_bytes: int = REMEMBERED_BYTES) -> None:
        self._store = store
        self._prepared = Prepared(store.database)
        self._instances: Cache[StoredInstance] = Cache(max_bytes // 4)
        self._files: Cache[list[InstanceFile]] = Cache(max_bytes // 4)
        self._metadata: Cache[SeriesMetadata] = Cache(max_bytes // 4)
        self._thumbnails: Cache[Thumbnail] = Cache(max_bytes // 4)

    def instance(self, state: str, study: str, series: str, sop_instance: str) -> StoredInstance:
        """As DicomStore.instance."""
        key = (state, study, series, sop_instance)
        return _once(self._instances, key, lambda: self._store.instance(study, series, sop_instance), _size)

    def files(
        self, state: str, study: str, series: str | None = None, sop_instance: str | None = None
    ) -> list[InstanceFile]:
        """As DicomStore.files; not to be changed."""
        key = (state, study, series, sop_instance)
        return _once(
            self._files, key, lambda: self._store.files(study, series, sop_instance), lambda f: len(f) * _RECORD_BYTES
        )

    def metadata(self, state: str, study: str, series: str, base: str) -> SeriesMetadata | None:
        """As Prepared.metadata."""
        key = (state, study, series, base)
        found = self._metadata.get(key)
        if found is None and (found := self._prepared.metadata(state, study, series, base)) is not None:
            self._metadata.put(key, found, len(found.compressed))
        return found

    def thumbnail(self, state: str, study: str, series: str, sop_instance: str) -> Thumbnail | None:
        """As Prepared.thumbnail."""
        key = (state, study, series, sop_instance)
        found = self._thumbnails.get(key)
        if found is None and (found := self._prepared.thumbnail(state, study, series, sop_instance)) is not None:
            self._thumbnails.put(key, found, len(found.jpeg) + _RECORD_BYTES)
        return found


def _once(cache: Cache[Value], key: Hashable, read: Callable[[], Value], size: Callable[[Value], int]) -> Value:
    found = cache.get(key)
    if found is None:
        found = read()
        cache.put(key, found, size(found))
    return found


def _size(stored: StoredInstance) -> int:
    spans = len(stored.frames.spans or b"") if stored.frames else 0
    return _RECORD_BYTES + len(stored.metadata) + spans + 200 * len(stored.places)
