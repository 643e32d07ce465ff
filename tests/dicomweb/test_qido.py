"""QIDO-RS. PS3.18 section 10.6; matching of PS3.4 section C.2.2.2."""

import uuid
from collections.abc import Iterator

import pymongo
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset

from dicomweb.blobs import FolderBlobStore
from dicomweb.pool import PixelPool
from dicomweb.store import DicomStore
from fhir_server.access import Access, Clause, Scope
from tests.dicomweb.conftest import BASE, CONTENT_TYPE, PRACTICE, a_slice, an_app, file_of, message

KNEE, CHEST, HEAD = "1.2.3.1", "1.2.3.2", "1.2.3.3"


def _request(procedure: str) -> list[Dataset]:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = procedure, f"{procedure}-1"
    return [item]


def _files() -> list[bytes]:
    knee = {
        "StudyInstanceUID": KNEE,
        "SeriesInstanceUID": f"{KNEE}.1",
        "StudyDate": "20240131",
        "StudyTime": "101530.5",
        "PatientName": "Müller^Jörg",
        "PatientID": "K1",
        "Modality": "MR",
        "AccessionNumber": "ACC1",
        "StudyDescription": "Knee left",
        "SpecificCharacterSet": "ISO_IR 192",
    }
    chest = {
        "StudyInstanceUID": CHEST,
        "SeriesInstanceUID": f"{CHEST}.1",
        "StudyDate": "20240201",
        "StudyTime": "0800",
        "PatientName": "Doe^Jane=山田^太郎",
        "PatientID": "C[1].*",
        "AccessionNumber": "ACC2",
        "SpecificCharacterSet": "ISO_IR 192",
    }
    head = {
        "StudyInstanceUID": HEAD,
        "SeriesInstanceUID": f"{HEAD}.1",
        "StudyDate": "20231224",
        "PatientName": "Doe^Jon^^^",
        "StudyTime": None,
        "PatientID": "H1",
        "AccessionNumber": None,
        "Modality": "CT",
    }
    return [
        file_of(a_slice(InstanceNumber=2, SOPInstanceUID=f"{KNEE}.1.2", **knee)),
        file_of(a_slice(InstanceNumber=1, SOPInstanceUID=f"{KNEE}.1.1", **knee)),
        file_of(
            a_slice(
                **knee
                | {
                    "SeriesInstanceUID": f"{KNEE}.2",
                    "SOPInstanceUID": f"{KNEE}.2.1",
                    "Modality": "SR",
                    "SeriesNumber": 2,
                    "RequestAttributesSequence": _request("RP7"),
                }
            )
        ),
        file_of(a_slice(SOPInstanceUID=f"{CHEST}.1.1", **chest)),
        file_of(a_slice(SOPInstanceUID=f"{HEAD}.1.1", **head)),
    ]


