"""From stored images to the ImagingStudy, its order and patient, and who sees it."""

import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pymongo.database import Database

from dicomweb.blobs import BlobStore
from dicomweb.imaging_study import started
from dicomweb.matching import ACCESSION_SYSTEM, Match, OrderMatcher, StudyAttributes
from dicomweb.pool import PixelPool
from dicomweb.projection import Projector, access_of_studies, ensure_endpoint, handler
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.access import Access, Scope
from fhir_server.errors import Forbidden
from fhir_server.repository import Repository
from tests.dicomweb.conftest import BASE, PRACTICE, Stow, a_slice, an_app, an_office, stow_to

STUDY = "1.2.826.0.1.3680043.8.498.1"
ID = imaging_study_id(STUDY)
ACSN = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}


def resource(repository: Repository, id: str = ID) -> dict:
    return repository.read(PRACTICE, "ImagingStudy", id).resource()


def a_referral(
    repository: Repository, number: str = "1", accession: str | None = "ACC1", patient_ids: tuple[str, ...] = ("P-1",)
) -> dict[str, str]:
    """Patient, order of the office `lakeside`, and Task with the practice's accession number; their references."""
    identifiers = [{"system": "urn:example:mrn", "value": value} for value in patient_ids]
    repository.update(PRACTICE, {"resourceType": "Organization", "id": "lakeside", "name": "Lakeside"})
    patient = {"resourceType": "Patient", "id": f"p{number}", "identifier": identifiers, "birthDate": "1970-05-01"}
    order = {
        "resourceType": "ServiceRequest",
        "id": f"o{number}",
        "identifier": [{"system": "urn:example:placer", "value": f"PLACER-{number}"}],
        "status": "active",
        "intent": "order",
        "subject": {"reference": f"Patient/p{number}"},
        "requester": {"reference": "Organization/lakeside"},
    }
    task = {
        "resourceType": "Task",
        "id": f"t{number}",
        "status": "accepted",
        "intent": "order",
        "focus": {"reference": f"ServiceRequest/o{number}"},
        "for": {"reference": f"Patient/p{number}"},
    }
    if accession:
        task["identifier"] = [{"type": ACSN, "system": ACCESSION_SYSTEM, "value": accession}]
    for made in (patient, order, task):
        repository.update(PRACTICE, {name: value for name, value in made.items() if value != []})
    return {"patient": f"Patient/p{number}", "order": f"ServiceRequest/o{number}"}


