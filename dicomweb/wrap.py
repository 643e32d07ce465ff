"""Photos, PDFs and films that are no DICOM yet, wrapped into the SOP class that is made for them. Pure: bytes and
what is known of them in, a DICOM file out; the compressed content stays byte by byte as it was.

PS3.3 annexes A.32.4-5 (VL and Video Photographic Image), A.45.1 (Encapsulated PDF), PS3.18 section 10.5.1 (the
metadata that a client may send along is `known`).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
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

from dicomweb.codestream import NotAStream, jpeg_header
from dicomweb.failures import cannot_understand

PHOTOS = ("image/jpeg", "image/png")
PDF, MP4 = "application/pdf", "video/mp4"
MEDIA_TYPES = frozenset({*PHOTOS, PDF, MP4})
MAX_PIXELS = 200_000_000
_MAX_FRAMES = 2**31 - 1
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
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


def wrapped(media_type: str, content: bytes, known: Known, now: datetime) -> bytes:
    """The content as a DICOM file, with UIDs of its own where `known` has none. Raises StoreFailure."""
    if media_type == PDF:
        dataset = _pdf(content)
    elif media_type == MP4:
        dataset = _film(content)
    elif media_type in PHOTOS:
        dataset = _photo(media_type, content)
    else:
        raise cannot_understand("files of this media type are not stored")
    _identify(dataset, known, now)
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def film_of(content: bytes) -> Film:
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


def _pdf(content: bytes) -> Dataset:
    if b"%PDF-" not in content[:1024]:
        raise cannot_understand("the content is no PDF")
    dataset = _dataset(EncapsulatedPDFStorage, ExplicitVRLittleEndian, "DOC")
    dataset.MIMETypeOfEncapsulatedDocument, dataset.DocumentTitle = PDF, ""
    dataset.ConversionType, dataset.BurnedInAnnotation, dataset.ConceptNameCodeSequence = "WSD", "YES", []
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    dataset.EncapsulatedDocumentLength = len(content)
    return dataset


def _photo(media_type: str, content: bytes) -> Dataset:
    if media_type == "image/jpeg":
        baseline = _baseline(content)
        if baseline is not None:
            return baseline
    try:
        with Image.open(BytesIO(content), formats=["JPEG", "PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise cannot_understand("the photo has too many pixels")
            grey = image.mode in ("1", "L", "I;16", "I")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise cannot_understand("the content is no photo that can be read") from None
    dataset = _dataset(VLPhotographicImageStorage, ExplicitVRLittleEndian, "XC")
    _describe(dataset, pixels.shape[0], pixels.shape[1], "MONOCHROME2" if grey else "RGB")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    return dataset


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
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    native = found.rows * found.columns * found.samples
    dataset.LossyImageCompressionRatio = f"{native / len(content):.2f}"
    dataset.PixelData = encapsulate([content], has_bot=False)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset


def _film(content: bytes) -> Dataset:
    film = film_of(content)
    dataset = _dataset(VideoPhotographicImageStorage, UID(film.transfer_syntax), "XC")
    _describe(dataset, film.height, film.width, "YBR_PARTIAL_420")
    dataset.NumberOfFrames, dataset.FrameTime = film.frames, f"{1000 / film.rate:.6g}"
    dataset.CineRate, dataset.FrameIncrementPointer = round(film.rate), 0x00181063
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_23008_2" if film.transfer_syntax == _HEVC else "ISO_14496_10"
    native = film.width * film.height * 3 * film.frames
    dataset.LossyImageCompressionRatio = f"{native / len(content):.2f}"
    dataset.PixelData = encapsulate([content], has_bot=False)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
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
    dataset.StudyDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.ContentTime = time
    dataset.AcquisitionDateTime = date + time
    for keyword, value in known.attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _boxes(content: bytes, begin: int, end: int, depth: int) -> list[tuple[bytes, bytes]]:
    """The boxes of the first video track and of what is around it, by name."""
    found: list[tuple[bytes, bytes]] = []
    at = begin
    while at + 8 <= end and len(found) < 1000:
        size, name = struct.unpack_from(">L4s", content, at)
        head = 8
        if size == 1 and at + 16 <= end:
            size, head = struct.unpack_from(">Q", content, at + 8)[0], 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            raise cannot_understand("the film is broken")
        if name in _CONTAINERS and depth < 8:
            inner = _boxes(content, at + head, at + size, depth + 1)
            handlers = [body[8:12] for inner_name, body in inner if inner_name == b"hdlr"]
            if name != b"trak" or b"vide" in handlers:
                found += inner
                if name == b"trak":
                    return found
        elif name not in (b"mdat", b"free"):
            found.append((name, content[at + head : at + size]))
        at += size
    return found


def _times(header: bytes) -> tuple[int, int]:
    """Time scale and duration of a media header box."""
    if header[:1] == b"\1":
        return struct.unpack_from(">LQ", header, 20)
    return struct.unpack_from(">LL", header, 12)
