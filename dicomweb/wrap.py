"""Photos, PDFs and films that are no DICOM yet, wrapped into the SOP class that is made for them. Pure: content and
what is known of it in, a DICOM file out; the compressed content stays byte by byte as it was. `now` is aware: dates
and times are written in its zone.

PS3.3 annexes A.32.4-5 (VL and Video Photographic Image), A.45.1 (Encapsulated PDF), PS3.18 section 10.5.1.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import BufferedIOBase, BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate_buffer
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    VideoPhotographicImageStorage,
    VLPhotographicImageStorage,
    generate_uid,
)

from dicomweb.boxes import Content, boxes
from dicomweb.codestream import NotAStream, jpeg_header
from dicomweb.failures import cannot_understand

JPEG, PNG = "image/jpeg", "image/png"
PHOTOS = (JPEG, PNG)
PDF, MP4 = "application/pdf", "video/mp4"
MEDIA_TYPES = frozenset({*PHOTOS, PDF, MP4})
MAX_PIXELS = 200_000_000
ORIENTATION = 0x0112  # of Exif: 1 is upright
_MAX_FRAMES = 2**31 - 1
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_MAX_BOXES = 1000  # that are told of
# Profile and level of H.264 -> the transfer syntax that it fits: PS3.5 section 8.2.5, 8.2.7.
_AVC_41, _AVC_42, _HEVC = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.104", "1.2.840.10008.1.2.4.107"


@dataclass(frozen=True, slots=True)
class Known:
    """Who and what it is of. attributes: others, by keyword, which replace those that are made up here."""

    patient_id: str = ""
    patient_name: str = ""
    study: str = ""
    accession: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Film:
    """What the boxes of an MP4 file say. rate: frames a second."""

    width: int
    height: int
    frames: int
    rate: float
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Described:
    """A data set of the right SOP class without the content itself. pixels: of a picture that is stored uncompressed,
    because it is no baseline JPEG or is to be turned; None where the content is kept as it is."""

    dataset: Dataset
    pixels: bytes | None = None

    def put(self, source: BinaryIO) -> None:
        """Give the data set its content. source: the content, open until the data set is written."""
        dataset = self.dataset
        if "EncapsulatedDocumentLength" in dataset:
            dataset.add_new(0x00420011, "OB", source)
        elif self.pixels is not None:
            dataset.add_new(0x7FE00010, "OB", self.pixels + b"\0" * (len(self.pixels) % 2))
        else:
            dataset.add_new(0x7FE00010, "OB", encapsulate_buffer([cast(BufferedIOBase, source)], has_bot=False))
            dataset["PixelData"].is_undefined_length = True


def described(media_type: str, content: Content) -> Described:
    """What the content says of itself. Raises StoreFailure when it is none of that type."""
    if media_type == PDF:
        return Described(_pdf(content))
    if media_type == MP4:
        return Described(_film(content))
    if media_type in PHOTOS:
        return _photo(media_type, content)
    raise cannot_understand("files of this media type are not stored")


@contextmanager
def looked_into(path: Path) -> Iterator[Content]:
    """The content of a file, without reading all of it. Raises StoreFailure when there is none."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise cannot_understand("the file is empty")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            yield content


def wrapped(media_type: str, content: bytes, known: Known, now: datetime) -> bytes:
    """The content as a DICOM file, with UIDs of its own where `known` has none. Raises StoreFailure."""
    file = BytesIO()
    write(file, media_type, content, BytesIO(content), known, now)
    return file.getvalue()


def write(file: BinaryIO, media_type: str, content: Content, source: BinaryIO, known: Known, now: datetime) -> None:
    """As `wrapped`, into a file; content and source: the same bytes, to look into and to copy."""
    found = described(media_type, content)
    found.put(source)
    _identify(found.dataset, known, now)
    dcmwrite(file, found.dataset, enforce_file_format=True)


def film_of(content: Content) -> Film:
    """Size, length and codec of an MP4 file. Raises StoreFailure. ISO 14496-12."""
    boxes = dict(_boxes(content, 0, len(content), 0))
    try:
        scale, duration = _times(boxes[b"mdhd"])
        entry = boxes[b"stsd"][8:]
        codec = entry[4:8]
        width, height = struct.unpack_from(">HH", entry, 32)
        frames = struct.unpack_from(">L", boxes[b"stsz"], 8)[0]
    except (KeyError, struct.error):
        raise cannot_understand("the film has no video track") from None
    if codec in (b"hvc1", b"hev1"):
        syntax = _HEVC
    elif codec in (b"avc1", b"avc3"):
        at = entry.find(b"avcC")
        level = entry[at + 7] if 0 <= at < len(entry) - 7 else 41
        syntax = _AVC_41 if level <= 41 else _AVC_42
    else:
        raise cannot_understand("the film is in another codec than H.264 or H.265")
    if not (width and height and 0 < frames <= _MAX_FRAMES and scale and duration):
        raise cannot_understand("the film has no pictures")
    return Film(width, height, frames, frames * scale / duration, syntax)


