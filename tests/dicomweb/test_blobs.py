"""The blob store: durable, by key, nothing of a client's in a path."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomweb.blobs import BlobMissing, BlobStore, blob_key
from fhir_server.errors import TooLarge

KEY = blob_key("1.2", "1.2.3", "1.2.3.4", "0" * 64)


def kept(blobs: BlobStore, data: bytes, key: str = KEY) -> None:
    blobs.keep([(blobs.spool([data], 1000), key)])


def test_an_object_is_there_under_its_key_whole_or_in_ranges(blobs: BlobStore) -> None:
    kept(blobs, b"0123456789")
    assert blobs.size(KEY) == 10
    assert b"".join(blobs.chunks(KEY)) == b"0123456789"
    assert b"".join(blobs.chunks(KEY, 2, 3)) == blobs.read(KEY, 2, 3) == b"234"
    with blobs.open(KEY) as file:
        file.seek(9)
        assert file.read() == b"9"


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


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 65, KEY.upper() + "A"])
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


def test_what_a_killed_server_left_is_swept_away(blobs: BlobStore, tmp_path: Path) -> None:
    import os

    left, running = blobs.spool([b"left"], 10), blobs.spool([b"running"], 10)
    os.utime(left.path, (0, 0))
    blobs.sweep()
    assert [path.name for path in (tmp_path / "blobs" / "incoming").iterdir()] == [running.path.name]
    BlobStore(tmp_path / "none").sweep()
