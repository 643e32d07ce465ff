"""The desk for studies that match no patient or order: staff puts them right, and their referral hears of it."""

from collections.abc import Callable
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicomweb import stow
from dicomweb.accept import DICOM
from dicomweb.blobs import BlobStore
from dicomweb.multipart import Part
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.repository import Repository
from tests.auditor import Audited
from tests.dicomweb.conftest import a_slice, file_of
from tests.portal.conftest import HILLCREST, SYSTEM, Person, Referral

STUDY, OTHER = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.7"
PAGE = f"/desk/studies/{imaging_study_id(STUDY)}"


@pytest.fixture
def send(studies: DicomStore, blobs: BlobStore, project: Callable[[], None]) -> Callable[..., None]:
    """Images come, and the worker sees to them."""

    def store(*datasets: Dataset) -> None:
        parts = [Part({"content-type": DICOM}, [file_of(dataset)]) for dataset in datasets]
        assert stow.store_instances(studies, blobs, parts, DICOM, None, 2**20).status == 200
        project()

    return store


def codes(repository: Repository, referral: Referral) -> list[str]:
    """What the referral went through."""
    versions = repository.history(SYSTEM, "Task", referral.id, count=100)
    return [v.resource().get("businessStatus", {}).get("coding", [{}])[0].get("code", "") for v in reversed(versions)]


def state(studies: DicomStore, uid: str = STUDY) -> str:
    return studies.state(uid)


def test_what_waits_is_listed_with_its_reason_and_counted(person: Callable, send: Callable) -> None:
    frida = person("frida")
    assert "Every study has its patient" in frida.open("/desk/studies")
    send(a_slice(), a_slice(StudyInstanceUID=OTHER, SeriesInstanceUID="1.2.9", AccessionNumber=""))
    html = frida.open("/desk/studies")
    assert "No order has the number that the images name." in html
    assert "The images name no order." in html
    assert "Doe Jane" in html
    assert '<span class="count">2</span>' in frida.open("/desk")


def test_the_images_arrive_at_the_right_physician_and_never_at_the_wrong_one(
    person: Callable, send: Callable, refer: Callable, project: Callable, repository: Repository
) -> None:
    right, wrong = refer("Right"), refer("Wrong", office=HILLCREST)
    send(a_slice())
    frida, ruth, otto = person("frida"), person("ruth"), person("otto")
    frida.open(PAGE)
    assert "Right, Pat" in frida.press(PAGE.rpartition("/")[2], sought="right")
    frida.press("/assign", task=right.id, patient="")
    assert "The study has its patient now." in frida.html
    project()
    assert "images-available" in codes(repository, right)
    assert "images-available" not in codes(repository, wrong)
    assert "1 images" in ruth.open(f"/referrals/{right.id}")
    assert "images" not in otto.open(f"/referrals/{wrong.id}").partition("What happened")[2].lower()
    # It was the wrong one after all.
    frida.open(PAGE)
    frida.press(PAGE.rpartition("/")[2], sought="Wrong")
    frida.press("/assign", task=wrong.id, patient="")
    project()
    assert "images-available" in codes(repository, wrong)
    task = repository.read(SYSTEM, "Task", right.id).resource()
    assert not any("ImagingStudy" in str(output) for output in task.get("output", []))
    assert "1 series, 1 images" not in ruth.open(f"/referrals/{right.id}")
    assert "1 series, 1 images" in otto.open(f"/referrals/{wrong.id}")


def test_a_study_without_a_referral_gets_its_patient(
    person: Callable, send: Callable, refer: Callable, project: Callable, repository: Repository
) -> None:
    referral, frida = refer("Solo"), person("frida")
    send(a_slice())
    frida.open(PAGE)
    frida.press(PAGE.rpartition("/")[2], sought="1970-05-17")
    frida.press("/assign", task="", patient=referral.patient.partition("/")[2])
    project()
    study = repository.read(SYSTEM, "ImagingStudy", imaging_study_id(STUDY)).resource()
    assert (study["subject"]["reference"], "basedOn" in study) == (referral.patient, False)
    assert "Every study has its patient" in frida.open("/desk/studies")


