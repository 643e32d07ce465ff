"""Damaged files: parsed, decoded, recoded and drawn, each is shown or refused with a reason. No crash, no hang.

The damage is drawn from a seed, so that what is found can be found again.
"""

import random
import zlib
from io import BytesIO
from pathlib import Path

import orjson
import pytest

from dicomweb import codecs
from dicomweb.blobs import BlobStore, FolderBlobStore
from dicomweb.bulk import reader
from dicomweb.failures import StoreFailure
from dicomweb.instance import read_instance
from dicomweb.pool import PixelPool
from dicomweb.records import StoredInstance
from dicomweb.render import Rendering
from dicomweb.transcode import transcode
from dicomweb.views import Views
from dicomweb.wado import encoded_frames
from fhir_server.errors import FhirError, NotAcceptable, NotFound
from tests.dicomweb.conftest import DATA, file_of
from tests.dicomweb.test_pictures import a_report
from tests.dicomweb.test_presentation import GREY, a_state, an_image
from tests.dicomweb.test_wado import mr

BROKEN_POOL = "too long or too much memory"
SYNTAXES = sorted(codecs.ENCODED - {codecs.JPEG_BASELINE})


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    """One small object of each kind: every encoding that there is, a report, a presentation state."""
    files = [file.read_bytes() for file in sorted(DATA.glob("*.dcm")) if file.stat().st_size < 100_000]
    pool = PixelPool(1)
    try:
        files += [_in(syntax, pool) for syntax in SYNTAXES if syntax not in codecs.LOSSY]
    finally:
        pool.close()
    return [*files, file_of(a_report()), file_of(a_state(an_image(GREY)))]


def damaged(file: bytes, random_: random.Random) -> bytes:
    """The file with a few bytes changed, cut out, repeated, or numbers made huge."""
    data = bytearray(file)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        if len(data) < 8:
            break
        # Half of the time in the header and the beginning of the pixels, where the structure is.
        at = random_.randrange(random_.choice((len(data), min(len(data), 2000))))
        kind = random_.randrange(6)
        if kind == 0:
            data[at] = random_.randrange(256)
        elif kind == 1:
            data[at : at + 4] = random_.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x01\0\0\0"))
        elif kind == 2:
            del data[at : at + random_.randrange(1, 64)]
        elif kind == 3:
            data[at:at] = data[max(0, at - random_.randrange(64)) : at]
        elif kind == 4:
            del data[at:]
        else:
            data[at] ^= 1 << random_.randrange(8)
    return bytes(data)


def seen(file: bytes, blobs: BlobStore, pool: PixelPool, random_: random.Random) -> str:
    """Parse and show a file as the service does. What became of it; raises what a client must never see."""
    try:
        instance = read_instance(BytesIO(file))
    except StoreFailure:
        return "refused"
    spooled = blobs.spool([file], 2**30)
    key = f"{random_.getrandbits(128):032x}-{random_.getrandbits(128):032x}"
    blobs.keep([(spooled, key)])
    stored = StoredInstance(
        instance.study, instance.series, instance.sop_instance, instance.sop_class, instance.transfer_syntax, key,
        instance.frames, instance.inflated_from, zlib.compress(orjson.dumps(instance.attributes), 1), instance.bulk,
    )  # fmt: skip

    def load(_series: str, _instance: str) -> StoredInstance:
        raise NotFound("not here")

    outcome = "shown"
    try:
        Views(blobs, pool, load).view(stored, 1, Rendering(annotation=("patient", "technique")))
        target = random_.choice(["1.2.840.10008.1.2.1", *SYNTAXES])
        encoded = encoded_frames(stored) if stored.frames is not None else None
        for _ in transcode(stored, target, reader(blobs, stored), encoded, pool, len(file)):
            pass
    except (NotAcceptable, NotFound) as refusal:
        assert BROKEN_POOL not in str(refusal), "a decoder crashed or did not end"
        outcome = "not shown"
    except FhirError as error:
        assert error.status < 500, error
        outcome = "not shown"
    finally:
        blobs.delete(key)
    return outcome


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_shown_or_refused(seeds: list[bytes], tmp_path: Path, pool: PixelPool, count: int) -> None:
    blobs, outcomes = FolderBlobStore(tmp_path), set()
    for number in range(count):
        random_ = random.Random(number)
        file = damaged(random_.choice(seeds), random_)
        try:
            outcomes.add(seen(file, blobs, pool, random_))
        except BaseException as error:
            error.add_note(f"seed {number}")
            raise
    assert outcomes == {"refused", "shown", "not shown"}


def _in(syntax: str, pool: PixelPool) -> bytes:
    """A small image in that transfer syntax."""
    file = file_of(mr("MR_small"))
    instance = read_instance(BytesIO(file))
    stored = StoredInstance(
        instance.study, instance.series, instance.sop_instance, instance.sop_class, instance.transfer_syntax, "",
        instance.frames, None, zlib.compress(orjson.dumps(instance.attributes)), instance.bulk,
    )  # fmt: skip
    encoded = encoded_frames(stored)
    return b"".join(transcode(stored, syntax, lambda at, n: file[at : at + n], encoded, pool, len(file)))
