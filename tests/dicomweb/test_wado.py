"""WADO-RS: instances, frames, bulk data, and what clients accept. PS3.18 sections 8.7 and 10.4."""

from io import BytesIO
from pathlib import Path
from typing import NoReturn

import numpy as np
import pydicom
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    generate_uid,
)
from werkzeug.test import TestResponse

from dicomweb.blobs import BlobMissing, BlobStore
from dicomweb.multipart import parts
from dicomweb.store import DicomStore
from tests.dicomweb.conftest import BASE, DATA, Stow, a_slice, an_office, file_of

OCTETS = 'multipart/related; type="application/octet-stream"'
AS_STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def address(dataset: Dataset) -> str:
    study, series, sop = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
    return f"/dicomweb/studies/{study}/series/{series}/instances/{sop}"


def content(answer: TestResponse) -> list[tuple[str, bytes]]:
    """(Content-Type, content) of each part."""
    assert answer.status_code == 200, answer.text
    boundary = answer.headers["Content-Type"].partition("boundary=")[2]
    return [(p.headers["content-type"], b"".join(p.chunks)) for p in parts(BytesIO(answer.data), boundary)]


def mr(name: str) -> Dataset:
    """One 64 x 64 MR image in some encoding, as an instance of its own."""
    dataset = pydicom.dcmread(DATA / f"{name}.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return dataset


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return pydicom.dcmread(DATA / "MR_small.dcm").pixel_array


class TestFrames:
    def test_native_frames_are_sent_in_the_order_asked_for(self, stow: Stow, client: FlaskClient) -> None:
        frames = np.arange(5 * 12, dtype="<u2").reshape(5, 3, 4)
        dataset = a_slice(NumberOfFrames=5, pixels=frames)
        stow(dataset)
        answer = client.get(f"{address(dataset)}/frames/4,1,5", headers={"Accept": OCTETS})
        sent = content(answer)
        assert [np.frombuffer(data, "<u2")[0] for _, data in sent] == [36, 0, 48]
        assert sent[0][0] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        assert f"{BASE}{address(dataset)[9:]}/frames/4".encode() in answer.data
        encoded = client.get(f"{address(dataset)}/frames/4%2C1%2C5", headers={"Accept": OCTETS})
        assert [data for _, data in content(encoded)] == [data for _, data in sent]

    @pytest.mark.parametrize("name", ["MR_small", "MR_small_bigendian", "MR_small_RLE", "MR_small_jp2klossless"])
    def test_a_frame_is_the_same_image_whatever_it_is_stored_as(
        self, stow: Stow, client: FlaskClient, pixels: np.ndarray, name: str
    ) -> None:
        dataset = mr(name)
        assert stow(dataset).status_code == 200
        for accept in (OCTETS, "*/*", f"{OCTETS}; transfer-syntax=1.2.840.10008.1.2.1"):
            ((media_type, data),) = content(client.get(f"{address(dataset)}/frames/1", headers={"Accept": accept}))
            assert media_type == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
            assert np.array_equal(np.frombuffer(data, "<i2").reshape(64, 64), pixels)

    @pytest.mark.parametrize(
        ("accept", "part"),
        [
            (AS_STORED, "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"),
            ('multipart/related; type="application/octet-stream; transfer-syntax=*"', "image/dicom-rle"),
            ("application/dicom+json, " + AS_STORED, "image/dicom-rle"),
            ('multipart/related; type="image/dicom-rle"', "image/dicom-rle"),
            ('multipart/related; type="image/x-dicom-rle"; transfer-syntax=1.2.840.10008.1.2.5', "image/dicom-rle"),
            ("multipart/related; type=image/jxl, multipart/related; type=image/*;q=0.1", "image/dicom-rle"),
            (f"{OCTETS};q=0.2, {AS_STORED};q=0.1", "application/octet-stream"),
            ("", "application/octet-stream"),
        ],
    )
    def test_what_viewers_ask_for(self, stow: Stow, client: FlaskClient, accept: str, part: str) -> None:
        dataset = mr("MR_small_RLE")
        stow(dataset)
        ((media_type, data),) = content(client.get(f"{address(dataset)}/frames/1", headers={"Accept": accept}))
        assert media_type.startswith(part)
        if part.startswith("image"):
            assert data == next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))

    def test_one_frame_can_be_had_alone(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice()
        stow(dataset)
        answer = client.get(f"{address(dataset)}/frames/1", headers={"Accept": "application/octet-stream"})
        assert answer.headers["Content-Type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        assert answer.data == dataset.PixelData

    @pytest.mark.parametrize(
        "accept",
        ['multipart/related; type="image/jxl"', "text/html", "image/png", f"{OCTETS}; transfer-syntax=1.2.3"],
    )
    def test_406_only_when_nothing_fits(self, stow: Stow, client: FlaskClient, accept: str) -> None:
        dataset = mr("MR_small_RLE")
        stow(dataset)
        answer = client.get(f"{address(dataset)}/frames/1", headers={"Accept": accept})
        assert answer.status_code == 406
        assert "image/dicom-rle" in answer.json["issue"][0]["diagnostics"]

    def test_what_cannot_be_decoded_is_sent_as_stored_or_not_at_all(self, stow: Stow, client: FlaskClient) -> None:
        dataset = mr("MR_small_jpeg_ls_lossless")
        dataset.PixelData = encapsulate([b"\xff\xd8 and nothing more"])
        stow(dataset)
        ((media_type, _),) = content(client.get(f"{address(dataset)}/frames/1", headers={"Accept": AS_STORED}))
        assert media_type == "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"
        assert client.get(f"{address(dataset)}/frames/1", headers={"Accept": OCTETS}).status_code == 406
        assert client.get(f"{address(dataset)}/rendered").status_code == 406

    @pytest.mark.parametrize(
        ("numbers", "status"), [("0", 400), ("x", 400), ("1,", 400), ("-1", 400), ("2", 404), ("1,2", 404)]
    )
    def test_frame_numbers_begin_with_1(self, stow: Stow, client: FlaskClient, numbers: str, status: int) -> None:
        dataset = a_slice()
        stow(dataset)
        assert client.get(f"{address(dataset)}/frames/{numbers}").status_code == status

    def test_frames_of_one_bit_pixels_begin_inside_a_byte(self, stow: Stow, client: FlaskClient) -> None:
        bits = np.random.default_rng(1).integers(0, 2, (3, 5, 5), dtype=np.uint8)
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
        dataset = a_slice(
            NumberOfFrames=3,
            Rows=5,
            Columns=5,
            BitsAllocated=1,
            BitsStored=1,
            HighBit=0,
            PixelRepresentation=0,
            pixels=packed,
        )
        stow(dataset)
        sent = content(client.get(f"{address(dataset)}/frames/1,2,3", headers={"Accept": OCTETS}))
        for (_, data), expected in zip(sent, bits, strict=True):
            assert np.array_equal(
                np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:25], expected.ravel()
            )

    @pytest.mark.parametrize("offsets", [True, False])
    def test_frames_of_several_fragments_are_put_together(
        self, stow: Stow, client: FlaskClient, offsets: bool
    ) -> None:
        frames = [b"\xff\xd8" + bytes([n]) * 30 + b"\xff\xd9" for n in range(3)]
        dataset = a_slice(TransferSyntaxUID=JPEGBaseline8Bit, NumberOfFrames=3, pixels=None)
        dataset.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=offsets)
        dataset["PixelData"].is_undefined_length = True
        stow(dataset)
        sent = content(client.get(f"{address(dataset)}/frames/3,2", headers={"Accept": AS_STORED}))
        assert [data.rstrip(b"\0") for _, data in sent] == [frames[2], frames[1]]
        assert {media_type for media_type, _ in sent} == {"image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"}

    def test_a_video_is_bulk_data_and_has_no_frames(self, stow: Stow, client: FlaskClient) -> None:
        stream = bytes(range(256)) * 40
        dataset = a_slice(TransferSyntaxUID=MPEG4HP41, NumberOfFrames=50, pixels=None)
        dataset.PixelData = encapsulate([stream], has_bot=False)
        dataset["PixelData"].is_undefined_length = True
        stow(dataset)
        assert client.get(f"{address(dataset)}/frames/1").status_code == 406
        answer = client.get(f"{address(dataset)}/bulkdata/7FE00010", headers={"Accept": "video/mp4"})
        assert (answer.headers["Content-Type"], answer.data) == ("video/mp4", stream)

    def test_a_broken_frame_is_refused_and_the_server_goes_on(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(TransferSyntaxUID=JPEG2000Lossless, pixels=None)
        dataset.PixelData = encapsulate([b"\xff\x4f" + bytes(200)], has_bot=False)
        dataset["PixelData"].is_undefined_length = True
        assert stow(dataset).status_code == 200
        assert client.get(f"{address(dataset)}/frames/1", headers={"Accept": OCTETS}).status_code == 406
        assert client.get(f"{address(dataset)}/rendered").status_code == 406
        good = a_slice()
        stow(good)
        assert client.get(f"{address(good)}/rendered").status_code == 200

    def test_deflated_objects_have_frames_and_bulk_data(self, stow: Stow, client: FlaskClient) -> None:
        frames = np.arange(2 * 12, dtype="<u2")
        dataset = a_slice(TransferSyntaxUID=DeflatedExplicitVRLittleEndian, NumberOfFrames=2, pixels=frames)
        dataset.private_block(0x0009, "TEST", create=True).add_new(1, "OB", bytes(range(250)) * 100)
        assert stow(dataset).status_code == 200
        sent = content(client.get(f"{address(dataset)}/frames/2", headers={"Accept": OCTETS}))
        assert sent[0][1] == frames.tobytes()[24:]
        bulk = client.get(f"{address(dataset)}/bulkdata/00091001", headers={"Accept": "*/*"})
        assert content(bulk)[0][1] == bytes(range(250)) * 100


class TestInstances:
    @pytest.fixture
    def two(self, stow: Stow) -> list[Dataset]:
        datasets = [a_slice(), a_slice(InstanceNumber=2, SeriesInstanceUID="1.2.3.4")]
        assert stow(*datasets).status_code == 200
        return datasets

    def test_a_study_a_series_or_an_instance(self, client: FlaskClient, two: list[Dataset]) -> None:
        study = f"/dicomweb/studies/{two[0].StudyInstanceUID}"
        answer = client.get(study)
        assert sorted(data for _, data in content(answer)) == sorted(map(file_of, two))
        assert int(answer.headers["Content-Length"]) == len(answer.data)
        assert content(client.get(f"{study}/series/1.2.3.4"))[0][1] == file_of(two[1])
        ((media_type, data),) = content(client.get(address(two[0])))
        assert media_type == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
        assert data == file_of(two[0])

    @pytest.mark.parametrize(
        ("accept", "status"),
        [
            ('multipart/related; type="application/dicom"', 200),
            ('multipart/related; type="application/dicom"; transfer-syntax=*', 200),
            ("multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.1", 200),
            ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90', 200),
            ('multipart/related; type="application/dicom"; transfer-syntax=1.2.3', 406),
            ("*/*", 200),
            ("application/dicom", 406),  # of several instances
            ("application/zip", 200),
            ("text/html", 406),
        ],
    )
    def test_as_they_are_stored(self, client: FlaskClient, two: list[Dataset], accept: str, status: int) -> None:
        study = f"/dicomweb/studies/{two[0].StudyInstanceUID}"
        assert client.get(study, headers={"Accept": accept}).status_code == status

    def test_what_is_not_there_is_404(self, client: FlaskClient, two: list[Dataset]) -> None:
        here = f"/dicomweb/studies/{two[0].StudyInstanceUID}"
        for path in ("/dicomweb/studies/9.9", f"{here}/series/9.9", f"{here}/series/1.2.3.4/instances/9.9"):
            for suffix in ("", "/metadata"):
                answer = client.get(path + suffix)
                assert answer.status_code == 404, path + suffix
                assert answer.json["resourceType"] == "OperationOutcome"
        assert client.get(f"{here}/series/9.9/instances/{two[0].SOPInstanceUID}/frames/1").status_code == 404
        assert client.get(f"{address(two[0])}/bulkdata/00091001").status_code == 404

    @pytest.mark.parametrize(
        "accept",
        [
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            'multipart/related; type="application/dicom"',
            'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.5',
            "application/zip",
        ],
    )
    def test_all_instances_or_an_error_and_never_some(
        self, client: FlaskClient, stow: Stow, store: DicomStore, blobs: BlobStore, accept: str
    ) -> None:
        one, other = a_slice(), a_slice(InstanceNumber=2)
        assert stow(one, other).status_code == 200
        uid = str(other.SOPInstanceUID)
        blobs.delete(store.known([uid])[uid])
        answer = client.get(f"/dicomweb/studies/{one.StudyInstanceUID}", headers={"Accept": accept})
        assert answer.status_code == 500
        assert "lost or damaged" in answer.json["issue"][0]["diagnostics"]
        for path in ("/frames/1", "/rendered", "/thumbnail", "/bulkdata/7FE00010"):
            answer = client.get(f"{address(other)}{path}")
            assert (answer.status_code, "lost or damaged" in answer.text) == (500, True), path
            assert client.get(f"{address(one)}{path}").status_code == 200

    @pytest.mark.parametrize("path", ["", "/frames/1", "/rendered", "/thumbnail", "/bulkdata/7FE00010", "/pixeldata"])
    def test_what_is_deleted_while_it_is_looked_up_is_to_be_asked_for_again(
        self, client: FlaskClient, stow: Stow, store: DicomStore, blobs: BlobStore, path: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        image = a_slice()
        assert stow(image).status_code == 200

        where = blobs.path

        def delete() -> None:
            for key in store.remove(str(image.StudyInstanceUID)):
                blobs.delete(key)

        def deleted(key: str, *_: object) -> NoReturn:
            delete()
            raise BlobMissing(key)

        def deleted_at(key: str) -> Path | None:
            delete()
            return where(key)

        for name in ("size", "read", "chunks", "open"):
            monkeypatch.setattr(blobs, name, deleted)
        monkeypatch.setattr(blobs, "path", deleted_at)
        answer = client.get(f"{address(image)}{path}")
        assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)
        assert client.get(f"{address(image)}{path}").status_code == 410

    def test_what_is_no_uid_is_400(self, client: FlaskClient) -> None:
        for path in ("a.b", "1.2/series/x", "1.2/series/1/instances/..1", "1.2/series/1/instances/x/frames/1"):
            assert client.get(f"/dicomweb/studies/{path}").status_code == 400


class TestWhoSeesWhat:
    PATHS = ("", "/metadata", "/frames/1", "/rendered", "/thumbnail", "/frames/1/rendered", "/bulkdata/7FE00010")

    def test_who_sees_the_study_sees_all_of_it_and_nobody_else_anything(
        self, app: Flask, stow: Stow, client: FlaskClient, store: DicomStore
    ) -> None:
        dataset = a_slice(Rows=100, Columns=100, pixels=np.zeros((100, 100), "<i2"))
        stow(dataset)
        study = f"/dicomweb/studies/{dataset.StudyInstanceUID}"
        series = f"{study}/series/{dataset.SeriesInstanceUID}"
        paths = [address(dataset) + path for path in self.PATHS]
        paths += [
            study,
            series,
            f"{study}/metadata",
            f"{series}/metadata",
            f"{study}/thumbnail",
            f"{series}/thumbnail",
        ]
        app.config["ACCESS"] = an_office("lakeside")
        assert {client.get(path).status_code for path in paths} == {404}
        store.set_scope(dataset.StudyInstanceUID, ["@Organization/lakeside", "@Patient/1"], 1)
        assert {client.get(path).status_code for path in paths} == {200}
        app.config["ACCESS"] = an_office("hillside")
        assert {client.get(path).status_code for path in paths} == {404}
        app.config["ACCESS"] = None
        assert {client.get(path).status_code for path in paths} == {401}
