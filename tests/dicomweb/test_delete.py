"""Deleting studies, series and instances, with what FHIR says of them."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from werkzeug.test import TestResponse

from dicomweb.blobs import BlobStore
from dicomweb.projection import Projector
from dicomweb.uids import imaging_study_id
from fhir_server.access import Access, Scope
from fhir_server.errors import Gone
from fhir_server.repository import Repository
from tests.dicomweb.conftest import IMAGES, PRACTICE, Stow, a_slice, an_office, file_of

STUDY = "1.2.826.0.1.3680043.8.498.1"
HERE = f"/dicomweb/studies/{STUDY}"


def project(projector: Projector) -> None:
    while projector.project_due():
        pass


@pytest.fixture
def three(stow: Stow) -> list[Dataset]:
    """Two instances of a CT series, one of a series of another modality."""
    slices = [
        a_slice(),
        a_slice(InstanceNumber=2),
        a_slice(SeriesInstanceUID="1.2.3.4", SeriesNumber=2, Modality="PT"),
    ]
    assert stow(*slices).status_code == 200
    return slices


def address(dataset: Dataset) -> str:
    return f"{HERE}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


def counts(client: FlaskClient) -> tuple[int, int]:
    """(series, instances) that a search tells of the study."""
    (study,) = client.get("/dicomweb/studies").json
    return study["00201206"]["Value"][0], study["00201208"]["Value"][0]


def test_an_instance_goes_with_its_object_and_the_counts_follow(
    client: FlaskClient, three: list[Dataset], blobs: BlobStore, projector: Projector, repository: Repository
) -> None:
    project(projector)
    assert client.delete(address(three[0])).status_code == 204
    assert counts(client) == (2, 2)
    assert len(list(blobs.keys())) == 2
    assert client.get(address(three[0])).status_code == 410
    assert client.get(f"{address(three[0])}/metadata").status_code == 410
    assert client.get(address(three[1])).status_code == 200
    project(projector)
    resource = repository.read(PRACTICE, "ImagingStudy", imaging_study_id(STUDY)).resource()
    assert (resource["numberOfSeries"], resource["numberOfInstances"]) == (2, 2)
    assert three[0].SOPInstanceUID not in str(resource)


def test_a_series_goes_with_its_modality(
    client: FlaskClient, three: list[Dataset], projector: Projector, repository: Repository
) -> None:
    assert client.get("/dicomweb/studies?ModalitiesInStudy=PT").json
    assert client.delete(f"{HERE}/series/1.2.3.4").status_code == 204
    assert counts(client) == (1, 2)
    assert client.get("/dicomweb/studies?ModalitiesInStudy=PT").json == []
    assert client.get(f"{HERE}/series/1.2.3.4").status_code == 410
    project(projector)
    resource = repository.read(PRACTICE, "ImagingStudy", imaging_study_id(STUDY)).resource()
    assert [modality["code"] for modality in resource["modality"]] == ["CT"]


def test_the_last_instance_takes_its_series_and_study_with_it(client: FlaskClient, stow: Stow) -> None:
    slice_ = a_slice()
    stow(slice_)
    assert client.delete(address(slice_)).status_code == 204
    assert client.get("/dicomweb/series").json == client.get("/dicomweb/studies").json == []
    assert client.get(HERE).status_code == 410


def test_a_study_goes_with_its_imaging_study_and_may_come_back(
    client: FlaskClient,
    three: list[Dataset],
    blobs: BlobStore,
    projector: Projector,
    repository: Repository,
    stow: Stow,
) -> None:
    project(projector)
    assert client.delete(HERE).status_code == 204
    assert list(blobs.keys()) == []
    for path in (HERE, f"{HERE}/metadata", f"{HERE}/series", address(three[0]), f"{address(three[0])}/rendered"):
        assert client.get(path).status_code == 410, path
    assert client.delete(HERE).status_code == 410
    project(projector)
    with pytest.raises(Gone):
        repository.read(PRACTICE, "ImagingStudy", imaging_study_id(STUDY))
    assert stow(three[0]).status_code == 200
    assert client.get(address(three[0])).status_code == 200
    project(projector)
    resource = repository.read(PRACTICE, "ImagingStudy", imaging_study_id(STUDY)).resource()
    assert (resource["status"], resource["numberOfInstances"]) == ("available", 1)


def test_a_study_that_another_resource_refers_to_is_withdrawn(
    client: FlaskClient, three: list[Dataset], projector: Projector, repository: Repository, stow: Stow
) -> None:
    project(projector)
    id = imaging_study_id(STUDY)
    task = {
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "focus": {"reference": f"ImagingStudy/{id}"},
    }
    repository.create(PRACTICE, task)
    client.delete(HERE)
    project(projector)
    resource = repository.read(PRACTICE, "ImagingStudy", id).resource()
    assert (resource["status"], resource["numberOfInstances"]) == ("entered-in-error", 0)
    assert "series" not in resource
    assert "endpoint" not in resource
    stow(*three)
    project(projector)
    assert repository.read(PRACTICE, "ImagingStudy", id).resource()["status"] == "available"


def test_what_was_deleted_before_the_projection_looked_leaves_nothing(
    client: FlaskClient, three: list[Dataset], projector: Projector, repository: Repository, stow: Stow
) -> None:
    client.delete(HERE)
    stow(three[0])
    project(projector)
    resource = repository.read(PRACTICE, "ImagingStudy", imaging_study_id(STUDY)).resource()
    assert resource["numberOfInstances"] == 1
    client.delete(HERE)
    project(projector)
    assert repository.search(PRACTICE, "ImagingStudy", "_summary=count", strict=True).total == 0


def test_deleting_and_sending_the_same_file_again_keep_the_object(
    client: FlaskClient, blobs: BlobStore, stow: Stow
) -> None:
    file = file_of(slice_ := a_slice())
    for _ in range(3):
        assert stow(file).status_code == 200
        assert file in client.get(HERE).data
        assert len(list(blobs.keys())) == 1
        assert client.delete(address(slice_)).status_code == 204


@pytest.mark.parametrize("path", ["", "/series/9.9", "/series/1.2.3.4/instances/9.9"])
def test_what_is_not_known_is_404(client: FlaskClient, three: list[Dataset], path: str) -> None:
    here = HERE if path else "/dicomweb/studies/9.9"
    assert client.delete(f"{here}{path}").status_code == 404
    assert counts(client) == (2, 3)


def test_only_administrators_and_the_practices_systems_delete(
    app: Flask, client: FlaskClient, three: list[Dataset]
) -> None:
    def attempt(access: Access | None) -> TestResponse:
        app.config["ACCESS"] = access
        return client.delete(address(three[0]))

    reads = (Scope("user", "ImagingStudy", "rs"),)
    assert attempt(None).status_code == 401
    assert attempt(an_office("lakeside")).status_code == 403
    assert attempt(Access("user:fay", IMAGES, None, roles=frozenset({"front-desk"}))).status_code == 403
    assert attempt(Access("user:adam", reads, None, roles=frozenset({"admin"}))).status_code == 403
    assert attempt(Access("user:adam", IMAGES, frozenset({"@any"}), roles=frozenset({"admin"}))).status_code == 204


def test_who_saw_nothing_learns_nothing_of_what_was_deleted(
    app: Flask, client: FlaskClient, three: list[Dataset]
) -> None:
    client.delete(HERE)
    app.config["ACCESS"] = an_office("lakeside")
    assert client.get(HERE).status_code == 404


def test_the_object_is_gone_from_the_disk(client: FlaskClient, three: list[Dataset], tmp_path: Path) -> None:
    client.delete(HERE)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
