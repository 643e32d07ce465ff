"""`radloop check dicom`: objects, index and ImagingStudies say the same, or it is told where not."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pymongo.database import Database

from dicomweb.blobs import BlobStore
from dicomweb.check import Report, check
from dicomweb.projection import Projector
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from fhir_server.repository import Repository
from tests.dicomweb.conftest import PRACTICE, Stow, a_slice, file_of
from tests.dicomweb.test_delete import project

STUDY = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
def two(stow: Stow, projector: Projector) -> list[Dataset]:
    slices = [a_slice(), a_slice(InstanceNumber=2, SeriesInstanceUID="1.2.3.4")]
    assert stow(*slices).status_code == 200
    project(projector)
    return slices


@pytest.fixture
def look(store: DicomStore, blobs: BlobStore, repository: Repository):
    def at(**options: object) -> Report:
        return check(store, blobs, repository, **options)

    return at


def objects(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "blobs" / "objects").rglob("*") if path.is_file())


def test_a_store_in_order_has_no_fault(two: list[Dataset], look, tmp_path: Path) -> None:
    report = look(older_s=0)
    assert (report.studies, report.instances, report.faults, report.orphans) == (1, 2, [], [])
    assert report.bytes == sum(path.stat().st_size for path in objects(tmp_path))


@pytest.mark.parametrize(("damage", "told"), [("missing", "missing"), ("short", "size"), ("changed", "not what")])
def test_an_object_that_is_damaged_is_told(two: list[Dataset], look, tmp_path: Path, damage: str, told: str) -> None:
    path = objects(tmp_path)[0]
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(data[:-1])
    else:
        data[-1] ^= 1
        path.write_bytes(data)
    (fault,) = look().faults
    assert fault.subject == f"ImagingStudy/{imaging_study_id(STUDY)}"
    assert told in fault.text
    assert len(look(checksums=False).faults) == (damage != "changed")


def test_an_imaging_study_that_tells_of_other_images_is_told(
    two: list[Dataset], look, database: Database, repository: Repository
) -> None:
    resource = repository.read(PRACTICE, "ImagingStudy", imaging_study_id(STUDY)).resource()
    resource["series"][0]["instance"][0]["uid"] = "9.9.9"
    repository.update(PRACTICE, resource)
    (fault,) = look().faults
    assert "other images than the 2" in fault.text
    database["dicom_studies"].delete_many({})
    assert [fault.text for fault in look().faults] == ["tells of a study that is not stored"]


def test_what_is_on_its_way_is_no_fault(
    two: list[Dataset], look, stow: Stow, client: FlaskClient, projector: Projector
) -> None:
    stow(a_slice(InstanceNumber=3))
    report = look()
    assert (report.faults, [note.text for note in report.notes]) == ([], ["its ImagingStudy is about to be written"])
    client.delete(f"/dicomweb/studies/{STUDY}")
    assert look().faults == []
    project(projector)
    report = look()
    assert (report.faults, report.notes, report.studies) == ([], [], 0)


def test_a_mended_decimal_string_is_told_with_its_place(look, stow: Stow) -> None:
    slice_ = a_slice()
    slice_.add_new(0x00180050, "LO", "1.2345678901234567")
    assert stow(file_of(slice_).replace(b"\x18\x00\x50\x00LO", b"\x18\x00\x50\x00DS")).status_code == 202
    (note,) = [note for note in look().notes if "decimal" in note.text]
    assert note.text.endswith("at 00180050")


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from pymongo import MongoClient
    from dicomweb import stow
    from dicomweb.blobs import FolderBlobStore
    from dicomweb.multipart import Part
    from dicomweb.store import DicomStore

    uri, name, folder = sys.argv[1:]
    store = DicomStore(MongoClient(uri)[name])
    store.add = lambda _received: os.kill(os.getpid(), signal.SIGKILL)  # after the object, before the index
    part = Part({"content-type": "application/dicom"}, iter([sys.stdin.buffer.read()]))
    stow.store_instances(store, FolderBlobStore(Path(folder)), [part], "application/dicom", None, 1 << 30)
"""


def test_what_a_killed_server_left_is_found_and_what_runs_is_left_alone(
    two: list[Dataset], look, stow: Stow, blobs: BlobStore, mongodb_uri: str, database: Database, tmp_path: Path
) -> None:
    file = file_of(a_slice(InstanceNumber=7))
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), mongodb_uri, database.name, str(tmp_path / "blobs")]
    assert subprocess.run(command, input=file, check=False).returncode == -9
    assert len(objects(tmp_path)) == 3
    assert look().orphans == []  # it might belong to a request that is running
    (orphan,) = look(older_s=0).orphans
    assert look(older_s=0).faults == []
    assert stow(file).status_code == 200  # sent again, it is another object
    blobs.delete(orphan)
    report = look(older_s=0)
    assert (report.instances, report.orphans) == (3, [])
    (left,) = [note.text for note in report.notes]
    assert left == "its ImagingStudy is about to be written"
    os.utime(objects(tmp_path)[0], (0, 0))
    assert look().orphans == []
