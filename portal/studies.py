"""What the desk for studies shows: those that wait with the reason, one of them, and whose it could be."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from dicomweb.attached import AttachedFiles
from dicomweb.corrections import Act, Corrections, Record
from dicomweb.dicom_json import integer, text
from dicomweb.imaging_study import started
from dicomweb.matching import OrderMatcher, StudyAttributes, study_attributes
from dicomweb.people import patient_id
from dicomweb.records import Condition, StudyContent
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.access import Access
from fhir_server.audit.rest import record_act
from fhir_server.audit.touched import datum
from fhir_server.audit.trail import Trail
from fhir_server.errors import NotFound
from fhir_server.repository import Repository
from referral import board
from referral.board import REFERRALS, Card
from referral.context import Practice
from referral.event import moment
from referral.messages import is_accession
from referral.naming import human_name

MAX_WAITING, MAX_FOUND, MAX_REFERRALS = 200, 20, 10
WHY: Mapping[str, str] = {
    "no-number": "The images name no order.",
    "unknown-number": "No order has the number that the images name.",
    "other-patient": "The order that the images name is another patient's.",
    "several-patients": "The images name orders of several patients.",
    "late": "More images came after the study was corrected.",
    "nobody": "It was taken out of another study.",
}


def account(trail: Trail, repository: Repository) -> Record:
    """What keeps account of a correction, in the audit trail, before the person who makes it is answered."""

    def record(act: Act) -> None:
        studies = [one for one in dict.fromkeys((act.study, act.result)) if one]
        # The ImagingStudies follow in a moment, so here are those of before: both patients are told.
        known = (repository.store.newest(*one.split("/")) for one in studies)
        patients = [name for version in known if version for name in datum(version).patients]
        named = dict.fromkeys([*patients, *([act.subject] if act.subject else [])])
        record_act(trail, f"{act.what} of a study, by a person", studies, named)

    return record


@dataclass(frozen=True, slots=True)
class Imaging:
    """What the pages of images work with. files: that came with referrals."""

    store: DicomStore
    corrections: Corrections
    files: AttachedFiles


@dataclass(frozen=True, slots=True)
class Series:
    uid: str
    modality: str
    description: str
    images: int


@dataclass(frozen=True, slots=True)
class Study:
    """A study as its images tell it. id: of its ImagingStudy, which names no patient; state: for the condition of a
    correction; why: it waits, in words, empty when it does not."""

    id: str
    uid: str
    state: str
    patient_name: str
    patient_id: str
    birth_date: str
    accession: str
    description: str
    modalities: str
    started: datetime | None
    images: int
    series: tuple[Series, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """A patient on record, with the referrals that a study could be the result of. number: that its images carry."""

    id: str
    name: str
    birth_date: str
    number: str
    referrals: tuple[Card, ...]


def waiting(practice: Practice, imaging: Imaging) -> Iterator[Study]:
    """The newest first."""
    for uid in imaging.store.waiting(MAX_WAITING):
        try:
            yield _study(practice, imaging, uid)
        except NotFound:
            continue  # it went while we looked


def study(practice: Practice, imaging: Imaging, id: str) -> Study:
    """One study by the id of its ImagingStudy. Raises NotFound."""
    uid = imaging.store.study_of(id)
    if uid is None:
        raise NotFound("this study is not known here")
    return _study(practice, imaging, uid)


def alike(practice: Practice, imaging: Imaging, access: Access, shown: Study) -> list[Study]:
    """Others of the same patient id or accession number, which may be of the same exam."""
    keys = [("00100020", shown.patient_id), ("00080050", shown.accession)]
    uids: dict[str, None] = {}
    for tag, value in keys:
        if value:
            found = imaging.store.search("study", access, [Condition(tag, "one_of", (value,))], MAX_FOUND, 0)
            uids |= {text(one, "0020000D"): None for one in found}
    return [_study(practice, imaging, uid) for uid in uids if uid != shown.uid]


def patients(practice: Practice, access: Access, sought: str) -> list[Found]:
    """Patients on record by name, number or date of birth (YYYY-MM-DD)."""
    escaped = re.sub(r"([\\,|$])", r"\\\1", sought)
    ways = [("birthdate", sought)] if re.fullmatch(r"\d{4}-\d\d-\d\d", sought) else []
    ways = ways or [("identifier", escaped), ("name:contains", escaped)]
    found: dict[str, dict] = {}
    for way in ways:
        result = practice.repository.search(access, "Patient", [way, ("_count", str(MAX_FOUND))], strict=True)
        found |= {version.id: version.resource() for version in result.matches}
    return [_found(practice, access, patient) for patient in list(found.values())[:MAX_FOUND]]


def accession_of(practice: Practice, access: Access, task_id: str) -> str | None:
    """The practice's own number of a referral, where it has one."""
    task = practice.repository.read(access, "Task", task_id).resource()
    return next((i["value"] for i in task.get("identifier", []) if is_accession(i)), None)


def _found(practice: Practice, access: Access, patient: dict) -> Found:
    query = [REFERRALS, ("patient", f"Patient/{patient['id']}"), ("_count", str(MAX_REFERRALS))]
    tasks = practice.repository.search(access, "Task", query, strict=True).matches
    return Found(
        patient["id"],
        human_name(patient),
        patient.get("birthDate", ""),
        patient_id(patient),
        tuple(board.card_of(practice, access, task.id) for task in tasks),
    )


def _study(practice: Practice, imaging: Imaging, uid: str) -> Study:
    state = imaging.store.state(uid)
    content = imaging.store.content(uid, 0)
    attributes = content.attributes
    about = study_attributes(uid, attributes, [series.attributes for series in content.series])
    return Study(
        imaging_study_id(uid),
        uid,
        state,
        about.patient_name.replace("^", " ").strip(),
        about.patient_id,
        about.patient_birth_date,
        ", ".join(about.accession_numbers),
        text(attributes, "00081030"),
        ", ".join(content.modalities),
        moment(started(attributes, practice.policy.time_zone)),
        content.count,
        tuple(
            Series(
                text(one.attributes, "0020000E"),
                text(one.attributes, "00080060"),
                text(one.attributes, "0008103E") or f"Series {integer(one.attributes, '00200011', 0)}",
                one.count,
            )
            for one in content.series
        ),
        WHY[_reason(practice, content, about)] if imaging.store.waits(uid) else "",
    )


def _reason(practice: Practice, content: StudyContent, about: StudyAttributes) -> str:
    if content.late:
        return "late"
    if content.link is not None:
        return "nobody"
    return OrderMatcher(practice.repository).why_not(about)