@pytest.fixture(scope="module")
def app(
    mongo_client: pymongo.MongoClient, pool: PixelPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A store of three studies, for tests that only search."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    store = DicomStore(mongo_client[name])
    app = an_app(store, FolderBlobStore(tmp_path_factory.mktemp("blobs")), pool)
    body = message(*_files())
    assert app.test_client().post("/dicomweb/studies", data=body, content_type=CONTENT_TYPE).status_code == 200
    store.set_scope(KNEE, ["@Organization/lakeside"], 1)
    yield app
    mongo_client.drop_database(name)


@pytest.fixture(autouse=True)
def as_practice(app: Flask) -> Iterator[None]:
    yield
    app.config["ACCESS"] = PRACTICE


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def uids(client: FlaskClient, query: str, tag: str = "0020000D") -> list[str]:
    answer = client.get(f"/dicomweb/{query}")
    assert answer.status_code == 200, answer.text
    return [match[tag]["Value"][0] for match in answer.json]


class TestStudies:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", [CHEST, KNEE, HEAD]),
            ("StudyInstanceUID=1.2.3.1", [KNEE]),
            ("0020000D=1.2.3.1,1.2.3.3", [KNEE, HEAD]),
            ("StudyInstanceUID=1.2.3.1%5C1.2.3.3", [KNEE, HEAD]),
            ("StudyInstanceUID=9.9", []),
            ("PatientID=K1", [KNEE]),
            ("PatientID=k1", []),
            ("00100020=*1*", [CHEST, KNEE, HEAD]),
            ("PatientID=C[1].*", [CHEST]),
            ("PatientID=C%5B1%5D.?", [CHEST]),
            ("PatientID=C.*", []),
            ("PatientName=doe*", [CHEST, HEAD]),
            ("PatientName=Doe^J*", [CHEST, HEAD]),
            ("PatientName=Doe%5EJ*", [CHEST, HEAD]),
            ("PatientName=Doe^Jon", [HEAD]),
            ("PatientName=DOE", []),
            ("PatientName=mu?ler*", [KNEE]),
            ("PatientName=MULLER^JORG", [KNEE]),
            ("PatientName=*M%C3%BCller*", [KNEE]),
            ("PatientName=%E5%B1%B1%E7%94%B0*", [CHEST]),
            ("StudyDate=20240131", [KNEE]),
            ("StudyDate=20240101-20240131", [KNEE]),
            ("StudyDate=20240131-", [CHEST, KNEE]),
            ("StudyDate=-20240131", [KNEE, HEAD]),
            ("StudyTime=1015", [KNEE]),
            ("StudyTime=101530", [KNEE]),
            ("StudyTime=101531", []),
            ("StudyTime=0700-1015", [CHEST, KNEE]),
            ("AccessionNumber=ACC1", [KNEE]),
            ("AccessionNumber=ACC?", [CHEST, KNEE]),
            ("ModalitiesInStudy=SR", [KNEE]),
            ("ModalitiesInStudy=SR,CT", [CHEST, KNEE, HEAD]),
            ("ModalitiesInStudy=S?", [KNEE]),
            ("StudyDescription=*left", [KNEE]),
            ("PatientName=doe*&StudyDate=2024*", None),
            ("PatientName=doe*&StudyDate=20240101-", [CHEST]),
            ("PatientName=&StudyDate=", [CHEST, KNEE, HEAD]),
            ("PatientName=*", [CHEST, KNEE, HEAD]),
            ("&limit=1", [CHEST]),
            ("limit=1&offset=1", [KNEE]),
            ("limit=0", [CHEST, KNEE, HEAD]),
            ("offset=10", []),
        ],
    )
    def test_matching(self, client: FlaskClient, query: str, expected: list[str] | None) -> None:
        if expected is None:
            assert client.get(f"/dicomweb/studies?{query}").status_code == 400
        else:
            assert uids(client, f"studies?{query}") == expected

    def test_what_a_study_says_by_default(self, client: FlaskClient) -> None:
        (study,) = client.get("/dicomweb/studies?StudyInstanceUID=1.2.3.1").json
        assert study["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
        assert study["00080020"] == {"vr": "DA", "Value": ["20240131"]}
        assert study["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
        assert study["00080061"] == {"vr": "CS", "Value": ["MR", "SR"]}
        assert study["00081190"] == {"vr": "UR", "Value": [f"{BASE}/studies/1.2.3.1"]}
        assert study["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}
        assert study["00201206"] == {"vr": "IS", "Value": [2]}
        assert study["00201208"] == {"vr": "IS", "Value": [3]}
        assert "00081030" not in study
        assert list(study) == sorted(study)

    @pytest.mark.parametrize("field", ["StudyDescription", "00081030", "00081030%2C00080060", "all", "00080060,all"])
    def test_more_is_given_when_asked_for(self, client: FlaskClient, field: str) -> None:
        (study,) = client.get(f"/dicomweb/studies?includefield={field}&StudyInstanceUID=1.2.3.1").json
        assert study["00081030"]["Value"] == ["Knee left"]

    def test_nothing_found_is_an_empty_list(self, client: FlaskClient) -> None:
        answer = client.get("/dicomweb/studies?PatientID=nobody")
        assert (answer.status_code, answer.json) == (200, [])
        assert answer.content_type == "application/dicom+json"

    def test_a_cut_list_says_so(self, client: FlaskClient) -> None:
        assert "more results" in client.get("/dicomweb/studies?limit=2").headers["Warning"]
        assert "Warning" not in client.get("/dicomweb/studies?limit=3").headers

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("jo mul", {KNEE}),  # words in any order, their beginnings, without case and accents
            ("Müller", {KNEE}),
            ("doe j", {CHEST, HEAD}),
            ("Doe^Jon", {HEAD}),
            ("ane", set()),  # inside a word
            ("太", {CHEST}),
            ("d?e ja*", {CHEST}),
            ("*", {KNEE, CHEST, HEAD}),
            ("(doe|.*)", set()),
        ],
    )
    def test_fuzzy_matching_finds_words_of_a_name(self, client: FlaskClient, name: str, found: set[str]) -> None:
        query = {"PatientName": name, "fuzzymatching": "true"}
        answer = client.get("/dicomweb/studies", query_string=query)
        assert {study["0020000D"]["Value"][0] for study in answer.json} == found
        assert "Warning" not in answer.headers

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("StudyDate=20240131-20240201&StudyTime=1000-0900", {KNEE, CHEST}),
            ("StudyDate=20240131-20240201&StudyTime=1016-0900", {CHEST}),
            ("StudyDate=20240131-20240201&StudyTime=1000-0759", {KNEE}),
            ("StudyDate=20240131-&StudyTime=1016-", {CHEST}),
            ("StudyDate=-20240201&StudyTime=-0759", {KNEE, HEAD}),
            ("StudyDate=20240131-20240201&StudyTime=0800", {CHEST}),  # that time of any of the days
            ("StudyDate=20240201&StudyTime=0700-0900", {CHEST}),
        ],
    )
    def test_a_range_of_dates_with_one_of_times_is_one_of_moments(
        self, client: FlaskClient, query: str, found: set[str]
    ) -> None:
        assert {study["0020000D"]["Value"][0] for study in client.get(f"/dicomweb/studies?{query}").json} == found

    def test_matches_in_xml(self, client: FlaskClient) -> None:
        for accept in ('multipart/related; type="application/dicom+xml"', "application/dicom+xml"):
            answer = client.get("/dicomweb/studies?PatientName=Doe*", headers={"Accept": accept})
            assert answer.headers["Content-Type"].startswith('multipart/related; type="application/dicom+xml"; bound')
            assert answer.text.count("<NativeDicomModel") == 2
            assert "<FamilyName>山田</FamilyName>" in answer.text

    def test_an_answer_that_is_known_costs_no_bytes_until_it_is_another(self, client: FlaskClient) -> None:
        first = client.get("/dicomweb/studies")
        known = {"If-None-Match": first.headers["ETag"]}
        assert first.headers["Cache-Control"] == "private, no-cache"
        assert client.get("/dicomweb/studies", headers=known).status_code == 304
        assert client.get("/dicomweb/studies?limit=1", headers=known).status_code == 200

    def test_a_character_set_may_be_asked_for_and_is_utf_8(self, client: FlaskClient) -> None:
        assert len(client.get("/dicomweb/studies?charset=iso-8859-1").json) == 3

    def test_fuzzy_matching_may_be_false(self, client: FlaskClient) -> None:
        assert len(client.get("/dicomweb/studies?PatientName=jane&fuzzymatching=false").json) == 0

    def test_what_a_well_known_viewer_sends(self, client: FlaskClient) -> None:
        query = "limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030"
        assert uids(client, f"studies?{query}&PatientName=*doe*&StudyDate=20240101-20241231") == [CHEST]

    @pytest.mark.parametrize(
        "query",
        [
            "NoSuchKey=1",
            "00280010=512",
            "SOPInstanceUID=1.2",
            "limit=many",
            "limit=-1",
            "offset=1e9",
            "StudyDate=yesterday",
            "StudyDate=2024",
            "StudyDate=-",
            "StudyTime=25h",
            "StudyInstanceUID=a.b",
            "includefield=NoSuchKey",
            "fuzzymatching=perhaps",
            "PatientID=a%00b",
            "$where=1",
            "PatientID[$ne]=1",
            "PatientID=" + "x" * 1000,
        ],
    )
    def test_what_is_not_understood_is_refused(self, client: FlaskClient, query: str) -> None:
        answer = client.get(f"/dicomweb/studies?{query}")
        assert answer.status_code == 400
        assert answer.json["issue"][0]["diagnostics"]

    @pytest.mark.parametrize(
        ("accept", "status"),
        [
            ("application/dicom+json", 200),
            ("application/json", 200),
            ("*/*", 200),
            ("", 200),
            ("text/html, application/*;q=0.5", 200),
            ("application/dicom+json, application/json", 200),
            ('multipart/related; type="application/pdf"', 406),
            ("text/html", 406),
            ("application/dicom+json;q=0", 406),
        ],
    )
    def test_json_is_what_there_is(self, client: FlaskClient, accept: str, status: int) -> None:
        assert client.get("/dicomweb/studies", headers={"Accept": accept}).status_code == status


