"""Whole instances in another transfer syntax than they are stored in. PS3.5 annex A, PS3.18 section 8.7.3.

The header is rewritten in the pixel pool, the frames follow one by one: what is held is one frame. Lossless syntaxes
keep every stored bit. What is lossy is another image: it says so, and has a UID of its own.
"""

import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_preamble
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomweb import codecs, pixels
from dicomweb.dicom_json import integer, words_swapped
from dicomweb.frames import FrameTable, ReadRange
from dicomweb.part10 import MAX_HEADER_BYTES, PIXEL_TAGS, refusing
from dicomweb.pixels import EXPLICIT_LITTLE_ENDIAN, EncodedFrame, Undecodable
from dicomweb.pool import Runner
from dicomweb.records import StoredInstance
from fhir_server.errors import NotAcceptable

# What is sent where a client names a media type and no transfer syntax. PS3.18 table 8.7.3-5.
DEFAULTS = {
    "image/jpeg": codecs.JPEG_LOSSLESS_SV1,
    "image/jls": codecs.JPEG_LS,
    "image/jp2": codecs.JPEG_2000_LOSSLESS,
    "image/jphc": codecs.HTJ2K_LOSSLESS,
    "image/dicom-rle": codecs.RLE,
}
_UNCOMPRESSED = {EXPLICIT_LITTLE_ENDIAN, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
_METHODS = {
    codecs.JPEG_BASELINE: "ISO_10918_1",
    codecs.JPEG_EXTENDED: "ISO_10918_1",
    codecs.JPEG_LS_NEAR: "ISO_14495_1",
}
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)
_WORDS = {"OW", "OF", "OD", "OL", "OV", "US or OW", "OB or OW"}
_MAX_VALUE = 2**32 - 2  # bytes of an element
_UID_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562: names that are OIDs
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"

Encoded = Callable[[bytes], EncodedFrame]  # the stored bytes of a frame, with what the data set says of it


@dataclass(frozen=True, slots=True)
class Change:
    """What a rewritten header says. photometric: None leaves it. ratio: of a lossy compression, None for others."""

    transfer_syntax: str
    photometric: str | None = None
    lowest_bits: bool = False
    ratio: float | None = None


def possible(transfer_syntax: str, target: str) -> bool:
    """Whether instances stored in one can be sent in the other, as far as the syntaxes alone say."""
    read = transfer_syntax in _UNCOMPRESSED or pixels.decodable(transfer_syntax)
    return read and (target == EXPLICIT_LITTLE_ENDIAN or pixels.encodable(target))


def frame_in(frame: EncodedFrame, target: str) -> bytes:
    """One frame in that transfer syntax; as it is, when it is stored so. Runs in the pool. Raises Undecodable."""
    if target == EXPLICIT_LITTLE_ENDIAN:
        return pixels.decoded(frame)
    if frame.encapsulated and frame.transfer_syntax == target:
        return frame.data
    return pixels.recoded(frame, target)


def transcode(
    stored: StoredInstance, target: str, read_range: ReadRange, encoded: Encoded | None, pool: Runner, size: int
) -> Iterator[bytes]:
    """The instance as a DICOM file in that transfer syntax; the first frame has been encoded when this returns.

    encoded: None without pixel data. size: bytes of the stored object. Raises NotAcceptable.
    """
    table = stored.frames
    if table is None or encoded is None:
        prefix = read_range(0, _bounded(size) if stored.inflated_from is None else MAX_HEADER_BYTES)
        return iter([pool.run(header_in, prefix, stored.inflated_from is not None, Change(EXPLICIT_LITTLE_ENDIAN))])
    if table.count == 0:
        raise NotAcceptable("the pixel data of this instance cannot be cut into frames")
    even = stored.transfer_syntax == ExplicitVRBigEndian
    frame = encoded(table.read(1, read_range, even=even))
    compressed = target != EXPLICIT_LITTLE_ENDIAN
    if compressed and target != codecs.RLE and _has_overlay_in_pixels(stored):
        raise NotAcceptable("an overlay in the unused bits of the pixels would be lost by this transfer syntax")
    first = pool.run(frame_in, frame, target)
    begins = table.offset if table.spans is None else struct.unpack_from("<Q", table.spans)[0]
    native_bytes = (frame.rows * frame.columns * frame.samples * frame.bits_allocated + 7) // 8
    change = Change(
        target,
        pixels.photometric_in(frame, target) if frame.samples > 1 else None,
        codecs.RLE not in (target, stored.transfer_syntax) and (compressed or frame.encapsulated),
        native_bytes / max(1, len(first)) if target in codecs.LOSSY else None,
    )
    head = pool.run(header_in, read_range(0, _bounded(begins)), stored.inflated_from is not None, change)

    def frames() -> Iterator[bytes]:
        yield first
        for number in range(2, table.count + 1):
            yield pool.run(frame_in, replace(frame, data=table.read(number, read_range, even=even)), target)

    if compressed:
        return _encapsulated(head, frames())
    return _native(head, frame, table, len(first), frames())


def header_in(prefix: bytes, bare: bool, change: Change) -> bytes:
    """A file up to its pixel data, rewritten. bare: without preamble and meta information, as what was deflated is.

    Runs in the pixel pool. Raises Undecodable.
    """
    try:
        with refusing():
            return _rewritten(prefix, bare, change)
    except Exception as error:
        raise Undecodable(f"the data set cannot be written in another way ({type(error).__name__})") from None


