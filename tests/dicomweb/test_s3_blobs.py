"""DICOMweb over an S3 server: what is stored comes back, and a store that fails is told and leaves nothing."""

import signal
import subprocess
import sys
import textwrap
from io import BytesIO
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

from dicomweb import s3_blobs as module
from dicomweb.blobs import FolderBlobStore, blob_key
from dicomweb.check import check
from dicomweb.s3_blobs import S3BlobStore
from dicomweb.store import DicomStore
from fhir_server.errors import Unavailable
from fhir_server.repository import Repository
from tests.dicomweb.conftest import Stow, a_slice, file_of
from tests.dicomweb.s3 import S3Server


@pytest.fixture
def blobs(s3_blobs: S3BlobStore) -> S3BlobStore:
    return s3_blobs


def uploaded(s3: S3Server, blobs: S3BlobStore) -> list[str]:
    found = s3.client().list_objects_v2(Bucket=blobs.bucket)
    return [one["Key"] for one in found.get("Contents", ())]


def test_instance_and_frame_come_back_as_stored(stow: Stow, client: FlaskClient, blobs: S3BlobStore) -> None:
    slice = a_slice()
    assert stow(slice).status_code == 200
    series = f"/dicomweb/studies/{slice.StudyInstanceUID}/series/{slice.SeriesInstanceUID}"
    address = f"{series}/instances/{slice.SOPInstanceUID}"
    whole = client.get(address, headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert whole.data == file_of(slice)
    frame = client.get(f"{address}/frames/1", headers={"Accept": "application/octet-stream"})
    assert frame.data == slice.PixelData
    assert client.get(f"{address}/rendered").status_code == 200
    assert client.delete(address).status_code == 204
    assert list(blobs.keys()) == []


def test_a_store_that_fails_gives_503_and_nothing_is_stored(
    stow: Stow, store: DicomStore, blobs: S3BlobStore, s3: S3Server, tmp_path: Path
) -> None:
    slice = a_slice()
    s3.client().delete_bucket(Bucket=blobs.bucket)
    answer = stow(slice)
    assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)
    assert answer.get_json(force=True)["issue"][0]["code"] == "transient"
    assert store.known([slice.SOPInstanceUID]) == {}
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
    s3.client().create_bucket(Bucket=blobs.bucket)
    assert stow(slice).status_code == 200


