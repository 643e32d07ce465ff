"""What images take, and which ones are older than a practice keeps them. Nothing here decides to delete."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from dicomweb.attributes import STUDY_DATE
from dicomweb.blobs import BlobStore
from dicomweb.records import state_of
from dicomweb.store import DATE_FIELD, OBJECTS_SIZE, DicomStore
from dicomweb.uids import imaging_study_id

NO_DATE = "none"


@dataclass(frozen=True, slots=True)
class Use:
    """Of the studies of a year (NO_DATE: of those without a date): how many, their instances and bytes."""

    year: str
    studies: int
    instances: int
    size: int


@dataclass(frozen=True, slots=True)
class OldStudy:
    """A study whose date is past. state: as it was looked at, for `retire`. waits: at the desk, for a person."""

    uid: str
    state: str
    day: str
    waits: bool

    @property
    def reference(self) -> str:
        return f"ImagingStudy/{imaging_study_id(self.uid)}"


def uses(store: DicomStore) -> list[Use]:
    """By the year of the study, the first year first."""
    by_study = {"_id": "$study", "instances": {"$sum": 1}, "size": {"$sum": OBJECTS_SIZE}}
    joined = {"from": "dicom_studies", "localField": "_id", "foreignField": "_id", "as": "study"}
    year = {"$substrBytes": [{"$ifNull": [{"$first": f"$study.{DATE_FIELD}"}, NO_DATE]}, 0, 4]}
    summed = {"studies": {"$sum": 1}, "instances": {"$sum": "$instances"}, "size": {"$sum": "$size"}}
    pipeline: list[dict] = [{"$group": by_study}, {"$lookup": joined}, {"$group": {"_id": year} | summed}]
    found = store.database["dicom_instances"].aggregate([*pipeline, {"$sort": {"_id": 1}}], allowDiskUse=True)
    return [Use(one["_id"], one["studies"], one["instances"], one["size"]) for one in found]


def older(store: DicomStore, before: date) -> Iterator[OldStudy]:
    """Studies whose date is before that day, the oldest first. One without a date is never too old."""
    query = {DATE_FIELD: {"$lt": f"{before:%Y%m%d}", "$gte": "0"}}
    for document in store.database["dicom_studies"].find(query).sort(DATE_FIELD, 1):
        yield OldStudy(document["_id"], state_of(document), document["f"][STUDY_DATE], document.get("waits", False))


def size_of(store: DicomStore, study: str) -> tuple[int, int]:
    """Instances and bytes."""
    summed = {"_id": None, "instances": {"$sum": 1}, "size": {"$sum": OBJECTS_SIZE}}
    found = store.database["dicom_instances"].aggregate([{"$match": {"study": study}}, {"$group": summed}])
    return next(((one["instances"], one["size"]) for one in found), (0, 0))


def retire(store: DicomStore, blobs: BlobStore, study: OldStudy) -> None:
    """Delete its images: 410 from now on, and its ImagingStudy is withdrawn. Raises PreconditionFailed when it has
    changed since it was looked at, NotFound or Gone when it is not there any more."""
    for key in store.remove(study.uid, state=study.state):
        blobs.delete(key)
