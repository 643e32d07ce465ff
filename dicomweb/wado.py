"""WADO-RS: what is sent of stored instances. PS3.18 section 10.4. Knows the blob store, not HTTP's request."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

import orjson
from pydicom.uid import ExplicitVRBigEndian

from dicomweb import transcode
from dicomweb.accept import ANY, DICOM, DICOM_XML, EXPLICIT_LITTLE_ENDIAN, OCTETS, ZIP, Accepted, frame_type
from dicomweb.archive import archive
from dicomweb.blobs import BlobStore
from dicomweb.bulk import PIXELS, reader
from dicomweb.content import Content, Part, multipart, multipart_of
from dicomweb.dicom_json import integer, text
from dicomweb.frames import FrameTable
from dicomweb.native_xml import as_xml
from dicomweb.pixels import EncodedFrame, FrameFile, decodable, recodable
from dicomweb.pool import PixelPool, Runner
from dicomweb.records import InstanceFile, StoredInstance
from fhir_server.errors import BadRequest, NotAcceptable, NotFound

MAX_FRAMES = 4096  # in one request
_ALLOCATED = {"7FE00008": 32, "7FE00009": 64}


Load = Callable[[InstanceFile], StoredInstance]

# Whole instances


def instance_files(
    blobs: BlobStore, files: list[InstanceFile], accepted: list[Accepted], base: str, load: Load, pool: PixelPool
) -> Content:
    """The instances as they were received, or in the transfer syntax asked for: all of them, or an error before the
    first byte. Raises NotAcceptable.

    base: address of the study. load: the stored instance of a file.
    """
    for wanted in accepted:
        if wanted.fits(ZIP) and not wanted.fits(DICOM) and wanted.transfer_syntax in (None, "*"):
            return archive(blobs, files)
        if not wanted.fits(DICOM) or not (wanted.multipart or len(files) == 1):
            continue
        target = wanted.transfer_syntax
        if target is None and wanted.content != ANY:
            target = EXPLICIT_LITTLE_ENDIAN  # the default, where a client asks for DICOM and names no other
        if target not in (None, "*") and not all(_sendable(file, target, wanted) for file in files):
            continue
        try:
            return _instances(blobs, files, wanted, target, base, load, pool)
        except NotAcceptable:
            if wanted is accepted[-1]:
                raise
    raise NotAcceptable(
        'instances are available as multipart/related; type="application/dicom"; transfer-syntax=*, uncompressed, '
        f"or in a syntax that they can be compressed into, and as {ZIP}"
    )


def _instances(
    blobs: BlobStore,
    files: list[InstanceFile],
    wanted: Accepted,
    target: str | None,
    base: str,
    load: Load,
    pool: PixelPool,
) -> Content:
    """The instances in that syntax, in parts or the only one alone. Raises NotAcceptable, Unavailable."""
    changed = target not in (None, "*") and any(file.transfer_syntax != target for file in files)
    with ExitStack() as undo:
        # A place in the pool is held to the end, so that the answer does not break off for want of room.
        runner: Runner = undo.enter_context(pool.place()) if changed else pool
        first = _file_part(blobs, files[0], base, target, load, runner, strict=wanted.transfer_syntax is not None)
        content_type = first.headers["Content-Type"]
        if not wanted.multipart and first.size is not None:
            return Content(content_type, first.chunks(), first.size, partial(blobs.chunks, files[0].blob_key))
        rest = (_file_part(blobs, file, base, target, load, runner) for file in files[1:])
        if not wanted.multipart:
            content = Content(content_type, first.chunks())
        elif changed:
            for file in files:
                blobs.size(file.blob_key)  # one that is missing is told before the first byte
            content = multipart_of(DICOM, itertools.chain([first], rest))
        else:
            content = multipart(DICOM, [first, *rest])
        return content.ending_with(undo.pop_all().close)


def _sendable(file: InstanceFile, target: str, wanted: Accepted) -> bool:
    return (
        file.transfer_syntax == target
        or transcode.possible(file.transfer_syntax, target)
        or wanted.transfer_syntax is None  # what cannot be uncompressed, such as a video, is sent as it is
    )


def _file_part(
    blobs: BlobStore,
    file: InstanceFile,
    base: str,
    target: str | None,
    load: Load,
    pool: Runner,
    *,
    strict: bool = False,
) -> Part:
    """target: None or `*` for the stored file. strict: raises NotAcceptable where it cannot be sent so; else such an
    instance is sent as it is stored, and says so, rather than be missing among the others."""
    syntax, size = file.transfer_syntax, blobs.size(file.blob_key)
    chunks: Iterable[bytes] | None = None
    if target not in (None, "*", syntax):
        stored = load(file)
        try:
            encoded = encoded_frames(stored) if stored.frames is not None else None
            chunks = transcode.transcode(stored, target, reader(blobs, stored), encoded, pool, size)
            syntax = target if stored.frames is not None else EXPLICIT_LITTLE_ENDIAN
        except NotAcceptable:
            if strict:
                raise
    headers = {
        "Content-Type": f"{DICOM}; transfer-syntax={syntax}",
        "Content-Location": f"{base}/series/{file.series}/instances/{file.sop_instance}",
    }
    if chunks is not None:
        made = chunks
        return Part(headers, lambda: made)
    return Part(headers, lambda: blobs.chunks(file.blob_key), size)


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


def metadata_xml(documents: Iterable[bytes], base_url: str) -> Content:
    """Each data set in a part of its own, in the Native DICOM Model. PS3.18 section 10.4.3.3.1."""
    whole = (b"".join(metadata([document], base_url)) for document in documents)
    headers = {"Content-Type": DICOM_XML}
    return multipart_of(DICOM_XML, (Part(headers, partial(_in_xml, document)) for document in whole))


def _in_xml(document: bytes) -> list[bytes]:
    return [as_xml(orjson.loads(document)[0])]


# Frames


def frames(
    stored: StoredInstance, numbers: list[int], accepted: list[Accepted], blobs: BlobStore, pool: PixelPool, base: str
) -> Content:
    """Frames in the order asked for, as stored or decoded. Raises NotFound, NotAcceptable. base: of the instance."""
    table = frame_table(stored, max(numbers))
    plan = _plan(accepted, stored, table, single=len(numbers) == 1)
    read_range = reader(blobs, stored)
    even = stored.transfer_syntax == ExplicitVRBigEndian
    media_type = plan.media_type
    if plan.transfer_syntax != EXPLICIT_LITTLE_ENDIAN or media_type == OCTETS:
        media_type = f"{media_type}; transfer-syntax={plan.transfer_syntax}"

    with ExitStack() as undo:
        # Held to the end, as for whole instances.
        runner: Runner = undo.enter_context(pool.place()) if plan.transcode else pool

        def content(number: int) -> bytes:
            if plan.transcode:
                return runner.run(transcode.frame_in, encoded_frame(stored, number, blobs), plan.transfer_syntax)
            return table.read(number, read_range, even=even)

        first = content(numbers[0])  # a fault is told as such, not by an answer that breaks off
        if not plan.multipart:
            return Content(media_type, [first], len(first))
        parts = [
            Part(
                {"Content-Type": media_type, "Content-Location": f"{base}/frames/{number}"},
                lambda index=index, number=number: [first if index == 0 else content(number)],  # type: ignore[misc]
            )
            for index, number in enumerate(numbers)
        ]
        return multipart(plan.media_type, parts).ending_with(undo.pop_all().close)


def parse_frame_numbers(text: str) -> list[int]:
    """`1,2,5`. Raises BadRequest."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 and int(part) > 0 for part in parts):
        raise BadRequest("frames are numbers from 1, separated by commas")
    if len(parts) > MAX_FRAMES:
        raise BadRequest(f"ask for at most {MAX_FRAMES} frames at once")
    return [int(part) for part in parts]


