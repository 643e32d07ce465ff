"""Corrections by people: whose a study is, which studies are one exam, which series are another's.

docs/decisions/0023-corrected-studies.md
"""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

import orjson

from dicomweb import prepared
from dicomweb.attributes import MODALITY, SERIES_NUMBER, of_level
from dicomweb.blobs import BlobStore, unavailable_when_full
from dicomweb.dicom_json import Attributes, integer, text
from dicomweb.failures import StoreFailure
from dicomweb.instance import Received, receive
from dicomweb.matching_keys import keys_of
from dicomweb.people import patient_attributes
from dicomweb.records import InstanceFile, Link, instance_document, joined, state_of
from dicomweb.rewriting import Change, rewrite
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.errors import BadRequest, Gone, NotFound, PreconditionFailed, TooLarge, Unprocessable

MAX_INSTANCES = 5000  # in one correction, which is one transaction
MAX_ACCESSION = 16  # characters of SH
# They name the patient that the study was thought to be of.
_OTHER_IDS = frozenset(
    {"IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDs", "OtherPatientIDsSequence"}
)
_OTHER_ORDERS = frozenset({"RequestAttributesSequence", "PlacerOrderNumberImagingServiceRequest"})
# What all instances of a study have in common, by tag. PS3.3 C.2.2, C.2.3, C.7.1.1, C.7.2.1.
_SHARED = {
    "00100010": "PatientName",
    "00100020": "PatientID",
    "00100030": "PatientBirthDate",
    "00100040": "PatientSex",
    "00080020": "StudyDate",
    "00080030": "StudyTime",
    "00080050": "AccessionNumber",
    "00200010": "StudyID",
    "00081030": "StudyDescription",
}


@dataclass(frozen=True, slots=True)
class Act:
    """One correction, for whoever keeps account of them. by: Access.subject. what: `assign`, `merge`, `split` or
    `delete`. study: ImagingStudy/id it began with, result: the one that has its images now, empty when deleted."""

    by: str
    what: str
    study: str
    result: str
    subject: str
    at: datetime


Record = Callable[[Act], None]


@dataclass(frozen=True, slots=True)
class _Move:
    """Instances of one study, written anew, and the study that has them then. target_state: of one that is there."""

    by: str
    what: str
    study: str
    state: str
    target: str
    target_state: str | None
    link: Link | None
    at: datetime
    series: tuple[str, ...] = ()


