"""A DICOMweb service over an empty store, with an Access of the test's choice, and builders for DICOM files."""

import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from flask import Flask, g
from flask.testing import FlaskClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pymongo.database import Database
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from dicomweb import routes, wado_uri
from dicomweb.blobs import BlobStore, FolderBlobStore
from dicomweb.pool import PixelPool
from dicomweb.projection import Projector, ensure_endpoint
from dicomweb.s3_blobs import S3BlobStore
from dicomweb.store import DicomStore
from fhir_server import http
from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.dicomweb.s3 import S3Server, s3_server

DATA = Path(__file__).resolve().parents[1] / "data" / "dicom"
CT_SERIES = Path(__file__).resolve().parents[2] / "radloop" / "data" / "dicom" / "ct-series"
BASE = "http://127.0.0.1:8080/dicomweb"
PRACTICE = Access.system("test")
IMAGES = (Scope("user", "ImagingStudy", "cruds"),)
QUIET_S = 0.0  # tests decide themselves when to look


def an_office(name: str) -> Access:
    """A client of a referring organization."""
    return Access(f"client:{name}", IMAGES, frozenset({f"@Organization/{name}"}), organization=f"Organization/{name}")


def a_slice(**values: Any) -> Dataset:
    """A CT image of 4 x 3 pixels, -1000, -910, ... in rescaled units; `values` replace what it says."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = values.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    ordinary = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.1.1",
        "StudyDate": "20240131",
        "StudyTime": "101530",
        "Modality": "CT",
        "PatientName": "Doe^Jane",
        "PatientID": "P-1",
        "AccessionNumber": "ACC1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Rows": 3,
        "Columns": 4,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "-1000",
        "RescaleSlope": "1",
    }
    pixels = values.pop("pixels", np.arange(0, 12 * 90, 90, dtype="<i2"))
    for keyword, value in (ordinary | values).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if pixels is not None:
        dataset.PixelData = pixels.tobytes() if isinstance(pixels, np.ndarray) else pixels
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    return dataset


def file_of(dataset: Dataset) -> bytes:
    """The data set as a DICOM file."""
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def message(*files: bytes, boundary: str = "boundary-of-the-test", media_type: str = "application/dicom") -> bytes:
    """A STOW-RS request body."""
    parts = [f"--{boundary}\r\nContent-Type: {media_type}\r\n\r\n".encode() + file + b"\r\n" for file in files]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


CONTENT_TYPE = 'multipart/related; type="application/dicom"; boundary="boundary-of-the-test"'
Stow = Callable[..., TestResponse]


@pytest.fixture
def store(database: Database) -> DicomStore:
    return DicomStore(database, quiet_s=QUIET_S)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return FolderBlobStore(tmp_path / "blobs")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    values = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (values | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3_blobs(s3: S3Server, tmp_path: Path) -> S3BlobStore:
    """In a bucket of its own."""
    bucket = f"images-{secrets.token_hex(8)}"
    s3.client().create_bucket(Bucket=bucket)
    return S3BlobStore(f"s3://{bucket}/a/practice", tmp_path / "blobs" / "incoming")


@pytest.fixture(scope="session")
def pool() -> Iterator[PixelPool]:
    pool = PixelPool(1)
    yield pool
    pool.close()


def an_app(store: DicomStore, blobs: BlobStore, pool: PixelPool) -> Flask:
    """The service as an app whose caller is `config["ACCESS"]`."""
    app = Flask("test")
    http.install(app)
    app.config["ACCESS"] = PRACTICE

    @app.before_request
    def let_in() -> None:
        g.access = app.config["ACCESS"]

    app.register_blueprint(routes.create_blueprint(store, blobs, pool, BASE, max_body_mb=64))
    app.register_blueprint(wado_uri.create_blueprint(store, blobs, pool, BASE))
    return app


@pytest.fixture
def app(store: DicomStore, blobs: BlobStore, pool: PixelPool) -> Flask:
    return an_app(store, blobs, pool)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def stow_to(client: FlaskClient) -> Stow:
    """Stores files or data sets there; the response."""

    def send(*files: bytes | Dataset, study: str = "") -> TestResponse:
        body = message(*[file if isinstance(file, bytes) else file_of(file) for file in files])
        return client.post(f"/dicomweb/studies/{study}".rstrip("/"), data=body, content_type=CONTENT_TYPE)

    return send


@pytest.fixture
def stow(client: FlaskClient) -> Stow:
    return stow_to(client)


@pytest.fixture
def served(app: Flask) -> Iterator[str]:
    """The service behind a real HTTP server; its base address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/dicomweb"
    server.shutdown()
    thread.join()


@pytest.fixture
def repository(database: Database) -> Repository:
    repository = Repository(VersionStore(database), "http://127.0.0.1:8080/fhir", lambda: datetime.now(UTC))
    ensure_endpoint(repository, BASE)
    return repository


@pytest.fixture
def projector(store: DicomStore, repository: Repository) -> Projector:
    return Projector(store, repository)
