"""Instances that come as metadata and bulk data, put together as DICOM files. PS3.18 sections 8.7 and 10.5.2.

The metadata (JSON or XML) comes first, then the bulk data: each in a part of its own whose Content-Location is the
BulkDataURI; several parts with one location are the frames of one value. The same parts make the same file, so that
sending them again changes nothing. A photo, PDF or film as bulk data says itself what the metadata leaves out: the
SOP class, and the attributes of its pixels (section 10.5.2).
"""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import orjson
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate_buffer
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from dicomweb import part10, wrap
from dicomweb.accept import DICOM_XML, EXPLICIT_LITTLE_ENDIAN, OCTETS, content_type
from dicomweb.attributes import CLASS_UID, INSTANCE_UID
from dicomweb.blobs import BlobStore, Spooled, is_full
from dicomweb.dicom_json import Attribute, Attributes, text
from dicomweb.failures import PROCESSING, SYNTAX_NOT_SUPPORTED, StoreFailure, cannot_understand, no_room
from dicomweb.multipart import Part
from dicomweb.native_xml import from_xml
from dicomweb.uids import is_uid
from fhir_server.errors import TooLarge

MAX_METADATA_BYTES = 16 * 1024 * 1024  # of one part: as objects it takes a tenfold of memory
MAX_DATA_SETS = 10_000
MAX_BULK_PARTS = 100_000
IMPLEMENTATION_UID = UID("2.25.288462304763919475330923177283045611297")
CHARACTER_SET = "00080005"
_PIXELS, _DOCUMENT = "7FE00010", "00420011"
# What each must say of its content; the content itself is asked where one is missing.
_SAID = {_PIXELS: (CLASS_UID, "00280010", "00280011", "00280100"), _DOCUMENT: (CLASS_UID,)}
_NATIVE = {EXPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"}  # whose pixels are alike
# Media type -> transfer syntax where none is named. PS3.18 table 8.7.3-2 ff.
_SYNTAX_OF = {
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/jxl": "1.2.840.10008.1.2.4.112",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}
# JPEG names its process itself, in the marker of its frame header.
_JPEG_SYNTAX = {
    0xC0: "1.2.840.10008.1.2.4.50",
    0xC1: "1.2.840.10008.1.2.4.51",
    0xC3: "1.2.840.10008.1.2.4.70",
}


@dataclass(slots=True)
class _Bulk:
    """A value, in the files of its parts."""

    media_type: str
    transfer_syntax: str | None
    files: list[Spooled] = field(default_factory=list)


class Composer:
    """Gathers the parts of one request. `close` removes what it has on disk."""

    def __init__(self, blobs: BlobStore, max_bytes: int) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._data_sets: list[Attributes] = []
        self._bulk: dict[str, _Bulk] = {}
        self._parts = 0

    def add_metadata(self, part: Part, media_type: str) -> None:
        """Raises StoreFailure, TooLarge."""
        data = bytearray()
        for chunk in part.chunks:
            data += chunk
            if len(data) > MAX_METADATA_BYTES:
                raise TooLarge(f"metadata may have {MAX_METADATA_BYTES // 2**20} MB in one part")
        with part10.refusing(shaped=False):
            found = from_xml(bytes(data)) if media_type == DICOM_XML else orjson.loads(data)
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(one, dict) for one in found):
            raise cannot_understand("metadata is a data set, or an array of them")
        self._data_sets += found
        if len(self._data_sets) > MAX_DATA_SETS:
            raise TooLarge("too many instances in one request; send them in several")

    def add_bulk(self, part: Part) -> None:
        """Raises StoreFailure, TooLarge."""
        location = part.headers.get("content-location", "")
        if not location:
            raise cannot_understand("bulk data needs a Content-Location")
        self._parts += 1
        if self._parts > MAX_BULK_PARTS:
            raise TooLarge("too many parts in one request; send them in several")
        media_type, parameters = content_type(part.headers.get("content-type", OCTETS))
        spooled = self._blobs.spool(part.chunks, self._max_bytes)
        bulk = self._bulk.setdefault(_key(location), _Bulk(media_type, parameters.get("transfer-syntax")))
        bulk.files.append(spooled)

    def files(self) -> Iterator[Spooled | StoreFailure]:
        """Each instance as a DICOM file, in the order of the metadata, or why it cannot be made one."""
        for attributes in self._data_sets:
            try:
                yield self._file(attributes)
            except StoreFailure as failure:
                yield _named(failure, attributes)
            except OSError as error:
                if not is_full(error):
                    raise
                yield _named(no_room(), attributes)

    def close(self) -> None:
        for bulk in self._bulk.values():
            for spooled in bulk.files:
                self._blobs.discard(spooled)

    def _file(self, attributes: Attributes) -> Spooled:
        with ExitStack() as stack, part10.refusing(shaped=False):
            attributes = self._filled(attributes)
            syntax = self._syntax(attributes)
            needed: list[tuple[Dataset, int, str, _Bulk]] = []
            dataset = self._data_set(attributes, needed, 0)
            for target, tag, vr, bulk in needed:
                opened: list[BinaryIO] = [stack.enter_context(one.path.open("rb")) for one in bulk.files]
                encapsulated = target is dataset and f"{tag:08X}" == _PIXELS and syntax != EXPLICIT_LITTLE_ENDIAN
                if encapsulated:
                    target.add_new(tag, "OB", encapsulate_buffer(opened, has_bot=len(opened) > 1))  # type: ignore[arg-type]
                    target[tag].is_undefined_length = True
                else:
                    target.add_new(tag, vr, opened[0] if len(opened) == 1 else b"".join(one.read() for one in opened))
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.MediaStorageSOPClassUID = UID(text(attributes, CLASS_UID))
            dataset.file_meta.MediaStorageSOPInstanceUID = UID(text(attributes, INSTANCE_UID))
            dataset.file_meta.TransferSyntaxUID = UID(syntax)
            dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
            dataset.file_meta.ImplementationVersionName = "RADLOOP"

            def write(file: BinaryIO) -> None:
                dcmwrite(file, dataset, enforce_file_format=True)

            return self._blobs.spool_file(write, self._max_bytes)

    def _filled(self, attributes: Attributes) -> Attributes:
        """The data set with what its photo, PDF or film says of itself. Raises StoreFailure."""
        for tag, said in _SAID.items():
            uri = attributes[tag].get("BulkDataURI") if isinstance(attributes.get(tag), dict) else None
            bulk = self._bulk.get(_key(uri)) if isinstance(uri, str) else None
            if bulk is None or bulk.media_type not in wrap.MEDIA_TYPES or len(bulk.files) != 1:
                continue
            if bulk.media_type != wrap.PNG and all(name in attributes for name in said):
                continue
            with wrap.looked_into(bulk.files[0].path) as content:
                found = wrap.described(bulk.media_type, content)
            own: Attributes = found.dataset.to_json_dict()
            if found.pixels is None:
                return own | attributes
            self._blobs.discard(bulk.files[0])
            native = self._blobs.spool([found.pixels], self._max_bytes)
            bulk.media_type, bulk.transfer_syntax, bulk.files = OCTETS, EXPLICIT_LITTLE_ENDIAN, [native]
            return own | attributes | {name: value for name, value in own.items() if name.startswith("0028")}
        return attributes

    def _data_set(self, attributes: Attributes, needed: list[tuple[Dataset, int, str, _Bulk]], depth: int) -> Dataset:
        """needed: gets the values that are in the bulk data, each with where it belongs."""
        if depth > part10.MAX_DEPTH:
            raise cannot_understand("sequences are nested too deeply")
        dataset = Dataset()
        plain: dict[str, Attribute] = {}
        for tag, attribute in sorted(attributes.items()):
            vr = attribute["vr"]
            if tag.startswith("0002") or tag == "00083002":  # of the file, which gets its own
                continue
            if "BulkDataURI" in attribute:
                bulk = self._bulk.get(_key(str(attribute["BulkDataURI"])))
                if bulk is None:
                    raise StoreFailure(PROCESSING, f"the bulk data of ({tag[:4]},{tag[4:]}) was not sent")
                needed.append((dataset, int(tag, 16), vr, bulk))
            elif vr == "SQ":
                items = attribute.get("Value", [])
                dataset.add_new(int(tag, 16), "SQ", [self._data_set(item, needed, depth + 1) for item in items])
            else:
                plain[tag] = _as_ds(attribute) if vr == "DS" else attribute
        if (depth == 0 and CHARACTER_SET in plain) or _has_text(plain):
            plain[CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
        for element in Dataset.from_json(dict(sorted(plain.items()))):
            dataset.add(element)
        return dataset

    def _syntax(self, attributes: Attributes) -> str:
        """The transfer syntax of the file. Raises StoreFailure for one that cannot be written."""
        uri = attributes.get(_PIXELS, {}).get("BulkDataURI") if isinstance(attributes.get(_PIXELS), dict) else None
        bulk = self._bulk.get(_key(uri)) if isinstance(uri, str) else None
        if bulk is None:
            return EXPLICIT_LITTLE_ENDIAN
        syntax = bulk.transfer_syntax or _SYNTAX_OF.get(bulk.media_type)
        if syntax is None and bulk.media_type == "image/jpeg":
            syntax = _jpeg_syntax(bulk.files[0])
        if syntax is None and bulk.media_type == OCTETS:
            syntax = text(attributes, "00020010") or text(attributes, "00083002") or EXPLICIT_LITTLE_ENDIAN
        if syntax in _NATIVE:
            return EXPLICIT_LITTLE_ENDIAN
        if syntax is None or not (UID(syntax).is_transfer_syntax and UID(syntax).is_encapsulated):
            raise StoreFailure(SYNTAX_NOT_SUPPORTED, "pixel data of this media type is not taken")
        return syntax


def _named(failure: StoreFailure, attributes: Attributes) -> StoreFailure:
    failure.sop_class, failure.sop_instance = _uid(attributes, CLASS_UID), _uid(attributes, INSTANCE_UID)
    return failure


def _uid(attributes: Attributes, tag: str) -> str | None:
    """The UID, if this is one, of a data set that may be anything."""
    with contextlib.suppress(Exception):
        found = text(attributes, tag)
        return found if is_uid(found) else None
    return None


def _key(uri: str) -> str:
    """A BulkDataURI as it is compared: clients write it absolute in one place and relative in the other."""
    parts = urlsplit(uri)
    return f"{parts.path}?{parts.query}" if parts.scheme in ("http", "https") else uri if parts.scheme else f"{uri}?"


def _as_ds(attribute: Attribute) -> Attribute:
    """Numbers of JSON have more digits than DS takes."""
    values = [format_number_as_ds(v) if isinstance(v, float) else v for v in attribute.get("Value", [])]
    return attribute | {"Value": values} if values else attribute


def _has_text(value: Any) -> bool:
    """Whether there is a character beyond ASCII."""
    if isinstance(value, str):
        return not value.isascii()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_has_text, children))


def _jpeg_syntax(file: Spooled) -> str | None:
    """By the first frame header of the stream; None when there is none that DICOM knows."""
    with file.path.open("rb") as stream:
        data = stream.read(256 * 1024)
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _JPEG_SYNTAX.get(marker)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
