"""A photo, PDF or film that somebody adds to an order becomes an instance of the study that is attached to it."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO

from dicomweb import wrap
from dicomweb.blobs import CHUNK, BlobStore, Spooled, unavailable_when_full
from dicomweb.cleaning import HEAD_BYTES, clean_film, cleaned_jpeg, sniffed
from dicomweb.failures import StoreFailure
from dicomweb.instance import receive
from dicomweb.people import patient_attributes
from dicomweb.quota import FULL, Quota
from dicomweb.records import Link
from dicomweb.store import DicomStore
from dicomweb.wrap import Known
from fhir_server.errors import BadRequest, TooLarge, Unavailable, UnsupportedMediaType

MAX_READ_BYTES = 64 * 1024 * 1024  # of photos, which are read whole, and of PDFs
DESCRIPTION = "Sent with the referral"
_NAMESPACE = uuid.UUID("5d7f3a52-6a0e-4b54-9d0b-1f3f0f3f8f11")
_WORDS: Mapping[str, str] = {wrap.JPEG: "Photo", wrap.PNG: "Photo", wrap.PDF: "Document", wrap.MP4: "Film"}


class Attachments:
    """Adds files to orders. max_bytes: of one file. clock: the practice's time, in its zone. Thread safe."""

    def __init__(
        self,
        store: DicomStore,
        blobs: BlobStore,
        max_bytes: int,
        clock: Callable[[], datetime],
        quota: Quota | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._quota = quota
        self.max_bytes = max_bytes
        self._clock = clock

    def add(self, source: BinaryIO, order: str, patient: dict) -> str:
        """Keep a file with the order; returns the Study Instance UID. The same file again changes nothing.

        order: `ServiceRequest/1`; patient: the resource of its subject; both are the caller's to see. Raises
        BadRequest, TooLarge, UnsupportedMediaType; Unavailable when the disk or the quota is full.
        """
        media_type = sniffed(source.read(HEAD_BYTES))
        source.seek(0)
        if media_type is None:
            raise UnsupportedMediaType("photos (JPEG, PNG), PDFs and films (MP4) are taken")
        limit = self.max_bytes if media_type == wrap.MP4 else min(self.max_bytes, MAX_READ_BYTES)
        with unavailable_when_full():
            sent = self._blobs.spool(_chunks(source), limit)
            try:
                return self._add(sent, media_type, order, patient)
            except StoreFailure as failure:
                raise BadRequest(failure.text) from None
            finally:
                self._blobs.discard(sent)

    def _add(self, sent: Spooled, media_type: str, order: str, patient: dict) -> str:
        link = Link(f"Patient/{patient['id']}", (order,), attached=True)
        study = self._study(order, link)
        instance = _uid(study, sent.sha256)
        if instance in self._store.known([instance]):
            return study
        if media_type == wrap.MP4:
            clean_film(sent.path)
        elif media_type == wrap.JPEG:
            self._without_metadata(sent)
        known = Known(
            study=study,
            attributes=patient_attributes(patient)
            | {
                "StudyDescription": DESCRIPTION,
                "SeriesDescription": _WORDS[media_type],
                "SeriesInstanceUID": _uid(instance, "series"),
                "SOPInstanceUID": instance,
            },
        )

        def write(file: BinaryIO) -> None:
            with wrap.looked_into(sent.path) as content, sent.path.open("rb") as copied:
                wrap.write(file, media_type, content, copied, known, self._clock())

        made = self._blobs.spool_file(write, self.max_bytes * 4)
        try:
            received = receive(made)
            with self._counted(made.size):
                self._blobs.keep([(received.spooled, received.blob_key)])
                stored = self._store.add([received], link)
        finally:
            self._blobs.discard(made)
        if stored[instance] != received.blob_key:  # the same file, sent twice at once
            self._blobs.delete(received.blob_key)
        return study

    @contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        """While an object of that size is stored. Raises Unavailable when the quota is full."""
        if self._quota is None:
            yield
            return
        if not self._quota.take(size):
            raise Unavailable(FULL)
        try:
            yield
        finally:
            self._quota.settle(size)

    def _study(self, order: str, link: Link) -> str:
        """The study of the order's attachments: the first that no person has made another's."""
        for number in range(1000):
            study = _uid(order, str(number))
            if self._store.link_of(study) in (None, link):
                return study
        raise TooLarge("too many studies of attachments were taken from this order")

    def _without_metadata(self, sent: Spooled) -> None:
        """A photo that is upright loses its Exif; one that is turned needs it until it is stored, uncompressed."""
        content = sent.path.read_bytes()
        if wrap.described(wrap.JPEG, content).pixels is None:
            sent.path.write_bytes(cleaned_jpeg(content))


def _uid(*parts: str) -> str:
    """The same for the same parts. PS3.5 annex B.2."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}"


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(CHUNK), b"")
