"""Orthanc's DICOMweb plugin, as Debian ships it, as a client with a token: it sends, searches, fetches, deletes."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import requests
from flask import Flask, abort, request
from flask.testing import FlaskClient

from tests.dicomweb.conftest import CT_SERIES

ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_S = 30
TOKEN = "Bearer of-the-practice"

pytestmark = pytest.mark.skipif(
    ORTHANC is None or not PLUGIN.exists(), reason="apt-get install orthanc orthanc-dicomweb"
)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def client(app: Flask, client: FlaskClient) -> FlaskClient:
    """Of a service that is closed without a token."""

    @app.before_request
    def let_in() -> None:
        if request.headers.get("Authorization") != TOKEN:
            abort(401)

    client.environ_base["HTTP_AUTHORIZATION"] = TOKEN
    return client


@pytest.fixture
def orthanc(client: FlaskClient, tmp_path: Path, served: str) -> Iterator[str]:
    """Its address; it knows this service as `radloop`, with a token, and as `stranger` without one."""
    port, dicom_port = _free_port(), _free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "HttpPort": port,
        "DicomPort": dicom_port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {
            "Enable": True,
            "Servers": {
                "radloop": {"Url": f"{served}/", "HasDelete": True, "HttpHeaders": {"Authorization": TOKEN}},
                "stranger": {"Url": f"{served}/"},
            },
        },
    }
    file = tmp_path / "orthanc.json"
    file.write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(file)], stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/dicom-web/servers", process)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, "Orthanc has ended"
        try:
            if requests.get(url, timeout=2).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("Orthanc does not answer")


def test_it_sends_searches_and_fetches(orthanc: str, client: FlaskClient) -> None:
    files = [path.read_bytes() for path in sorted(CT_SERIES.glob("*.dcm"))]
    first = pydicom.dcmread(CT_SERIES / "ct-1.dcm", stop_before_pixels=True)
    study = first.StudyInstanceUID
    ids = []
    for file in files:
        ids.append(requests.post(f"{orthanc}/instances", data=file, timeout=30).json()["ID"])

    refused = requests.post(
        f"{orthanc}/dicom-web/servers/stranger/stow", json={"Resources": ids, "Synchronous": True}, timeout=60
    )
    assert refused.status_code != 200
    assert client.get(f"/dicomweb/studies/{study}").status_code == 404

    sent = requests.post(
        f"{orthanc}/dicom-web/servers/radloop/stow",
        json={"Resources": ids, "Synchronous": True},
        timeout=60,
    )
    assert sent.status_code == 200, sent.text
    here = client.get(f"/dicomweb/studies/{study}").data
    assert all(file in here for file in files)

    query = {"Uri": "/studies", "Arguments": {"PatientID": str(first.PatientID), "includefield": "StudyDescription"}}
    found = requests.post(f"{orthanc}/dicom-web/servers/radloop/qido", json=query, timeout=30)
    assert found.status_code == 200, found.text
    assert study in found.text

    for id in ids:
        requests.delete(f"{orthanc}/instances/{id}", timeout=30)
    assert requests.get(f"{orthanc}/instances", timeout=30).json() == []
    fetched = requests.post(
        f"{orthanc}/dicom-web/servers/radloop/retrieve",
        json={"Resources": [{"Study": study}], "Synchronous": True},
        timeout=60,
    )
    assert fetched.status_code == 200, fetched.text
    back = requests.get(f"{orthanc}/instances", timeout=30).json()
    stored = {requests.get(f"{orthanc}/instances/{id}/file", timeout=30).content for id in back}
    assert stored == set(files)

    metadata = requests.post(
        f"{orthanc}/dicom-web/servers/radloop/get",
        json={"Uri": f"/studies/{study}/metadata", "HttpHeaders": {"Accept": "application/dicom+json"}},
        timeout=30,
    )
    assert len(metadata.json()) == len(files)
    removed = requests.post(
        f"{orthanc}/dicom-web/servers/radloop/delete", json={"Level": "Study", "StudyInstanceUID": study}, timeout=30
    )
    assert removed.status_code == 200, removed.text
    assert client.get(f"/dicomweb/studies/{study}").status_code == 410
