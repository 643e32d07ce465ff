"""The processes that decode: bounded, killed when they take too long, gone with the server."""

import os
import pickle
import queue
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo.database import Database

from dicomweb import pixels
from dicomweb.blobs import BlobMissing
from dicomweb.frames import FrameTable
from dicomweb.pixels import EncodedFrame, FrameFile
from dicomweb.pool import PixelPool
from fhir_server.errors import NotAcceptable, Unavailable
from fhir_server.repository import Repository
from radloop.imaging import create_imaging
from radloop.settings import Settings

FRAME = EncodedFrame(
    bytes(8), False, "1.2.840.10008.1.2", "PixelData", "OW", 2, 2, 1, 16, 16, False, 0, "MONOCHROME2"
)


def test_a_frame_that_takes_too_long_is_given_up() -> None:
    pool = PixelPool(1, timeout_s=0.2)
    try:
        with pytest.raises(NotAcceptable):
            pool.run(time.sleep, 60)
    finally:
        pool.close()


def test_a_process_that_dies_fails_its_own_task_alone(pool: PixelPool) -> None:
    with pytest.raises(NotAcceptable):
        pool.run(os._exit, 1)
    assert pool.decoded(FRAME) == bytes(8)


def test_who_would_wait_too_long_is_told_so() -> None:
    with pytest.raises(Unavailable) as refusal:
        PixelPool(0).decoded(FRAME)  # a pool whose room is taken
    assert refusal.value.headers["Retry-After"]


@pytest.mark.parametrize("threads", [3, 16, 32])
def test_a_third_of_the_web_servers_threads_never_waits_for_pixels(
    threads: int, database: Database, repository: Repository, tmp_path: Path
) -> None:
    settings = Settings(web_threads=threads, pixel_processes=4, data_dir=str(tmp_path))
    pool = create_imaging(database, repository, settings).pool
    outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()
    never_ready: Future[bytes] = Future()

    class Busy:
        """Processes that are not done with anything until the end of the test."""

        def schedule(self, *_: object, **__: object) -> Future[bytes]:
            outcomes.put("waits")
            return never_ready

    def ask() -> None:
        try:
            pool.decoded(FRAME)
        except Unavailable as refusal:
            outcomes.put(f"Retry-After: {refusal.headers['Retry-After']}")

    pool._started = Busy  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(threads) as asking:
        for _ in range(threads):
            asking.submit(ask)
        seen = Counter(outcomes.get(timeout=30) for _ in range(threads))
        never_ready.set_result(b"")
    assert seen == {"waits": threads * 2 // 3, "Retry-After: 2": threads - threads * 2 // 3}
    assert seen["Retry-After: 2"] * 3 >= threads


@pytest.mark.parametrize("size", [(0, 2), (60_000, 60_000)])
def test_absurd_sizes_are_refused_before_memory_is_taken(pool: PixelPool, size: tuple[int, int]) -> None:
    frame = EncodedFrame(
        bytes(8), False, "1.2.840.10008.1.2", "PixelData", "OW", *size, 1, 16, 16, False, 0, "MONOCHROME2"
    )
    with pytest.raises(NotAcceptable):
        pool.decoded(frame)


def test_what_goes_to_a_process_and_back_can_be_sent() -> None:
    assert pickle.loads(pickle.dumps(FRAME)) == FRAME
    assert str(pickle.loads(pickle.dumps(pixels.Undecodable("why")))) == "why"


def a_table() -> FrameTable:
    """Three frames of eight bytes from byte 4 on."""
    return FrameTable(3, 4, 64)


def test_a_frame_is_read_where_it_is_decoded(pool: PixelPool, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"head" + bytes(8) + bytes(range(8)) + bytes(8))
    assert pool.decoded(replace(FRAME, source=FrameFile(path, a_table().only(2), False))) == bytes(range(8))


def test_an_object_that_is_gone_or_cut_short_is_missing(pool: PixelPool, tmp_path: Path) -> None:
    frame = replace(FRAME, source=FrameFile(tmp_path / "object", a_table().only(2), False))
    with pytest.raises(BlobMissing):
        pool.decoded(frame)
    (tmp_path / "object").write_bytes(bytes(15))
    with pytest.raises(BlobMissing):
        pool.decoded(frame)


def test_a_table_of_one_frame_alone() -> None:
    data = b"head" + bytes(range(24))
    assert a_table().only(3).read(1, lambda offset, length: data[offset : offset + length]) == data[20:]
    for number in (0, 4):
        with pytest.raises(IndexError):
            a_table().only(number)
    with pytest.raises(ValueError, match="2"):  # begins inside a byte
        FrameTable(3, 4, 12).only(2)


@pytest.mark.parametrize(("idle", "policy"), [(False, os.SCHED_BATCH), (True, os.SCHED_IDLE)])
def test_requests_go_before_pixels_and_both_before_what_nobody_waits_for(idle: bool, policy: int) -> None:
    pool = PixelPool(1, idle=idle)
    try:
        assert pool.run(os.sched_getscheduler, 0) == policy
        assert pool.run(os.nice, 0) > os.nice(0)
    finally:
        pool.close()
