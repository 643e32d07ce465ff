"""WADO-RS: what is sent of stored instances. PS3.18 section 10.4. Knows the blob store, not HTTP's request."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from pydicom.uid import ExplicitVRBigEndian

from dicomweb import part10
from dicomweb.accept import ANY, DICOM, EXPLICIT_LITTLE_ENDIAN, MULTIPART, OCTETS, Accepted, frame_type
from dicomweb.blobs import BlobStore
from dicomweb.dicom_json import integer, text, words_swapped
from dicomweb.display import display_of
from dicomweb.frames import FrameTable, ReadRange
from dicomweb.multipart import closing, part_head
from dicomweb.pixels import EncodedFrame, decodable
from dicomweb.pool import PixelPool
from dicomweb.records import InstanceFile, StoredInstance
from dicomweb.render import Rendering
from fhir_server.errors import BadRequest, NotAcceptable, NotFound

MAX_FRAMES = 4096  # in one request
_PIXELS = {"7FE00008": "FloatPixelData", "7FE00009": "DoubleFloatPixelData", "7FE00010": "PixelData"}
_ALLOCATED = {"7FE00008": 32, "7FE00009": 64}
_VIDEO = {f"1.2.840.10008.1.2.4.{n}": "video/mpeg" if n < 102 else "video/mp4" for n in range(100, 109)}


@dataclass(frozen=True, slots=True)
class Content:
    """What to send. length: bytes, where it is known before."""

    content_type: str
    chunks: Iterable[bytes] = field(repr=False)
    length: int | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    headers: dict[str, str]
    chunks: Callable[[], Iterable[bytes]]
    size: int | None = None


# Whole instances


def instance_files(blobs: BlobStore, files: list[InstanceFile], accepted: list[Accepted], base: str) -> Content:
    """The instances as they were received: all of them, or an error before the first byte. Raises NotAcceptable.

    base: address of the study.
    """
    for wanted in accepted:
        syntax = wanted.transfer_syntax
        fits = wanted.fits(DICOM) and (syntax in (None, "*") or all(file.transfer_syntax == syntax for file in files))
        if fits and wanted.multipart:
            return _multipart(DICOM, [_file_part(blobs, file, base) for file in files])
        if fits and len(files) == 1:
            key = files[0].blob_key
            media_type = f"{DICOM}; transfer-syntax={files[0].transfer_syntax}"
            return Content(media_type, blobs.chunks(key), blobs.size(key))
    raise NotAcceptable(
        'instances are available as multipart/related; type="application/dicom", in the transfer syntax that they '
        "are stored in"
    )


def _file_part(blobs: BlobStore, file: InstanceFile, base: str) -> _Part:
    headers = {
        "Content-Type": f"{DICOM}; transfer-syntax={file.transfer_syntax}",
        "Content-Location": f"{base}/series/{file.series}/instances/{file.sop_instance}",
    }
    return _Part(headers, lambda: blobs.chunks(file.blob_key), blobs.size(file.blob_key))


# Metadata


def metadata(documents: Iterable[bytes], base_url: str) -> Iterator[bytes]:
    """A JSON array of data sets, their BulkDataURIs below the base of the service."""
    # Inside a string of JSON a quote has a backslash before it, so this occurs as a member and nowhere else.
    relative, absolute = b'"BulkDataURI":"/', f'"BulkDataURI":"{base_url}/'.encode()
    separator = b"["
    for document in documents:
        yield separator + document.replace(relative, absolute)
        separator = b","
    yield b"]"


# Frames


def frames(
    stored: StoredInstance, numbers: list[int], accepted: list[Accepted], blobs: BlobStore, pool: PixelPool, base: str
) -> Content:
    """Frames in the order asked for, as stored or decoded. Raises NotFound, NotAcceptable. base: of the instance."""
    table = _frame_table(stored, max(numbers))
    plan = _plan(accepted, stored, table, single=len(numbers) == 1)
    read_range = reader(blobs, stored)
    encoded = _encoded(stored) if plan.decode else None
    media_type = plan.media_type
    if plan.transfer_syntax != EXPLICIT_LITTLE_ENDIAN or media_type == OCTETS:
        media_type = f"{media_type}; transfer-syntax={plan.transfer_syntax}"

    def content(number: int) -> bytes:
        data = table.read(number, read_range)
        return data if encoded is None else pool.decoded(encoded(data))

    first = content(numbers[0])  # a fault is told as such, not by an answer that breaks off
    parts = [
        _Part(
            {"Content-Type": media_type, "Content-Location": f"{base}/frames/{number}"},
            lambda index=index, number=number: [first if index == 0 else content(number)],  # type: ignore[misc]
        )
        for index, number in enumerate(numbers)
    ]
    return _multipart(plan.media_type, parts) if plan.multipart else Content(media_type, [first], len(first))


def parse_frame_numbers(text: str) -> list[int]:
    """`1,2,5`. Raises BadRequest."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 and int(part) > 0 for part in parts):
        raise BadRequest("frames are numbers from 1, separated by commas")
    if len(parts) > MAX_FRAMES:
        raise BadRequest(f"ask for at most {MAX_FRAMES} frames at once")
    return [int(part) for part in parts]


