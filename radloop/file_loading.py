"""Files of resources into the store: NDJSON of any size, and JSON files of a resource or a Bundle; also gzipped."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from fhir_server.bulk.lines import BATCH, Line, batches, next_round, read_lines, read_waiting, set_aside, store_lines
from fhir_server.errors import FhirError
from fhir_server.repository import Repository
from radloop.loading import LOADER
from radloop.progress import Progress

NDJSON_SUFFIXES = (".ndjson", ".jsonl")


@dataclass(frozen=True, slots=True)
class Fault:
    """A resource that was refused: where it stood, and why."""

    place: str
    reason: str


def load_files(
    repository: Repository, files: Sequence[Path], bars: Callable[[str], Progress], refuse: Callable[[Fault], None]
) -> int:
    """Store all that the files hold; how many resources were stored. Raises ValueError for a broken gzip file.

    Files and lines may come in any order: what refers to something that is not here yet waits for it. bars: makes a
    progress bar from a label; refuse: is told each resource that was refused.
    """
    lines = _lines(files, bars("loading"))
    stored, size, final = 0, BATCH, False
    waited: int | None = None
    with ExitStack() as opened:
        while True:
            waiting, count = opened.enter_context(TemporaryFile()), 0
            for batch in batches(lines, size):
                found = store_lines(repository, LOADER, batch, final=final, unpack=True)
                stored += found.written
                count += len(found.waiting)
                waiting.writelines(set_aside(line) + b"\n" for line in found.waiting)
                for line, error in found.refused:
                    refuse(Fault(f"{files[line.source]}:{line.number}", _reason(error)))
            if not count:
                return stored
            waiting.seek(0)
            lines = _told(read_waiting(waiting), bars("loading what had to wait"), count)
            size, final = next_round(size, waited, count)
            waited = count


def _lines(files: Sequence[Path], progress: Progress) -> Iterator[Line]:
    """The lines of all files; tells how many bytes of them are read."""
    total, before = sum(file.stat().st_size for file in files), 0
    for source, path in enumerate(files):
        with path.open("rb") as raw:
            try:
                for line in _lines_of(path, raw, source):
                    yield line
                    progress(before + min(raw.tell(), path.stat().st_size - 1), total)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{path} is no whole gzip file: {error}") from None
            before += path.stat().st_size
    progress(total, total)


def _lines_of(path: Path, raw: BinaryIO, source: int) -> Iterator[Line]:
    packed = path.suffix == ".gz"
    file: BinaryIO = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
    if (path.with_suffix("") if packed else path).suffix in NDJSON_SUFFIXES:
        yield from read_lines(file, source)
    else:
        # As one line, since that is how it waits: an end of line stands between the tokens of JSON only.
        yield Line(source, 1, file.read().replace(b"\r", b" ").replace(b"\n", b" "))


def _told(lines: Iterable[Line], progress: Progress, total: int) -> Iterator[Line]:
    for number, line in enumerate(lines, 1):
        yield line
        progress(number, total)


def _reason(error: FhirError) -> str:
    issue = error.outcome()["issue"][0]
    where = ", ".join(issue.get("expression", []))
    return f"{issue['diagnostics']}{f' ({where})' if where else ''}"
