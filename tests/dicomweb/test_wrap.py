"""Photos, PDFs and films become DICOM objects of the class that is made for them, their content unchanged."""

import struct
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.encaps import generate_frames

from dicomweb.failures import StoreFailure
from dicomweb.wrap import Known, film_of, wrapped
from tests.dicomweb.conftest import Stow
from tests.dicomweb.test_pictures import PDF
from tests.dicomweb.test_rendering import PNG, image
from tests.dicomweb.test_wado import address

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
KNOWN = Known("P-7", "Doe^Jane", "1.2.3.4", "ACC-7")
RAMP = np.add.outer(np.arange(40), np.arange(60)).astype("u1")
COLOURS = np.stack([RAMP * 2, RAMP, 255 - RAMP], axis=-1).astype("u1")


def photo(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">L4s", len(body) + 8, name) + body


def a_film(codec: bytes = b"avc1", level: int = 31) -> bytes:
    """The boxes of an MP4 file of 50 frames in 2 seconds, 640 x 360, behind a sound track."""
    entry = bytes(24) + struct.pack(">HH", 640, 360) + bytes(50) + box(b"avcC", bytes([1, 100, 0, level]))
    stsd = box(b"stsd", bytes(4), struct.pack(">L", 1), box(codec, entry))
    stbl = box(b"stbl", stsd, box(b"stsz", bytes(8), struct.pack(">L", 50)))
    mdhd = box(b"mdhd", bytes(12), struct.pack(">LL", 1000, 2000), bytes(4))
    video = box(b"trak", box(b"mdia", mdhd, box(b"hdlr", bytes(8), b"vide"), box(b"minf", stbl)))
    sound = box(b"trak", box(b"mdia", box(b"mdhd", bytes(24)), box(b"hdlr", bytes(8), b"soun"), box(b"minf")))
    return box(b"ftyp", b"mp42") + box(b"mdat", bytes(1001)) + box(b"moov", sound, video)


def test_a_baseline_jpeg_keeps_its_bytes(stow: Stow, client: FlaskClient) -> None:
    jpeg = photo(COLOURS, "JPEG", quality=90)
    file = wrapped("image/jpeg", jpeg, KNOWN, NOW)
    dataset = pydicom.dcmread(BytesIO(file))
    assert dataset.SOPClassUID.name == "VL Photographic Image Storage"
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert (dataset.PatientID, dataset.StudyInstanceUID, dataset.AccessionNumber) == ("P-7", "1.2.3.4", "ACC-7")
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0") == jpeg.rstrip(b"\0")
    assert stow(file).status_code == 200
    shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
    assert np.abs(shown.astype(int) - np.asarray(Image.open(BytesIO(jpeg)))).max() <= 3


@pytest.mark.parametrize("pixels", [RAMP, COLOURS])
def test_a_png_and_a_progressive_jpeg_are_stored_uncompressed(
    stow: Stow, client: FlaskClient, pixels: np.ndarray
) -> None:
    for media_type, content in (
        ("image/png", photo(pixels, "PNG")),
        ("image/jpeg", photo(pixels, "JPEG", progressive=True)),
    ):
        file = wrapped(media_type, content, KNOWN, NOW)
        dataset = pydicom.dcmread(BytesIO(file))
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert stow(file).status_code == 200
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
        assert np.array_equal(shown, np.asarray(Image.open(BytesIO(content))))


def test_a_pdf_comes_back_as_it_was(stow: Stow, client: FlaskClient) -> None:
    file = wrapped("application/pdf", PDF, Known(attributes={"DocumentTitle": "Letter"}), NOW)
    dataset = pydicom.dcmread(BytesIO(file))
    assert (dataset.SOPClassUID.name, dataset.DocumentTitle) == ("Encapsulated PDF Storage", "Letter")
    assert stow(file).status_code == 200
    answer = client.get(f"{address(dataset)}/rendered", headers={"Accept": "application/pdf"})
    assert answer.data == PDF


def test_a_film_keeps_its_bytes_and_says_what_it_is(stow: Stow, client: FlaskClient) -> None:
    film = a_film()
    file = wrapped("video/mp4", film, KNOWN, NOW)
    dataset = pydicom.dcmread(BytesIO(file))
    assert (dataset.Columns, dataset.Rows, dataset.NumberOfFrames, dataset.CineRate) == (640, 360, 50, 25)
    assert float(dataset.FrameTime) == 40
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.102"
    assert stow(file).status_code == 200
    answer = client.get(f"{address(dataset)}/rendered", headers={"Accept": "video/mp4"})
    assert answer.data.removesuffix(b"\0") == film.removesuffix(b"\0")


@pytest.mark.parametrize(
    ("codec", "level", "syntax"), [(b"avc1", 41, "102"), (b"avc1", 42, "104"), (b"hvc1", 0, "107")]
)
def test_the_transfer_syntax_of_a_film(codec: bytes, level: int, syntax: str) -> None:
    assert film_of(a_film(codec, level)).transfer_syntax == f"1.2.840.10008.1.2.4.{syntax}"


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "application/pdf", "video/mp4", "text/html"])
@pytest.mark.parametrize("content", [b"", b"nothing", bytes(5000), b"\xff\xd8\xff\xc0\0\2", a_film()[:1100]])
def test_what_it_is_not_is_refused(media_type: str, content: bytes) -> None:
    with pytest.raises(StoreFailure):
        wrapped(media_type, content, KNOWN, NOW)


def test_a_picture_that_says_it_is_huge_is_refused() -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">L4sLLBBBBB", 13, b"IHDR", 60000, 60000, 8, 2, 0, 0, 0)
    with pytest.raises(StoreFailure):
        wrapped("image/png", header + bytes(4), KNOWN, NOW)