class TestImagingStudy:
    """https://hl7.org/fhir/R4/imagingstudy.html"""

    def test_what_it_says(self, stow: Stow, projector: Projector, repository: Repository) -> None:
        referral = a_referral(repository)
        first = a_slice(
            StudyDescription="CT abdomen",
            SeriesDescription="axial",
            BodyPartExamined="ABDOMEN",
            TimezoneOffsetFromUTC="+0100",
        )
        second = a_slice(InstanceNumber=2)
        report = a_slice(SeriesInstanceUID="1.2.9", SeriesNumber=2, Modality="SR", pixels=None)
        stow(first, second, report)
        assert projector.project_due() == 1
        study = resource(repository)
        assert study["identifier"] == [
            {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"},
            {"type": ACSN, "system": ACCESSION_SYSTEM, "value": "ACC1"},
        ]
        dcm = "http://dicom.nema.org/resources/ontology/DCM"
        assert study["modality"] == [{"system": dcm, "code": "CT"}, {"system": dcm, "code": "SR"}]
        assert study["subject"] == {"reference": referral["patient"]}
        assert study["basedOn"] == [{"reference": referral["order"]}]
        assert study["started"] == "2024-01-31T10:15:30+01:00"
        assert study["endpoint"] == [{"reference": "Endpoint/dicomweb"}]
        assert (study["numberOfSeries"], study["numberOfInstances"]) == (2, 3)
        assert study["description"] == "CT abdomen"
        series = study["series"][0]
        assert series["uid"] == first.SeriesInstanceUID
        assert (series["number"], series["numberOfInstances"], series["description"]) == (1, 2, "axial")
        assert series["modality"] == {"system": dcm, "code": "CT"}
        assert series["bodySite"]["code"] == "818981001"
        assert series["instance"][0] == {
            "uid": first.SOPInstanceUID,
            "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{first.SOPClassUID}"},
            "number": 1,
        }

    def test_the_endpoint_it_names_is_there(self, repository: Repository) -> None:
        endpoint = repository.read(PRACTICE, "Endpoint", "dicomweb").resource()
        assert endpoint["address"] == BASE
        assert endpoint["connectionType"]["code"] == "dicom-wado-rs"
        assert endpoint["payloadMimeType"] == ["application/dicom"]
        assert endpoint["status"] == "active"

    def test_it_can_be_searched_for(self, stow: Stow, projector: Projector, repository: Repository) -> None:
        a_referral(repository)
        stow(a_slice())
        projector.project_due()
        for query in (
            f"identifier=urn:dicom:uid|urn:oid:{STUDY}",
            f"identifier=urn:oid:{STUDY}",
            f"identifier={ACCESSION_SYSTEM}|ACC1",
            "patient=Patient/p1",
            "basedon=ServiceRequest/o1",
            "modality=CT",
            "started=2024-01-31",
            "status=registered",
            "_lastUpdated=gt2024-01-31T00:00:00Z",
            "patient=p1&_lastUpdated=le2999-01-01&_sort=-started",
        ):
            found = repository.search(PRACTICE, "ImagingStudy", query, strict=True)
            assert [version.id for version in found.matches] == [ID], query
        found = repository.search(PRACTICE, "ImagingStudy", "patient=p1&_include=ImagingStudy:endpoint", strict=True)
        assert [f"{one.resource_type}/{one.id}" for one in found.included] == ["Endpoint/dicomweb"]

    def test_its_endpoint_tells_of_the_token_where_the_practice_wants_so(self, repository: Repository) -> None:
        """A draft: https://build.fhir.org/ig/argonautproject/smart-imaging/"""
        assert "extension" not in repository.read(PRACTICE, "Endpoint", "dicomweb").resource()
        ensure_endpoint(repository, BASE, tells_of_token=True)
        assert repository.read(PRACTICE, "Endpoint", "dicomweb").resource()["extension"] == [
            {
                "url": "http://fhir.org/argonaut/smart-imaging/StructureDefinition/requires-access-token",
                "valueBoolean": True,
            }
        ]

    def test_odd_values_do_not_keep_a_study_from_being_projected(
        self, stow: Stow, projector: Projector, repository: Repository
    ) -> None:
        odd = {
            "StudyDate": None,
            "StudyTime": None,
            "PatientName": None,
            "PatientID": None,
            "AccessionNumber": None,
            "Modality": None,
            "SeriesNumber": -5,
            "InstanceNumber": None,
            "SpecificCharacterSet": "ISO_IR 192",
            "SeriesDescription": "\tÄ \x7f",
            "StudyDescription": "   ",
            "BodyPartExamined": "LEFT EAR",
        }
        assert stow(a_slice(**odd)).status_code == 200
        projector.project_due()
        study = resource(repository)
        assert study["subject"] == {"type": "Patient", "display": "Patient not known here"}
        (series,) = study["series"]
        assert series["modality"]["code"] == "OT"
        assert series["bodySite"] == {"display": "LEFT EAR"}
        assert series["description"] == "Ä"
        assert "number" not in series
        assert "started" not in study


