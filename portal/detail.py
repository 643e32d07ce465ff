"""Everything that the page of one referral shows, gathered with the caller's own Access."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from dicomweb.imaging_study import is_attached
from dicomweb.projection import URN
from fhir_server.access import Access
from fhir_server.errors import NotFound
from portal import office
from portal.words import Words, words_of
from referral import board, store
from referral.board import Card, Visit
from referral.context import Practice
from referral.event import moment
from referral.naming import concept_text
from referral.states import APPOINTMENT_LIVE
from referral.timeline import Entry, timeline


@dataclass(frozen=True, slots=True)
class File:
    """A file that came with the order, by its UIDs. words: what it is, such as `Photo`; added: when it was sent."""

    study: str
    series: str
    instance: str
    words: str
    added: datetime | None


@dataclass(frozen=True, slots=True)
class Study:
    """The facts of an ImagingStudy. modalities: DICOM codes such as CT. attached: it came with the order; files: that
    it consists of then, the first one first."""

    description: str
    modalities: tuple[str, ...]
    started: datetime | None
    series: int
    instances: int
    attached: bool
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A DiagnosticReport that can be read. status: as in FHIR; conclusion: its text, may be empty."""

    title: str
    status: str
    issued: datetime | None
    conclusion: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One referral. next_visit: the appointment that is to come or going on; preparation: what the patient is told
    beforehand; reasons: why the exam was ordered; insurance: who pays, with the insured person's number.

    wish: what the office asked of the front desk after a missed visit, None while it has not; may_rebook: whether it
    is asked to.
    """

    card: Card
    words: Words
    next_visit: Visit | None
    preparation: str
    reasons: tuple[str, ...]
    insurance: tuple[str, ...]
    studies: tuple[Study, ...]
    reports: tuple[Report, ...]
    entries: tuple[Entry, ...]
    may_withdraw: bool
    may_rebook: bool
    wish: str | None
    may_answer: bool


def detail(practice: Practice, access: Access, task_id: str) -> Detail:
    """One referral by the id of its Task. Raises NotFound."""
    card = board.card_of(practice, access, task_id)
    visits = board.visits_of(practice, access, card.order)
    live = [visit for visit in visits if visit.status in APPOINTMENT_LIVE]
    order = store.fetch(practice.repository, card.order, access)
    step = office.rebook_step(practice, access, task_id)
    is_office = not access.is_practice
    return Detail(
        card,
        words_of(card.code),
        live[-1] if live else None,
        _preparation(practice, access, live[-1]) if live else "",
        tuple(filter(None, (concept_text(c) for c in (order.resource if order else {}).get("reasonCode", [])))),
        tuple(_insurance(practice, access, order.resource if order else {})),
        tuple(_studies(practice, access, card.order)),
        tuple(_reports(practice, access, card.order)),
        tuple(timeline(practice, access, task_id)),
        is_office and office.may_withdraw(card),
        is_office and step is not None,
        office.wish_of(step.resource) if step is not None else None,
        is_office and office.may_answer(card),
    )


def _preparation(practice: Practice, access: Access, visit: Visit) -> str:
    found = store.fetch(practice.repository, visit.appointment, access)
    return found.resource.get("patientInstruction", "") if found else ""


def _insurance(practice: Practice, access: Access, order: dict) -> Iterator[str]:
    """Each Coverage of the order that the caller may see, such as `Helvia Health, HL-204417`."""
    for reference in order.get("insurance", []):
        found = store.fetch(practice.repository, reference.get("reference", ""), access)
        coverage = found.resource if found is not None and found.resource["resourceType"] == "Coverage" else {}
        payers = [payer.get("display", "") for payer in coverage.get("payor", [])]
        if words := ", ".join(filter(None, [*payers, coverage.get("subscriberId", "")])):
            yield words


def _studies(practice: Practice, access: Access, order: str) -> Iterator[Study]:
    query = [("basedon", order), ("status", "registered,available")]
    for version in store.every(practice.repository, "ImagingStudy", query, access):
        study = version.resource()
        if study["status"] == "registered" and not is_attached(study):
            continue
        codes = [coding.get("code", "") for coding in study.get("modality", [])]
        codes += [series.get("modality", {}).get("code", "") for series in study.get("series", [])]
        yield Study(
            study.get("description", ""),
            tuple(dict.fromkeys(filter(None, codes))),
            moment(study.get("started")),
            study.get("numberOfSeries", 0),
            study.get("numberOfInstances", 0),
            is_attached(study),
            tuple(_files(study)) if is_attached(study) else (),
        )


def attached_file(practice: Practice, access: Access, task_id: str, study: str, series: str, instance: str) -> File:
    """A file of the referral. Raises NotFound, also where the caller does not see the referral."""
    card = board.card_of(practice, access, task_id)
    for one in _studies(practice, access, card.order):
        for file in one.files:
            if (file.study, file.series, file.instance) == (study, series, instance):
                return file
    raise NotFound("this referral has no such file")


def _files(study: dict) -> list[File]:
    uid = next((i["value"].removeprefix(URN) for i in study["identifier"] if i["value"].startswith(URN)), "")
    found = [
        File(uid, one["uid"], instance["uid"], one.get("description", "File"), moment(one.get("started")))
        for one in study.get("series", [])
        for instance in one.get("instance", [])
    ]
    return sorted(found, key=lambda file: (file.added is None, file.added, file.instance))


def _reports(practice: Practice, access: Access, order: str) -> Iterator[Report]:
    query = [("based-on", order), ("status", "partial,preliminary,final,amended,corrected,appended")]
    for version in store.every(practice.repository, "DiagnosticReport", query, access):
        report = version.resource()
        yield Report(
            concept_text(report.get("code")),
            report["status"],
            moment(report.get("issued")),
            report.get("conclusion", ""),
        )
