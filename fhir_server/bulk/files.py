"""The files of bulk jobs: a folder a job, written line by line, readable by the server's own user alone."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from fhir_server.bulk.jobs import File
from fhir_server.errors import TooLarge

CHUNK = 256 * 1024
MAX_FILE_BYTES = 256 * 2**20  # then the next file of the type begins


class Files:
    """Folders of jobs below one folder, which the processes that take and do jobs share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, job_id: str, name: str) -> Path:
        return self._folder / job_id / name

    def receive(self, job_id: str, name: str, chunks: Iterable[bytes], max_bytes: int) -> int:
        """Write an upload, durably; its size. Raises TooLarge beyond `max_bytes`."""
        size = 0
        with self.create(job_id, name) as file:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge(f"an upload may have {max_bytes // 2**20} MB")
                file.write(chunk)
            _sync(file)
        return size

    def create(self, job_id: str, name: str) -> BinaryIO:
        """The file, open for writing behind what is in it already."""
        path = self.path(job_id, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=CHUNK)

    def delete(self, job_id: str) -> None:
        """Remove all files of a job; a worker may be writing more just now, which the next sweep finds."""
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def job_ids(self) -> list[str]:
        """The jobs that have a folder."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in self._folder.iterdir())
        return []


class Output:
    """Writes the files of one job. Only what was there at the last `sync` counts; a crash loses what came after."""

    def __init__(self, files: Files, job_id: str, written: Iterable[File]) -> None:
        self._files = files
        self._job_id = job_id
        self._written = {file.name: file for file in written}
        self._open: dict[tuple[str, str], tuple[str, BinaryIO]] = {}

    def write(self, kind: str, type: str, line: bytes) -> None:
        """Append a line (without its end) to the newest file of that kind and type."""
        name, file = self._open.get((kind, type)) or self._reopen(kind, type)
        file.write(line)
        file.write(b"\n")
        reached = self._written[name]
        reached = replace(reached, count=reached.count + 1, size=reached.size + len(line) + 1)
        self._written[name] = reached
        if _is_full(reached):
            self._close(kind, type)

    def sync(self) -> tuple[File, ...]:
        """Make everything durable; the files as they are then."""
        for _, file in self._open.values():
            _sync(file)
        return tuple(self._written.values())

    def close(self) -> None:
        """Close the files, and with them those of the last leg."""
        for kind, type in list(self._open):
            self._close(kind, type)

    def _close(self, kind: str, type: str) -> None:
        _, file = self._open.pop((kind, type))
        with file:
            _sync(file)

    def _reopen(self, kind: str, type: str) -> tuple[str, BinaryIO]:
        of_type = [file for file in self._written.values() if (file.kind, file.type) == (kind, type)]
        if not of_type or _is_full(of_type[-1]):
            prefix = "" if kind == "output" else f"{kind}."
            of_type.append(File(kind, type, f"{prefix}{type}.{len(of_type) + 1}.ndjson"))
            self._written[of_type[-1].name] = of_type[-1]
        name, size = of_type[-1].name, of_type[-1].size
        file = self._files.create(self._job_id, name)
        os.ftruncate(file.fileno(), size)  # what a crashed worker wrote after it last noted how far it was
        self._open[kind, type] = (name, file)
        return name, file


def read_chunks(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file, piece by piece."""
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            size -= len(chunk)
            yield chunk


def _is_full(file: File) -> bool:
    return file.kind != "work" and file.size >= MAX_FILE_BYTES


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
