"""Instances in one ZIP archive, written while it is sent. PS3.18 section 8.7.3.3."""

from collections.abc import Iterator
from io import RawIOBase
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from dicomweb.accept import ZIP
from dicomweb.blobs import BlobStore
from dicomweb.content import Content
from dicomweb.records import InstanceFile


def archive(blobs: BlobStore, files: list[InstanceFile]) -> Content:
    """A folder for each series, a file for each instance, as they were received and not compressed: they are already.

    The files are named by their UIDs, so the archive's names tell nothing of a patient.
    """
    for file in files:
        blobs.size(file.blob_key)  # one that is missing is told before the first byte
    return Content(ZIP, _chunks(blobs, files))


def _chunks(blobs: BlobStore, files: list[InstanceFile]) -> Iterator[bytes]:
    written = _Written()
    with ZipFile(written, "w", ZIP_STORED) as zip:
        for file in files:
            # A date that is always the same (the oldest there is) makes the archive of a study always the same.
            with zip.open(ZipInfo(f"{file.series}/{file.sop_instance}.dcm"), "w", force_zip64=True) as entry:
                for chunk in blobs.chunks(file.blob_key):
                    entry.write(chunk)
                    yield written.taken()
    yield written.taken()


class _Written(RawIOBase):
    """A file that cannot seek, and that gives what was written to it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._buffer += piece
        return len(piece)

    def taken(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
