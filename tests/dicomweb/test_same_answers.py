"""One question, asked by QIDO-RS and by FHIR, has one answer: the same studies, for everybody who may ask."""

import random
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset

from dicomweb.projection import Projector
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from tests.dicomweb.conftest import PRACTICE, Stow, a_slice

STUDIES = 40
OFFICES = ("lakeside", "hillside")
PATIENTS = ("P-1", "p-1", "P-2", "P,3", "P|4", "unknown")  # the last is nobody's here
ORDERED = PATIENTS[:-1]
MODALITIES = ("CT", "MR", "US", "SR")
DATES = ("20231231", "20240101", "20240131", "20240229", "20240301", None)
TIMES = ("000000", "101530.25", "235959", None)
SCOPES = tuple(Scope("user", name, "rs") for name in ("ImagingStudy", "Patient", "ServiceRequest"))
Question = tuple[dict[str, str], list[list[tuple[str, str]]]]  # of QIDO-RS; searches of FHIR that are it together


def an_asker(*marks: str) -> Access:
    return Access(f"client:{marks}", SCOPES, frozenset(marks))


ACCESSES = {
    "the practice": PRACTICE,
    **{office: an_asker(f"@Organization/{office}") for office in OFFICES},
    "both offices": an_asker(*(f"@Organization/{office}" for office in OFFICES)),
    "a patient": an_asker("@Patient/p0"),
    "a stranger": an_asker("@Organization/elsewhere"),
}


def escaped(value: str) -> str:
    """https://hl7.org/fhir/R4/search.html#escaping"""
    return "".join(f"\\{sign}" if sign in "\\,|$" else sign for sign in value)


