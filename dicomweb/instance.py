"""A received file as what is stored of it. Pure: reads the file, knows neither HTTP nor MongoDB."""

import zlib
from dataclasses import dataclass, replace
from typing import BinaryIO

import orjson

from dicomweb import part10, windows
from dicomweb.attributes import CLASS_UID, INSTANCE_UID, SERIES_UID, STUDY_UID, stored
from dicomweb.blobs import Spooled, blob_key
from dicomweb.dicom_json import Attributes, convert, text
from dicomweb.failures import (
    NOT_THIS_SOP_CLASS,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    StoreFailure,
    cannot_understand,
)
from dicomweb.frames import FrameTable, find_frames
from dicomweb.uids import is_uid

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR is the index of a disc, no instance of a study
MAX_METADATA_BYTES = 96 * 1024 * 1024  # of JSON, and compressed with the frame table 12 MB: a document holds 16 MB
MAX_STORED_BYTES = 12 * 1024 * 1024
MAX_MENDED = 64  # paths that are told of an instance
MAX_KEY_BYTES = 512 * 1024  # of the attributes that are searched by
PIXEL_DATA_VR = {  # in implicit VR; PS3.5 annex A.1
    0x7FE00008: "OF",
    0x7FE00009: "OD",
    0x7FE00010: "OW",
}


@dataclass(frozen=True, slots=True)
class Instance:
    """What is known of one instance.

    attributes: the data set as DICOM JSON, a BulkDataURI being `/studies/...`, below the base of the service.
    bulk: path of a value that is only named -> (offset, length). frames: None without pixel data.
    inflated_from: see Part10; then the offsets are those of the inflated data set.
    mended: paths of what `attributes` tell otherwise than the file.
    """

    study: str
    series: str
    sop_instance: str
    sop_class: str
    transfer_syntax: str
    attributes: Attributes
    bulk: dict[str, tuple[int, int]]
    frames: FrameTable | None
    inflated_from: int | None
    mended: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return instance_address(self.study, self.series, self.sop_instance)


@dataclass(frozen=True, slots=True)
class Received:
    """An instance and the spooled file that it was read from.

    instance: only with the attributes that are searched by, as a request may have thousands. metadata: all of its
    JSON, compressed.
    """

    instance: Instance
    spooled: Spooled
    metadata: bytes
    blob_key: str

    @property
    def held(self) -> int:
        """Bytes of memory that wait for the end of the request, about."""
        frames = self.instance.frames
        return len(self.metadata) + len(frames.spans or b"" if frames else b"") + 100 * len(self.instance.bulk)


def instance_address(study: str, series: str, sop_instance: str) -> str:
    """Below the base of the service."""
    return f"/studies/{study}/series/{series}/instances/{sop_instance}"


def receive(spooled: Spooled) -> Received:
    """Read a spooled file. Raises StoreFailure, with the UIDs if it has any."""
    with spooled.path.open("rb") as file:
        instance = read_instance(file)
    with part10.refusing():
        json = orjson.dumps(instance.attributes)
        searched = stored(instance.attributes, "instance")
        key_bytes = len(orjson.dumps(searched))
    key = blob_key(instance.study, instance.series, instance.sop_instance, spooled.sha256)
    received = Received(replace(instance, attributes=searched), spooled, zlib.compress(json), key)
    if len(json) > MAX_METADATA_BYTES or received.held > MAX_STORED_BYTES or key_bytes > MAX_KEY_BYTES:
        text_ = "the data set is too large without its pixel data"
        raise StoreFailure(OUT_OF_RESOURCES, text_, instance.sop_class, instance.sop_instance)
    return received


def read_instance(file: BinaryIO) -> Instance:
    """Parse a file into what is stored of it. Raises StoreFailure."""
    with part10.opened(file) as source, part10.refusing():
        if source.media_class == MEDIA_DIRECTORY:
            raise StoreFailure(SOP_CLASS_NOT_SUPPORTED, "a media directory is not stored", MEDIA_DIRECTORY)
        uids = _uids(source.dataset)
        try:
            return _instance(source, uids)
        except StoreFailure as failure:
            failure.sop_class, failure.sop_instance = uids[CLASS_UID], uids[INSTANCE_UID]
            raise


def _uids(dataset: part10.Dataset) -> dict[str, str]:
    """The four UIDs that every instance of a study has."""
    uids = {tag: part10.uid(dataset, int(tag, 16)) for tag in (CLASS_UID, INSTANCE_UID, STUDY_UID, SERIES_UID)}
    known = {tag: uid if is_uid(uid) else None for tag, uid in uids.items()}
    for tag, uid in known.items():
        if uid is None:
            text_ = f"the data set has no valid UID in ({tag[:4]},{tag[4:]})"
            raise StoreFailure(NOT_THIS_SOP_CLASS, text_, known[CLASS_UID], known[INSTANCE_UID])
    return uids


def _instance(source: part10.Part10, uids: dict[str, str]) -> Instance:
    study, series, sop_instance = uids[STUDY_UID], uids[SERIES_UID], uids[INSTANCE_UID]
    bulk_address = f"{instance_address(study, series, sop_instance)}/bulkdata/"
    converted = convert(source.dataset, source.file, bulk_address)
    frames = find_frames(source.file, source.pixel_element, converted.attributes)
    pixels = source.pixel_element
    if pixels is not None:
        tag = f"{pixels.tag:08X}"
        converted.attributes[tag] = {"vr": pixels.vr or PIXEL_DATA_VR[pixels.tag], "BulkDataURI": bulk_address + tag}
        if pixels.length != part10.UNDEFINED:
            converted.bulk[tag] = (pixels.offset, pixels.length)
    mended = [*converted.mended, *windows.mend(converted.attributes)]
    if text(converted.attributes, STUDY_UID) != study:
        raise cannot_understand("the UIDs of the data set cannot be read")
    return Instance(
        study,
        series,
        sop_instance,
        uids[CLASS_UID],
        source.transfer_syntax,
        converted.attributes,
        converted.bulk,
        frames,
        source.inflated_from,
        tuple(mended[:MAX_MENDED]),
    )