def rendered(
    stored: StoredInstance, frame_number: int, wanted: Rendering, blobs: BlobStore, pool: PixelPool
) -> bytes:
    """A frame as an image file, with the window of the object. Raises NotFound, NotAcceptable."""
    table = _frame_table(stored, frame_number)
    read_range = reader(blobs, stored)

    def read_bulk(path: str) -> bytes:
        return b"".join(bulk_value(stored, path, blobs)[1]) if path in stored.places else b""

    display = display_of(stored.attributes, frame_number, read_bulk)
    frame = _encoded(stored)(table.read(frame_number, read_range))
    return pool.rendered(frame, display, wanted)


@dataclass(frozen=True, slots=True)
class _Plan:
    decode: bool
    media_type: str
    transfer_syntax: str
    multipart: bool


def _plan(accepted: list[Accepted], stored: StoredInstance, table: FrameTable, *, single: bool) -> _Plan:
    """How to send frames, by what the client likes best."""
    syntax = stored.transfer_syntax
    own_type = frame_type(syntax) if table.encapsulated else OCTETS
    for wanted in accepted:
        asked = wanted.transfer_syntax
        if not wanted.multipart and not single:
            continue
        if not table.encapsulated:
            if wanted.fits(OCTETS) and asked in (None, "*", EXPLICIT_LITTLE_ENDIAN, syntax):
                swap = syntax == ExplicitVRBigEndian
                return _Plan(swap, OCTETS, EXPLICIT_LITTLE_ENDIAN, wanted.multipart)
            continue
        as_stored = _Plan(False, own_type, syntax, wanted.multipart)
        if asked in ("*", syntax) and (wanted.fits(OCTETS) or wanted.fits(own_type)):
            return as_stored
        if asked in (None, EXPLICIT_LITTLE_ENDIAN) and wanted.fits(OCTETS) and decodable(syntax):
            return _Plan(True, OCTETS, EXPLICIT_LITTLE_ENDIAN, wanted.multipart)
        # Also for `*/*`, when it cannot be decoded here: better the stored stream than nothing.
        if asked is None and wanted.fits(own_type) and (own_type != OCTETS or wanted.content == ANY):
            return as_stored
    raise NotAcceptable(
        f'these frames are available as multipart/related; type="{own_type}"; transfer-syntax={syntax}'
        + ('; or type="application/octet-stream"' if table.encapsulated and decodable(syntax) else "")
    )


def _frame_table(stored: StoredInstance, largest: int) -> FrameTable:
    if stored.frames is None:
        raise NotAcceptable("this instance has no image")
    if stored.frames.count == 0:
        raise NotAcceptable("the pixel data of this instance cannot be cut into frames")
    if largest > stored.frames.count:
        raise NotFound(f"this instance has {stored.frames.count} frames")
    return stored.frames


