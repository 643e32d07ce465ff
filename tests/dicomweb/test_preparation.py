"""Metadata of series and thumbnails are made before they are asked for, say what is true just now, and go with their
instances."""

import gzip
import threading

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, JPEG2000Lossless, TwelveLeadECGWaveformStorage, generate_uid
from pymongo.database import Database

from dicomweb.blobs import BlobStore
from dicomweb.corrections import Corrections
from dicomweb.pool import PixelPool
from dicomweb.preparation import Preparer
from dicomweb.prepared import METADATA, THUMBNAILS, Prepared, SeriesMetadata, Thumbnail
from dicomweb.store import DicomStore
from tests.dicomweb.conftest import BASE, Stow, a_slice, an_app, an_office
from tests.dicomweb.test_corrections import NOW, OTHER, PATIENT, SYSTEM
from tests.dicomweb.test_pictures import PDF, a_report, an_object
from tests.dicomweb.test_presentation import GREY, a_state, an_image
from tests.dicomweb.test_wado import address

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"/dicomweb/studies/{STUDY}/series/1.2.826.0.1.3680043.8.498.1.1"


class NoPool(PixelPool):
    """Nothing is drawn here."""

    def run(self, *_arguments: object) -> bytes:  # type: ignore[override]
        raise AssertionError("this was to be ready")


@pytest.fixture
def prepared(database: Database) -> Prepared:
    return Prepared(database)


@pytest.fixture
def preparer(store: DicomStore, prepared: Prepared, blobs: BlobStore, pool: PixelPool) -> Preparer:
    return Preparer(store, prepared, blobs, pool, BASE)


@pytest.fixture
def reader(store: DicomStore, blobs: BlobStore) -> FlaskClient:
    """Of a server that cannot draw."""
    return an_app(store, blobs, NoPool(1)).test_client()


def kept(database: Database) -> tuple[int, int]:
    """(series metadata, thumbnails) that are kept."""
    return database[METADATA].count_documents({}), database[THUMBNAILS].count_documents({})


def pdf() -> Dataset:
    return an_object(
        EncapsulatedPDFStorage,
        Modality="DOC",
        SeriesInstanceUID=generate_uid(),
        MIMETypeOfEncapsulatedDocument="application/pdf",
        EncapsulatedDocument=PDF,
    )


class TestThumbnails:
    def test_it_is_the_one_that_is_made_on_request(
        self, stow: Stow, client: FlaskClient, reader: FlaskClient, preparer: Preparer
    ) -> None:
        ecg = an_object(TwelveLeadECGWaveformStorage, Modality="ECG", SeriesInstanceUID=generate_uid())
        report = a_report()
        report.SeriesInstanceUID = generate_uid()
        objects = [a_slice(), a_slice(InstanceNumber=2), a_slice(InstanceNumber=3), ecg, report, pdf()]
        stow(*objects)
        urls = [f"{address(one)}/thumbnail" for one in objects]
        urls += [f"{address(one).partition('/instances')[0]}/thumbnail" for one in objects]
        urls.append(f"/dicomweb/studies/{STUDY}/thumbnail")
        before = [client.get(url) for url in urls]
        assert preparer.prepare_due() == 1
        for url, made in zip(urls, before, strict=True):
            ready = reader.get(url)
            assert (ready.status_code, ready.data) == (200, made.data)
            assert ready.headers["Content-Type"] == "image/jpeg"
            assert ready.headers["ETag"] == made.headers["ETag"]
        assert preparer.prepare_due() == 0

    def test_another_size_type_or_frame_is_made_on_request(
        self, stow: Stow, client: FlaskClient, preparer: Preparer
    ) -> None:
        dataset = an_image(GREY)
        stow(dataset)
        preparer.prepare_due()
        url = f"{address(dataset)}/thumbnail"
        assert client.get(url, headers={"Accept": "image/png"}).data.startswith(b"\x89PNG")
        assert client.get(f"{url}?viewport=3,2").data != client.get(url).data
        assert client.get(f"{address(dataset)}/frames/2/thumbnail").status_code == 404

    def test_what_cannot_be_drawn_does_not_hold_up_the_others(
        self, stow: Stow, client: FlaskClient, preparer: Preparer, database: Database
    ) -> None:
        broken = a_slice(pixels=b"\0\0", SeriesInstanceUID="1.2.3.4")
        broken.file_meta.TransferSyntaxUID = JPEG2000Lossless
        broken.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0"
        broken["PixelData"].is_undefined_length = True
        assert stow(broken, a_slice()).status_code == 200
        preparer.prepare_due()
        assert kept(database) == (2, 1)
        assert preparer.prepare_due() == 0
        assert client.get(f"{address(broken)}/thumbnail").status_code == 406

    def test_nobody_sees_it_who_does_not_see_the_study(
        self, app: Flask, stow: Stow, client: FlaskClient, preparer: Preparer
    ) -> None:
        dataset = a_slice()
        stow(dataset)
        preparer.prepare_due()
        app.config["ACCESS"] = an_office("lakeside")
        for path in (f"{address(dataset)}/thumbnail", f"{SERIES}/metadata"):
            assert client.get(path).status_code == 404

    def test_of_a_presentation_state_it_follows_what_it_shows(
        self, stow: Stow, client: FlaskClient, reader: FlaskClient, preparer: Preparer
    ) -> None:
        target = an_image(GREY)
        state = a_state(target)
        stow(target, state)
        preparer.prepare_due()
        with_image = reader.get(f"{address(state)}/thumbnail").data
        client.delete(address(target))
        without = client.get(f"{address(state)}/thumbnail").data
        assert without != with_image
        preparer.prepare_due()
        assert reader.get(f"{address(state)}/thumbnail").data == without


