"""STOW-RS in the other forms: one instance alone, metadata with bulk data, warnings, and very large bodies.
PS3.18 sections 8.7 and 10.5, tables I.2-1 and I.2-2.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    MPEG4HP41,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)
from pymongo.database import Database
from werkzeug.test import TestResponse

from dicomweb.blobs import BlobStore
from dicomweb.failures import (
    CANNOT_UNDERSTAND,
    COERCED,
    DUPLICATE_SOP_INSTANCE,
    OTHER_STUDY,
    OUT_OF_RESOURCES,
    PROCESSING,
    SYNTAX_NOT_SUPPORTED,
)
from tests.dicomweb.conftest import DATA, Stow, a_slice, file_of
from tests.dicomweb.test_stow import failed, stored

BOUNDARY = "boundary-of-the-test"
STUDIES = "/dicomweb/studies"


def metadata_of(dataset: Dataset, **bulk: str) -> dict:
    """The data set as DICOM JSON, with a BulkDataURI for each keyword given."""
    attributes = json.loads(dataset.to_json(bulk_data_threshold=1 << 30))
    for keyword, uri in bulk.items():
        tag = f"{pydicom.datadict.tag_for_keyword(keyword):08X}"
        attributes[tag] = {"vr": dataset[tag].VR if tag in dataset else "OB", "BulkDataURI": uri}
    return attributes


def send(
    client: FlaskClient, metadata: object, *bulk: tuple[str, str, bytes], media_type: str = "application/dicom+json"
) -> TestResponse:
    """Metadata and (Content-Location, Content-Type, content) of bulk data, in one message."""
    first = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    body = f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode() + first
    for location, type_, content in bulk:
        head = f"\r\n--{BOUNDARY}\r\nContent-Type: {type_}\r\nContent-Location: {location}\r\n\r\n"
        body += head.encode() + content
    body += f"\r\n--{BOUNDARY}--\r\n".encode()
    content_type = f'multipart/related; type="{media_type}"; boundary={BOUNDARY}'
    return client.post(STUDIES, data=body, content_type=content_type)


def read_back(client: FlaskClient, answer: TestResponse) -> Dataset:
    """The instance that was stored last."""
    (item,) = answer.json["00081199"]["Value"]
    path = item["00081190"]["Value"][0].partition(":8080")[2]
    return pydicom.dcmread(BytesIO(client.get(path, headers={"Accept": "application/dicom; transfer-syntax=*"}).data))


class TestOneInstance:
    def test_alone_as_the_content(self, client: FlaskClient) -> None:
        file = file_of(slice_ := a_slice())
        answer = client.post(STUDIES, data=file, content_type="application/dicom")
        assert (answer.status_code, stored(answer.json)) == (200, [slice_.SOPInstanceUID])
        assert file in client.get(f"{STUDIES}/{slice_.StudyInstanceUID}").data

    def test_of_another_study_than_the_address(self, client: FlaskClient) -> None:
        answer = client.post(f"{STUDIES}/1.2.3", data=file_of(a_slice()), content_type="application/dicom")
        assert (answer.status_code, failed(answer.json)[0][0]) == (409, OTHER_STUDY)

    def test_that_is_none(self, client: FlaskClient) -> None:
        answer = client.post(STUDIES, data=b"x" * 1000, content_type="application/dicom")
        assert (answer.status_code, failed(answer.json)) == (409, [(CANNOT_UNDERSTAND, None)])
        assert client.post(STUDIES, data=b"", content_type="application/dicom").status_code == 400

    def test_larger_than_allowed(self, client: FlaskClient) -> None:
        assert client.post(STUDIES, data=bytes(65 * 2**20), content_type="application/dicom").status_code == 413

    def test_compressed_for_the_way_is_not_taken(self, client: FlaskClient) -> None:
        headers = {"Content-Encoding": "gzip"}
        answer = client.post(STUDIES, data=b"x", content_type="application/dicom", headers=headers)
        assert answer.status_code == 415


class TestAnswer:
    def test_in_xml_for_who_asks_for_it(self, client: FlaskClient) -> None:
        headers = {"Accept": "application/dicom+xml"}
        file = file_of(slice_ := a_slice())
        answer = client.post(STUDIES, data=file, content_type="application/dicom", headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/dicom+xml")
        assert slice_.SOPInstanceUID in "".join(ElementTree.fromstring(answer.data).itertext())

    @pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/html", "application/dicom+json"])
    def test_else_in_json_whatever_is_asked_for(self, client: FlaskClient, accept: str) -> None:
        headers = {"Accept": accept}
        answer = client.post(STUDIES, data=file_of(a_slice()), content_type="application/dicom", headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/dicom+json")

    def test_a_decimal_that_is_too_long_is_kept_mended_and_told(self, stow: Stow, client: FlaskClient) -> None:
        slice_ = a_slice()
        good, long = file_of(a_slice(InstanceNumber=2)), "-312.50000000000001\\12.5\\1"
        slice_.add_new(0x00200032, "LO", long)
        file = file_of(slice_).replace(b"\x20\x00\x32\x00LO", b"\x20\x00\x32\x00DS")
        answer = stow(file, good)
        assert answer.status_code == 202
        first, second = answer.json["00081199"]["Value"]
        assert first["00081196"] == {"vr": "US", "Value": [COERCED]}
        assert "00081196" not in second
        assert stow(file).status_code == 202  # and again when it is sent again
        url = first["00081190"]["Value"][0].partition(":8080")[2]
        assert client.get(f"{url}/metadata").json[0]["00200032"]["Value"] == [-312.5, 12.5, 1]
        assert client.get(url, headers={"Accept": "application/dicom"}).data == file

    def test_a_full_disk_is_told_of_each_instance(
        self, stow: Stow, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(BlobStore, "spool", full)
        answer = stow(a_slice(), a_slice())
        assert answer.status_code == 409
        assert [reason for reason, _ in failed(answer.json)] == [OUT_OF_RESOURCES] * 2

    def test_a_disk_that_is_nearly_full_keeps_its_reserve(
        self, stow: Stow, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = a_slice()
        assert stow(stored).status_code == 200
        monkeypatch.setattr(blobs, "_reserve", 2**60)
        answer = stow(a_slice())
        assert (answer.status_code, [reason for reason, _ in failed(answer.json)]) == (409, [OUT_OF_RESOURCES])
        monkeypatch.setattr(blobs, "_reserve", 0)
        assert stow(a_slice()).status_code == 200

    def test_so_it_does_when_an_instance_is_put_together(
        self, client: FlaskClient, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blobs, "_reserve", 2**60)
        slice_ = a_slice(pixels=None)
        answer = send(client, metadata_of(slice_))
        assert answer.status_code == 409
        assert failed(answer.json) == [(OUT_OF_RESOURCES, slice_.SOPInstanceUID)]
        assert 'there is no room to store this instance"' in answer.headers["Warning"]


class TestMetadataAndBulkData:
    def test_native_pixels(self, client: FlaskClient) -> None:
        slice_ = a_slice(PatientName="Buc^Jérôme", SpecificCharacterSet="ISO_IR 100")
        uri = "bulk/1"
        answer = send(
            client, [metadata_of(slice_, PixelData=uri)], (uri, "application/octet-stream", slice_.PixelData)
        )
        assert answer.status_code == 200, answer.text
        back = read_back(client, answer)
        assert back.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert np.array_equal(back.pixel_array, slice_.pixel_array)
        assert (back.PatientName, back.SpecificCharacterSet) == ("Buc^Jérôme", "ISO_IR 192")
        left = ("SpecificCharacterSet", "PixelData", "PatientName")
        assert all(back[e.tag].value == e.value for e in slice_ if e.keyword not in left)

    @pytest.mark.parametrize(
        ("format", "options", "media_type", "syntax"),
        [
            ("JPEG", {"quality": 90}, "image/jpeg", JPEGBaseline8Bit),
            ("JPEG", {"quality": 90}, f"image/jpeg; transfer-syntax={JPEGBaseline8Bit}", JPEGBaseline8Bit),
            ("JPEG", {}, f"application/octet-stream; transfer-syntax={JPEGBaseline8Bit}", JPEGBaseline8Bit),
            ("JPEG2000", {}, "image/jp2", "1.2.840.10008.1.2.4.90"),
            ("JPEG2000", {}, f'image/jphc; transfer-syntax="{HTJ2K}"', HTJ2K),
        ],
    )
    def test_compressed_pixels_make_an_encapsulated_instance(
        self, client: FlaskClient, format: str, options: dict, media_type: str, syntax: str
    ) -> None:
        stream = BytesIO()
        Image.new("L", (16, 8), 120).save(stream, format, **options)
        dataset = a_slice(
            pixels=None, Rows=8, Columns=16, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0
        )
        uri = "http://elsewhere.example.org/bulk/7"
        answer = send(client, metadata_of(dataset, PixelData=uri), ("/bulk/7", media_type, stream.getvalue()))
        assert answer.status_code == 200, answer.text
        back = read_back(client, answer)
        assert back.file_meta.TransferSyntaxUID == syntax
        frame = next(pydicom.encaps.generate_frames(back.PixelData, number_of_frames=1))
        assert frame.rstrip(b"\0") == stream.getvalue().rstrip(b"\0")
        if syntax == JPEGBaseline8Bit:
            assert int(back.pixel_array[4, 4]) == pytest.approx(120, abs=2)

    def test_frames_in_a_part_each(self, client: FlaskClient) -> None:
        frames = [b"\xff\xd8" + bytes([n]) * 31 + b"\xff\xd9" for n in range(1, 4)]
        dataset = a_slice(pixels=None, NumberOfFrames=3)
        media_type = f"image/jpeg; transfer-syntax={JPEGBaseline8Bit}"
        answer = send(client, metadata_of(dataset, PixelData="f"), *(("f", media_type, frame) for frame in frames))
        assert answer.status_code == 200, answer.text
        url = answer.json["00081199"]["Value"][0]["00081190"]["Value"][0].partition(":8080")[2]
        accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
        for number, frame in enumerate(frames, 1):
            assert frame in client.get(f"{url}/frames/{number}", headers={"Accept": accept}).data

    def test_a_pdf_a_video_and_values_inside_of_sequences(self, client: FlaskClient) -> None:
        pdf = a_slice(SOPClassUID=EncapsulatedPDFStorage, pixels=None, EncapsulatedDocument=b"")
        item = Dataset()
        item.ReferencedSOPClassUID = "1.2.3"
        item.add_new(0x00420011, "OB", b"")
        pdf.ReferencedImageSequence = [item]
        document = metadata_of(pdf, EncapsulatedDocument="d")
        document["00081140"]["Value"][0]["00420011"] = {"vr": "OB", "BulkDataURI": "inside"}
        video = metadata_of(a_slice(pixels=None, NumberOfFrames=9), PixelData="v")
        parts = (
            ("d", "application/pdf", b"%PDF" * 5000),
            ("v", "video/mp4", b"moov" * 700),
            ("inside", "application/octet-stream", b"ab"),
        )
        answer = send(client, [document, video], *parts)
        assert answer.status_code == 200, answer.text
        urls = [i["00081190"]["Value"][0].partition(":8080")[2] for i in answer.json["00081199"]["Value"]]
        got = client.get(f"{urls[0]}/bulkdata/00420011", headers={"Accept": "application/octet-stream"})
        assert got.data == b"%PDF" * 5000
        (metadata,) = client.get(f"{urls[0]}/metadata").json
        assert metadata["00081140"]["Value"][0]["00420011"]["InlineBinary"] == "YWI="
        got = client.get(f"{urls[1]}/bulkdata/7FE00010", headers={"Accept": "video/mp4"})
        assert (got.headers["Content-Type"], got.data) == ("video/mp4", b"moov" * 700)
        stored_video = client.get(urls[1], headers={"Accept": "application/dicom"})
        assert MPEG4HP41 in stored_video.headers["Content-Type"]

    def test_without_bulk_data_alone_as_the_content(self, client: FlaskClient) -> None:
        report = a_slice(pixels=None, Modality="SR")
        body = json.dumps([metadata_of(report)])
        answer = client.post(STUDIES, data=body, content_type="application/dicom+json")
        assert answer.status_code == 200
        assert read_back(client, answer).Modality == "SR"

    def test_metadata_in_xml(self, client: FlaskClient, stow: Stow) -> None:
        slice_ = a_slice(PatientName="Buc^Jérôme=安田^次郎", SpecificCharacterSet="ISO_IR 192")
        slice_.private_block(0x0009, "A & B", create=True).add_new(1, "LO", "x")
        item = Dataset()
        item.RequestedProcedureID = "R1"
        slice_.RequestAttributesSequence = [item]
        stow(slice_)
        url = f"{STUDIES}/{slice_.StudyInstanceUID}/metadata"
        xml = client.get(url, headers={"Accept": "application/dicom+xml"}).data.partition(b"\r\n\r\n")[2]
        xml = xml.rpartition(b"\r\n--")[0].replace(slice_.SOPInstanceUID.encode(), b"1.2.3.99")
        uri = ElementTree.fromstring(xml).findall(".//{*}BulkData")[0].attrib["uri"]
        bulk = (uri, "application/octet-stream", slice_.PixelData)
        answer = send(client, xml, bulk, media_type="application/dicom+xml")
        assert (answer.status_code, stored(answer.json)) == (200, ["1.2.3.99"])
        back = read_back(client, answer)
        different = ("SOPInstanceUID", "PixelData")
        assert all(back[e.tag].value == e.value for e in slice_ if e.keyword not in different)
        assert np.array_equal(back.pixel_array, slice_.pixel_array)

    def test_the_same_again_changes_nothing_and_other_content_is_refused(self, client: FlaskClient) -> None:
        slice_ = a_slice()
        bulk = ("b", "application/octet-stream", slice_.PixelData)
        metadata = metadata_of(slice_, PixelData="b")
        first, second = send(client, metadata, bulk), send(client, metadata, bulk)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json == second.json
        metadata["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": "Other"}]}
        other = send(client, metadata, bulk)
        assert failed(other.json) == [(DUPLICATE_SOP_INSTANCE, slice_.SOPInstanceUID)]

    def test_what_is_missing_or_not_known_fails_for_that_instance_alone(self, client: FlaskClient) -> None:
        good, lost, odd, broken = a_slice(), a_slice(), a_slice(), a_slice(pixels=None)
        bad = metadata_of(broken) | {"00280010": {"vr": "US", "Value": ["many"]}}
        metadata = [
            metadata_of(good, PixelData="1"),
            metadata_of(lost, PixelData="2"),
            metadata_of(odd, PixelData="3"),
            bad,
        ]
        parts = (("1", "application/octet-stream", good.PixelData), ("3", "image/unheard-of", b"x"))
        answer = send(client, metadata, *parts)
        assert answer.status_code == 202
        assert stored(answer.json) == [good.SOPInstanceUID]
        assert failed(answer.json) == [
            (PROCESSING, lost.SOPInstanceUID),
            (SYNTAX_NOT_SUPPORTED, odd.SOPInstanceUID),
            (CANNOT_UNDERSTAND, broken.SOPInstanceUID),
        ]

    def test_a_number_with_more_digits_than_a_decimal_string_takes(self, client: FlaskClient) -> None:
        metadata = metadata_of(a_slice(pixels=None))
        metadata["00180050"] = {"vr": "DS", "Value": [0.3333333333333333, 1]}
        assert read_back(client, send(client, metadata)).SliceThickness == pytest.approx([1 / 3, 1])

    @pytest.mark.parametrize(
        "metadata",
        [
            b"",
            b"[",
            b"[1]",
            b"null",
            b'{"00080018": 5}',
            b'{"00080018": {"vr": "UI", "Value": [[]]}}',
            b'{"00020010": 5, "7FE00010": {"vr": "OW", "BulkDataURI": "b"}}',
            b'{"x": {"vr": "UI", "Value": ["1.2"]}}',
            b'{"00080018": {}}',
            b'{"00081140": {"vr": "SQ", "Value": [5]}}',
            b'{"7FE00010": {"vr": "OW", "BulkDataURI": 5}}',
            b'{"7FE00010": {"vr": "OW", "InlineBinary": "%%"}}',
            b'{"00400275":{"vr":"SQ","Value":[' * 100 + b"]}}" * 100,
        ],
    )
    def test_metadata_that_is_none(self, client: FlaskClient, metadata: bytes) -> None:
        for media_type in ("application/dicom+json", "application/dicom+xml"):
            answer = send(client, metadata, media_type=media_type)
            assert answer.status_code == 409
            assert failed(answer.json)[0][0] in (CANNOT_UNDERSTAND, PROCESSING)

    def test_an_address_elsewhere_is_not_asked(self, client: FlaskClient) -> None:
        """Bulk data comes with the request or not at all: whoever stores makes the server ask nobody."""
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            elsewhere.setblocking(False)
            slice_ = a_slice(pixels=None)
            uri = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/pixels"
            answer = send(client, metadata_of(slice_, PixelData=uri))
            assert failed(answer.json) == [(PROCESSING, slice_.SOPInstanceUID)]
            with pytest.raises(BlockingIOError):
                elsewhere.accept()

    def test_entities_in_xml_are_not_read(self, client: FlaskClient) -> None:
        bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><NativeDicomModel>&a;</NativeDicomModel>'
        answer = send(client, bomb, media_type="application/dicom+xml")
        assert failed(answer.json) == [(CANNOT_UNDERSTAND, None)]

    def test_nothing_is_left_on_the_disk_but_what_is_stored(self, client: FlaskClient, tmp_path: Path) -> None:
        slice_ = a_slice()
        send(client, metadata_of(slice_, PixelData="b"), ("b", "application/octet-stream", slice_.PixelData))
        send(client, metadata_of(slice_, PixelData="b"), ("c", "application/octet-stream", slice_.PixelData))
        names = [name for _, _, names in os.walk(tmp_path / "blobs") for name in names]
        assert len(names) == 1


def test_a_file_of_the_standard_comes_back_through_json(client: FlaskClient) -> None:
    """Frame for frame: what one server gives as metadata and bulk data, another one takes."""
    original = pydicom.dcmread(DATA / "MR_small.dcm")
    original.SOPInstanceUID = generate_uid()
    answer = send(client, metadata_of(original, PixelData="p"), ("p", "application/octet-stream", original.PixelData))
    assert answer.status_code in (200, 202), answer.text
    back = read_back(client, answer)
    assert np.array_equal(back.pixel_array, original.pixel_array)
    assert back.ImagePositionPatient == original.ImagePositionPatient


MEMORY_MB = 64
_SEND = """
    import resource, sys
    from pathlib import Path
    from pymongo import MongoClient
    from dicomweb import stow
    from dicomweb.blobs import FolderBlobStore
    from dicomweb.multipart import parts
    from dicomweb.s3_blobs import S3BlobStore
    from dicomweb.store import DicomStore
    from tests.dicomweb.conftest import a_slice, file_of, message

    uri, name, folder, megabytes, form, address = *sys.argv[1:4], int(sys.argv[4]), *sys.argv[5:7]
    store = DicomStore(MongoClient(uri)[name])
    blobs = S3BlobStore(address, Path(folder)) if address else FolderBlobStore(Path(folder))
    small = a_slice()

    class Body:
        # A message of so many megabytes, made while it is read.
        def __init__(self):
            file = file_of(a_slice(Rows=1, Columns=1, pixels=b"LENGTH"))
            at = file.index(b"OW\\0\\0\\x06\\0\\0\\0LENGTH")
            length = (megabytes * 2**20).to_bytes(4, "little")
            head = b"--b\\r\\n\\r\\n" + file[:at] + b"OW\\0\\0" + length
            if form == "bulk":
                import json
                metadata = json.loads(small.to_json())
                metadata["7FE00010"] = {"vr": "OW", "BulkDataURI": "x"}
                head = b"--b\\r\\nContent-Type: application/dicom+json\\r\\n\\r\\n" + json.dumps(metadata).encode()
                head += b"\\r\\n--b\\r\\nContent-Type: application/octet-stream\\r\\nContent-Location: x\\r\\n\\r\\n"
            self.pieces = self.made(head)
            self.left = b""

        def made(self, head):
            yield head
            for _ in range(megabytes):
                yield bytes(2**20)
            yield b"\\r\\n--b--\\r\\n"

        def read(self, size):
            while not self.left:
                piece = next(self.pieces, b"")
                if not piece:
                    return b""
                self.left = piece
            taken, self.left = self.left[:size], self.left[size:]
            return taken

    def send(body, kind):
        return stow.store_instances(store, blobs, parts(body, "b"), kind, None, 1 << 40)

    import io
    send(io.BytesIO(message(file_of(small), boundary="b")), "application/dicom")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    small = a_slice()
    outcome = send(Body(), "application/dicom+json" if form == "bulk" else "application/dicom")
    assert outcome.status == 200, outcome.failures
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(("place", "form"), [("folder", "file"), ("folder", "bulk"), ("s3", "file")])
@pytest.mark.parametrize("megabytes", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_body_of_any_size_takes_little_memory(
    mongodb_uri: str,
    database: Database,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    place: str,
    form: str,
    megabytes: int,
) -> None:
    bucket = request.getfixturevalue("s3_blobs").bucket if place == "s3" else ""
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(_SEND),
        mongodb_uri,
        database.name,
        str(tmp_path),
        str(megabytes),
        form,
        bucket and f"s3://{bucket}/a/practice",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= MEMORY_MB


class TestContentThatIsNoDicomYet:
    """Photos and PDFs as bulk data, with metadata that leaves to them what they say themselves. Section 10.5.2."""

    UIDS = {
        "00080018": {"vr": "UI", "Value": ["1.2.3.4.1"]},
        "0020000D": {"vr": "UI", "Value": ["1.2.3.4"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3.4.5"]},
        "00100020": {"vr": "LO", "Value": ["P-7"]},
    }

    @pytest.mark.parametrize(("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
    def test_a_photo(self, client: FlaskClient, kind: str, media_type: str) -> None:
        pixels = np.arange(4 * 6 * 3, dtype="u1").reshape(4, 6, 3)
        file = BytesIO()
        Image.fromarray(pixels).save(file, kind)
        metadata = self.UIDS | {"7FE00010": {"vr": "OB", "BulkDataURI": "photo"}}
        answer = send(client, metadata, ("photo", media_type, file.getvalue()))
        assert answer.status_code == 200, answer.text
        dataset = read_back(client, answer)
        assert (dataset.SOPClassUID.name, dataset.PatientID) == ("VL Photographic Image Storage", "P-7")
        assert (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel) == (4, 6, 3)
        if kind == "PNG":
            assert dataset.PixelData == pixels.tobytes()
        again = send(client, metadata, ("photo", media_type, file.getvalue()))
        assert again.status_code == 200
        shown = client.get(answer.json["00081199"]["Value"][0]["00081190"]["Value"][0][21:] + "/rendered")
        assert shown.status_code == 200

    def test_a_pdf(self, client: FlaskClient) -> None:
        metadata = self.UIDS | {"00420011": {"vr": "OB", "BulkDataURI": "letter"}}
        answer = send(client, metadata, ("letter", "application/pdf", b"%PDF-1.4 odd"))
        assert answer.status_code == 200, answer.text
        dataset = read_back(client, answer)
        assert dataset.SOPClassUID == EncapsulatedPDFStorage
        assert (dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocumentLength) == ("application/pdf", 12)

    def test_that_is_something_else(self, client: FlaskClient) -> None:
        metadata = self.UIDS | {"7FE00010": {"vr": "OB", "BulkDataURI": "photo"}}
        answer = send(client, metadata, ("photo", "image/jpeg", b"GIF89a"))
        assert (answer.status_code, failed(answer.json)) == (409, [(CANNOT_UNDERSTAND, "1.2.3.4.1")])