class TestStatus:
    def test_registered_until_nothing_more_comes(
        self, database: Database, repository: Repository, blobs: BlobStore, pool: PixelPool
    ) -> None:
        clock = [datetime(2026, 1, 1, tzinfo=UTC)]
        store = DicomStore(database, quiet_s=2.0, clock=lambda: clock[0])
        projector = Projector(store, repository)
        stow = stow_to(an_app(store, blobs, pool).test_client())
        stow(a_slice())
        assert projector.project_due() == 1
        assert resource(repository)["status"] == "registered"
        clock[0] += timedelta(seconds=1.5)
        stow(a_slice(InstanceNumber=2))
        clock[0] += timedelta(seconds=1)
        assert projector.project_due() == 0
        clock[0] += timedelta(seconds=1)
        assert projector.project_due() == 1
        study = resource(repository)
        assert (study["status"], study["numberOfInstances"]) == ("available", 2)
        assert projector.project_due() == 0
        stow(a_slice(InstanceNumber=3))
        clock[0] += timedelta(seconds=2)
        projector.project_due()
        study = resource(repository)
        assert (study["status"], study["numberOfInstances"]) == ("available", 3)

    def test_what_grows_while_it_is_projected_is_projected_again(
        self, stow: Stow, store: DicomStore, repository: Repository
    ) -> None:
        class Growing(Projector):
            grown = False

            def project(self, state):
                if not self.grown:
                    self.grown = True
                    stow(a_slice(InstanceNumber=2))
                return super().project(state)

        projector = Growing(store, repository)
        stow(a_slice())
        while projector.project_due():
            pass
        study = resource(repository)
        assert (study["status"], study["numberOfInstances"]) == ("available", 2)

    def test_a_study_that_cannot_be_projected_holds_up_no_other(
        self, stow: Stow, store: DicomStore, repository: Repository, caplog: pytest.LogCaptureFixture
    ) -> None:
        def matcher(study: StudyAttributes) -> Match | None:
            if study.patient_id == "P-1":
                raise RuntimeError(study.patient_name)
            return None

        stow(a_slice(), a_slice(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", PatientID="P-2"))
        assert Projector(store, repository, matcher).project_due() == 2
        assert resource(repository, imaging_study_id("1.2.3"))["status"] == "registered"
        assert "Doe" not in caplog.text
        assert Projector(store, repository, matcher).project_due() == 1  # the other one; this one waits

    def test_soon_after_the_answer(self, stow: Stow, projector: Projector, repository: Repository) -> None:
        stop = threading.Event()
        worker = threading.Thread(target=projector.run, args=(stop,))
        worker.start()
        try:
            stow(a_slice())
            begin = time.monotonic()
            while repository.store.newest("ImagingStudy", ID) is None:
                assert time.monotonic() - begin < 5
                time.sleep(0.01)
        finally:
            stop.set()
            worker.join()


class TestMatching:
    def test_by_the_accession_number_of_the_task(self, repository: Repository) -> None:
        referral = a_referral(repository)
        match = OrderMatcher(repository)(a_study(accession_numbers=("ACC1",)))
        assert match == Match(referral["patient"], (referral["order"],), ACCESSION_SYSTEM)

    def test_by_the_placers_order_number(self, repository: Repository) -> None:
        referral = a_referral(repository, accession=None)
        match = OrderMatcher(repository)(a_study(placer_order_numbers=("PLACER-1",)))
        assert match == Match(referral["patient"], (referral["order"],))

    def test_one_study_for_two_orders_of_a_patient(self, repository: Repository) -> None:
        a_referral(repository, "1", "ACC1")
        a_referral(repository, "2", "ACC2", patient_ids=("OTHER",))
        order = repository.read(PRACTICE, "ServiceRequest", "o2").resource()
        repository.update(PRACTICE, order | {"subject": {"reference": "Patient/p1"}})
        match = OrderMatcher(repository)(a_study(accession_numbers=("ACC1", "ACC2")))
        assert match == Match("Patient/p1", ("ServiceRequest/o1", "ServiceRequest/o2"), ACCESSION_SYSTEM)

    def test_never_to_a_patient_with_another_number(self, repository: Repository) -> None:
        a_referral(repository, patient_ids=("X-9",))
        assert OrderMatcher(repository)(a_study(accession_numbers=("ACC1",))) is None

    def test_never_to_a_patient_born_on_another_day(self, repository: Repository) -> None:
        a_referral(repository, patient_ids=())
        matcher = OrderMatcher(repository)
        assert matcher(a_study(accession_numbers=("ACC1",), patient_birth_date="1980-01-01")) is None
        assert matcher(a_study(accession_numbers=("ACC1",), patient_birth_date="1970-05-01")) is not None

    def test_never_one_of_two_patients(self, repository: Repository) -> None:
        a_referral(repository, "1", "ACC1", patient_ids=())
        a_referral(repository, "2", "ACC1", patient_ids=())
        assert OrderMatcher(repository)(a_study(accession_numbers=("ACC1",), patient_id="")) is None

    def test_never_by_the_patient_alone(self, repository: Repository) -> None:
        a_referral(repository)
        assert OrderMatcher(repository)(a_study()) is None

    @pytest.mark.parametrize("number", ["A|B", "A,B", "$\\", "*", "ACC", ""])
    def test_a_number_is_taken_literally(self, repository: Repository, number: str) -> None:
        a_referral(repository)
        assert OrderMatcher(repository)(a_study(accession_numbers=(number,) if number else ())) is None

    def test_the_numbers_in_the_request_attributes(
        self, stow: Stow, projector: Projector, repository: Repository
    ) -> None:
        referral = a_referral(repository)
        request = Dataset()
        request.AccessionNumber = "ACC1"
        stow(a_slice(AccessionNumber=None, RequestAttributesSequence=[request]))
        projector.project_due()
        assert resource(repository)["basedOn"] == [{"reference": referral["order"]}]

    def test_without_a_match_the_subject_is_named_not_linked(
        self, stow: Stow, projector: Projector, repository: Repository
    ) -> None:
        a_referral(repository, patient_ids=("X-9",))
        stow(a_slice())
        projector.project_due()
        study = resource(repository)
        assert study["subject"] == {"type": "Patient", "identifier": {"value": "P-1"}, "display": "Doe Jane"}
        assert "basedOn" not in study

    @pytest.mark.parametrize(
        ("values", "referral", "late"),
        [
            ({}, {}, ("Task", "t1")),
            ({"PlacerOrderNumberImagingServiceRequest": "PLACER-1"}, {"accession": None}, ("ServiceRequest", "o1")),
        ],
    )
    def test_an_order_that_comes_after_the_images_is_found(
        self,
        stow: Stow,
        store: DicomStore,
        projector: Projector,
        repository: Repository,
        values: dict,
        referral: dict,
        late: tuple[str, str],
    ) -> None:
        stow(a_slice(**values))
        while projector.project_due():
            pass
        assert "basedOn" not in resource(repository)
        made = a_referral(repository, **referral)
        handler(store)(repository.read(PRACTICE, *late))
        assert projector.project_due() == 1
        study = resource(repository)
        assert study["basedOn"] == [{"reference": made["order"]}]
        assert study["subject"] == {"reference": made["patient"]}
        assert study["status"] == "available"
        handler(store)(repository.read(PRACTICE, *late))
        assert projector.project_due() == 0

    def test_an_order_that_comes_while_its_study_is_projected_is_found(
        self, stow: Stow, store: DicomStore, repository: Repository
    ) -> None:
        """The version of the order has passed by before the study was known to look for it."""
        matcher, late = OrderMatcher(repository), []

        def match(study: StudyAttributes) -> Match | None:
            found = matcher(study)
            if late == ["available"]:
                late.append("order")
                a_referral(repository)
                handler(store)(repository.read(PRACTICE, "Task", "t1"))
            return found

        projector = Projector(store, repository, match)
        stow(a_slice())
        projector.project_due()
        late.append("available")
        while projector.project_due():
            pass
        assert resource(repository)["basedOn"] == [{"reference": "ServiceRequest/o1"}]

    def test_what_staff_decided_stays(self, stow: Stow, projector: Projector, repository: Repository) -> None:
        a_referral(repository)
        corrected = a_referral(repository, "2", "ACC2", patient_ids=("P-2",))
        stow(a_slice())
        projector.project_due()
        study = resource(repository)
        study |= {
            "subject": {"reference": corrected["patient"]},
            "basedOn": [{"reference": corrected["order"]}],
            "note": [{"text": "moved to the right patient"}],
        }
        repository.update(PRACTICE, study)
        stow(a_slice(InstanceNumber=2))
        projector.project_due()
        after = resource(repository)
        assert after["numberOfInstances"] == 2
        assert after["subject"] == study["subject"]
        assert after["basedOn"] == study["basedOn"]
        assert after["note"] == study["note"]
        # The subject alone, and another than the match says: no order of another patient is put to it.
        unlinked = {name: value for name, value in after.items() if name != "basedOn"}
        repository.update(PRACTICE, unlinked)
        stow(a_slice(InstanceNumber=4))
        assert [projector.project_due() for _ in range(3)][1:] == [0, 0]
        after = resource(repository)
        assert after["subject"] == study["subject"]
        assert "basedOn" not in after
        repository.update(PRACTICE, after | {"status": "entered-in-error"})
        stow(a_slice(InstanceNumber=3))
        projector.project_due()
        assert resource(repository)["status"] == "entered-in-error"


class TestWhoSeesTheImages:
    def test_a_token_of_one_patient_asks_for_no_other(
        self, stow: Stow, projector: Projector, repository: Repository
    ) -> None:
        """403 and not an empty list, which would look as if there were no images."""
        a_referral(repository)
        stow(a_slice())
        projector.project_due()
        scopes, keys = (Scope("patient", "ImagingStudy", "rs"),), frozenset({"@Patient/p1"})
        ada = Access("user:ada", scopes, keys, patient="Patient/p1", compartment=keys)
        for query in ("", "patient=p1", "patient=Patient/p1", "subject:Patient=p1"):
            assert [v.id for v in repository.search(ada, "ImagingStudy", query).matches] == [ID], query
        for query in ("patient=p2", "subject=Patient/p2", "patient=p1,p2", "modality=CT&patient:Patient=p2"):
            with pytest.raises(Forbidden, match="another patient"):
                repository.search(ada, "ImagingStudy", query)

    def test_who_sees_the_imaging_study(
        self,
        app: Flask,
        client: FlaskClient,
        stow: Stow,
        projector: Projector,
        repository: Repository,
        store: DicomStore,
    ) -> None:
        a_referral(repository)
        stow(a_slice())
        app.config["ACCESS"] = an_office("lakeside")
        assert client.get("/dicomweb/studies").json == []
        projector.project_due()
        assert len(client.get("/dicomweb/studies").json) == 1
        assert client.get(f"/dicomweb/studies/{STUDY}/metadata").status_code == 200
        app.config["ACCESS"] = an_office("hillside")
        assert client.get("/dicomweb/studies").json == []
        assert client.get(f"/dicomweb/studies/{STUDY}/metadata").status_code == 404
        app.config["ACCESS"] = Access("client:app", an_office("x").scopes, frozenset({"@Patient/p1"}))
        assert len(client.get("/dicomweb/studies").json) == 1

    def test_a_change_of_the_imaging_study_changes_it(
        self,
        app: Flask,
        client: FlaskClient,
        stow: Stow,
        projector: Projector,
        repository: Repository,
        store: DicomStore,
    ) -> None:
        a_referral(repository)
        a_referral(repository, "2", None, patient_ids=("P-2",))
        stow(a_slice())
        projector.project_due()
        first = repository.read(PRACTICE, "ImagingStudy", ID)
        second = repository.update(PRACTICE, first.resource() | {"subject": {"reference": "Patient/p2"}}).version
        app.config["ACCESS"] = Access("client:app", an_office("x").scopes, frozenset({"@Patient/p2"}))
        assert client.get("/dicomweb/studies").json == []
        handler(store)(second)
        assert len(client.get("/dicomweb/studies").json) == 1
        access_of_studies(store, first)  # comes again after a crash, late
        assert len(client.get("/dicomweb/studies").json) == 1
        repository.delete(PRACTICE, "ImagingStudy", ID)
        deletion = repository.store.newest("ImagingStudy", ID)
        assert deletion is not None
        handler(store)(deletion)
        assert client.get("/dicomweb/studies").json == []

    def test_an_imaging_study_that_only_claims_a_study_opens_nothing(
        self, app: Flask, client: FlaskClient, stow: Stow, repository: Repository, store: DicomStore
    ) -> None:
        stow(a_slice())
        forged = {
            "resourceType": "ImagingStudy",
            "id": "forged",
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
            "status": "available",
            "subject": {"display": "somebody"},
        }
        office = an_office("lakeside")
        version = repository.update(Access.system("test"), forged).version
        handler(store)(version)
        app.config["ACCESS"] = office
        assert client.get("/dicomweb/studies").json == []


@pytest.mark.parametrize(
    ("date", "time_", "offset", "expected"),
    [
        ("20240131", "101530", None, "2024-01-31T10:15:30+01:00"),
        ("20240731", "101530.25", None, "2024-07-31T10:15:30.250+02:00"),
        ("20240131", "10", None, "2024-01-31T10:00:00+01:00"),
        ("2024.01.31", "10:15", None, "2024-01-31T10:15:00+01:00"),
        ("20240131", "101530", "-0330", "2024-01-31T10:15:30-03:30"),
        ("20240131", "101530", "+9900", "2024-01-31T10:15:30+01:00"),
        ("20240131", "101560", "+0000", "2024-01-31T10:15:59+00:00"),
        ("20240131", "noon", None, "2024-01-31"),
        ("20240131", "250000", None, "2024-01-31"),
        ("20240131", None, None, "2024-01-31"),
        ("20241331", "101530", None, None),
        (None, "101530", None, None),
    ],
)
def test_when_a_study_started(date: str | None, time_: str | None, offset: str | None, expected: str | None) -> None:
    given = {"00080020": ("DA", date), "00080030": ("TM", time_), "00080201": ("SH", offset)}
    attributes = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in given.items() if value}
    assert started(attributes, ZoneInfo("Europe/Zurich")) == expected


def a_study(**values: object) -> StudyAttributes:
    ordinary = {
        "study_instance_uid": STUDY,
        "accession_numbers": (),
        "placer_order_numbers": (),
        "patient_id": "P-1",
        "issuer_of_patient_id": "",
        "patient_name": "Doe^Jane",
        "patient_birth_date": "",
    }
    return StudyAttributes(**ordinary | values)  # type: ignore[arg-type]