class TestMetadata:
    def test_it_is_what_is_read_on_request(
        self, stow: Stow, client: FlaskClient, preparer: Preparer, database: Database
    ) -> None:
        stow(*[a_slice(InstanceNumber=number) for number in (3, 1, 2)])
        before = client.get(f"{SERIES}/metadata")
        preparer.prepare_due()
        after = client.get(f"{SERIES}/metadata")
        assert after.data == before.data
        assert after.headers["ETag"] == before.headers["ETag"]
        assert [one["00200013"]["Value"] for one in after.json or []] == [[1], [2], [3]]
        compressed = client.get(f"{SERIES}/metadata", headers={"Accept-Encoding": "gzip"})
        assert compressed.headers["Content-Encoding"] == "gzip"
        assert compressed.data == database[METADATA].find_one({})["gzip"]  # type: ignore[index]
        assert gzip.decompress(compressed.data) == before.data

    def test_what_comes_later_is_in_it(self, stow: Stow, client: FlaskClient, preparer: Preparer) -> None:
        stow(a_slice())
        preparer.prepare_due()
        stow(a_slice(InstanceNumber=2))
        assert len(client.get(f"{SERIES}/metadata").json or []) == 2
        preparer.prepare_due()
        assert len(client.get(f"{SERIES}/metadata").json or []) == 2

    def test_it_names_the_address_of_now(self, stow: Stow, prepared: Prepared, preparer: Preparer) -> None:
        stow(a_slice())
        study = prepared.due(NOW.replace(year=2999))[0]
        preparer.prepare_due()
        series = SERIES.rpartition("/")[2]
        assert prepared.metadata(study.state, STUDY, series, BASE) is not None
        assert prepared.metadata(study.state, STUDY, series, "https://elsewhere.example/dicomweb") is None


class TestGoing:
    def test_it_goes_with_the_instance_and_with_the_study(
        self, stow: Stow, client: FlaskClient, preparer: Preparer, database: Database
    ) -> None:
        one, other = a_slice(), a_slice(InstanceNumber=2)
        stow(one, other)
        preparer.prepare_due()
        assert kept(database) == (1, 2)
        client.delete(address(one))
        assert kept(database) == (0, 1)
        assert client.get(f"{address(one)}/thumbnail").status_code == 410
        preparer.prepare_due()
        assert kept(database) == (1, 1)
        client.delete(f"/dicomweb/studies/{STUDY}")
        assert kept(database) == (0, 0)

    def test_it_goes_with_a_correction_and_comes_again(
        self,
        stow: Stow,
        client: FlaskClient,
        store: DicomStore,
        blobs: BlobStore,
        preparer: Preparer,
        database: Database,
    ) -> None:
        one, other = a_slice(), a_slice(StudyInstanceUID=OTHER, SeriesInstanceUID="1.2.3.4")
        stow(one, other)
        preparer.prepare_due()
        assert kept(database) == (2, 2)
        corrections = Corrections(store, blobs, lambda: NOW, lambda _act: None)
        corrections.assign(SYSTEM.subject, STUDY, store.state(STUDY), PATIENT, None)
        assert kept(database) == (1, 1)
        assert (client.get(f"{SERIES}/metadata").json or [])[0]["00100020"]["Value"] == ["MRN-1"]
        preparer.prepare_due()
        assert kept(database) == (2, 2)
        assert (client.get(f"{SERIES}/metadata").json or [])[0]["00100020"]["Value"] == ["MRN-1"]
        corrections.merge(SYSTEM.subject, STUDY, store.state(STUDY), OTHER, store.state(OTHER))
        assert kept(database) == (0, 1)  # the thumbnail of the instance that was there
        preparer.prepare_due()
        assert kept(database) == (2, 2)

    def test_of_a_study_that_changes_meanwhile_nothing_is_kept(
        self, stow: Stow, client: FlaskClient, prepared: Prepared, database: Database
    ) -> None:
        dataset = a_slice()
        stow(dataset)
        (study,) = prepared.due(NOW.replace(year=2999))
        client.delete(address(dataset))
        made = SeriesMetadata.of(BASE, b"[]")
        picture = Thumbnail(dataset.SeriesInstanceUID, dataset.SOPInstanceUID, "key", b"jpeg")
        assert not prepared.keep(study, {dataset.SeriesInstanceUID: made}, [picture])
        assert kept(database) == (0, 0)


def test_the_job_prepares_what_is_stored_while_it_runs(
    stow: Stow, preparer: Preparer, prepared: Prepared, database: Database
) -> None:
    stop = threading.Event()
    job = threading.Thread(target=preparer.run, args=(stop,))
    job.start()
    try:
        stow(a_slice())
        with database["dicom_studies"].watch(max_await_time_ms=100) as changes:
            while database["dicom_studies"].find_one({"unprepared": {"$exists": True}}):
                changes.try_next()
    finally:
        stop.set()
        job.join()
    assert kept(database) == (1, 1)


def test_what_a_worker_leaves_when_it_stops_the_next_one_does(
    stow: Stow, preparer: Preparer, store: DicomStore, prepared: Prepared, blobs: BlobStore, database: Database
) -> None:
    stow(a_slice(), a_slice(InstanceNumber=2))
    stop = threading.Event()

    class Stopping(PixelPool):
        """The worker is asked to stop while it draws the first picture."""

        def run(self, *_arguments: object) -> bytes:  # type: ignore[override]
            stop.set()
            return b"jpeg"

    Preparer(store, prepared, blobs, Stopping(1), BASE).run(stop)
    assert kept(database) == (1, 1)
    assert preparer.prepare_due() == 1
    assert kept(database) == (1, 2)
