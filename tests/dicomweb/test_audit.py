"""Who saw, stored and deleted which studies is in the audit trail. DICOM PS3.15 section A.5.3; IHE BALP 1.1"""

import pytest
from flask import Flask, g
from flask.testing import FlaskClient

from dicomweb import audit as dicom_audit
from dicomweb import routes, wado_uri
from dicomweb.blobs import BlobStore
from dicomweb.pool import PixelPool
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server import http
from fhir_server.access import Access
from fhir_server.audit.service import Audit
from tests.auditor import Audited
from tests.dicomweb.conftest import BASE, IMAGES, a_slice, an_office, stow_to

STUDY, OTHER = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
HERE = f"/dicomweb/studies/{STUDY}"
DORA = Access(
    "user:dora", IMAGES, None, client_id="viewer", fhir_user="Practitioner/dora", roles=frozenset({"admin"})
)


@pytest.fixture
def app(store: DicomStore, blobs: BlobStore, pool: PixelPool, audit: Audit) -> Flask:
    app = Flask("test")
    http.install(app)
    dicom_audit.install(app, audit.trail, store)
    app.config["ACCESS"] = DORA

    @app.before_request
    def let_in() -> None:
        if app.config["ACCESS"] is not None:
            g.access = app.config["ACCESS"]

    app.register_blueprint(routes.create_blueprint(store, blobs, pool, BASE, max_body_mb=64))
    app.register_blueprint(wado_uri.create_blueprint(store, blobs, pool, BASE))
    return app


@pytest.fixture
def of_ada(store: DicomStore, client: FlaskClient, audited: Audited) -> str:
    """A study of two images that is known to be of Patient/ada; the address of an image. Storing it is audited."""
    image = a_slice()
    assert stow_to(client)(image, a_slice(InstanceNumber=2)).status_code == 200
    store.set_scope(STUDY, ["@Patient/ada"], 1)
    assert len(audited()) == 1
    return f"{HERE}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"


def told(event: dict) -> tuple[str, str, str]:
    """(type, action, outcome)"""
    return event["type"]["code"], event["action"], event["outcome"]


def whats(event: dict) -> list[str]:
    """The patient and the study."""
    return [one["what"]["reference"] for one in event["entity"] if "reference" in one.get("what", {})]


def study(uid: str) -> str:
    return f"ImagingStudy/{imaging_study_id(uid)}"


