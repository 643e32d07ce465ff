"""Instances as received, one object each. An acknowledged object survives a loss of power.

What is received lies in a temporary file first: it is read as DICOM before it is known where it belongs.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fhir_server.errors import TooLarge, Unavailable

CHUNK = 256 * 1024
LOOK = 64 * 1024 * 1024  # bytes that are received between two looks at what the disk has left
ABANDONED_S = 24 * 3600
KEY = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}(-[0-9a-f]{16})?")
_CONTENT = slice(33, 65)  # of a key: what depends on the content alone


class BlobMissing(Exception):
    """The store has no object under this key."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A received object in a temporary file of the store, not yet kept. sha256: hexadecimal."""

    path: Path
    size: int
    sha256: str


class BlobStore(ABC):
    """Objects by key. Thread safe; several processes may share the place where they are.

    spool: folder of this machine for what is being received. reserve: bytes of its disk that stay free for what else
    is on it, such as the database: beyond, `spool` and `spool_file` fail as on a full disk (see `is_full`). What
    fails for reasons that are not the caller's raises OSError or Unavailable.
    """

    def __init__(self, spool: Path, reserve: int = 0) -> None:
        self._incoming = spool
        self._reserve = reserve

    def spool(self, chunks: Iterable[bytes], max_bytes: int) -> Spooled:
        """Write the chunks to a temporary file. Raises TooLarge, leaving no file, beyond `max_bytes`."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        path = self._incoming / secrets.token_hex(16)
        digest, size, looked = hashlib.sha256(), 0, 0
        self._check_room()
        try:
            with path.open("xb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size - looked > LOOK:
                        self._check_room()
                        looked = size
                    if size > max_bytes:
                        raise TooLarge(f"an instance may have {max_bytes // 2**20} MB")
                    digest.update(chunk)
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Spooled(path, size, digest.hexdigest())

    def spool_file(self, write: Callable[[BinaryIO], object], max_bytes: int) -> Spooled:
        """As `spool`, of what `write` writes to a file."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        path = self._incoming / secrets.token_hex(16)
        self._check_room()
        try:
            with io.BufferedWriter(_Watched(path, self._check_room)) as file:
                write(file)
            size = path.stat().st_size
            if size > max_bytes:
                raise TooLarge(f"an instance may have {max_bytes // 2**20} MB")
            with path.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Spooled(path, size, digest.hexdigest())

    def _check_room(self) -> None:
        if self._reserve and shutil.disk_usage(self._incoming).free < self._reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def discard(self, spooled: Spooled) -> None:
        spooled.path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove temporary files that a killed server left; no request takes as long as they are old."""
        for path in self._incoming.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()

    def is_intact(self, key: str) -> bool:
        """Whether the object is what was stored under its key. Raises BlobMissing. Reads all of it."""
        digest = hashlib.sha256()
        for chunk in self.chunks(key):
            digest.update(chunk)
        return digest.hexdigest()[:32] == key[_CONTENT]

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """The object as a file of this machine, to read from. Raises BlobMissing."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._incoming) as file:
            for chunk in self.chunks(key):
                file.write(chunk)
            file.seek(0)
            yield file

    def path(self, _key: str) -> Path | None:
        """The object as a file of this machine, for other processes to read; None where there is none."""
        return None

    @abstractmethod
    def keep(self, spooled: Iterable[tuple[Spooled, str]]) -> None:
        """Move spooled objects to their keys, durably; an object that is there already (same key) stays."""

    @abstractmethod
    def keys(self, older_than_s: float = 0.0) -> Iterator[str]:
        """The keys of all objects that were last written so long ago, in no order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Nothing happens when there is no such object."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of the object. Raises BlobMissing."""

    @abstractmethod
    def read(self, key: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises BlobMissing, also for an object that is shorter."""

    @abstractmethod
    def chunks(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object, or a range of it, piece by piece. Raises as `read`."""


class _Watched(io.FileIO):
    """A new file. check: called between pieces of LOOK bytes."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        super().__init__(path, "xb")
        self._check = check
        self._unseen = 0

    def write(self, data: Any, /) -> int:
        self._unseen += memoryview(data).nbytes
        if self._unseen > LOOK:
            self._check()
            self._unseen = 0
        return super().write(data)


class FolderBlobStore(BlobStore):
    """One file each, in `folder`."""

    def __init__(self, folder: Path, reserve: int = 0) -> None:
        super().__init__(folder / "incoming", reserve)
        self._folder = folder
        self._objects = folder / "objects"
        self._safe: set[Path] = set()  # folders that this process has seen and made sure of

    def path(self, _key: str) -> Path | None:
        return self._path(_key)

    def keep(self, spooled: Iterable[tuple[Spooled, str]]) -> None:
        folders = set()
        for item, key in spooled:
            target = self._path(key)
            if target.exists():
                self.discard(item)
            else:
                with item.path.open("rb") as file:
                    os.fsync(file.fileno())
                self._make_folder(target.parent)
                item.path.replace(target)
            # Also of a file that was there: another request may have moved it a moment ago and not synced yet.
            folders.add(target.parent)
        for folder in folders:
            _sync_folder(folder)

    def keys(self, older_than_s: float = 0.0) -> Iterator[str]:
        for path in self._objects.glob("*/*/*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_than_s:
                    yield path.name

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            raise BlobMissing(key) from None

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = self._path(key).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobMissing(key) from None
        with file:
            yield file  # raw file: whole ranges are read at once, buffering only copies

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self.open(key) as file:
            data = os.pread(file.fileno(), length, offset)
            while len(data) < length:
                more = os.pread(file.fileno(), length - len(data), offset + len(data))
                if not more:
                    raise BlobMissing(key)
                data += more
        return data

    def chunks(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        remaining = self.size(key) - offset if length is None else length
        with self.open(key) as file:
            file.seek(offset)
            while remaining > 0:
                chunk = file.read(min(CHUNK, remaining))
                if not chunk:
                    raise BlobMissing(key)
                remaining -= len(chunk)
                yield chunk

    def _path(self, key: str) -> Path:
        return self._objects / key[:2] / key[2:4] / checked(key)

    def _make_folder(self, folder: Path) -> None:
        """It is there, and stays there without power. Whoever made it may not have come so far, so this is not left
        to the one who finds it missing."""
        if folder in self._safe:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for inner, outer in ((folder, folder.parent), (folder.parent, self._objects), (self._objects, self._folder)):
            if inner not in self._safe:
                _sync_folder(outer)
                self._safe.add(inner)


def is_full(error: OSError) -> bool:
    """Whether there was no room, for anybody or for us."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def unavailable_when_full() -> Iterator[None]:
    """Raises Unavailable where there is no room."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise Unavailable("there is no room to store this") from error


def blob_key(study: str, series: str, sop_instance: str, sha256: str) -> str:
    """Where an instance lies: a hash of its UIDs, so that nothing a client wrote gets into a path; a hash of its
    content, which it can be checked against; and a random part, so that no key is ever used again: whoever takes an
    object out of the index may delete it, while another one sends the same file anew."""
    uids = hashlib.sha256(f"{study}/{series}/{sop_instance}".encode()).hexdigest()
    return f"{uids[:32]}-{sha256[:32]}-{secrets.token_hex(8)}"


def checked(key: str) -> str:
    """The key. Raises ValueError for what is none."""
    if not KEY.fullmatch(key):
        raise ValueError("not a key of this store")
    return key


def same_content(key: str, other: str) -> bool:
    """Whether two keys are of the same bytes."""
    return key[_CONTENT] == other[_CONTENT]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
