"""A change stream read ahead by a thread of its own: what came while its consumer was busy is at hand at once."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from pymongo.change_stream import ChangeStream

from fhir_server.store import PREFIX, version_of
from fhir_server.version import Version

MOST = 256  # versions read ahead
MOST_BYTES = 16 * 2**20  # of their bodies; one that is larger comes alone


@dataclass(frozen=True, slots=True)
class Read:
    """Up to where a stream was read. version: what was found there; None where nothing has come since."""

    token: Mapping[str, Any] | None
    version: Version | None = None


class AtHand:
    """To be used as a context; the stream is this one's alone meanwhile."""

    def __init__(self, stream: ChangeStream) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._reads: deque[Read] = deque()
        self._bytes = 0
        self._closed = False
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="stream-reader", daemon=True)

    def __enter__(self) -> "AtHand":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def take(self, most: int) -> list[Read]:
        """Wait until something was read; then all that is at hand, at most so many, in order.

        Raises what the stream has raised, after all that was read before that.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reads or self._fault)
            if not self._reads and self._fault is not None:
                raise self._fault
            taken = [self._reads.popleft() for _ in range(min(most, len(self._reads)))]
            self._bytes -= sum(map(_size, taken))
            self._changed.notify_all()
        return taken

    def _read(self) -> None:
        try:
            while not self._closed:
                self._put(self._next())
        except BaseException as fault:
            with self._changed:
                self._fault = fault
                self._changed.notify_all()

    def _next(self) -> Read:
        change = self._stream.try_next()
        if change is None:
            return Read(self._stream.resume_token)
        version = version_of(change["ns"]["coll"].removeprefix(PREFIX), change["fullDocument"])
        committed = change["clusterTime"]
        return Read(change["_id"], replace(version, position=committed.time << 32 | committed.inc))

    def _put(self, read: Read) -> None:
        with self._changed:
            if self._reads and self._reads[-1].version is None:
                self._reads.pop()  # only how far it was read counts
            self._changed.wait_for(lambda: self._closed or not self._reads or self._has_room(read))
            self._reads.append(read)
            self._bytes += _size(read)
            self._changed.notify_all()

    def _has_room(self, read: Read) -> bool:
        return len(self._reads) < MOST and self._bytes + _size(read) <= MOST_BYTES


def _size(read: Read) -> int:
    return len(read.version.body or b"") if read.version is not None else 0