def test_a_viewer_that_loads_a_study_leaves_one_event_a_minute(
    client: FlaskClient, audited: Audited, of_ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        for path in (f"{HERE}/metadata", f"{HERE}/series", f"{of_ada}/frames/1", of_ada):
            answer = client.get(path, headers={"Accept": "*/*"})
            assert answer.status_code == 200
    series, instance = of_ada.split("/")[-3], of_ada.split("/")[-1]
    uri = f"/wado?requestType=WADO&studyUID={STUDY}&seriesUID={series}&objectUID={instance}"
    assert client.get(f"{uri}&contentType=application/dicom").status_code == 200
    found = audited()[1:]
    # The clock may have come to the next minute while this ran.
    assert len({event["recorded"][:16] for event in found}) == len(found) and len(found) in (1, 2)
    assert told(found[0]) == ("110103", "R", "0")
    assert whats(found[0]) == ["Patient/ada", study(STUDY)]
    assert [one["description"] for one in found[0]["entity"] if "description" in one] == [f"study {STUDY}"]
    assert found[0]["agent"][0]["who"] == {"identifier": {"value": "viewer"}}
    assert found[0]["agent"][-1]["who"] == {"reference": "Practitioner/dora"}


def test_each_person_who_looks_is_told(app: Flask, client: FlaskClient, audited: Audited, of_ada: str) -> None:
    client.get(f"{HERE}/metadata")
    app.config["ACCESS"] = Access("user:emil", IMAGES, None)
    client.get(f"{HERE}/metadata")
    assert [event["agent"][-1]["altId"] for event in audited()[1:]] == ["user:dora", "user:emil"]


def test_storing_tells_each_study_once(client: FlaskClient, audited: Audited, of_ada: str) -> None:
    more = a_slice(InstanceNumber=3), a_slice(StudyInstanceUID=OTHER, SeriesInstanceUID=f"{OTHER}.1")
    assert stow_to(client)(*more).status_code == 200
    found = audited()[1:]
    assert [told(event) for event in found] == [("110104", "C", "0")] * 2
    assert sorted(map(whats, found)) == sorted([["Patient/ada", study(STUDY)], [study(OTHER)]])


def test_what_was_not_stored_is_told_as_a_failure(client: FlaskClient, audited: Audited) -> None:
    assert stow_to(client)(a_slice(), study=OTHER).status_code == 409
    (event,) = audited()
    assert (told(event), whats(event)) == (("110104", "C", "4"), [study(OTHER)])


def test_deleting_tells_what_and_whose_it_was(client: FlaskClient, audited: Audited, of_ada: str) -> None:
    assert client.delete(of_ada).status_code == 204
    assert client.delete(HERE).status_code == 204
    found = audited()[1:]
    assert [told(event) for event in found] == [("110103", "D", "0")] * 2
    assert [whats(event) for event in found] == [["Patient/ada", study(STUDY)]] * 2
    first, second = ([one["description"] for one in event["entity"] if "description" in one] for event in found)
    assert first[0].startswith(f"study {STUDY}, series ") and ", instance " in first[0]
    assert second == [f"study {STUDY}"]


def test_a_search_tells_the_query_and_whose_data_was_found(
    client: FlaskClient, audited: Audited, of_ada: str
) -> None:
    assert client.get("/dicomweb/studies?PatientID=P-1").status_code == 200
    assert client.get("/dicomweb/studies?PatientID=none").status_code == 200
    one, none = audited()[1:]
    assert (told(one), told(none)) == (("110112", "E", "0"),) * 2
    assert (whats(one), whats(none)) == (["Patient/ada"], [])
    assert [entity["description"] for entity in one["entity"] if "query" in entity] == [
        "/dicomweb/studies?PatientID=P-1"
    ]


def test_who_may_not_see_a_study_is_told_with_whose_it_is(
    app: Flask, client: FlaskClient, audited: Audited, of_ada: str
) -> None:
    app.config["ACCESS"] = an_office("elsewhere")
    for _ in range(3):
        assert client.get(f"{HERE}/metadata").status_code == 404
    assert client.delete(HERE).status_code == 403
    read, *again, deletion = audited()[1:]
    assert len(again) <= 1  # the minute may have ended
    assert (told(read), whats(read)) == (("110103", "R", "4"), ["Patient/ada", study(STUDY)])
    assert (told(deletion), whats(deletion)) == (("110103", "D", "4"), ["Patient/ada", study(STUDY)])
    assert "administrators" in deletion["outcomeDesc"]


def test_who_has_no_token_is_told(app: Flask, client: FlaskClient, audited: Audited) -> None:
    app.config["ACCESS"] = None
    assert client.get(f"{HERE}/metadata").status_code == 401
    (event,) = audited()
    assert told(event) == ("110113", "E", "4")


def test_nothing_is_answered_or_changed_while_the_trail_cannot_be_written(
    client: FlaskClient, audited: Audited, of_ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fhir_server.audit.spool.os.write", full)
        for path in (of_ada, f"{HERE}/metadata", "/dicomweb/studies"):
            answer = client.get(path, headers={"Accept": "*/*"})
            assert answer.status_code == 503 and answer.headers["Retry-After"]
            assert b"Doe" not in answer.data
        assert client.delete(HERE).status_code == 503
    assert client.get(f"{HERE}/metadata").status_code == 200  # it was not begun
    assert [told(event) for event in audited()[1:]] == [("110103", "R", "0")]
