"""The processes that decode: bounded, killed when they take too long, gone with the server."""

import os
import pickle
import queue
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless
from pymongo.database import Database

from dicomweb import pixels
from dicomweb.blobs import BlobMissing, BlobStore
from dicomweb.frames import FrameTable
from dicomweb.pixels import EncodedFrame, FrameFile
from dicomweb.pool import PixelPool
from dicomweb.store import DicomStore
from fhir_server.errors import NotAcceptable, Unavailable
from fhir_server.repository import Repository
from radloop.imaging import create_imaging
from radloop.settings import Settings
from tests.dicomweb.conftest import Stow, a_slice, an_app, stow_to
from tests.dicomweb.test_wado import content

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


class TestAnswersOfSeveral:
    """An answer that has begun with 200 ends, whatever else is asked of the pool meanwhile, or is broken."""

    SERIES = "/dicomweb/studies/{0.StudyInstanceUID}/series/{0.SeriesInstanceUID}"

    @pytest.fixture
    def narrow(self, store: DicomStore, blobs: BlobStore) -> Iterator[tuple[FlaskClient, PixelPool]]:
        """A service whose pool has room for one task."""
        pool = PixelPool(1, threads=1)
        yield an_app(store, blobs, pool).test_client(), pool
        pool.close()

    @pytest.mark.parametrize(
        ("path", "accept"),
        [
            ("/rendered", "multipart/related; type=image/png"),
            ("", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90'),
            ("/instances/1.2.3.1/frames/1,2,3", "multipart/related; type=image/jp2"),
        ],
    )
    def test_it_keeps_its_place_to_the_end(
        self, narrow: tuple[FlaskClient, PixelPool], path: str, accept: str
    ) -> None:
        client, pool = narrow
        slices = [a_slice(SOPInstanceUID=f"1.2.3.{number}", InstanceNumber=number) for number in (1, 2, 3)]
        slices[0].NumberOfFrames, slices[0].PixelData = 3, slices[0].PixelData * 3
        stow_to(client)(*slices)

        url = self.SERIES.format(slices[0]) + path
        answer = client.get(url, headers={"Accept": accept}, buffered=False)
        assert answer.status_code == 200
        with pytest.raises(Unavailable):  # the only place is taken, by the answer that is being read
            pool.decoded(FRAME)
        assert len(content(answer)) == 3
        answer.close()
        assert pool.decoded(FRAME) == bytes(8)

    def test_the_place_of_a_client_that_has_gone_is_free(self, narrow: tuple[FlaskClient, PixelPool]) -> None:
        client, pool = narrow
        slices = [a_slice(SOPInstanceUID=f"1.2.{number}", InstanceNumber=number) for number in (2, 3)]
        stow_to(client)(*slices)
        url = self.SERIES.format(slices[0]) + "/rendered"
        for ask in (client.get, client.head):
            answer = ask(url, headers={"Accept": "multipart/related; type=image/png"}, buffered=False)
            assert answer.status_code == 200
            answer.close()  # as a server does when it cannot send any more
            assert pool.decoded(FRAME) == bytes(8)
        refused = self.SERIES.format(slices[0]) + "/instances/1.2.2/frames/1,9/rendered"
        assert client.get(refused, headers={"Accept": "multipart/related; type=image/png"}).status_code == 404
        assert pool.decoded(FRAME) == bytes(8)

    def test_a_picture_that_cannot_be_made_is_a_card_among_the_others(self, stow: Stow, client: FlaskClient) -> None:
        slices = [a_slice(InstanceNumber=number) for number in (1, 3)]
        broken = a_slice(
            InstanceNumber=2, TransferSyntaxUID=JPEG2000Lossless, pixels=encapsulate([b"\xff\x4f\xff\x51 no image"])
        )
        broken["PixelData"].is_undefined_length = True
        assert stow(*slices, broken).status_code == 200
        url = self.SERIES.format(slices[0]) + "/rendered"
        answer = client.get(url, headers={"Accept": "multipart/related; type=image/png"})
        sizes = [Image.open(BytesIO(made)).size for _, made in content(answer)]
        assert sizes == [(4, 3), (640, 480), (4, 3)]

    def test_a_frame_that_is_not_there_is_told_before(self, stow: Stow, client: FlaskClient) -> None:
        image = a_slice(NumberOfFrames=2)
        image.PixelData *= 2
        stow(image)
        url = f"{self.SERIES.format(image)}/instances/{image.SOPInstanceUID}/frames"
        accept = {"Accept": "multipart/related; type=image/png"}
        assert len(content(client.get(f"{url}/2,1/rendered", headers=accept))) == 2
        assert client.get(f"{url}/1,3,2/rendered", headers=accept).status_code == 404
