"""Every file of the large corpus, real and malformed, through the whole service."""

import json
from collections import Counter
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dicomweb.projection import Projector
from fhir_server.repository import Repository
from tests.dicomweb.conftest import PRACTICE, Stow

# Address below an instance, and what is accepted there.
READS = (
    ("frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*"),
    ("frames/1", "*/*"),
    ("rendered", "image/png"),
    ("thumbnail", "image/jpeg"),
)
REASONS = {0x0111, 0x0122, 0xA900, 0xC000}


@pytest.fixture(scope="module")
def corpus(shared_data: Path) -> list[tuple[str, bytes]]:
    folder = shared_data / "dicom"
    index = json.loads((folder / "index.json").read_text())["files"]
    return [(entry["file"], (folder / entry["file"]).read_bytes()) for entry in index]


def test_every_file_is_stored_or_refused_with_a_reason_and_what_is_stored_can_be_read(
    corpus: list[tuple[str, bytes]],
    stow: Stow,
    client: FlaskClient,
    projector: Projector,
    repository: Repository,
) -> None:
    statuses: Counter[int] = Counter()
    for name, file in corpus:
        answer = stow(file)
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 202, 409), name
        if answer.status_code == 409:
            (failure,) = answer.json["00081198"]["Value"]
            assert failure["00081197"]["Value"][0] in REASONS, name
            continue
        url = answer.json["00081199"]["Value"][0]["00081190"]["Value"][0].partition("127.0.0.1:8080")[2]
        (metadata,) = client.get(f"{url}/metadata").json
        assert metadata["00080018"]["Value"][0] in url, name
        has_pixels = any(tag in metadata for tag in ("7FE00008", "7FE00009", "7FE00010"))
        # One slice of the long series stands for the others, which are alike.
        for path, accept in READS if "breast-rt/ct-" not in name or "ct-001" in name else READS[:1]:
            got = client.get(f"{url}/{path}", headers={"Accept": accept})
            assert got.status_code in (200, 406), (name, path, accept, got.status_code)
            assert got.status_code == 406 or has_pixels, name
        assert client.get(url).data.count(file) == 1, name
    assert statuses[200] > 250
    while projector.project_due():
        pass
    studies = client.get("/dicomweb/studies").json
    found = repository.search(PRACTICE, "ImagingStudy", "_summary=count", strict=True)
    assert found.total == len(studies) > 50
    assert len(client.get("/dicomweb/instances?limit=10000").json) == statuses[200] + statuses[202]