def dashed(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


@pytest.fixture
def orders(repository: Repository) -> None:
    """An order by an office for each patient but one, with accession number `A<n>`."""
    for office in OFFICES:
        repository.update(PRACTICE, {"resourceType": "Organization", "id": office, "name": office})
    for number, value in enumerate(ORDERED):
        patient = {
            "resourceType": "Patient",
            "id": f"p{number}",
            "identifier": [{"system": "urn:mrn", "value": value}],
        }
        order = {
            "resourceType": "ServiceRequest",
            "id": f"o{number}",
            "identifier": [{"system": "urn:placer", "value": f"A{number}"}],
            "status": "active",
            "intent": "order",
            "subject": {"reference": f"Patient/p{number}"},
            "requester": {"reference": f"Organization/{OFFICES[number % 2]}"},
        }
        repository.update(PRACTICE, patient)
        repository.update(PRACTICE, order)


def studies(random_: random.Random) -> list[Dataset]:
    """The instances of random studies, of one or two series each; some of no order and some of no known patient."""
    made = []
    for number in range(1, STUDIES + 1):
        who = random_.randrange(len(PATIENTS))
        said = {
            "StudyInstanceUID": f"1.2.3.{number}",
            "PatientID": PATIENTS[who],
            "AccessionNumber": random_.choice((f"A{who}", f"A{who}", f"a{who}", None)),
            "StudyDate": random_.choice(DATES),
            "StudyTime": random_.choice(TIMES),
        }
        for series, modality in enumerate(random_.sample(MODALITIES, random_.randint(1, 2)), 1):
            made.append(a_slice(**said, SeriesInstanceUID=f"1.2.3.{number}.{series}", Modality=modality))
    return made


def questions(random_: random.Random) -> list[Question]:
    """Each key alone, and all of them in pairs at random."""
    days = [day for day in DATES if day]
    keys: list[Question] = []
    for value in (*PATIENTS, "nobody"):
        # Of a study without an order the images alone say who it is.
        asked = [[("patient.identifier", escaped(value))], [("patient:identifier", escaped(value))]]
        keys.append(({"PatientID": value}, asked))
    for value in ("A0", "a0", "A1", "A2", "A5", "A"):
        keys.append(({"AccessionNumber": value}, [[("identifier", value)]]))
    for value in ("1.2.3.1", "1.2.3.40", "1.2.3", "1.2.3.1,1.2.3.7"):
        uids = ",".join(f"urn:dicom:uid|urn:oid:{uid}" for uid in value.split(","))
        keys.append(({"StudyInstanceUID": value}, [[("identifier", uids)]]))
    for value in (*MODALITIES, "XA", "CT,MR"):
        keys.append(({"ModalitiesInStudy": value}, [[("modality", value)]]))
    for day in (*days, "20240102"):
        keys.append(({"StudyDate": day}, [[("started", dashed(day))]]))
        keys.append(({"StudyDate": f"{day}-"}, [[("started", f"ge{dashed(day)}")]]))
        keys.append(({"StudyDate": f"-{day}"}, [[("started", f"le{dashed(day)}")]]))
        last = random_.choice([other for other in days if other >= day])
        both = [("started", f"ge{dashed(day)}"), ("started", f"le{dashed(last)}")]
        keys.append(({"StudyDate": f"{day}-{last}"}, [both]))
    pairs = [random_.sample(keys, 2) for _ in range(60)]
    return keys + [
        (one[0] | other[0], [a + b for a in one[1] for b in other[1]])
        for one, other in pairs
        if not set(one[0]) & set(other[0])
    ]


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_qido_and_fhir_find_the_same_studies(
    app: Flask, client: FlaskClient, stow: Stow, projector: Projector, repository: Repository, seed: int
) -> None:
    random_ = random.Random(seed)
    made = studies(random_)
    assert stow(*made).status_code == 200
    while projector.project_due():
        pass
    uids = {imaging_study_id(one.StudyInstanceUID): str(one.StudyInstanceUID) for one in made}
    differing, seen = [], dict.fromkeys(ACCESSES, 0)
    for qido, fhir in [({}, [[]]), *questions(random_)]:
        for name, access in ACCESSES.items():
            app.config["ACCESS"] = access
            answer = client.get(f"/dicomweb/studies?{urlencode(qido)}")
            assert answer.status_code == 200, answer.text
            by_qido = {match["0020000D"]["Value"][0] for match in answer.json}
            by_fhir = {
                uids[version.id]
                for parameters in fhir
                for version in repository.search(
                    access, "ImagingStudy", [*parameters, ("_count", "1000")], strict=True
                ).matches
            }
            seen[name] += len(by_qido)
            if by_qido != by_fhir:
                differing.append(f"{name}: {qido}: only QIDO {by_qido - by_fhir}, only FHIR {by_fhir - by_qido}")
    assert not differing, "\n".join(differing)
    assert [name for name, count in seen.items() if not count] == ["a stranger"]


def asked_both(
    client: FlaskClient, repository: Repository, made: list[Dataset], qido: dict[str, str], *fhir: tuple[str, str]
) -> tuple[set[str], set[str]]:
    """The last numbers of the studies that each of the two finds."""
    uids = {imaging_study_id(one.StudyInstanceUID): str(one.StudyInstanceUID) for one in made}
    found = client.get(f"/dicomweb/studies?{urlencode(qido)}").json
    matches = repository.search(PRACTICE, "ImagingStudy", list(fhir), strict=True).matches
    by_qido = {match["0020000D"]["Value"][0] for match in found}
    return tuple({uid.rpartition(".")[2] for uid in one} for one in (by_qido, {uids[v.id] for v in matches}))  # type: ignore[return-value]


def test_a_day_of_the_practice_is_asked_for_with_its_zone(
    client: FlaskClient, stow: Stow, store: DicomStore, repository: Repository
) -> None:
    """Around midnight the day is another one in Greenwich: FHIR compares moments, QIDO-RS what the images say."""
    projector = Projector(store, repository, zone=ZoneInfo("Europe/Zurich"))
    said = [
        ("20240130", "235959", None),
        ("20240131", "000000", None),
        ("20240131", "003000", "+0100"),
        ("20240131", "120000", None),
        ("20240131", "235959.999", None),
        ("20240201", "000000", None),
        ("20240201", "003000", None),
        ("20240131", "200000", "-0500"),  # taken elsewhere; of the first of February in the practice
    ]
    made = [
        a_slice(StudyInstanceUID=f"1.2.4.{n}", StudyDate=day, StudyTime=time, TimezoneOffsetFromUTC=offset)
        for n, (day, time, offset) in enumerate(said)
    ]
    assert stow(*made).status_code == 200
    while projector.project_due():
        pass

    def ask(qido: str, *fhir: str) -> tuple[set[str], set[str]]:
        return asked_both(client, repository, made, {"StudyDate": qido}, *(("started", one) for one in fhir))

    here = ("ge2024-01-31T00:00:00+01:00", "lt2024-02-01T00:00:00+01:00")
    day = {"1", "2", "3", "4"}
    assert ask("20240131", *here) == (day | {"7"}, day)
    assert ask("20240131", "ge2024-01-31T00:00:00-05:00", "lt2024-02-01T00:00:00-05:00")[1] >= {"7"}
    assert ask("20240201-", "ge2024-02-01T00:00:00+01:00") == ({"5", "6"}, {"5", "6", "7"})
    assert ask("-20240130", "lt2024-01-31T00:00:00+01:00") == ({"0"}, {"0"})
    # Without a zone FHIR takes a date for a day of UTC.
    assert ask("20240131", "2024-01-31")[1] == {"3", "4", "5", "6"}


@pytest.mark.usefixtures("orders")
def test_the_other_numbers_of_a_patient_are_known_to_fhir_alone(
    client: FlaskClient, stow: Stow, projector: Projector, repository: Repository
) -> None:
    """A number that the images do not carry is not in them; the desk's correction puts the record's into them."""
    patient = repository.read(PRACTICE, "Patient", "p0").resource()
    patient["identifier"].append({"system": "urn:insurer", "value": "I-900"})
    repository.update(PRACTICE, patient)
    made = [
        a_slice(StudyInstanceUID="1.2.5.1", PatientID="P-1", AccessionNumber="A0"),
        a_slice(StudyInstanceUID="1.2.5.2", PatientID="P-1", AccessionNumber="nobody's"),
        a_slice(StudyInstanceUID="1.2.5.3", PatientID="", AccessionNumber="A0"),
    ]
    assert stow(*made).status_code == 200
    while projector.project_due():
        pass

    def ask(number: str, *fhir: tuple[str, str]) -> tuple[set[str], set[str]]:
        return asked_both(client, repository, made, {"PatientID": number}, *fhir)

    assert ask("P-1", ("patient.identifier", "P-1")) == ({"1", "2"}, {"1", "3"})
    assert ask("P-1", ("patient:identifier", "P-1")) == ({"1", "2"}, {"2"})
    assert ask("I-900", ("patient.identifier", "urn:insurer|I-900")) == (set(), {"1", "3"})