class Corrections:
    """Changes files and index together: the new files first, then index and account in one transaction, so that what
    is served is all of the old or all of the new. Each takes the state of the study as the caller saw it, and raises
    PreconditionFailed when it has changed since. Thread safe."""

    def __init__(self, store: DicomStore, blobs: BlobStore, clock: Callable[[], datetime], record: Record) -> None:
        """record: called after each act; the act itself is kept with the studies in any case."""
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._record = record
        database = store.database
        self._studies = database["dicom_studies"]
        self._series = database["dicom_series"]
        self._instances = database["dicom_instances"]
        self._removed = database["dicom_removed"]
        self._acts = database["dicom_corrections"]

    def assign(
        self, by: str, study: str, state: str, patient: dict, order: str | None = None, accession: str | None = None
    ) -> None:
        """The study is that patient's, and the result of that order. patient: the resource; accession: its number."""
        values, dropped = patient_attributes(patient), _OTHER_IDS
        if order is not None:
            dropped |= _OTHER_ORDERS
            if accession and len(accession) <= MAX_ACCESSION:
                values["AccessionNumber"] = accession
        link = Link(f"Patient/{patient['id']}", (order,) if order else ())
        self._apply(_Move(by, "assign", study, state, study, None, link, self._clock()), values, dropped)

    def merge(self, by: str, study: str, state: str, into: str, into_state: str) -> None:
        """All of a study goes to another one, of which it takes patient, date, accession number and description."""
        if study == into:
            raise BadRequest("a study is not merged into itself")
        target = self._studies.find_one({"_id": into})
        if target is None:
            raise NotFound("the other study is not known here")
        attributes: Attributes = orjson.loads(target["q"])
        values = {keyword: text(attributes, tag) for tag, keyword in _SHARED.items()} | {"StudyInstanceUID": into}
        move = _Move(by, "merge", study, state, into, into_state, Link.of(target.get("link")), self._clock())
        self._apply(move, values, _OTHER_IDS | _OTHER_ORDERS)

    def split(self, by: str, study: str, state: str, series: Collection[str]) -> str:
        """These series become a study of their own, which waits for a person to say whose it is; its UID."""
        known = self._store.instances_of(study)
        if not series or not known.keys() >= set(series):
            raise BadRequest("choose series of this study")
        if known.keys() == set(series):
            raise BadRequest("all series were chosen; assign the study instead")
        target = f"2.25.{uuid.uuid4().int}"
        move = _Move(by, "split", study, state, target, None, Link(None), self._clock(), tuple(sorted(series)))
        self._apply(move, {"StudyInstanceUID": target}, frozenset())
        return target

    def delete(self, by: str, study: str, state: str) -> None:
        keys = self._store.remove(study, state=state)
        for key in keys:  # what a kill leaves of them is found by `radloop check dicom`
            self._blobs.delete(key)
        self._record(Act(by, "delete", _reference(study), "", "", self._clock()))

    def _apply(self, move: _Move, values: dict[str, str], dropped: frozenset[str]) -> None:
        files = self._files(move)
        change = Change(values, dropped, move.at)
        made: list[Received] = []
        try:
            with unavailable_when_full():
                for file in files:
                    made.append(self._rewritten(file, change))
                self._blobs.keep((item.spooled, item.blob_key) for item in made)
            with self._store.database.client.start_session() as session:
                superseded = session.with_transaction(lambda s: self._commit(move, made, s))
        except BaseException:
            for item in made:
                self._blobs.discard(item.spooled)
                self._blobs.delete(item.blob_key)
            raise
        for key in superseded:
            self._blobs.delete(key)
        subject = move.link.subject if move.link else None
        self._record(Act(move.by, move.what, _reference(move.study), _reference(move.target), subject or "", move.at))

    def _files(self, move: _Move) -> list[InstanceFile]:
        current = self._studies.find_one({"_id": move.study}, {"revision": 1, "changed": 1, "count": 1})
        if current is None:
            raise NotFound("this study is not known here")
        if state_of(current) != move.state:
            raise _overtaken()
        try:
            files = self._store.files(move.study)
        except (NotFound, Gone):
            raise _overtaken() from None
        files = [file for file in files if not move.series or file.series in move.series]
        if len(files) > MAX_INSTANCES:
            raise TooLarge(f"at most {MAX_INSTANCES} images are corrected at once; split the study first")
        return files

    def _rewritten(self, file: InstanceFile, change: Change) -> Received:
        def write(target: BinaryIO) -> None:
            with self._blobs.open(file.blob_key) as source:
                rewrite(source, change, target)

        try:
            return receive(self._blobs.spool_file(write, 2**40))
        except StoreFailure as failure:
            raise Unprocessable(f"an image of this study cannot be written anew: {failure.text}") from None

    def _commit(self, move: _Move, made: Sequence[Received], session: Any) -> list[str]:
        """Returns the keys of objects that no instance has any more; what was received stays."""
        self._claim(move.study, move.state, session)
        if move.target != move.study:
            if move.target_state is not None:
                self._claim(move.target, move.target_state, session)
            else:
                fresh = {"_id": move.target, "revision": 1, "changed": move.at, "projected": 0}
                self._studies.insert_one(fresh, session=session)
        ids = [item.instance.sop_instance for item in made]
        names = {"blob": 1, "size": 1, "original": 1, "original_size": 1}
        before = {d["_id"]: d for d in self._instances.find({"_id": {"$in": ids}}, names, session=session)}
        self._instances.delete_many({"_id": {"$in": ids}}, session=session)
        for changed in {move.study, move.target}:
            prepared.forget(self._store.database, session, changed, ids)
        documents = [instance_document(item) | _as_received(before[uid]) for uid, item in zip(ids, made, strict=True)]
        self._instances.insert_many(documents, session=session)
        if move.target != move.study:
            self._rebuild(move.study, None, self._store.now(), session)
        self._rebuild(move.target, move.link, self._store.now(), session)
        from_ = [f"{move.study}/{one}" for one in move.series] or [move.study]
        account = {"from": from_, "to": move.target, "by": move.by, "what": move.what, "at": move.at}
        self._acts.insert_one(account, session=session)
        return [d["blob"] for d in before.values() if "original" in d]

    def _claim(self, study: str, state: str, session: Any) -> None:
        """Nobody else changes the study until the transaction has ended. Raises PreconditionFailed."""
        current = self._studies.find_one_and_update({"_id": study}, {"$inc": {"revision": 1}}, session=session)
        if current is None or state_of(current) != state:
            raise _overtaken()

    def _rebuild(self, study: str, link: Link | None, now: datetime, session: Any) -> None:
        """Say of a study what its instances say. Until its ImagingStudy is written the practice alone sees it."""
        by_series: dict[str, list[Attributes]] = {}
        classes: set[str] = set()
        size = 0
        names = {"series": 1, "sop_class": 1, "q": 1, "size": 1, "original_size": 1}
        order = [("series", 1), ("n", 1), ("_id", 1)]
        for d in self._instances.find({"study": study}, names, session=session).sort(order):
            by_series.setdefault(d["series"], []).append(orjson.loads(d["q"]))
            classes.add(d["sop_class"])
            size += d["size"] + d.get("original_size", 0)
        self._series.delete_many({"study": study}, session=session)
        if not by_series:
            self._studies.delete_one({"_id": study}, session=session)
            note = {"at": now, "pending": now}
            self._removed.replace_one({"_id": study}, note, upsert=True, session=session)
            return
        documents = []
        for series, members in by_series.items():
            attributes = joined(members, "series")
            documents.append(
                {
                    "_id": f"{study}/{series}",
                    "study": study,
                    "series": series,
                    "n": integer(attributes, SERIES_NUMBER),
                    "count": len(members),
                    "q": orjson.dumps(attributes),
                    "f": keys_of(attributes, of_level("series")),
                }
            )
        self._series.insert_many(documents, session=session)
        attributes = joined((one for members in by_series.values() for one in members), "study")
        modalities = sorted({text(members[0], MODALITY) for members in by_series.values()} - {""})
        changed: dict[str, Any] = {
            "resource": imaging_study_id(study),
            "scope": [],
            "modalities": modalities,
            "classes": sorted(classes),
            "series": len(by_series),
            "count": sum(map(len, by_series.values())),
            "size": size,
            "q": orjson.dumps(attributes),
            "f": keys_of(attributes, of_level("study")) | ({"00080061": modalities} if modalities else {}),
            "changed": now,
            "due": now,
            prepared.DUE: now,
            "late": False,
        }
        if link is not None:
            changed |= {"link": link.document(), "waits": link.subject is None}
        self._studies.update_one({"_id": study}, {"$set": changed}, session=session)


def _as_received(before: Mapping[str, Any]) -> dict[str, Any]:
    """The object that a corrected instance keeps, of its document before the correction."""
    if "original" in before:
        return {name: before[name] for name in ("original", "original_size")}
    return {"original": before["blob"], "original_size": before["size"]}


def _reference(study: str) -> str:
    return f"ImagingStudy/{imaging_study_id(study)}"


def _overtaken() -> PreconditionFailed:
    return PreconditionFailed("this study has changed in the meantime; look at it again")
