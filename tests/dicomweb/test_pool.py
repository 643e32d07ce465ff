"""The processes that decode: bounded, killed when they take too long, gone with the server."""

import pickle
import queue
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from pymongo.database import Database

from dicomweb import pixels
from dicomweb.pixels import EncodedFrame
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
    import os

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
