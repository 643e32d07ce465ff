"""Bulk data: the values that metadata only names, read from the stored object. PS3.18 section 10.4.1.1.5 and .6."""

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from pydicom.uid import ExplicitVRBigEndian

from dicomweb import part10
from dicomweb.accept import OCTETS, Accepted, frame_type
from dicomweb.blobs import BlobStore
from dicomweb.content import Content, Part, multipart, multipart_of
from dicomweb.dicom_json import integer, text, words_swapped
from dicomweb.frames import ReadRange
from dicomweb.instance import instance_address
from dicomweb.records import StoredInstance
from fhir_server.errors import NotAcceptable, NotFound

PIXEL_DATA = "7FE00010"
PIXELS = {"7FE00008": "FloatPixelData", "7FE00009": "DoubleFloatPixelData", PIXEL_DATA: "PixelData"}
_VIDEO = {f"1.2.840.10008.1.2.4.{n}": "video/mpeg" if n < 102 else "video/mp4" for n in range(100, 109)}
_DOCUMENT, _DOCUMENT_TYPE = "00420011", "00420012"
# Types of encapsulated documents that are named as such. Others are octets: what a file calls itself is not to be
# believed where a browser might run it.
_DOCUMENT_TYPES = frozenset({"application/pdf", "model/stl", "model/obj", "model/mtl"})


@dataclass(frozen=True, slots=True)
class BulkValue:
    """One value. section: (offset, length) -> these bytes of it."""

    media_type: str
    length: int
    section: Callable[[int, int], Iterable[bytes]] = field(repr=False)

    def whole(self) -> bytes:
        return b"".join(self.section(0, self.length))

    def content(self) -> Content:
        """An answer that consists of it."""
        return Content(self.media_type, self.section(0, self.length), self.length, self.section)


def bulk_data(stored: StoredInstance, path: str, accepted: list[Accepted], blobs: BlobStore, address: str) -> Content:
    """The value at a path. Raises NotFound, NotAcceptable. address: of the bulk data.

    Encapsulated frames, of which each is an image for itself, are parts; alone they are one value.
    """
    value = bulk_value(stored, path, blobs)
    frames = stored.frames if path in PIXELS else None
    several = frames is not None and frames.encapsulated and frames.count > 1
    for wanted in accepted:
        if not (wanted.fits(value.media_type) or wanted.fits(OCTETS)):
            continue
        if wanted.multipart:
            return multipart(value.media_type, _parts(stored, path, blobs, address))
        if not several:
            return value.content()
    raise NotAcceptable(f"bulk data is available as {value.media_type}{' in multipart/related' if several else ''}")


def bulk_data_of(
    instances: Iterable[StoredInstance],
    paths: Iterable[str] | None,
    accepted: list[Accepted],
    blobs: BlobStore,
    base: str,
) -> Content:
    """All bulk data of the instances, or that at the given paths, in one message. Raises NotAcceptable; NotFound when
    there is none.

    base: address of the service.
    """
    if not any(wanted.multipart for wanted in accepted):
        raise NotAcceptable("bulk data of several values is available as multipart/related")

    def parts() -> Iterator[Part]:
        for stored in instances:
            here = f"{base}{instance_address(stored.study, stored.series, stored.sop_instance)}/bulkdata"
            of_instance = [*stored.places, *(tag for tag in PIXELS if tag not in stored.places)]
            for path in of_instance if paths is None else paths:
                if _exists(stored, path):
                    yield from _parts(stored, path, blobs, f"{here}/{path}")

    found = parts()
    first = next(found, None)
    if first is None:
        raise NotFound("there is no such bulk data here")
    return multipart_of(OCTETS, chain([first], found))


