"""WADO-RS in the other forms: ZIP, XML, bulk data in pieces, and answers that a client has already.
PS3.18 sections 8.4, 8.7 and 10.4; RFC 9110 sections 13 and 14.
"""

import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import pydicom
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, EncapsulatedPDFStorage, JPEGBaseline8Bit
from werkzeug.test import TestResponse

from dicomweb.multipart import parts
from tests.dicomweb.conftest import BASE, Stow, a_slice, file_of

NATIVE = {"n": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
XML = 'multipart/related; type="application/dicom+xml"'
LEVELS = ["", "/series/{0.SeriesInstanceUID}", "/series/{0.SeriesInstanceUID}/instances/{0.SOPInstanceUID}"]
STREAM = bytes(range(256)) * 40


def address(dataset: Dataset) -> str:
    study, series, sop = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
    return f"/dicomweb/studies/{study}/series/{series}/instances/{sop}"


def content(answer: TestResponse) -> list[tuple[dict[str, str], bytes]]:
    boundary = answer.headers["Content-Type"].partition("boundary=")[2]
    return [(p.headers, b"".join(p.chunks)) for p in parts(BytesIO(answer.data), boundary)]


@pytest.fixture
def video(stow: Stow) -> Dataset:
    """A video in three fragments."""
    dataset = a_slice(TransferSyntaxUID=MPEG4HP41, NumberOfFrames=50, pixels=None)
    dataset.PixelData = encapsulate([STREAM], fragments_per_frame=3, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    assert stow(dataset).status_code == 200
    return dataset


class TestZip:
    @pytest.mark.parametrize("accept", ["application/zip", "application/zip; transfer-syntax=*"])
    def test_a_study_in_an_archive_is_what_was_stored(self, stow: Stow, client: FlaskClient, accept: str) -> None:
        slices = [a_slice(), a_slice(InstanceNumber=2, SeriesInstanceUID="1.2.3.4")]
        stow(*slices)
        answer = client.get(f"/dicomweb/studies/{slices[0].StudyInstanceUID}", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == "application/zip"
        archive = ZipFile(BytesIO(answer.data))
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"{one.SeriesInstanceUID}/{one.SOPInstanceUID}.dcm": file_of(one) for one in slices
        }

    def test_by_a_parameter_for_those_that_cannot_set_a_header(self, stow: Stow, client: FlaskClient) -> None:
        slice_ = a_slice()
        stow(slice_)
        assert client.get(f"{address(slice_)}?accept=application/zip").data.startswith(b"PK")


class TestXml:
    @pytest.mark.parametrize(
        "accept", [XML, "multipart/related; type=application/dicom+xml", "application/dicom+xml", "application/xml"]
    )
    def test_metadata_is_in_the_native_dicom_model(self, stow: Stow, client: FlaskClient, accept: str) -> None:
        dataset = a_slice(
            PatientName="Buc^Jérôme=安田^次郎", SpecificCharacterSet="ISO_IR 192", ImageType=["ORIGINAL", "AXIAL"]
        )
        dataset.private_block(0x0009, "A & B", create=True).add_new(1, "LO", "<secret>")
        item = Dataset()
        item.RequestedProcedureID = "R1"
        dataset.RequestAttributesSequence = [item]
        assert stow(dataset).status_code == 200
        answer = client.get(f"{address(dataset)}/metadata", headers={"Accept": accept})
        assert answer.headers["Content-Type"].startswith(f"{XML}; boundary=")
        ((headers, body),) = content(answer)
        assert headers["content-type"] == "application/dicom+xml"
        root = ElementTree.fromstring(body)
        assert root.tag == f"{{{NATIVE['n']}}}NativeDicomModel"

        def attribute(tag: str) -> ElementTree.Element:
            found = root.find(f"n:DicomAttribute[@tag='{tag}']", NATIVE)
            assert found is not None, tag
            return found

        assert attribute("00080060").get("keyword") == "Modality"
        assert [v.text for v in attribute("00080008").findall("n:Value", NATIVE)] == ["ORIGINAL", "AXIAL"]
        name = attribute("00100010").find("n:PersonName", NATIVE)
        assert name is not None
        assert name.findtext("n:Alphabetic/n:GivenName", None, NATIVE) == "Jérôme"
        assert name.findtext("n:Ideographic/n:FamilyName", None, NATIVE) == "安田"
        private = attribute("00090001")
        assert (private.get("privateCreator"), private.findtext("n:Value", None, NATIVE)) == ("A & B", "<secret>")
        assert root.find("n:DicomAttribute[@tag='00090010']", NATIVE) is None
        nested = attribute("00400275").find("n:Item[@number='1']/n:DicomAttribute[@tag='00401001']", NATIVE)
        assert nested is not None
        assert nested.findtext("n:Value", None, NATIVE) == "R1"
        bulk = attribute("7FE00010").find("n:BulkData", NATIVE)
        assert bulk is not None
        assert bulk.get("uri") == f"{BASE}{address(dataset)[9:]}/bulkdata/7FE00010"

    def test_a_part_for_each_instance(self, stow: Stow, client: FlaskClient) -> None:
        slices = [a_slice(InstanceNumber=number) for number in (1, 2, 3)]
        stow(*slices)
        answer = client.get(f"/dicomweb/studies/{slices[0].StudyInstanceUID}/metadata", headers={"Accept": XML})
        found = [
            re.findall(rb'tag="00080018"[^>]*><Value number="1">([\d.]+)', body)[0] for _, body in content(answer)
        ]
        assert [uid.decode() for uid in found] == [slice_.SOPInstanceUID for slice_ in slices]

    def test_what_xml_cannot_carry_breaks_no_document(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(SeriesDescription="a\x0bb")
        stow(dataset)
        ((_, body),) = content(client.get(f"{address(dataset)}/metadata", headers={"Accept": XML}))
        assert b">ab</Value>" in body
        ElementTree.fromstring(body)


class TestAccept:
    @pytest.mark.parametrize(
        ("accept", "answered"),
        [
            ("application/dicom+json", "application/dicom+json"),
            ("application/json", "application/dicom+json"),
            ("*/*", "application/dicom+json"),
            ("", "application/dicom+json"),
            ('multipart/related; type="application/dicom+json"', "application/dicom+json"),
            (f"{XML};q=0.5, application/dicom+json", "application/dicom+json"),
            (f"{XML}, application/dicom+json;q=0.9", "multipart/related"),
            (
                "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*",
                "application/dicom+json",
            ),
        ],
    )
    def test_what_viewers_ask_for_as_metadata(
        self, stow: Stow, client: FlaskClient, accept: str, answered: str
    ) -> None:
        dataset = a_slice()
        stow(dataset)
        answer = client.get(f"{address(dataset)}/metadata", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith(answered)

    @pytest.mark.parametrize("value", ["application/dicom+json", "application/dicom%2Bjson"])
    def test_the_parameter_wins_over_the_header(self, stow: Stow, client: FlaskClient, value: str) -> None:
        dataset = a_slice()
        stow(dataset)
        answer = client.get(f"{address(dataset)}/metadata?accept={value}", headers={"Accept": "text/html"})
        assert answer.headers["Content-Type"] == "application/dicom+json"

    @pytest.mark.parametrize("accept", ["text/html", "image/png", "multipart/related; type=image/jpeg"])
    def test_406_when_nothing_fits(self, stow: Stow, client: FlaskClient, accept: str) -> None:
        dataset = a_slice()
        stow(dataset)
        assert client.get(f"{address(dataset)}/metadata", headers={"Accept": accept}).status_code == 406


class TestRanges:
    @pytest.mark.parametrize(
        ("asked", "begin", "end"),
        [
            ("bytes=0-99", 0, 100),
            ("bytes=3400-3500", 3400, 3501),  # over the end of a fragment
            ("bytes=-10", 10230, 10240),
            ("bytes=10000-", 10000, 10240),
        ],
    )
    def test_a_video_can_be_had_in_pieces(
        self, client: FlaskClient, video: Dataset, asked: str, begin: int, end: int
    ) -> None:
        url = f"{address(video)}/bulkdata/7FE00010"
        answer = client.get(url, headers={"Accept": "video/mp4", "Range": asked})
        assert answer.status_code == 206
        assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(STREAM)}"
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.data == STREAM[begin:end]
        assert int(answer.headers["Content-Length"]) == end - begin

    def test_a_range_behind_the_end_is_416(self, client: FlaskClient, video: Dataset) -> None:
        url = f"{address(video)}/bulkdata/7FE00010"
        answer = client.get(url, headers={"Accept": "video/mp4", "Range": "bytes=10240-"})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10240")

    @pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=0-1", "bytes=x", "bytes=5-1"])
    def test_other_ranges_are_ignored(self, client: FlaskClient, video: Dataset, asked: str) -> None:
        url = f"{address(video)}/bulkdata/7FE00010"
        answer = client.get(url, headers={"Accept": "video/mp4", "Range": asked})
        assert (answer.status_code, answer.data) == (200, STREAM)
        assert answer.headers["Accept-Ranges"] == "bytes"

    def test_a_range_of_what_was_is_answered_with_all_of_what_is(self, client: FlaskClient, video: Dataset) -> None:
        url = f"{address(video)}/bulkdata/7FE00010"
        headers = {"Accept": "video/mp4", "Range": "bytes=1-2"}
        tag = client.get(url, headers=headers).headers["ETag"]
        assert client.get(url, headers=headers | {"If-Range": tag}).data == STREAM[1:3]
        for other in ('"other"', "Wed, 21 Oct 2015 07:28:00 GMT"):
            assert client.get(url, headers=headers | {"If-Range": other}).data == STREAM

    def test_bulk_data_and_whole_instances_as_well(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(Rows=100, Columns=100, pixels=np.arange(10_000, dtype="<i2"))
        stow(dataset)
        headers = {"Accept": "application/octet-stream", "Range": "bytes=200-299"}
        answer = client.get(f"{address(dataset)}/bulkdata/7FE00010", headers=headers)
        assert (answer.status_code, answer.data) == (206, dataset.PixelData[200:300])
        headers = {"Accept": "application/dicom", "Range": "bytes=128-131"}
        assert client.get(address(dataset), headers=headers).data == b"DICM"

    def test_an_answer_in_parts_has_no_ranges(self, client: FlaskClient, video: Dataset) -> None:
        answer = client.get(f"{address(video)}/bulkdata/7FE00010", headers={"Range": "bytes=0-1"})
        assert answer.status_code == 200
        assert "Accept-Ranges" not in answer.headers


class TestBulkData:
    def test_a_pdf_is_called_one(self, stow: Stow, client: FlaskClient) -> None:
        pdf = b"%PDF-1.7" + bytes(10_000)
        dataset = a_slice(
            SOPClassUID=EncapsulatedPDFStorage,
            pixels=None,
            MIMETypeOfEncapsulatedDocument="application/pdf",
            EncapsulatedDocument=pdf,
        )
        stow(dataset)
        answer = client.get(f"{address(dataset)}/bulkdata/00420011", headers={"Accept": "application/pdf"})
        assert (answer.headers["Content-Type"], answer.data) == ("application/pdf", pdf)

    def test_a_document_is_not_believed_to_be_a_page(self, stow: Stow, client: FlaskClient) -> None:
        page = b"<script>alert(1)</script>" + bytes(10_000)
        dataset = a_slice(pixels=None, MIMETypeOfEncapsulatedDocument="text/html", EncapsulatedDocument=page)
        stow(dataset)
        answer = client.get(f"{address(dataset)}/bulkdata/00420011", headers={"Accept": "application/octet-stream"})
        assert answer.headers["Content-Type"] == "application/octet-stream"

    def test_frames_that_are_images_for_themselves_come_in_parts(self, stow: Stow, client: FlaskClient) -> None:
        frames = [b"\xff\xd8" + bytes([n]) * 30 + b"\xff\xd9" for n in range(3)]
        dataset = a_slice(TransferSyntaxUID=JPEGBaseline8Bit, NumberOfFrames=3, pixels=None)
        dataset.PixelData = encapsulate(frames, has_bot=False)
        dataset["PixelData"].is_undefined_length = True
        stow(dataset)
        url = f"{address(dataset)}/bulkdata/7FE00010"
        sent = content(client.get(url, headers={"Accept": 'multipart/related; type="image/jpeg"'}))
        assert [data for _, data in sent] == frames
        assert sent[2][0]["content-location"] == f"{BASE}{address(dataset)[9:]}/frames/3"
        assert client.get(url, headers={"Accept": "image/jpeg"}).status_code == 406

    @pytest.mark.parametrize("level", LEVELS)
    def test_all_of_a_study_series_or_instance(self, stow: Stow, client: FlaskClient, level: str) -> None:
        dataset = a_slice()
        dataset.private_block(0x0009, "TEST", create=True).add_new(1, "OB", bytes(9000))
        stow(dataset)
        here = f"/dicomweb/studies/{dataset.StudyInstanceUID}{level.format(dataset)}"
        all_of_it = content(client.get(f"{here}/bulkdata"))
        assert {headers["content-location"].rpartition("/")[2] for headers, _ in all_of_it} == {
            "00091001",
            "7FE00010",
        }
        ((headers, pixels),) = content(client.get(f"{here}/pixeldata"))
        assert pixels == dataset.PixelData
        assert headers["content-location"] == f"{BASE}{address(dataset)[9:]}/bulkdata/7FE00010"
        assert client.get(f"{here}/pixeldata", headers={"Accept": "image/png"}).status_code == 406

    @pytest.mark.parametrize("level", LEVELS)
    def test_where_there_is_none_no_empty_message_is_sent(self, stow: Stow, client: FlaskClient, level: str) -> None:
        """A multipart message has at least one part. RFC 2046 section 5.1.1."""
        dataset = a_slice(pixels=None)
        stow(dataset)
        here = f"/dicomweb/studies/{dataset.StudyInstanceUID}{level.format(dataset)}"
        assert client.get(f"{here}/pixeldata").status_code == 404
        assert client.get(f"{here}/bulkdata").status_code == 404


class TestKnownAlready:
    PATHS = ("", "/metadata", "/frames/1", "/rendered", "/thumbnail", "/bulkdata/7FE00010", "/pixeldata")

    @pytest.mark.parametrize("path", PATHS)
    def test_what_a_client_has_costs_no_bytes(self, stow: Stow, client: FlaskClient, path: str) -> None:
        dataset = a_slice()
        stow(dataset)
        first = client.get(address(dataset) + path)
        assert first.status_code == 200
        assert first.headers["Cache-Control"] == "private, no-cache"
        assert {"Accept", "Authorization"} <= set(first.headers["Vary"].split(", "))
        again = client.get(address(dataset) + path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"].removeprefix("W/") == first.headers["ETag"].removeprefix("W/")

    def test_the_study_has_another_tag_once_it_grew_and_the_instance_the_same(
        self, stow: Stow, client: FlaskClient
    ) -> None:
        dataset = a_slice()
        stow(dataset)
        study = f"/dicomweb/studies/{dataset.StudyInstanceUID}"
        paths = [study, f"{study}/metadata", f"{address(dataset)}/frames/1", f"{address(dataset)}/thumbnail"]
        tags = {path: client.get(path).headers["ETag"] for path in paths}
        stow(a_slice(InstanceNumber=2))
        known = {path: client.get(path, headers={"If-None-Match": tag}).status_code for path, tag in tags.items()}
        assert list(known.values()) == [200, 200, 304, 304]

    def test_another_form_has_another_tag(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice()
        stow(dataset)
        url = f"{address(dataset)}/metadata"
        tag = client.get(url, headers={"Accept": XML}).headers["ETag"]
        assert client.get(url, headers={"If-None-Match": tag}).status_code == 200

    def test_the_client_must_still_be_allowed(self, app: Flask, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice()
        stow(dataset)
        tag = client.get(f"{address(dataset)}/thumbnail").headers["ETag"]
        app.config["ACCESS"] = None
        assert client.get(f"{address(dataset)}/thumbnail", headers={"If-None-Match": tag}).status_code == 401


def test_a_series_of_real_slices_comes_back_in_every_form(stow: Stow, client: FlaskClient) -> None:
    files = [path.read_bytes() for path in sorted(Path("radloop/data/dicom/ct-series").glob("*.dcm"))[:4]]
    assert files
    assert stow(*files).status_code == 200
    first = pydicom.dcmread(BytesIO(files[0]))
    series = address(first).rpartition("/instances")[0]
    assert sorted(body for _, body in content(client.get(series))) == sorted(files)
    archive = ZipFile(BytesIO(client.get(series, headers={"Accept": "application/zip"}).data))
    assert sorted(map(archive.read, archive.namelist())) == sorted(files)
    assert client.get(address(first), headers={"Accept": "application/dicom; transfer-syntax=*"}).data in files