def _encoded(stored: StoredInstance) -> Callable[[bytes], EncodedFrame]:
    """Makes EncodedFrames of the instance's frames."""
    attributes = stored.attributes
    tag = next(tag for tag in _PIXELS if tag in attributes)
    allocated = integer(attributes, "00280100", 8) or 8
    frame = EncodedFrame(
        data=b"",
        encapsulated=stored.frames is not None and stored.frames.encapsulated,
        transfer_syntax=stored.transfer_syntax,
        keyword=_PIXELS[tag],
        vr=attributes[tag]["vr"],
        rows=integer(attributes, "00280010", 0) or 0,
        columns=integer(attributes, "00280011", 0) or 0,
        samples=integer(attributes, "00280002", 1) or 1,
        bits_allocated=_ALLOCATED.get(tag, allocated),
        bits_stored=integer(attributes, "00280101", allocated) or allocated,
        signed=integer(attributes, "00280103", 0) == 1,
        planar=integer(attributes, "00280006", 0) or 0,
        photometric=text(attributes, "00280004") or "MONOCHROME2",
    )
    return lambda data: replace(frame, data=data)


# Bulk data


def bulk_data(stored: StoredInstance, path: str, accepted: list[Accepted], blobs: BlobStore, address: str) -> Content:
    """One value that the metadata only names. Raises NotFound, NotAcceptable."""
    media_type, chunks = bulk_value(stored, path, blobs)
    for wanted in accepted:
        if wanted.fits(media_type) or wanted.fits(OCTETS):
            if wanted.multipart:
                part = _Part({"Content-Type": media_type, "Content-Location": address}, lambda: chunks)
                return _multipart(media_type, [part])
            return Content(media_type, chunks)
    raise NotAcceptable(f"bulk data is available as {media_type}")


def bulk_value(stored: StoredInstance, path: str, blobs: BlobStore) -> tuple[str, Iterable[bytes]]:
    """Media type and content of the value at a path. Raises NotFound."""
    read_range = reader(blobs, stored)
    if path in _PIXELS and stored.frames is not None and stored.frames.encapsulated:
        fragments = list(stored.frames.fragments(read_range))
        media_type = _VIDEO.get(stored.transfer_syntax, frame_type(stored.transfer_syntax))
        return media_type, (c for offset, length in fragments for c in blobs.chunks(stored.blob_key, offset, length))
    if path not in stored.places:
        raise NotFound("this instance has no such bulk data")
    offset, length = stored.places[path]
    if stored.transfer_syntax == ExplicitVRBigEndian:
        return OCTETS, [words_swapped(read_range(offset, length), _vr_at(stored, path))]
    if stored.inflated_from is not None:
        return OCTETS, [read_range(offset, length)]
    return OCTETS, blobs.chunks(stored.blob_key, offset, length)


def _vr_at(stored: StoredInstance, path: str) -> str:
    attributes = stored.attributes
    *above, tag = path.split("/")
    for sequence, index in zip(above[::2], above[1::2], strict=True):
        attributes = attributes[sequence]["Value"][int(index)]
    return attributes[tag]["vr"]


# Common


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


def _multipart(media_type: str, parts: list[_Part]) -> Content:
    boundary = secrets.token_hex(16)
    heads = [part_head(boundary, part.headers, index == 0) for index, part in enumerate(parts)]
    sizes = [part.size for part in parts]
    length = None
    if all(size is not None for size in sizes):
        length = sum(map(len, heads)) + sum(size or 0 for size in sizes) + len(closing(boundary))

    def chunks() -> Iterator[bytes]:
        for head, part in zip(heads, parts, strict=True):
            yield head
            yield from part.chunks()
        yield closing(boundary)

    return Content(f'{MULTIPART}; type="{media_type}"; boundary={boundary}', chunks(), length)
