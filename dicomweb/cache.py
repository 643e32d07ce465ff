"""The pictures that were made last, in the memory of one process: the same few are asked for again and again.

Not on disk: nothing is left of a picture when its instance is deleted and the server restarted.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable


class PictureCache:
    """Thread safe. Holds up to `max_bytes` of pictures, the least recently used making room."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pictures: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: Hashable, picture: bytes) -> None:
        """Keep it, unless it alone would push out an eighth of the others."""
        if len(picture) > self._max_bytes // 8:
            return
        with self._lock:
            self._bytes += len(picture) - len(self._pictures.pop(key, b""))
            self._pictures[key] = picture
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._pictures.popitem(last=False)[1])
