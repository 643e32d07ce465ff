"""The proof that nothing of the images is lost: objects, index and ImagingStudies say the same."""

from dataclasses import dataclass, field

from dicomweb.blobs import ABANDONED_S, BlobMissing, BlobStore
from dicomweb.imaging_study import MAX_INSTANCES, is_withdrawn
from dicomweb.records import IndexedFile
from dicomweb.store import DicomStore
from dicomweb.uids import STUDY_ID_PREFIX, imaging_study_id
from fhir_server.findings import Finding
from fhir_server.repository import Repository

PAGE = 200


@dataclass(slots=True)
class Report:
    """What there is. bytes: of all objects. orphans: keys of objects that no instance has, old enough to belong to no
    request that still runs. notes: what is known, with the reason."""

    studies: int = 0
    instances: int = 0
    bytes: int = 0
    orphans: list[str] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def check(
    store: DicomStore,
    blobs: BlobStore,
    repository: Repository,
    *,
    checksums: bool = True,
    older_s: float = ABANDONED_S,
) -> Report:
    """Look over the whole store; what changes meanwhile is no fault. Changes nothing.

    checksums: read every object, and not only its size. older_s: age from which an object without an instance is an
    orphan; a request that stores first keeps the object and then indexes it.
    """
    report = Report()
    old = set(blobs.keys(older_s))  # before the index is read: what is indexed later was kept later
    for file in store.indexed_files():
        report.instances += 1
        report.bytes += file.size
        old -= {file.blob_key, file.original}
        if (fault := _fault(blobs, file, checksums)) and _is_indexed(store, file):
            report.faults.append(Finding(_subject(file.study), f"instance {file.sop_instance}: {fault}"))
        if file.mended:
            places = ", ".join(file.mended)
            text = f"instance {file.sop_instance}: metadata mends a decimal string or window that is none at {places}"
            report.notes.append(Finding(_subject(file.study), text))
    report.orphans = sorted(old)
    for study, behind in store.study_uids():
        report.studies += 1
        _check_study(store, repository, study, behind, report)
    _check_without_images(store, repository, report)
    return report


def _fault(blobs: BlobStore, file: IndexedFile, checksums: bool) -> str | None:
    try:
        if blobs.size(file.blob_key) != file.size:
            return "its object has another size than was stored"
        if checksums and not blobs.is_intact(file.blob_key):
            return "its object is not what was stored"
    except BlobMissing:
        return "its object is missing"
    return None


def _is_indexed(store: DicomStore, file: IndexedFile) -> bool:
    """Whether it still is; it may have been deleted while we looked."""
    return store.known([file.sop_instance]).get(file.sop_instance) == file.blob_key


def _check_study(store: DicomStore, repository: Repository, study: str, behind: bool, report: Report) -> None:
    subject = _subject(study)
    if behind:
        report.notes.append(Finding(subject, "its ImagingStudy is about to be written"))
        return
    newest = repository.store.newest("ImagingStudy", imaging_study_id(study))
    if newest is None or newest.deleted:
        report.notes.append(Finding(subject, "its ImagingStudy was deleted; the images are the practice's alone"))
        return
    resource, stored = newest.resource(), store.instances_of(study)
    count = sum(map(len, stored.values()))
    told = {
        series["uid"]: {instance["uid"] for instance in series.get("instance", [])}
        for series in resource.get("series", [])
    }
    same = resource.get("numberOfInstances") == count and told.keys() == stored.keys()
    if same and count <= MAX_INSTANCES:
        same = told == stored
    # It may have grown since `study_uids` told of it.
    if not same and dict(store.study_uids(study)) == {study: False}:
        report.faults.append(Finding(subject, f"tells of other images than the {count} that are stored"))


def _check_without_images(store: DicomStore, repository: Repository, report: Report) -> None:
    """ImagingStudies of ours must have images, unless they say that they were withdrawn."""
    pending = {imaging_study_id(study) for study in store.withdrawn(limit=0)}
    after = 0
    while page := repository.store.page("ImagingStudy", {"keys": "*", "n": {"$gt": after}}, [("n", 1)], PAGE):
        after = page[-1].created
        for version in page:
            ours = version.id.startswith(STUDY_ID_PREFIX)
            if not ours or version.id in pending or store.study_of(version.id) is not None:
                continue
            resource = version.resource()
            if not is_withdrawn(resource) and resource["status"] not in ("cancelled", "entered-in-error"):
                report.faults.append(Finding(f"ImagingStudy/{version.id}", "tells of a study that is not stored"))


def _subject(study: str) -> str:
    return f"ImagingStudy/{imaging_study_id(study)}"
