"""Corrections by people: what is served is corrected, what was received is kept, and nobody sees another's images."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from zipfile import ZipFile

import pydicom
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomweb.blobs import BlobStore
from dicomweb.check import check
from dicomweb.corrections import Act, Corrections
from dicomweb.dicom_json import text
from dicomweb.projection import Projector
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.access import Access
from fhir_server.errors import BadRequest, PreconditionFailed
from fhir_server.repository import Repository
from tests.dicomweb.conftest import Stow, a_slice, an_office, file_of
from tests.dicomweb.test_projection import ID, STUDY, a_referral, resource

SYSTEM = Access.system("test")
NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
OTHER = "1.2.826.0.1.3680043.8.498.7"
PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"value": "MRN-1"}],
    "name": [{"family": "Müller", "given": ["Zoë", "Ann"]}],
    "gender": "female",
    "birthDate": "1970-05-01",
}


@pytest.fixture
def acts() -> list[Act]:
    return []


@pytest.fixture
def corrections(store: DicomStore, blobs: BlobStore, acts: list[Act]) -> Corrections:
    return Corrections(store, blobs, lambda: NOW, acts.append)


@pytest.fixture
def served_files(client: FlaskClient) -> Callable[[str], list[Dataset]]:
    """The instances of a study as WADO-RS sends them."""

    def files(study: str) -> list[Dataset]:
        answer = client.get(f"/dicomweb/studies/{study}", headers={"Accept": "application/zip"})
        assert answer.status_code == 200
        with ZipFile(BytesIO(answer.data)) as archive:
            return [pydicom.dcmread(BytesIO(archive.read(name))) for name in sorted(archive.namelist())]

    return files


def drain(projector: Projector) -> None:
    while projector.project_due():
        pass


class TestAssign:
    @pytest.mark.parametrize(
        "syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
    )
    def test_what_is_served_says_the_patient_and_the_order(
        self,
        stow: Stow,
        client: FlaskClient,
        store: DicomStore,
        corrections: Corrections,
        served_files: Callable[[str], list[Dataset]],
        syntax: str | None,
    ) -> None:
        given = a_slice(**({"TransferSyntaxUID": syntax} if syntax else {}), OtherPatientIDs="X", PatientAge="030Y")
        if syntax == ExplicitVRBigEndian:
            given.PixelData = bytes(24)
        assert stow(given).status_code == 200
        corrections.assign("user:frida", STUDY, store.state(STUDY), PATIENT, "ServiceRequest/o1", "ACC-9")
        (dataset,) = served_files(STUDY)
        assert (str(dataset.PatientName), dataset.PatientID) == ("Müller^Zoë^Ann", "MRN-1")
        assert (dataset.PatientBirthDate, dataset.PatientSex, dataset.AccessionNumber) == ("19700501", "F", "ACC-9")
        assert "OtherPatientIDs" not in dataset
        assert (dataset.SOPInstanceUID, dataset.PatientAge) == (given.SOPInstanceUID, "030Y")
        assert dataset.PixelData == given.PixelData
        (note,) = dataset.OriginalAttributesSequence
        (was,) = note.ModifiedAttributesSequence
        assert (str(was.PatientName), was.PatientID, was.OtherPatientIDs) == ("Doe^Jane", "P-1", "X")
        found = client.get("/dicomweb/studies?PatientID=MRN-1").json
        assert [text(one, "0020000D") for one in found] == [STUDY]
        assert client.get("/dicomweb/studies?PatientID=P-1").json == []
        metadata = client.get(f"/dicomweb/studies/{STUDY}/metadata").json
        assert (text(metadata[0], "00100010"), text(metadata[0], "00080050")) == ("Müller^Zoë^Ann", "ACC-9")
        address = f"/dicomweb/studies/{STUDY}/series/{given.SeriesInstanceUID}/instances/{given.SOPInstanceUID}"
        frame = client.get(f"{address}/frames/1", headers={"Accept": "application/octet-stream"})
        assert len(frame.data) == 24

    def test_images_are_for_the_right_physician_and_never_the_wrong_one(
        self,
        app: Flask,
        stow: Stow,
        store: DicomStore,
        corrections: Corrections,
        projector: Projector,
        repository: Repository,
    ) -> None:
        a_referral(repository, "1", "ACC1")
        repository.update(SYSTEM, {"resourceType": "Organization", "id": "hill", "name": "Hill"})
        order = repository.read(SYSTEM, "ServiceRequest", "o1").resource()
        right = order | {"id": "o2", "identifier": [], "requester": {"reference": "Organization/hill"}}
        right.pop("identifier")
        repository.update(SYSTEM, right | {"subject": {"reference": "Patient/p1"}})
        stow(a_slice())
        drain(projector)
        lakeside, hill = (an_office(name) for name in ("lakeside", "hill"))

        def seen(access: Access) -> tuple[int, int]:
            app.config["ACCESS"] = access
            browser = app.test_client()
            found = repository.search(access, "ImagingStudy", [], strict=True).matches
            return len(browser.get("/dicomweb/studies").json or []), len(found)

        assert (seen(lakeside), seen(hill)) == ((1, 1), (0, 0))
        corrections.assign("user:frida", STUDY, store.state(STUDY), PATIENT, "ServiceRequest/o2")
        assert (seen(lakeside)[0], seen(hill)[0]) == (0, 0)  # nobody's, until it is written whose it is
        drain(projector)
        assert (seen(lakeside), seen(hill)) == ((0, 0), (1, 1))
        assert resource(repository)["basedOn"] == [{"reference": "ServiceRequest/o2"}]

    def test_what_was_received_is_kept_and_may_be_sent_again(
        self, stow: Stow, store: DicomStore, blobs: BlobStore, corrections: Corrections, repository: Repository,
        projector: Projector, acts: list[Act],
    ) -> None:  # fmt: skip
        sent = file_of(a_slice())
        stow(sent)
        corrections.assign("user:frida", STUDY, store.state(STUDY), PATIENT)
        corrections.assign("user:frida", STUDY, store.state(STUDY), PATIENT | {"gender": "male"})
        (file,) = store.indexed_files()
        assert file.original is not None
        assert b"".join(blobs.chunks(file.original)) == sent
        assert len(list(blobs.keys())) == 2
        assert stow(sent).status_code == 200
        drain(projector)
        report = check(store, blobs, repository, older_s=0)
        assert (report.faults, report.orphans) == ([], [])
        assert [(act.by, act.what, act.study) for act in acts] == [("user:frida", "assign", f"ImagingStudy/{ID}")] * 2
        corrections.delete("user:frida", STUDY, store.state(STUDY))
        assert list(blobs.keys()) == []

    def test_of_two_at_once_one_is_told_to_look_again(
        self, stow: Stow, store: DicomStore, blobs: BlobStore, corrections: Corrections
    ) -> None:
        stow(a_slice())
        state, outcomes, gate = store.state(STUDY), [], threading.Barrier(2)

        def act(number: str) -> None:
            gate.wait()
            try:
                corrections.assign("user:frida", STUDY, state, PATIENT | {"identifier": [{"value": number}]})
                outcomes.append(number)
            except PreconditionFailed:
                outcomes.append("overtaken")

        threads = [threading.Thread(target=act, args=(name,)) for name in ("A", "B")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert "overtaken" in outcomes
        assert len(set(outcomes)) == 2
        (file,) = store.indexed_files()
        assert set(blobs.keys()) == {file.blob_key, file.original}

    def test_more_that_comes_meanwhile_stops_it_and_later_waits(
        self, stow: Stow, store: DicomStore, corrections: Corrections, projector: Projector
    ) -> None:
        stow(a_slice())
        state = store.state(STUDY)
        stow(a_slice(InstanceNumber=2))
        with pytest.raises(PreconditionFailed):
            corrections.assign("user:frida", STUDY, state, PATIENT)
        corrections.assign("user:frida", STUDY, store.state(STUDY), PATIENT)
        drain(projector)
        assert store.waiting(9) == []
        stow(a_slice(InstanceNumber=3))
        drain(projector)
        assert store.waiting(9) == [STUDY]


class TestMergeAndSplit:
    def test_two_studies_of_one_exam_become_one(
        self, stow: Stow, store: DicomStore, corrections: Corrections, projector: Projector, repository: Repository,
        client: FlaskClient, served_files: Callable[[str], list[Dataset]],
    ) -> None:  # fmt: skip
        referral = a_referral(repository)
        stow(a_slice())
        stow(
            a_slice(StudyInstanceUID=OTHER, SeriesInstanceUID="1.2.9", AccessionNumber="WRONG", StudyDate="20240201")
        )
        drain(projector)
        assert store.waiting(9) == [OTHER]
        corrections.merge("user:frida", OTHER, store.state(OTHER), STUDY, store.state(STUDY))
        drain(projector)
        assert {(d.StudyInstanceUID, d.AccessionNumber, d.StudyDate) for d in served_files(STUDY)} == {
            (STUDY, "ACC1", "20240131")
        }
        study = resource(repository)
        assert (study["numberOfSeries"], study["basedOn"]) == (2, [{"reference": referral["order"]}])
        assert client.get(f"/dicomweb/studies/{OTHER}").status_code == 410
        assert repository.store.newest("ImagingStudy", imaging_study_id(OTHER)).deleted  # type: ignore[union-attr]
        assert store.waiting(9) == []

    def test_what_comes_later_for_the_one_that_went_is_matched_to_nobody(
        self, stow: Stow, store: DicomStore, corrections: Corrections, projector: Projector, repository: Repository
    ) -> None:
        a_referral(repository)
        stow(a_slice(), a_slice(StudyInstanceUID=OTHER, SeriesInstanceUID="1.2.9"))
        corrections.merge("user:frida", STUDY, store.state(STUDY), OTHER, store.state(OTHER))
        drain(projector)
        stow(a_slice(InstanceNumber=2))
        drain(projector)
        assert "basedOn" not in resource(repository)
        assert store.waiting(9) == [STUDY]

    def test_a_series_of_somebody_else_leaves_and_is_nobodys_yet(
        self, stow: Stow, store: DicomStore, corrections: Corrections, projector: Projector, repository: Repository,
        app: Flask, served_files: Callable[[str], list[Dataset]],
    ) -> None:  # fmt: skip
        a_referral(repository)
        stow(a_slice(), a_slice(SeriesInstanceUID="1.2.9", Modality="MR"))
        drain(projector)
        fresh = corrections.split("user:frida", STUDY, store.state(STUDY), ["1.2.9"])
        drain(projector)
        assert [d.SeriesInstanceUID for d in served_files(fresh)] == ["1.2.9"]
        assert [m["code"] for m in resource(repository)["modality"]] == ["CT"]
        assert "basedOn" not in resource(repository, imaging_study_id(fresh))
        assert store.waiting(9) == [fresh]
        app.config["ACCESS"] = an_office("lakeside")
        assert app.test_client().get(f"/dicomweb/studies/{fresh}").status_code == 404

    def test_what_makes_no_sense(self, stow: Stow, store: DicomStore, corrections: Corrections) -> None:
        stow(a_slice())
        state = store.state(STUDY)
        for chosen in ([], ["1.2.9"], ["1.2.826.0.1.3680043.8.498.1.1"]):
            with pytest.raises(BadRequest):
                corrections.split("user:frida", STUDY, state, chosen)
        with pytest.raises(BadRequest):
            corrections.merge("user:frida", STUDY, state, STUDY, state)
        assert store.state(STUDY) == state


def test_a_study_that_a_report_is_about_is_withdrawn_and_not_deleted(
    stow: Stow, store: DicomStore, corrections: Corrections, projector: Projector, repository: Repository
) -> None:
    a_referral(repository)
    stow(a_slice())
    drain(projector)
    about = {"imagingStudy": [{"reference": f"ImagingStudy/{ID}"}], "code": {"text": "CT"}, "status": "final"}
    report = repository.create(SYSTEM, {"resourceType": "DiagnosticReport"} | about).version
    (found,) = repository.search(SYSTEM, "DiagnosticReport", f"imagingStudy=ImagingStudy/{ID}", strict=True).matches
    assert found.id == report.id
    corrections.delete("user:frida", STUDY, store.state(STUDY))
    drain(projector)
    assert (resource(repository)["status"], resource(repository)["numberOfInstances"]) == ("entered-in-error", 0)
    repository.delete(SYSTEM, "DiagnosticReport", report.id)
    repository.delete(SYSTEM, "ImagingStudy", ID)