def _pdf(content: Content) -> Dataset:
    if b"%PDF-" not in content[:1024]:
        raise cannot_understand("the content is no PDF")
    dataset = _dataset(EncapsulatedPDFStorage, ExplicitVRLittleEndian, "DOC")
    dataset.MIMETypeOfEncapsulatedDocument, dataset.DocumentTitle = PDF, ""
    dataset.ConversionType, dataset.BurnedInAnnotation, dataset.ConceptNameCodeSequence = "WSD", "YES", []
    dataset.EncapsulatedDocumentLength = len(content)
    return dataset


def _photo(media_type: str, content: Content) -> Described:
    data = content[:]
    baseline = _baseline(data) if media_type == "image/jpeg" else None
    try:
        with Image.open(BytesIO(data), formats=["JPEG", "PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise cannot_understand("the photo has too many pixels")
            upright = image.getexif().get(ORIENTATION, 1) not in range(2, 9)
            if baseline is not None and upright:
                return Described(baseline)
            grey = image.mode in ("1", "L", "I;16", "I")
            lossy = image.format == "JPEG"
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise cannot_understand("the content is no photo that can be read") from None
    dataset = _dataset(VLPhotographicImageStorage, ExplicitVRLittleEndian, "XC")
    _describe(dataset, pixels.shape[0], pixels.shape[1], "MONOCHROME2" if grey else "RGB")
    native = pixels.tobytes()
    if lossy:  # once lossy, always so: PS3.3 C.7.6.1.1.5
        _lossy(dataset, len(native), len(data))
    return Described(dataset, native)


def _lossy(dataset: Dataset, native: int, compressed: int) -> None:
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    dataset.LossyImageCompressionRatio = f"{native / compressed:.2f}"


def _baseline(content: bytes) -> Dataset | None:
    """A baseline JPEG as it is; None for other processes, which are decoded."""
    try:
        found = jpeg_header(content)
    except NotAStream:
        return None
    at = content.find(b"\xff\xc0")
    if at < 0 or content.find(b"\xff\xc2") in range(at) or found.precision != 8 or found.samples not in (1, 3):
        return None
    dataset = _dataset(VLPhotographicImageStorage, JPEGBaseline8Bit, "XC")
    ybr = "RGB" if found.colour is False else "YBR_FULL_422"
    _describe(dataset, found.rows, found.columns, "MONOCHROME2" if found.samples == 1 else ybr)
    _lossy(dataset, found.rows * found.columns * found.samples, len(content))
    return dataset


def _film(content: Content) -> Dataset:
    film = film_of(content)
    dataset = _dataset(VideoPhotographicImageStorage, UID(film.transfer_syntax), "XC")
    _describe(dataset, film.height, film.width, "YBR_PARTIAL_420")
    dataset.NumberOfFrames, dataset.FrameTime = film.frames, f"{1000 / film.rate:.6g}"
    dataset.CineRate, dataset.FrameIncrementPointer = round(film.rate), 0x00181063
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_23008_2" if film.transfer_syntax == _HEVC else "ISO_14496_10"
    native = film.width * film.height * 3 * film.frames
    dataset.LossyImageCompressionRatio = f"{native / len(content):.2f}"
    return dataset


def _dataset(sop_class: UID, transfer_syntax: UID, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    return dataset


def _describe(dataset: Dataset, rows: int, columns: int, photometric: str) -> None:
    """Image Pixel module, and what all photographs have in common. PS3.3 C.8.12.1."""
    if not (0 < rows < 65536 and 0 < columns < 65536):
        raise cannot_understand("the picture is larger than an image may be")
    dataset.ImageType, dataset.LossyImageCompression = ["ORIGINAL", "PRIMARY"], "00"
    dataset.SamplesPerPixel = 1 if photometric == "MONOCHROME2" else 3
    dataset.PhotometricInterpretation = photometric
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.BurnedInAnnotation, dataset.AcquisitionContextSequence = "NO", []


def _identify(dataset: Dataset, known: Known, now: datetime) -> None:
    dataset.PatientName, dataset.PatientID = known.patient_name, known.patient_id
    dataset.PatientBirthDate = dataset.PatientSex = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.AccessionNumber = known.accession
    dataset.StudyInstanceUID = known.study or generate_uid(prefix=None)
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Manufacturer, dataset.Laterality, dataset.PatientOrientation = "", None, None
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = time
    dataset.TimezoneOffsetFromUTC = now.strftime("%z")
    dataset.AcquisitionDateTime = date + time
    for keyword, value in known.attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _boxes(content: Content, begin: int, end: int, depth: int) -> list[tuple[bytes, bytes]]:
    """The boxes of the first video track and of what is around it, by name."""
    found: list[tuple[bytes, bytes]] = []
    for box in boxes(content, begin, end):
        if box.name in _CONTAINERS and depth < 8:
            inner = _boxes(content, box.body, box.end, depth + 1)
            handlers = [body[8:12] for inner_name, body in inner if inner_name == b"hdlr"]
            if box.name != b"trak" or b"vide" in handlers:
                found += inner
                if box.name == b"trak":
                    return found
        elif box.name not in (b"mdat", b"free"):
            found.append((box.name, content[box.body : box.end]))
        if len(found) >= _MAX_BOXES:
            break
    return found


def _times(header: bytes) -> tuple[int, int]:
    """Time scale and duration of a media header box."""
    if header[:1] == b"\1":
        return struct.unpack_from(">LQ", header, 20)
    return struct.unpack_from(">LL", header, 12)
