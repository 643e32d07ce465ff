"""What is kept of studies, series and instances: as values, and as the documents of the index. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import orjson

from dicomweb.attributes import (
    CLASSES,
    INSTANCE_NUMBER,
    MODALITIES,
    SERIES_INSTANCES,
    STUDY_INSTANCES,
    STUDY_SERIES,
    Level,
    of_level,
    stored,
    value,
)
from dicomweb.dicom_json import Attributes, integer
from dicomweb.frames import FrameTable
from dicomweb.instance import Received
from dicomweb.matching_keys import keys_of
from dicomweb.windows import inflated

TRANSACTION_INSTANCES = 200
TRANSACTION_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a search. field: see matching_keys.field_of.

    one_of: it has one of the values. like: it matches the regular expression. between: it lies in the closed range,
    either end may be None. moments: `field` names a date and a time, which together lie between the first date and
    time and the last; values are first date, last date, first time, last time.
    """

    field: str
    kind: Literal["one_of", "like", "between", "moments"]
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance as WADO-RS needs it. places: path of bulk data -> (offset, length)."""

    study: str
    series: str
    sop_instance: str
    sop_class: str
    transfer_syntax: str
    blob_key: str
    frames: FrameTable | None
    inflated_from: int | None
    metadata: bytes = field(repr=False)
    places: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)

    @property
    def attributes(self) -> Attributes:
        """The data set as DICOM JSON, parsed anew each time."""
        return orjson.loads(inflated(self.metadata))


@dataclass(frozen=True, slots=True)
class InstanceFile:
    """What is needed to send an instance as it was received."""

    series: str
    sop_instance: str
    sop_class: str
    transfer_syntax: str
    blob_key: str


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """An instance in the index and the object it names. mended: paths of what its metadata tells otherwise.
    original: key of the object as received, where a person has corrected it."""

    study: str
    series: str
    sop_instance: str
    blob_key: str
    size: int
    mended: tuple[str, ...]
    original: str | None = None


@dataclass(frozen=True, slots=True)
class StudyState:
    """A study and how far its projection is. status: of the ImagingStudy last projected; None before the first."""

    uid: str
    revision: int
    changed: datetime
    projected: int
    status: str | None
    failures: int


@dataclass(frozen=True, slots=True)
class SeriesContent:
    """A series with its instances: (SOP Class UID, SOP Instance UID, Instance Number), in order."""

    attributes: Attributes
    count: int
    instances: list[tuple[str, str, int | None]]


@dataclass(frozen=True, slots=True)
class Link:
    """Whose a study is by a person's decision, which goes before any match: `Patient/1`, `ServiceRequest/2`.

    subject: None while nobody has decided; then the study waits, and is nobody's. attached: it came with the order,
    and is no result of it.
    """

    subject: str | None
    based_on: tuple[str, ...] = ()
    attached: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> "Link | None":
        if document is None:
            return None
        return cls(document["subject"], tuple(document["based_on"]), document["attached"])

    def document(self) -> dict[str, Any]:
        return {"subject": self.subject, "based_on": list(self.based_on), "attached": self.attached}


@dataclass(frozen=True, slots=True)
class StudyContent:
    """What an ImagingStudy says of a study."""

    attributes: Attributes
    modalities: list[str]
    count: int
    series: list[SeriesContent]
    link: Link | None = None
    late: bool = False  # more came after a person had corrected it


def attributes_of(level: Level, document: dict) -> Attributes:
    attributes: Attributes = orjson.loads(document["q"])
    if level == "study":
        attributes[MODALITIES] = value("CS", *document["modalities"])
        attributes[CLASSES] = value("UI", *document["classes"])
        attributes[STUDY_SERIES] = value("IS", document["series"])
        attributes[STUDY_INSTANCES] = value("IS", document["count"])
    elif level == "series":
        attributes[SERIES_INSTANCES] = value("IS", document["count"])
    elif "meta" in document:
        attributes |= orjson.loads(inflated(document["meta"]))
    return attributes


def merged(before: bytes | None, members: list[Received], level: Level) -> Attributes:
    """The attributes of a study or series: of its first instance, with what later ones add."""
    merged: Attributes = orjson.loads(before) if before else {}
    for received in members:
        for tag, attribute in stored(received.instance.attributes, level).items():
            if len(merged.get(tag, {})) < 2:  # no value yet
                merged[tag] = attribute
    return dict(sorted(merged.items()))


def state_of(document: Mapping[str, Any]) -> str:
    """A text that is another one after each change of the study's content."""
    return f"{document['revision']}-{document['changed'].timestamp()}"


def joined(members: Iterable[Attributes], level: Level) -> Attributes:
    """The attributes of a study or series: of the first of its instances, with what the others add."""
    joined: Attributes = {}
    for attributes in members:
        for tag, attribute in stored(attributes, level).items():
            if len(joined.get(tag, {})) < 2:  # no value yet
                joined[tag] = attribute
    return dict(sorted(joined.items()))


def instance_document(received: Received) -> dict[str, Any]:
    instance = received.instance
    document: dict[str, Any] = {
        "_id": instance.sop_instance,
        "study": instance.study,
        "series": instance.series,
        "n": integer(instance.attributes, INSTANCE_NUMBER),
        "sop_class": instance.sop_class,
        "ts": instance.transfer_syntax,
        "blob": received.blob_key,
        "size": received.spooled.size,
        "q": orjson.dumps(instance.attributes),
        "f": keys_of(instance.attributes, of_level("instance")),
        "meta": received.metadata,
        "places": orjson.dumps(instance.bulk),
    }
    if instance.frames is not None:
        frames = instance.frames
        document["frames"] = {"n": frames.count, "at": frames.offset, "bits": frames.bits, "spans": frames.spans}
    if instance.mended:
        document["mended"] = instance.mended
    if instance.inflated_from is not None:
        document["inflated_from"] = instance.inflated_from
    return document


def stored_instance(document: dict) -> StoredInstance:
    frames = document.get("frames")
    return StoredInstance(
        document["study"],
        document["series"],
        document["_id"],
        document["sop_class"],
        document["ts"],
        document["blob"],
        FrameTable(frames["n"], frames["at"], frames["bits"], frames["spans"]) if frames else None,
        document.get("inflated_from"),
        document["meta"],
        orjson.loads(document["places"]),
    )


def batches(received: list[Received]) -> Iterator[list[Received]]:
    """The instances of one study at a time, in transactions of bounded size."""
    by_study: dict[str, list[Received]] = {}
    for item in received:
        by_study.setdefault(item.instance.study, []).append(item)
    for members in by_study.values():
        batch: list[Received] = []
        size = 0
        for item in members:
            if batch and (len(batch) == TRANSACTION_INSTANCES or size + item.held > TRANSACTION_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.held
        yield batch
