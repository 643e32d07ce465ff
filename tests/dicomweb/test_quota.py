"""How much the images of a practice may take: beyond, new ones are refused with a reason, and all else goes on."""

from datetime import UTC, datetime
from io import BytesIO

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from dicomweb.attach import Attachments
from dicomweb.blobs import BlobStore
from dicomweb.corrections import Corrections
from dicomweb.failures import OUT_OF_RESOURCES
from dicomweb.pool import PixelPool
from dicomweb.quota import FULL, Quota
from dicomweb.retention import uses
from dicomweb.routes import create_blueprint
from dicomweb.store import DicomStore
from fhir_server import http
from fhir_server.errors import Unavailable
from tests.dicomweb.conftest import BASE, PRACTICE, Stow, a_slice, an_app, file_of, stow_to
from tests.dicomweb.test_stow import failed

STUDY = "1.2.826.0.1.3680043.8.498.1"
SIZE = len(file_of(a_slice()))
NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def limited(store: DicomStore, blobs: BlobStore, pool: PixelPool, limit: int) -> FlaskClient:
    app = Flask("limited")
    http.install(app)
    plain = an_app(store, blobs, pool)
    app.before_request_funcs = plain.before_request_funcs
    plain.config["ACCESS"] = PRACTICE
    app.register_blueprint(create_blueprint(store, blobs, pool, BASE, 64, Quota(store, limit)))
    return app.test_client()


@pytest.fixture
def small(store: DicomStore, blobs: BlobStore, pool: PixelPool) -> FlaskClient:
    """The service with room for two and a half slices."""
    return limited(store, blobs, pool, SIZE * 5 // 2)


def test_what_does_not_fit_is_refused_for_itself_with_its_reason(small: FlaskClient, blobs: BlobStore) -> None:
    stow = stow_to(small)
    slices = [a_slice(InstanceNumber=number) for number in (1, 2, 3)]
    answer = stow(*slices)
    assert answer.status_code == 202
    assert failed(answer.json) == [(OUT_OF_RESOURCES, slices[2].SOPInstanceUID)]
    assert answer.headers["Warning"] == f'299 radloop "{FULL}"'
    assert len(answer.json["00081199"]["Value"]) == len(list(blobs.keys())) == 2
    assert stow(slices[2]).status_code == 409
    assert small.get(f"/dicomweb/studies/{STUDY}/metadata").status_code == 200


def test_what_is_stored_may_be_sent_again(small: FlaskClient) -> None:
    stow = stow_to(small)
    first, second = a_slice(), a_slice(InstanceNumber=2)
    assert stow(first, second).status_code == 200
    assert stow(first, second).status_code == 200
    assert stow(a_slice()).status_code == 409


def test_what_is_deleted_makes_room_at_once(small: FlaskClient) -> None:
    stow = stow_to(small)
    first, second = a_slice(), a_slice(InstanceNumber=2)
    assert stow(first, second).status_code == 200
    assert stow(a_slice()).status_code == 409
    address = f"/dicomweb/studies/{STUDY}/series/{first.SeriesInstanceUID}/instances/{first.SOPInstanceUID}"
    assert small.delete(address).status_code == 204
    assert stow(a_slice()).status_code == 200


def test_what_others_stored_counts(
    store: DicomStore, blobs: BlobStore, pool: PixelPool, stow: Stow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomweb.quota.MEASURED_S", 0.0)
    here = stow_to(limited(store, blobs, pool, SIZE * 5 // 2))
    assert here(a_slice()).status_code == 200
    assert stow(a_slice(), a_slice()).status_code == 200  # of a server without a limit
    assert here(a_slice()).status_code == 409


def test_files_that_people_add_count_and_are_refused_too(store: DicomStore, blobs: BlobStore) -> None:
    photo = BytesIO()
    Image.effect_noise((64, 64), 50).save(photo, "JPEG")
    patient = {"resourceType": "Patient", "id": "p1"}

    def add(limit: int) -> str:
        photo.seek(0)
        files = Attachments(store, blobs, 2**20, lambda: NOW, Quota(store, limit))
        return files.add(photo, "ServiceRequest/o", patient)

    with pytest.raises(Unavailable, match="room"):
        add(1000)
    assert store.used() == 0
    assert list(blobs.keys()) == []
    add(2**20)
    assert store.used() > len(photo.getvalue())


def test_a_study_knows_what_it_takes(store: DicomStore, blobs: BlobStore, stow: Stow, client: FlaskClient) -> None:
    """Through growth, corrections (which keep what was received) and deletion."""

    def on_disk() -> int:
        return sum(map(blobs.size, blobs.keys()))

    first, second = a_slice(), a_slice(InstanceNumber=2, SeriesInstanceUID=f"{STUDY}.2", SeriesNumber=2)
    assert stow(first).status_code == stow(second).status_code == 200
    assert store.used() == on_disk() == 2 * SIZE
    corrections = Corrections(store, blobs, lambda: NOW, lambda act: None)
    for id_ in ("p1", "p2"):
        patient = {"resourceType": "Patient", "id": id_, "identifier": [{"value": id_ * 20}]}
        corrections.assign("staff", STUDY, store.state(STUDY), patient)
        assert store.used() == on_disk() > 3 * SIZE
    other = corrections.split("staff", STUDY, store.state(STUDY), [str(second.SeriesInstanceUID)])
    assert store.used() == on_disk()
    assert sum(use.size for use in uses(store)) == on_disk()
    assert client.delete(f"/dicomweb/studies/{other}").status_code == 204
    assert store.used() == on_disk() < 3 * SIZE