def derived_uid(sop_instance: str, transfer_syntax: str) -> str:
    """The UID of the lossy image that is made of an instance: the same each time it is made. PS3.5 annex B.2."""
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, f'{sop_instance}/{transfer_syntax}').int}"


def _rewritten(prefix: bytes, bare: bool, change: Change) -> bytes:
    source = BytesIO(prefix)
    syntax = EXPLICIT_LITTLE_ENDIAN
    if not bare:
        read_preamble(source, force=False)
        meta = read_dataset(source, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
        syntax = str(meta[0x00020010].value)
    little = syntax != ExplicitVRBigEndian
    implicit = syntax == ImplicitVRLittleEndian
    dataset = read_dataset(source, implicit, little, stop_when=lambda tag, _vr, _length: tag in PIXEL_TAGS)
    _without_lengths(dataset)
    for tag in _OFFSET_TABLES:
        dataset.pop(tag, None)
    if not little:
        for element in dataset.iterall():
            if element.VR in _WORDS and isinstance(element.value, bytes):
                element.value = words_swapped(element.value, "OW" if " " in element.VR else element.VR)
    _describe(dataset, change)
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, False
    written.write(bytes(128) + b"DICM")
    file_meta = FileMetaDataset()
    file_meta.FileMetaInformationVersion = b"\0\1"
    file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file_meta.TransferSyntaxUID = UID(change.transfer_syntax)
    file_meta.ImplementationClassUID = UID("2.25.190146791043182537444806132342625375407")
    file_meta.ImplementationVersionName = "RADLOOP"
    write_file_meta_info(written, file_meta)
    write_dataset(written, dataset)
    return written.getvalue()


def _describe(dataset: Dataset, change: Change) -> None:
    if change.photometric is not None:
        dataset.PhotometricInterpretation = change.photometric
        dataset.PlanarConfiguration = 0
    if change.lowest_bits and "BitsStored" in dataset:
        dataset.HighBit = dataset.BitsStored - 1
    if change.ratio is None:
        return
    # PS3.3 C.7.6.1.1.5 and C.7.6.1.1.1: a lossy image is derived, and names what it is derived from.
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121320", "DCM"
    purpose.CodeMeaning = "Uncompressed predecessor"
    source.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [source]
    dataset.SOPInstanceUID = derived_uid(str(dataset.SOPInstanceUID), change.transfer_syntax)
    kinds = [str(kind) for kind in dataset.get("ImageType") or ["ORIGINAL", "PRIMARY"]]
    dataset.ImageType = ["DERIVED", *(kinds[1:] or ["PRIMARY"])]
    dataset.LossyImageCompression = "01"
    ratios, methods = dataset.get("LossyImageCompressionRatio"), dataset.get("LossyImageCompressionMethod")
    dataset.LossyImageCompressionRatio = [*_several(ratios), f"{change.ratio:.2f}"]
    dataset.LossyImageCompressionMethod = [*_several(methods), _METHODS[change.transfer_syntax]]
    dataset.DerivationDescription = "Lossy compression for transfer"


def _several(value: Any) -> list:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) or hasattr(value, "append") else [value]


def _without_lengths(dataset: Dataset) -> None:
    """Group lengths are wrong once anything has changed; PS3.5 section 7.2 has retired them."""
    for tag in [tag for tag in dataset.keys() if tag.element == 0]:  # noqa: SIM118  # iterating parses the elements
        del dataset[tag]


def _native(
    head: bytes, frame: EncodedFrame, table: FrameTable, size: int, frames: Iterator[bytes]
) -> Iterator[bytes]:
    bits = frame.rows * frame.columns * frame.samples * frame.bits_allocated
    if table.count > 1 and bits % 8:
        raise NotAcceptable("frames of bits that begin inside a byte are sent as they are stored")
    total = size * table.count
    if total > _MAX_VALUE:
        raise NotAcceptable("uncompressed, the pixel data is longer than an element may be")
    tag = {"FloatPixelData": 8, "DoubleFloatPixelData": 9}.get(frame.keyword, 0x10)
    vr = {8: b"OF", 9: b"OD"}.get(tag, b"OW" if frame.bits_allocated > 8 else b"OB")
    yield head + struct.pack("<HH2sHL", 0x7FE0, tag, vr, 0, total + total % 2)
    yield from frames
    if total % 2:
        yield b"\0"


def _encapsulated(head: bytes, frames: Iterator[bytes]) -> Iterator[bytes]:
    yield head + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + _ITEM + bytes(4)
    for data in frames:
        padded = data + b"\0" * (len(data) % 2)
        yield _ITEM + struct.pack("<L", len(padded)) + padded
    yield _END


def _has_overlay_in_pixels(stored: StoredInstance) -> bool:
    attributes = stored.attributes
    return any(
        (integer(attributes, f"60{group:02X}0100", 1) or 1) > 1 and f"60{group:02X}3000" not in attributes
        for group in range(0, 32, 2)
    )


def _bounded(size: int) -> int:
    if size > MAX_HEADER_BYTES:
        raise NotAcceptable("the data set is too large to be sent in another way than it is stored")
    return size