class TestSeriesAndInstances:
    def test_series_of_a_study(self, client: FlaskClient) -> None:
        answer = client.get(f"/dicomweb/studies/{KNEE}/series").json
        assert [s["0020000E"]["Value"][0] for s in answer] == [f"{KNEE}.1", f"{KNEE}.2"]
        assert [s["00201209"]["Value"][0] for s in answer] == [2, 1]
        assert answer[0]["00081190"]["Value"] == [f"{BASE}/studies/{KNEE}/series/{KNEE}.1"]
        assert answer[1]["00400275"]["Value"][0]["00401001"]["Value"] == ["RP7"]
        assert answer[0]["00100020"]["Value"] == ["K1"]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("series?Modality=SR", [f"{KNEE}.2"]),
            ("series?Modality=MR,SR", [f"{KNEE}.1", f"{KNEE}.2"]),
            ("series?SeriesNumber=2", [f"{KNEE}.2"]),
            ("series?RequestAttributesSequence.RequestedProcedureID=RP7", [f"{KNEE}.2"]),
            ("series?00400275.00400009=RP7-1", [f"{KNEE}.2"]),
            ("series?PatientID=K1&SeriesInstanceUID=1.2.3.1.1", [f"{KNEE}.1"]),
            (f"studies/{KNEE}/series?Modality=CT", []),
            ("series?StudyInstanceUID=1.2.3.2,1.2.3.3", [f"{CHEST}.1", f"{HEAD}.1"]),
        ],
    )
    def test_matching_series(self, client: FlaskClient, query: str, expected: list[str]) -> None:
        assert uids(client, query, "0020000E") == expected

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (f"studies/{KNEE}/series/{KNEE}.1/instances", [f"{KNEE}.1.1", f"{KNEE}.1.2"]),
            (f"studies/{KNEE}/instances", [f"{KNEE}.1.1", f"{KNEE}.1.2", f"{KNEE}.2.1"]),
            (f"studies/{KNEE}/instances?InstanceNumber=2", [f"{KNEE}.1.2"]),
            ("instances?SOPInstanceUID=1.2.3.3.1.1", [f"{HEAD}.1.1"]),
            ("instances?PatientID=H1&SOPClassUID=1.2.840.10008.5.1.4.1.1.2", [f"{HEAD}.1.1"]),
            (f"studies/{CHEST}/series/{KNEE}.1/instances", []),
        ],
    )
    def test_matching_instances(self, client: FlaskClient, query: str, expected: list[str]) -> None:
        assert uids(client, query, "00080018") == expected

    def test_an_instance_can_say_all_that_it_has(self, client: FlaskClient) -> None:
        address = f"/dicomweb/studies/{HEAD}/instances"
        assert "00281052" not in client.get(address).json[0]
        (whole,) = client.get(f"{address}?includefield=all").json
        assert whole["00281052"]["Value"] == [-1000]
        assert whole["7FE00010"]["BulkDataURI"].startswith(BASE)
        (one,) = client.get(f"{address}?includefield=RescaleIntercept").json
        assert one["00281052"]["Value"] == [-1000]

    def test_an_unknown_study_is_404_and_no_uid_is_400(self, client: FlaskClient) -> None:
        assert client.get("/dicomweb/studies/9.9/series").status_code == 404
        assert client.get("/dicomweb/studies/nine/series").status_code == 400


