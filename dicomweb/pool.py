"""A few processes that decode and render, and that are killed when they take too long or too much.

Started when first needed, by spawning: a fork of a web server with threads could inherit a locked lock.
"""

import atexit
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as TookTooLong
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from dicomweb import pixels, render
from dicomweb.blobs import BlobMissing
from dicomweb.display import Display
from dicomweb.pixels import EncodedFrame, Undecodable
from dicomweb.render import Rendering
from fhir_server.errors import NotAcceptable, Unavailable

TIMEOUT_S = 30.0
TASKS_A_PROCESS = 1000  # then it is replaced, whatever a decoder may have leaked
MEMORY_BYTES = 4 * 1024**3  # address space of a process
NICENESS = 10  # below the web server's: a large image does not hold up an appointment
WAITING_A_PROCESS = 16  # tasks beyond that are refused: who waits longer has gone
THREADS_SHARE = (2, 3)  # of a web server's threads wait for pixels at most: the others are for everybody else

Result = TypeVar("Result")


class Runner(Protocol):
    """Where functions of modules are called: the pool, or a place in it."""

    def run(self, function: Callable[..., Result], *arguments: object) -> Result: ...


class PixelPool:
    """Thread safe. size: processes. threads: of the web server it is in, None where nobody else needs them.
    idle: nobody waits for what it makes, so that it takes only time of processors that nobody else wants.

    Each task keeps the thread that waits for it, so that the tasks that are admitted bound what is left of them.
    """

    def __init__(
        self, size: int, timeout_s: float = TIMEOUT_S, threads: int | None = None, *, idle: bool = False
    ) -> None:
        self._size = size
        self._policy = os.SCHED_IDLE if idle else os.SCHED_BATCH
        self._timeout_s = timeout_s
        room = size * WAITING_A_PROCESS
        if threads is not None:
            part, whole = THREADS_SHARE
            room = min(room, max(1, threads * part // whole))
        self._room = threading.BoundedSemaphore(room)
        self._starting = threading.Lock()
        self._pool: ProcessPool | None = None

    def decoded(self, frame: EncodedFrame) -> bytes:
        """See pixels.decoded. Raises NotAcceptable when it cannot be decoded here, Unavailable when all are busy."""
        return self.run(pixels.decoded, frame)

    def rendered(self, frame: EncodedFrame, display: Display, wanted: Rendering) -> bytes:
        """See render.render. Raises as `decoded` does."""
        return self.run(render.render, frame, display, wanted)

    def close(self) -> None:
        """End the processes; the pool starts anew when it is used again."""
        with self._starting:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function of a module in one of the processes. Raises NotAcceptable, Unavailable."""
        with self.place() as place:
            return place.run(function, *arguments)

    def place(self) -> "Place":
        """Room for one task after the other, for an answer of several. Raises Unavailable when all is taken."""
        if not self._room.acquire(blocking=False):
            raise Unavailable("too many images are being decoded just now", headers={"Retry-After": "2"})
        return Place(self._run, self._room.release)

    def _run(self, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            task = (function, *arguments)
            return self._started().schedule(_done, args=task, timeout=self._timeout_s).result()
        except Undecodable as error:
            raise NotAcceptable(str(error)) from None
        except (TookTooLong, ProcessExpired, MemoryError):
            raise NotAcceptable("the pixel data takes too long or too much memory to decode") from None
        except (FileNotFoundError, EOFError) as error:  # of a frame that is read there
            path = error.filename if isinstance(error, OSError) else str(error)
            raise BlobMissing(Path(path).name) from None
        except BrokenProcessPool:
            self.close()
            raise Unavailable(
                "the processes that decode images are not running", headers={"Retry-After": "2"}
            ) from None

    def _started(self) -> ProcessPool:
        with self._starting:
            if self._pool is None:
                spawn = multiprocessing.get_context("spawn")
                self._pool = ProcessPool(self._size, TASKS_A_PROCESS, _begin, [self._policy], spawn)
                atexit.register(self.close)
            return self._pool


class Place:
    """A place in the pool that its owner has until it is closed: nothing that is run there is refused for want of
    room. An answer that has begun can so be ended."""

    def __init__(self, run: Callable[..., Any], release: Callable[[], None]) -> None:
        self._run = run
        self._release = release
        self._open = True

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """See PixelPool.run. Raises Unavailable only when the processes themselves are gone."""
        result: Result = self._run(function, *arguments)
        return result

    def close(self) -> None:
        """Give it to others; once."""
        if self._open:
            self._open = False
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _done(function: Callable[..., Result], *arguments: object) -> Result:
    """The call, in the process."""
    return function(*(one.loaded() if isinstance(one, EncodedFrame) else one for one in arguments))


def _begin(policy: int) -> None:
    """First thing in a process of the pool."""
    # Neither takes the processor from a request that becomes ready; a batch is served before what is idle.
    os.sched_setscheduler(0, policy, os.sched_param(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its pool
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    """A server that is killed takes its pool with it."""
    parent.join()
    os._exit(1)