@dataclass(frozen=True, slots=True)
class _Plan:
    transcode: bool
    media_type: str
    transfer_syntax: str
    multipart: bool


def _compressed(wanted: Accepted, stored: StoredInstance) -> _Plan | None:
    """Frames compressed in the way that a range of the Accept header names; None when it names none that can be."""
    target = wanted.transfer_syntax or transcode.DEFAULTS.get(wanted.content, "")
    if target == EXPLICIT_LITTLE_ENDIAN or not transcode.possible(stored.transfer_syntax, target):
        return None
    media_type = frame_type(target)
    if not (wanted.fits(media_type) or wanted.fits(OCTETS)) or not recodable(encoded_frames(stored)(b""), target):
        return None
    return _Plan(True, media_type, target, wanted.multipart)


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
            if plan := _compressed(wanted, stored):
                return plan
            continue
        as_stored = _Plan(False, own_type, syntax, wanted.multipart)
        if asked in ("*", syntax) and (wanted.fits(OCTETS) or wanted.fits(own_type)):
            return as_stored
        if asked in (None, EXPLICIT_LITTLE_ENDIAN) and wanted.fits(OCTETS) and decodable(syntax):
            return _Plan(True, OCTETS, EXPLICIT_LITTLE_ENDIAN, wanted.multipart)
        # Also for `*/*`, when it cannot be decoded here: better the stored stream than nothing.
        if asked is None and wanted.fits(own_type) and (own_type != OCTETS or wanted.content == ANY):
            return as_stored
        if plan := _compressed(wanted, stored):
            return plan
    raise NotAcceptable(
        f'these frames are available as multipart/related; type="{own_type}"; transfer-syntax={syntax}'
        + ('; or type="application/octet-stream"' if table.encapsulated and decodable(syntax) else "")
        + ", or compressed losslessly as image/jls, image/jp2, image/jphc, image/jpeg or image/dicom-rle"
    )