def test_a_request_of_which_one_upload_fails_leaves_no_object(
    s3: S3Server, blobs: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = S3BlobStore._upload

    def fails(self, item, key):
        if key == keys[2]:
            raise Unavailable("no answer")
        upload(self, item, key)

    keys = [blob_key("1.2", "1.2.3", f"1.2.3.{n}", "0" * 64) for n in range(4)]
    monkeypatch.setattr(S3BlobStore, "_upload", fails)
    with pytest.raises(Unavailable):
        blobs.keep([(blobs.spool([b"x"], 10), key) for key in keys])
    assert uploaded(s3, blobs) == []


def test_a_store_that_does_not_answer_is_unavailable(
    s3: S3Server, blobs: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONFIG", {"read_timeout": 0.2, "retries": {"max_attempts": 1}})
    with s3.silent(), pytest.raises(Unavailable):
        blobs.size(blob_key("1.2", "1.2.3", "1.2.3.4", "0" * 64))


def test_a_listing_of_several_pages_is_whole(s3: S3Server, blobs: S3BlobStore) -> None:
    keys = {blob_key("1.2", "1.2.3", f"1.2.3.{n}", "0" * 64) for n in range(1001)}
    client = s3.client()
    for key in keys:
        client.put_object(Bucket=blobs.bucket, Key=f"a/practice/objects/{key[:2]}/{key}", Body=b"x")
    client.put_object(Bucket=blobs.bucket, Key="a/practice/objects-of-others", Body=b"x")
    listed = list(blobs.keys())
    assert (len(listed), set(listed)) == (1001, keys)


def test_an_upload_that_a_killed_server_began_is_ended(
    s3: S3Server, blobs: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3.client()
    for key in ("a/practice/objects/00/left", "of/somebody/else"):
        client.create_multipart_upload(Bucket=blobs.bucket, Key=key)
    monkeypatch.setattr(module, "ABANDONED_S", 100 * 365 * 86400)  # the server of the test says 2010 of each upload
    blobs.sweep()
    assert len(client.list_multipart_uploads(Bucket=blobs.bucket)["Uploads"]) == 2, "they may still be running"
    monkeypatch.undo()
    blobs.sweep()
    assert [one["Key"] for one in client.list_multipart_uploads(Bucket=blobs.bucket)["Uploads"]] == [
        "of/somebody/else"
    ]


def test_the_check_finds_damage_and_orphans(
    stow: Stow, store: DicomStore, blobs: S3BlobStore, repository: Repository, s3: S3Server, database: Database
) -> None:
    assert stow(a_slice(), a_slice(InstanceNumber=2), a_slice(InstanceNumber=3)).status_code == 200
    missing, changed, _ = sorted(uploaded(s3, blobs))
    client = s3.client()
    size = client.head_object(Bucket=blobs.bucket, Key=changed)["ContentLength"]
    client.delete_object(Bucket=blobs.bucket, Key=missing)
    client.put_object(Bucket=blobs.bucket, Key=changed, Body=BytesIO(bytes(size)))
    orphan = blob_key("1.2", "1.2.3", "1.2.3.4", "0" * 64)
    blobs.keep([(blobs.spool([b"left by a kill"], 100), orphan)])
    report = check(store, blobs, repository, older_s=0)
    assert sorted(fault.text.partition(": ")[2] for fault in report.faults) == [
        "its object is missing",
        "its object is not what was stored",
    ]
    assert report.orphans == [orphan]


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from pymongo import MongoClient
    from dicomweb import stow
    from dicomweb.multipart import Part
    from dicomweb.s3_blobs import S3BlobStore
    from dicomweb.store import DicomStore

    uri, name, address, folder = sys.argv[1:]
    store = DicomStore(MongoClient(uri)[name])
    store.add = lambda _received: os.kill(os.getpid(), signal.SIGKILL)  # after the object, before the index
    part = Part({"content-type": "application/dicom"}, iter([sys.stdin.buffer.read()]))
    blobs = S3BlobStore(address, Path(folder))
    stow.store_instances(store, blobs, [part], "application/dicom", None, 1 << 30)
"""


def test_what_a_killed_server_left_is_an_orphan_and_no_fault(
    store: DicomStore,
    blobs: S3BlobStore,
    repository: Repository,
    stow: Stow,
    mongodb_uri: str,
    database: Database,
    tmp_path: Path,
) -> None:
    file, address = file_of(a_slice()), f"s3://{blobs.bucket}/a/practice"
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), mongodb_uri, database.name, address, str(tmp_path)]
    assert subprocess.run(command, input=file, check=False).returncode == -signal.SIGKILL
    assert check(store, blobs, repository).orphans == []  # it might belong to a request that is running
    report = check(store, blobs, repository, older_s=0)
    (orphan,) = report.orphans
    assert report.faults == []
    assert stow(file).status_code == 200  # sent again, it is another object
    blobs.delete(orphan)
    report = check(store, blobs, repository, older_s=0)
    assert (report.instances, report.orphans) == (1, [])


def test_the_setting_names_the_store(s3_blobs: S3BlobStore, tmp_path: Path) -> None:
    from radloop.imaging import _blobs
    from radloop.settings import BadSettings, Settings

    assert isinstance(_blobs(Settings(data_dir=str(tmp_path))), FolderBlobStore)
    assert isinstance(_blobs(Settings.from_env({"RADLOOP_BLOBS": "s3://bucket/prefix"})), S3BlobStore)
    for wrong in ("bucket", "s3://", "http://bucket/x", "s3://B", "s3://bucket/../x y"):
        with pytest.raises(BadSettings, match="RADLOOP_BLOBS"):
            Settings.from_env({"RADLOOP_BLOBS": wrong})