def bulk_value(stored: StoredInstance, path: str, blobs: BlobStore) -> BulkValue:
    """The value at a path; of encapsulated pixel data all fragments. Raises NotFound."""
    if not _exists(stored, path):
        raise NotFound("this instance has no such bulk data")
    read_range = reader(blobs, stored)
    if path in PIXELS and stored.frames is not None and stored.frames.encapsulated:
        fragments = list(stored.frames.fragments(read_range))
        media_type = _VIDEO.get(stored.transfer_syntax, frame_type(stored.transfer_syntax))
        key = stored.blob_key
        return BulkValue(
            media_type, sum(size for _, size in fragments), partial(_of_fragments, blobs, key, fragments)
        )
    offset, length = stored.places[path]
    if stored.transfer_syntax == ExplicitVRBigEndian:
        return _in_memory(words_swapped(read_range(offset, length), _vr_at(stored, path)))
    if stored.inflated_from is not None:
        return _in_memory(read_range(offset, length))
    media_type = text(stored.attributes, _DOCUMENT_TYPE).lower() if path == _DOCUMENT else OCTETS
    return BulkValue(
        media_type if media_type in _DOCUMENT_TYPES else OCTETS,
        length,
        lambda begin, size: blobs.chunks(stored.blob_key, offset + begin, size),
    )


def document(stored: StoredInstance, blobs: BlobStore) -> BulkValue:
    """The encapsulated document, without the byte that made its length even. Raises NotFound. PS3.3 C.24.2."""
    attributes = stored.attributes
    if "InlineBinary" in attributes.get(_DOCUMENT, {}):
        value = _in_memory(base64.b64decode(attributes[_DOCUMENT]["InlineBinary"]))
    else:
        value = bulk_value(stored, _DOCUMENT, blobs)
    length = integer(attributes, "00420015", value.length) or value.length
    media_type = text(attributes, _DOCUMENT_TYPE).lower()
    return BulkValue(media_type, max(0, min(length, value.length)), value.section)


def reader(blobs: BlobStore, stored: StoredInstance) -> ReadRange:
    """Reads ranges of the object, or of what it inflates to."""
    if stored.inflated_from is None:
        return lambda offset, length: blobs.read(stored.blob_key, offset, length)
    begin = stored.inflated_from

    def read_inflated(offset: int, length: int) -> bytes:
        data, at = bytearray(), 0
        for piece in part10.inflate(blobs.chunks(stored.blob_key, begin)):
            data += piece[max(0, offset - at) : max(0, offset + length - at)]
            at += len(piece)
            if len(data) >= length:
                break
        return bytes(data)

    return read_inflated


def _exists(stored: StoredInstance, path: str) -> bool:
    return path in stored.places or (path in PIXELS and stored.frames is not None and stored.frames.encapsulated)


def _parts(stored: StoredInstance, path: str, blobs: BlobStore, address: str) -> list[Part]:
    frames = stored.frames
    if path in PIXELS and frames is not None and frames.encapsulated and frames.count:
        headers = {"Content-Type": f"{frame_type(stored.transfer_syntax)}; transfer-syntax={stored.transfer_syntax}"}
        read_range, above = reader(blobs, stored), address.rpartition("/bulkdata")[0]
        return [
            Part(
                headers | {"Content-Location": f"{above}/frames/{number}"},
                lambda number=number: [frames.read(number, read_range)],  # type: ignore[misc]
            )
            for number in range(1, frames.count + 1)
        ]
    value = bulk_value(stored, path, blobs)
    headers = {"Content-Type": value.media_type, "Content-Location": address}
    return [Part(headers, lambda: value.section(0, value.length), value.length)]


def _of_fragments(
    blobs: BlobStore, key: str, fragments: list[tuple[int, int]], begin: int, length: int
) -> Iterator[bytes]:
    """A range of what the fragments are together."""
    at, end = 0, begin + length
    for offset, size in fragments:
        first, last = max(begin, at), min(end, at + size)
        if first < last:
            yield from blobs.chunks(key, offset + first - at, last - first)
        at += size


def _in_memory(data: bytes) -> BulkValue:
    return BulkValue(OCTETS, len(data), lambda begin, length: [data[begin : begin + length]])


def _vr_at(stored: StoredInstance, path: str) -> str:
    attributes = stored.attributes
    *above, tag = path.split("/")
    for sequence, index in zip(above[::2], above[1::2], strict=True):
        attributes = attributes[sequence]["Value"][int(index)]
    return attributes[tag]["vr"]
