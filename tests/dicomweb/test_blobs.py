"""The blob store: durable, by key, nothing of a client's in a path."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomweb.blobs import BlobMissing, BlobStore, FolderBlobStore, blob_key, is_full
from fhir_server.errors import TooLarge

KEY = blob_key("1.2", "1.2.3", "1.2.3.4", "0" * 64)
OTHER = blob_key("1.2", "1.2.3", "1.2.3.5", "0" * 64)


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """Each test here is of both stores."""
    return request.getfixturevalue("s3_blobs") if request.param == "s3" else FolderBlobStore(tmp_path / "blobs")


def kept(blobs: BlobStore, data: bytes, key: str = KEY) -> None:
    blobs.keep([(blobs.spool([data], 1 << 30), key)])


def test_an_object_is_there_under_its_key_whole_or_in_ranges(blobs: BlobStore) -> None:
    kept(blobs, b"0123456789")
    assert blobs.size(KEY) == 10
    assert b"".join(blobs.chunks(KEY)) == b"0123456789"
    assert b"".join(blobs.chunks(KEY, 2, 3)) == blobs.read(KEY, 2, 3) == b"234"
    with blobs.open(KEY) as file:
        file.seek(4)
        assert file.read() == b"456789"


def test_the_first_object_under_a_key_stays(blobs: BlobStore) -> None:
    kept(blobs, b"first")
    kept(blobs, b"other")
    assert b"".join(blobs.chunks(KEY)) == b"first"


def test_what_is_missing_or_too_short_is_told(blobs: BlobStore) -> None:
    kept(blobs, b"short")
    with pytest.raises(BlobMissing):
        blobs.read(KEY, 2, 9)
    with pytest.raises(BlobMissing):
        list(blobs.chunks(KEY, 2, 9))
    blobs.delete(KEY)
    for read in (blobs.size, lambda key: list(blobs.chunks(key)), lambda key: blobs.read(key, 0, 1)):
        with pytest.raises(BlobMissing):
            read(KEY)


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "a" * 65, KEY.upper() + "A"], ids=["none", "path", "long", "capitals"]
)
def test_only_keys_are_keys(blobs: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        blobs.size(key)


def test_a_spool_that_fails_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise RuntimeError

    with pytest.raises(TooLarge):
        blobs.spool([b"x" * 11], 10)
    with pytest.raises(RuntimeError):
        blobs.spool(broken(), 10)
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_what_would_take_the_reserve_of_the_disk_is_refused(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the begin of an object and, in a large one, on the way."""
    free = [2000, 2000, 999, 999]
    monkeypatch.setattr("dicomweb.blobs.shutil.disk_usage", lambda _: SimpleNamespace(free=free.pop(0)))
    monkeypatch.setattr("dicomweb.blobs.LOOK", 4)
    blobs._reserve = 1000
    blobs.discard(blobs.spool([b"1"], 10))
    for data in ([b"12345", b"6"], [b"1"]):
        with pytest.raises(OSError, match="space") as refused:
            blobs.spool(data, 10)
        assert is_full(refused.value)
    assert (free, list((tmp_path / "blobs" / "incoming").iterdir())) == ([], [])


def test_so_is_what_is_written_here(blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put together, and what is written anew, can be as large as what is received."""
    free = [2000, 2000, 2000, 999, 999]
    monkeypatch.setattr("dicomweb.blobs.shutil.disk_usage", lambda _: SimpleNamespace(free=free.pop(0)))
    monkeypatch.setattr("dicomweb.blobs.LOOK", 100_000)
    blobs._reserve = 1000
    made = blobs.spool_file(lambda file: file.write(b"1" * 150_000), 200_000)
    assert (made.size, made.sha256) == (150_000, hashlib.sha256(b"1" * 150_000).hexdigest())
    blobs.discard(made)
    for data in (b"1" * 150_000, b"1"):
        with pytest.raises(OSError, match="space") as refused:
            blobs.spool_file(lambda file, data=data: file.write(data), 200_000)
        assert is_full(refused.value)
    assert (free, list((tmp_path / "blobs" / "incoming").iterdir())) == ([], [])


def test_what_a_killed_server_left_is_swept_away(blobs: BlobStore, tmp_path: Path) -> None:
    left, running = blobs.spool([b"left"], 10), blobs.spool([b"running"], 10)
    os.utime(left.path, (0, 0))
    blobs.sweep()
    assert [path.name for path in (tmp_path / "blobs" / "incoming").iterdir()] == [running.path.name]
    FolderBlobStore(tmp_path / "none").sweep()


def test_the_keys_of_what_is_kept_are_listed_by_age(blobs: BlobStore) -> None:
    assert list(blobs.keys()) == []
    kept(blobs, b"1")
    kept(blobs, b"2", OTHER)
    assert sorted(blobs.keys()) == sorted([KEY, OTHER])
    assert list(blobs.keys(older_than_s=3600)) == []
    blobs.delete(KEY)
    blobs.delete(KEY)
    assert list(blobs.keys()) == [OTHER]


def test_what_is_kept_is_checked_against_its_key(blobs: BlobStore) -> None:
    data = b"as it was sent"
    key = blob_key("1.2", "1.2.3", "1.2.3.4", hashlib.sha256(data).hexdigest())
    kept(blobs, data, key)
    kept(blobs, b"something else", OTHER)
    assert blobs.is_intact(key)
    assert not blobs.is_intact(OTHER)


def test_many_objects_and_one_of_several_parts_are_kept_at_once(blobs: BlobStore, tmp_path: Path) -> None:
    large = os.urandom(11 * 2**20 + 1)
    contents = {blob_key("1.2", "1.2.3", f"1.2.3.{n}", "0" * 64): bytes([n]) * n for n in range(20)} | {KEY: large}
    blobs.keep([(blobs.spool([data], 1 << 30), key) for key, data in contents.items()])
    assert {key: b"".join(blobs.chunks(key)) for key in sorted(blobs.keys())} == contents
    assert blobs.read(KEY, 5 * 2**20 - 3, 10) == large[5 * 2**20 - 3 :][:10]
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_a_folder_is_made_sure_of_by_each_process_once_whoever_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        "dicomweb.blobs._sync_folder", lambda folder: synced.append(str(folder.relative_to(tmp_path)))
    )
    outer, inner = f"objects/{KEY[:2]}", f"objects/{KEY[:2]}/{KEY[2:4]}"
    for _process in range(2):
        blobs = FolderBlobStore(tmp_path)
        synced.clear()
        kept(blobs, b"first", blob_key("1.2", "1.2.3", "1.2.3.4", "0" * 64))
        assert sorted(synced) == [".", "objects", outer, inner]
        synced.clear()
        kept(blobs, b"other", blob_key("1.2", "1.2.3", "1.2.3.4", "1" * 64))
        assert synced == [inner]
