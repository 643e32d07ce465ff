"""`radloop dicom`: which studies stay, however old they are."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from pymongo.database import Database

from dicomweb.retention import OldStudy, Use
from dicomweb.store import DicomStore
from fhir_server.access import Access
from fhir_server.audit.resource import Observer, audit_events
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from radloop.cli import main
from radloop.commands.dicom import deletion, lines_of, reasons_to_keep

PRACTICE = Access.system("test")
STUDY = OldStudy("1.2.3", "1", "20100101", waits=False)
ORDER = {"resourceType": "ServiceRequest", "id": "o", "intent": "order", "subject": {"display": "x"}}


@pytest.fixture
def repository(database: Database) -> Repository:
    repository = Repository(VersionStore(database), "http://127.0.0.1:8080/fhir", lambda: datetime.now(UTC))
    repository.update(PRACTICE, ORDER | {"status": "active"})
    study = {
        "resourceType": "ImagingStudy",
        "id": STUDY.reference.partition("/")[2],
        "status": "available",
        "subject": {"display": "x"},
        "basedOn": [{"reference": "ServiceRequest/o"}],
    }
    repository.update(PRACTICE, study)
    return repository


def kept(repository: Repository, study: OldStudy = STUDY) -> list[str]:
    return list(reasons_to_keep(repository, study))


def a_task(repository: Repository, status: str) -> None:
    focus = {"focus": {"reference": "ServiceRequest/o"}}
    repository.update(PRACTICE, {"resourceType": "Task", "id": "t", "status": status, "intent": "order"} | focus)


def test_those_of_an_open_order(repository: Repository) -> None:
    assert kept(repository) == ["ServiceRequest/o is open"]
    repository.update(PRACTICE, ORDER | {"status": "completed"})
    assert kept(repository) == []


def test_the_referral_says_more_than_its_order(repository: Repository) -> None:
    a_task(repository, "in-progress")
    assert kept(repository) == ["ServiceRequest/o is open"]
    a_task(repository, "completed")
    assert kept(repository) == []


def test_those_that_wait_at_the_desk(repository: Repository) -> None:
    a_task(repository, "completed")
    assert kept(repository, replace(STUDY, waits=True)) == ["it waits at the desk"]


def test_a_study_without_an_imaging_study_is_nobodys(repository: Repository) -> None:
    assert kept(repository, replace(STUDY, uid="9.9")) == []


def test_the_audit_trail_is_told_whose_images_go(database: Database) -> None:
    store = DicomStore(database)
    database["dicom_studies"].insert_one({"_id": STUDY.uid, "scope": ["@Patient/p1"]})
    (told,) = audit_events(deletion(store, STUDY), Observer("http://127.0.0.1:8080/fhir", "here"))
    assert told["action"] == "D"
    named = {entity.get("what", {}).get("reference") for entity in told["entity"]}
    assert named >= {"Patient/p1", STUDY.reference}


def test_what_is_taken_and_what_is_left_of_the_quota() -> None:
    rows = [Use("2014", 1, 2, 3 * 2**20), Use("2025", 2, 1500, 2**20)]
    *years, all_, quota = [" ".join(line.split()) for line in lines_of(rows, 16 * 2**20)]
    assert years == ["2014 1 studies 2 images 3.0 MB", "2025 2 studies 1,500 images 1.0 MB"]
    assert all_ == "all 3 studies 1,502 images 4.0 MB"
    assert quota == "quota 16.0 MB: 25.0% taken, 12.0 MB left"
    assert len(list(lines_of(rows, None))) == 3
    assert list(lines_of(rows, 2**20))[-1].endswith("400.0% taken, 0.0 MB left")  # it was made smaller


def test_a_day_is_needed() -> None:
    result = CliRunner().invoke(main, ["dicom", "retire"])
    assert result.exit_code == 2 and "--before" in result.output