def frame_table(stored: StoredInstance, largest: int) -> FrameTable:
    """Where the frames are. Raises NotFound, NotAcceptable."""
    if stored.frames is None:
        raise NotAcceptable("this instance has no image")
    if stored.frames.count == 0:
        raise NotAcceptable("the pixel data of this instance cannot be cut into frames")
    if largest > stored.frames.count:
        raise NotFound(f"this instance has {stored.frames.count} frames")
    return stored.frames


def encoded_frame(stored: StoredInstance, number: int, blobs: BlobStore) -> EncodedFrame:
    """One frame for the pixel pool, which reads it where it can. Raises NotFound, NotAcceptable."""
    table, frame = frame_table(stored, number), encoded_frames(stored)(b"")
    even = stored.transfer_syntax == ExplicitVRBigEndian
    path = blobs.path(stored.blob_key) if stored.inflated_from is None else None
    if path is not None:
        with suppress(ValueError):
            return replace(frame, source=FrameFile(path, table.only(number), even))
    return replace(frame, data=table.read(number, reader(blobs, stored), even=even))


def encoded_frames(stored: StoredInstance) -> Callable[[bytes], EncodedFrame]:
    """Makes EncodedFrames of the instance's frames."""
    attributes = stored.attributes
    tag = next(tag for tag in PIXELS if tag in attributes)
    allocated = integer(attributes, "00280100", 8) or 8
    frame = EncodedFrame(
        data=b"",
        encapsulated=stored.frames is not None and stored.frames.encapsulated,
        transfer_syntax=stored.transfer_syntax,
        keyword=PIXELS[tag],
        vr=attributes[tag]["vr"],
        rows=integer(attributes, "00280010", 0) or 0,
        columns=integer(attributes, "00280011", 0) or 0,
        samples=integer(attributes, "00280002", 1) or 1,
        bits_allocated=_ALLOCATED.get(tag, allocated),
        bits_stored=integer(attributes, "00280101", allocated) or allocated,
        signed=integer(attributes, "00280103", 0) == 1,
        planar=integer(attributes, "00280006", 0) or 0,
        photometric=text(attributes, "00280004") or "MONOCHROME2",
        high_bit=integer(attributes, "00280102"),
    )
    return lambda data: replace(frame, data=data)
