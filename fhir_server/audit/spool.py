"""Files of lines between the processes that answer and the worker that stores: one writer a file.

A writer holds a lock on its file for as long as it lives, which the system takes from it even when it is killed: a
file whose lock can be had gets no more lines. A write reaches the system before the answer goes out, so that a killed
process loses nothing of it; a machine that loses its power may lose what no worker had stored yet, about a second.
"""

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".lines"
_NEW = ".new"  # not locked yet
ROTATE_BYTES = 16 * 2**20


class Spool:
    """Where one process appends its lines. Thread safe; a process that is forked off gets a file of its own."""

    def __init__(self, folder: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._folder, self._rotate_bytes = folder, rotate_bytes
        self._lock = threading.Lock()
        self._file = -1
        self._path = folder
        self._size = 0
        self._process = 0

    def append(self, line: bytes) -> None:
        """Hand the line, its end included, to the system. Raises OSError, and then it counts as not written."""
        with self._lock:
            if self._file < 0 or self._process != os.getpid() or self._size >= self._rotate_bytes:
                self._begin()
            try:
                written = os.write(self._file, line)
                if written < len(line):  # as when the disk is full
                    raise OSError(f"{written} of {len(line)} bytes of a line were written")
            except OSError:
                # What was written of the line stays the end of this file, where it is known for torn.
                self._end()
                if not self._size:
                    self._path.unlink(missing_ok=True)
                raise
            self._size += len(line)

    def close(self) -> None:
        """Let the worker have the file."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        self._end()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{time.time_ns():020}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        new, path = self._folder / (name + _NEW), self._folder / name
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            new.rename(path)
        except BaseException:
            os.close(file)
            raise
        self._file, self._path, self._size, self._process = file, path, 0, os.getpid()

    def _end(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a file, without their ends. end: where in it they end.

    rest: what follows the last whole line of a file whose writer is gone. over: nothing comes after that.
    """

    lines: tuple[bytes, ...]
    end: int
    rest: bytes = b""
    over: bool = False


def spools(folder: Path) -> Iterator[Path]:
    """The files there are, the oldest first."""
    yield from sorted(folder.glob(f"*{SUFFIX}"))


def read(path: Path, offset: int, size: int = 2**20) -> Chunk:
    """Whole lines from this place on, about so many bytes of them."""
    with path.open("rb") as file:
        over = take_lock(file.fileno())  # before reading: what a writer adds until it ends is read as well
        file.seek(offset)
        text = file.read(size)
        if b"\n" not in text:
            text += file.readline()
        more = file.tell() < os.fstat(file.fileno()).st_size
    whole, newline, rest = text.rpartition(b"\n")
    lines = tuple(whole.split(b"\n")) if newline else ()
    end = offset + len(whole) + len(newline)
    over = over and not more
    return Chunk(lines, end, rest if over else b"", over)


def take_lock(file: int) -> bool:
    """Whether the lock could be had; it lasts until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
