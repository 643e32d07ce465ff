"""The attributes that QIDO-RS matches and returns, by level. PS3.18 section 10.6.

Those of a level above are kept with each series and instance too, so that one query answers on any level.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicomweb.dicom_json import Attributes

Level = Literal["study", "series", "instance"]
LEVELS: tuple[Level, ...] = ("study", "series", "instance")

STUDY_UID, SERIES_UID, INSTANCE_UID, CLASS_UID = "0020000D", "0020000E", "00080018", "00080016"
MODALITY, MODALITIES, CLASSES, RETRIEVE_URL = "00080060", "00080061", "00080062", "00081190"
STUDY_DATE, STUDY_TIME = "00080020", "00080030"
SERIES_DATE, SERIES_TIME = "00080021", "00080031"
SERIES_NUMBER, INSTANCE_NUMBER = "00200011", "00200013"
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = "00201206", "00201208", "00201209"
COUNTS = (STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES)

# What is stored: `*` matches and is returned by default, `+` matches and is returned when asked for, `-` is returned
# when asked for. Names are DICOM keywords; those after a dot are in the items of a sequence.
_TABLE: dict[Level, str] = {
    "study": """
        *StudyDate *StudyTime *AccessionNumber *ModalitiesInStudy *ReferringPhysicianName *PatientName *PatientID
        *PatientBirthDate *PatientSex *StudyInstanceUID *StudyID *TimezoneOffsetFromUTC +StudyDescription
        +IssuerOfPatientID +InstitutionName -OtherPatientIDs -PatientAge -PatientSize -PatientWeight
        -NameOfPhysiciansReadingStudy -IssuerOfAccessionNumberSequence -PlacerOrderNumberImagingServiceRequest
        *NumberOfStudyRelatedSeries *NumberOfStudyRelatedInstances -SpecificCharacterSet -SOPClassesInStudy
        -ProcedureCodeSequence
    """,
    "series": """
        *Modality *SeriesDescription *SeriesInstanceUID *SeriesNumber *PerformedProcedureStepStartDate
        *PerformedProcedureStepStartTime *RequestAttributesSequence
        +RequestAttributesSequence.ScheduledProcedureStepID +RequestAttributesSequence.RequestedProcedureID
        *NumberOfSeriesRelatedInstances +BodyPartExamined +ProtocolName +Manufacturer +StationName
        -SeriesDate -SeriesTime -Laterality -ManufacturerModelName -OperatorsName -PerformingPhysicianName
        -PatientPosition
    """,
    "instance": """
        *SOPClassUID *SOPInstanceUID *InstanceNumber *Rows *Columns *BitsAllocated *NumberOfFrames
        -AcquisitionDate -AcquisitionTime -AcquisitionNumber -ContentDate -ContentTime -ImageType
        -ImagePositionPatient -ImageOrientationPatient -SliceLocation -PhotometricInterpretation -ContentLabel
        -ContentDescription -ConceptNameCodeSequence -CompletionFlag -VerificationFlag
    """,
}
# Known of all instances together, so not taken from any of them.
GATHERED = {STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES, MODALITIES, CLASSES}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row: `path` is the tag, or `sequence.tag`; matched or only returned; by default or when asked for."""

    level: Level
    path: str
    keyword: str
    vr: str
    matched: bool
    default: bool

    @property
    def tag(self) -> str:
        """The attribute to return: the sequence, for one inside it."""
        return self.path.partition(".")[0]


def _rows() -> Iterator[Attribute]:
    for level, words in _TABLE.items():
        for word in words.split():
            mark, keyword = word[0], word[1:]
            tags = [_tag(part) for part in keyword.split(".")]
            vr = dictionary_VR(int(tags[-1], 16))
            matched = mark in "*+" and vr != "SQ" and tags[-1] not in COUNTS
            yield Attribute(level, ".".join(tags), keyword, vr, matched, mark == "*")


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return f"{tag:08X}"


ATTRIBUTES: tuple[Attribute, ...] = tuple(_rows())


def of_level(level: Level, *, above: bool = True) -> list[Attribute]:
    """The attributes of a level, with those of the levels above it."""
    wanted = LEVELS[: LEVELS.index(level) + 1] if above else (level,)
    return [attribute for attribute in ATTRIBUTES if attribute.level in wanted]


def stored(attributes: Attributes, level: Level) -> Attributes:
    """What is kept of an instance's attributes for answers on that level."""
    tags = {attribute.tag for attribute in of_level(level)}
    return {tag: value for tag, value in attributes.items() if tag in tags and tag not in GATHERED}


def find(name: str) -> str | None:
    """The path of an attribute named by keyword or tag, dotted for one inside a sequence; None when it is neither."""
    paths = [part.upper() if _is_tag(part) else _known(part) for part in name.split(".")]
    return ".".join(part for part in paths if part) if all(paths) else None


def _is_tag(part: str) -> bool:
    return len(part) == 8 and all(sign in "0123456789abcdefABCDEF" for sign in part)


def _known(keyword: str) -> str | None:
    tag = tag_for_keyword(keyword)
    return None if tag is None else f"{tag:08X}"


def keyword_of(path: str) -> str:
    """The dotted keyword of a path, for messages."""
    return ".".join(keyword_for_tag(int(part, 16)) or part for part in path.split("."))


def value(vr: str, *values: Any) -> dict[str, Any]:
    """A DICOM JSON attribute."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}
