"""The processes that decode: bounded, killed when they take too long, gone with the server."""

import pickle
import time

import pytest

from dicomweb import pixels
from dicomweb.pixels import EncodedFrame
from dicomweb.pool import PixelPool
from fhir_server.errors import NotAcceptable, Unavailable

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