class TestWhoSeesWhat:
    """A search of a referring office finds what a search over its own studies alone would."""

    @pytest.fixture(autouse=True)
    def an_office_calls(self, app: Flask) -> None:
        scopes = (Scope("user", "ImagingStudy", "rs"),)
        app.config["ACCESS"] = Access("user:ana", scopes, frozenset({"@Organization/lakeside"}))

    @pytest.mark.parametrize("query", ["studies", "studies?PatientName=*", "studies?AccessionNumber=ACC?"])
    def test_studies(self, client: FlaskClient, query: str) -> None:
        assert uids(client, query) == [KNEE]

    def test_series_and_instances(self, client: FlaskClient) -> None:
        assert uids(client, "series", "0020000E") == [f"{KNEE}.1", f"{KNEE}.2"]
        assert uids(client, "instances?limit=2", "00080018") == [f"{KNEE}.1.1", f"{KNEE}.1.2"]
        assert uids(client, "instances?PatientID=H1", "00080018") == []

    def test_no_warning_tells_of_hidden_matches(self, client: FlaskClient) -> None:
        assert "Warning" not in client.get("/dicomweb/studies?limit=1").headers

    def test_the_uid_of_a_foreign_study_opens_nothing(self, client: FlaskClient) -> None:
        for path in (f"{CHEST}/series", f"{CHEST}/instances", f"{CHEST}/series/{CHEST}.1/instances"):
            assert client.get(f"/dicomweb/studies/{path}").status_code == 404

    def test_a_scope_with_parameters_is_not_enough(self, app: Flask, client: FlaskClient) -> None:
        """They are about ImagingStudies; which images these would leave out is not looked up."""
        clause = Clause("modality=CT", frozenset({"modality=CT"}))
        app.config["ACCESS"] = Access("user:ana", (Scope("user", "ImagingStudy", "rs", (clause,)),), None)
        for path in ("/dicomweb/studies", f"/dicomweb/studies/{KNEE}", f"/dicomweb/studies/{KNEE}/metadata"):
            assert client.get(path).status_code == 403, path

    def test_a_compartment_narrows_what_is_seen(self, app: Flask, client: FlaskClient) -> None:
        scopes, office = (Scope("user", "ImagingStudy", "rs"),), frozenset({"@Organization/lakeside"})
        for compartment, status in ((office, 200), (frozenset({"@Patient/other"}), 404)):
            app.config["ACCESS"] = Access("user:ana", scopes, office, compartment=compartment)
            assert client.get(f"/dicomweb/studies/{KNEE}/metadata").status_code == status
            found = [len(client.get(f"/dicomweb/{level}").get_json(force=True)) for level in ("studies", "series")]
            assert all(found) == (status == 200)

    def test_the_scope_to_search_is_needed(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = Access("user:ana", (Scope("user", "ImagingStudy", "r"),), None)
        assert client.get("/dicomweb/studies").status_code == 403
        app.config["ACCESS"] = Access("user:ana", (Scope("user", "Patient", "rs"),), None)
        assert client.get("/dicomweb/studies").status_code == 403