def test_merge_split_and_delete(
    person: Callable, send: Callable, studies: DicomStore, project: Callable, blobs: BlobStore
) -> None:
    frida = person("frida")
    send(a_slice(), a_slice(StudyInstanceUID=OTHER, SeriesInstanceUID="1.2.9"))
    frida.open(PAGE)
    frida.press("/merge")
    assert "The two studies are one." in frida.html
    project()
    assert studies.waiting(9) == [OTHER]
    page = f"/desk/studies/{imaging_study_id(OTHER)}"
    frida.open(page)
    frida.press("/split", series="1.2.9")
    project()
    assert len(studies.waiting(9)) == 2
    assert "It was taken out of another study." in frida.html
    for uid in studies.waiting(9):
        frida.open(f"/desk/studies/{imaging_study_id(uid)}")
        frida.press("/delete")
    assert studies.waiting(9) == []
    assert list(blobs.keys()) == []


def test_who_was_slower_is_told_to_look_again(person: Callable, send: Callable, refer: Callable) -> None:
    referral, frida = refer("Late"), person("frida")
    send(a_slice())
    frida.open(PAGE)
    frida.press(PAGE.rpartition("/")[2], sought="Late")
    forms = list(frida.forms)
    frida.press("/assign", task=referral.id, patient="")
    assert frida.status == 200
    form = next(form for form in forms if form.action.endswith("/delete"))
    frida.send(form.action, **form.fields)
    assert frida.status == 412
    assert "look at it again" in frida.html


@pytest.mark.parametrize("act", ["", "/assign", "/merge", "/split", "/delete"])
def test_it_is_for_staff_alone(person: Callable, send: Callable, studies: DicomStore, act: str) -> None:
    send(a_slice())
    ruth: Person = person("ruth")
    ruth.open("/referrals")
    before, more = studies.state(STUDY), {"csrf_token": ruth.csrf, "state": studies.state(STUDY)}
    ruth.send(f"{PAGE}{act}", **more)
    assert ruth.status in (403, 404)
    ruth.open("/desk/studies")
    assert (ruth.status, "Doe" in ruth.html) == (403, False)
    assert studies.state(STUDY) == before


@pytest.mark.parametrize("fields", [{}, {"state": "x"}, {"state": "$ne"}, {"state": "9-9", "patient": "nobody"}])
def test_a_form_that_is_none_changes_nothing(
    person: Callable, send: Callable, studies: DicomStore, fields: dict[str, Any]
) -> None:
    send(a_slice())
    frida, before = person("frida"), studies.state(STUDY)
    frida.open(PAGE)
    for act in ("assign", "merge", "split", "delete"):
        frida.send(f"{PAGE}/{act}", csrf_token=frida.csrf or "", **fields)
        assert 400 <= frida.status < 500
        frida.open(PAGE)
    assert studies.state(STUDY) == before


def test_each_correction_is_in_the_audit_trail_with_both_patients(
    person: Callable, send: Callable, refer: Callable, project: Callable, audited: Audited
) -> None:
    right, wrong, frida = refer("Right"), refer("Wrong"), person("frida")
    send(a_slice())
    for referral, name in ((wrong, "Wrong"), (right, "Right")):
        frida.open(PAGE)
        frida.press(PAGE.rpartition("/")[2], sought=name)
        frida.press("/assign", task=referral.id, patient="")
        project()
    of_patient = {
        reference["what"]["reference"]: event
        for event in audited()[1:]  # the first told of the wrong one alone
        for reference in event["entity"]
        if reference.get("what", {}).get("reference", "").startswith("Patient/")
    }
    assert of_patient.keys() == {right.patient, wrong.patient}
    for event in of_patient.values():
        assert (event["type"]["code"], event["action"]) == ("110110", "U")
        assert f"ImagingStudy/{imaging_study_id(STUDY)}" in str(event["entity"])
        assert "Practitioner/frida" in str(event["agent"])
