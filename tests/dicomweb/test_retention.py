"""What images take, and the end of those that are older than a practice keeps them."""

from datetime import date

import pytest
from flask.testing import FlaskClient

from dicomweb.blobs import BlobStore
from dicomweb.projection import Projector
from dicomweb.retention import NO_DATE, Use, older, retire, size_of, uses
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.errors import PreconditionFailed
from fhir_server.repository import Repository
from tests.dicomweb.conftest import PRACTICE, Stow, a_slice
from tests.dicomweb.test_delete import project

OLD, YOUNG, UNDATED = "1.2.3.1", "1.2.3.2", "1.2.3.3"


@pytest.fixture
def three(stow: Stow, projector: Projector) -> None:
    for uid, day in ((OLD, "20140301"), (YOUNG, "20250301"), (UNDATED, "")):
        images = [a_slice(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", StudyDate=day)]
        images += [a_slice(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", StudyDate=day, InstanceNumber=2)]
        assert stow(*images).status_code == 200
    project(projector)


def test_what_the_images_of_a_year_take(three: None, store: DicomStore) -> None:
    found = uses(store)
    assert [(use.year, use.studies, use.instances) for use in found] == [
        ("2014", 1, 2),
        ("2025", 1, 2),
        (NO_DATE, 1, 2),
    ]
    assert (2, found[0].size) == size_of(store, OLD)
    assert found[0].size > 1000


def test_an_empty_store_has_no_years(store: DicomStore) -> None:
    assert uses(store) == list[Use]()


def test_studies_of_days_before_are_old_and_those_without_a_date_never(three: None, store: DicomStore) -> None:
    assert [study.uid for study in older(store, date(2014, 3, 1))] == []
    assert [study.uid for study in older(store, date(2014, 3, 2))] == [OLD]
    assert [study.uid for study in older(store, date(2999, 1, 1))] == [OLD, YOUNG]


def test_what_is_retired_is_gone_and_its_imaging_study_withdrawn(
    three: None,
    store: DicomStore,
    blobs: BlobStore,
    client: FlaskClient,
    projector: Projector,
    repository: Repository,
) -> None:
    (study,) = older(store, date(2020, 1, 1))
    before = len(list(blobs.keys()))
    retire(store, blobs, study)
    project(projector)
    assert client.get(f"/dicomweb/studies/{OLD}/metadata").status_code == 410
    assert client.get(f"/dicomweb/studies/{YOUNG}/metadata").status_code == 200
    assert len(list(blobs.keys())) == before - 2
    newest = repository.store.newest("ImagingStudy", imaging_study_id(OLD))
    assert newest is not None and (newest.deleted or newest.resource()["status"] == "entered-in-error")
    assert repository.read(PRACTICE, "ImagingStudy", imaging_study_id(YOUNG)).resource()["status"] == "available"


def test_a_study_that_has_changed_stays(three: None, store: DicomStore, blobs: BlobStore, stow: Stow) -> None:
    (study,) = older(store, date(2020, 1, 1))
    more = a_slice(StudyInstanceUID=OLD, SeriesInstanceUID=f"{OLD}.1", StudyDate="20140301", InstanceNumber=3)
    assert stow(more).status_code == 200
    with pytest.raises(PreconditionFailed):
        retire(store, blobs, study)
    assert size_of(store, OLD)[0] == 3
