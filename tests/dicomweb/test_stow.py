"""STOW-RS. PS3.18 section 10.5, failure reasons of table I.2-2."""

import os
import zlib
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomweb import part10
from dicomweb.blobs import BlobStore
from dicomweb.failures import (
    CANNOT_UNDERSTAND,
    DUPLICATE_SOP_INSTANCE,
    NOT_THIS_SOP_CLASS,
    OTHER_STUDY,
    OUT_OF_RESOURCES,
)
from fhir_server.access import Access, Scope
from tests.dicomweb.conftest import BASE, CONTENT_TYPE, DATA, Stow, a_slice, an_office, file_of, message

STUDY = "1.2.826.0.1.3680043.8.498.1"


def failed(answer: dict) -> list[tuple[int, str | None]]:
    """(Failure Reason, Referenced SOP Instance UID) of each instance that was not stored."""
    return [
        (item["00081197"]["Value"][0], item.get("00081155", {}).get("Value", [None])[0])
        for item in answer.get("00081198", {}).get("Value", [])
    ]


def stored(answer: dict) -> list[str]:
    return [item["00081155"]["Value"][0] for item in answer.get("00081199", {}).get("Value", [])]


def count(client: FlaskClient) -> int:
    return len(client.get("/dicomweb/instances").json)


def files_in(blobs: BlobStore, tmp_path: Path) -> list[str]:
    return [name for _, _, names in os.walk(tmp_path / "blobs") for name in names]


class TestAnswer:
    def test_all_stored_is_200_with_addresses_to_retrieve(self, stow: Stow) -> None:
        slice_ = a_slice()
        answer = stow(slice_)
        assert answer.status_code == 200
        assert answer.content_type == "application/dicom+json"
        (item,) = answer.json["00081199"]["Value"]
        assert item["00081150"]["Value"] == [slice_.SOPClassUID]
        address = f"{BASE}/studies/{STUDY}/series/{slice_.SeriesInstanceUID}/instances/{slice_.SOPInstanceUID}"
        assert item["00081190"]["Value"] == [address]
        assert answer.json["00081190"]["Value"] == [f"{BASE}/studies/{STUDY}"]
        assert "00081198" not in answer.json

    def test_one_bad_part_spoils_no_other(self, stow: Stow, client: FlaskClient) -> None:
        good = a_slice(), a_slice(InstanceNumber=2)
        answer = stow(good[0], b"not DICOM at all", good[1])
        assert answer.status_code == 202
        assert stored(answer.json) == [slice_.SOPInstanceUID for slice_ in good]
        assert failed(answer.json) == [(CANNOT_UNDERSTAND, None)]
        assert count(client) == 2

    def test_none_stored_is_409(self, stow: Stow) -> None:
        answer = stow(b"not DICOM")
        assert answer.status_code == 409
        assert failed(answer.json) == [(CANNOT_UNDERSTAND, None)]

    def test_an_instance_of_another_study_than_the_address_is_not_stored(self, stow: Stow) -> None:
        here, elsewhere = a_slice(), a_slice(StudyInstanceUID="1.2.3")
        answer = stow(here, elsewhere, study=STUDY)
        assert answer.status_code == 202
        assert failed(answer.json) == [(OTHER_STUDY, elsewhere.SOPInstanceUID)]

    def test_a_part_of_another_type_is_told(self, client: FlaskClient) -> None:
        body = message(b"{}", media_type="application/json")
        answer = client.post("/dicomweb/studies", data=body, content_type=CONTENT_TYPE)
        assert (answer.status_code, failed(answer.json)) == (409, [(CANNOT_UNDERSTAND, None)])


class TestDuplicates:
    def test_the_same_bytes_again_are_a_success_and_change_nothing(self, stow: Stow, client: FlaskClient) -> None:
        file = file_of(a_slice())
        first, second, together = stow(file), stow(file), stow(file, file)
        assert first.status_code == second.status_code == together.status_code == 200
        assert first.json == second.json
        study = client.get("/dicomweb/studies").json[0]
        assert study["00201208"]["Value"] == [1]

    def test_other_bytes_under_a_known_uid_are_refused(self, stow: Stow, client: FlaskClient) -> None:
        slice_ = a_slice(PatientName="First")
        stow(slice_)
        slice_.PatientName = "Second"
        answer = stow(slice_)
        assert answer.status_code == 409
        assert failed(answer.json) == [(DUPLICATE_SOP_INSTANCE, slice_.SOPInstanceUID)]
        assert client.get("/dicomweb/studies").json[0]["00100010"]["Value"] == [{"Alphabetic": "First"}]

    def test_so_they_are_within_one_request(self, stow: Stow) -> None:
        slice_ = a_slice()
        first = file_of(slice_)
        slice_.PatientName = "Second"
        answer = stow(first, slice_)
        assert answer.status_code == 202
        assert failed(answer.json) == [(DUPLICATE_SOP_INSTANCE, slice_.SOPInstanceUID)]

    def test_and_in_another_study(self, stow: Stow) -> None:
        slice_ = a_slice()
        stow(slice_)
        slice_.StudyInstanceUID = "1.2.3"
        assert failed(stow(slice_).json) == [(DUPLICATE_SOP_INSTANCE, slice_.SOPInstanceUID)]


class TestRequest:
    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            ('multipart/related; type="application/pdf"; boundary=b', 415),
            ('multipart/related; type="application/dicom+json"', 400),
            ("multipart/form-data; boundary=b", 415),
            ("", 415),
            ('multipart/related; type="application/dicom"', 400),
            ("multipart/related; type=application/dicom; boundary=other", 400),
        ],
    )
    def test_only_dicom_in_parts_is_taken(self, client: FlaskClient, content_type: str, status: int) -> None:
        answer = client.post("/dicomweb/studies", data=message(file_of(a_slice())), content_type=content_type)
        assert answer.status_code == status
        assert answer.json["resourceType"] == "OperationOutcome"

    def test_a_type_without_quotes_is_taken(self, client: FlaskClient) -> None:
        content_type = "Multipart/Related; type=application/dicom; boundary=boundary-of-the-test"
        answer = client.post("/dicomweb/studies", data=message(file_of(a_slice())), content_type=content_type)
        assert answer.status_code == 200

    def test_a_message_that_breaks_off_stores_nothing(
        self, client: FlaskClient, blobs: BlobStore, tmp_path: Path
    ) -> None:
        body = message(file_of(a_slice()), file_of(a_slice()))
        answer = client.post("/dicomweb/studies", data=body[:-40], content_type=CONTENT_TYPE)
        assert answer.status_code == 400
        assert count(client) == 0
        assert files_in(blobs, tmp_path) == []

    def test_a_message_without_instances_is_refused(self, client: FlaskClient) -> None:
        for body in (b"", b"--boundary-of-the-test--\r\n"):
            assert client.post("/dicomweb/studies", data=body, content_type=CONTENT_TYPE).status_code == 400

    def test_a_body_over_the_limit_is_refused(self, client: FlaskClient, blobs: BlobStore, tmp_path: Path) -> None:
        body = message(bytes(65 * 2**20))
        assert client.post("/dicomweb/studies", data=body, content_type=CONTENT_TYPE).status_code == 413
        assert files_in(blobs, tmp_path) == []

    def test_a_study_that_is_no_uid_is_refused(self, stow: Stow) -> None:
        assert stow(a_slice(), study="not-a-uid").status_code == 400


class TestWhoMayStore:
    def test_the_practice_with_the_scope_to_create(self, app: Flask, stow: Stow) -> None:
        app.config["ACCESS"] = Access("client:pacs", (Scope("system", "ImagingStudy", "c"),), None)
        assert stow(a_slice()).status_code == 200

    def test_nobody_else(self, app: Flask, stow: Stow) -> None:
        app.config["ACCESS"] = Access("client:viewer", (Scope("system", "ImagingStudy", "rs"),), None)
        assert stow(a_slice()).status_code == 403
        app.config["ACCESS"] = an_office("lakeside")
        assert stow(a_slice()).status_code == 403
        app.config["ACCESS"] = None
        assert stow(a_slice()).status_code == 401


class TestHostileFiles:
    """Every fault of a file is a failure of that instance, never of the server."""

    @pytest.mark.parametrize("missing", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
    def test_each_of_the_four_uids_is_needed(self, stow: Stow, missing: str) -> None:
        file = file_of_parts(a_slice(), missing)
        assert failed(stow(file).json)[0][0] == NOT_THIS_SOP_CLASS

    @pytest.mark.parametrize("uid", ["1.2.x", "../../etc", "1" * 65, ".1.2", "1.2\\1.3"])
    def test_what_is_no_uid_is_none(self, stow: Stow, uid: str) -> None:
        slice_ = a_slice()
        slice_.SeriesInstanceUID = "9.9.9"
        padded = uid.encode() + b"\0" * (len(uid) % 2)
        file = file_of(slice_).replace(b"UI\x06\x009.9.9\0", b"UI" + len(padded).to_bytes(2, "little") + padded)
        assert failed(stow(file).json)[0][0] == NOT_THIS_SOP_CLASS

    def test_a_file_that_ends_inside_an_element_is_refused(self, stow: Stow, client: FlaskClient) -> None:
        file = file_of(a_slice())
        answer = stow(*[file[:-cut] for cut in range(1, 24)], (DATA / "MR_truncated.dcm").read_bytes())
        assert answer.status_code == 409
        assert {reason for reason, _ in failed(answer.json)} == {CANNOT_UNDERSTAND}
        assert count(client) == 0
        for size in range(0, len(file), 7):  # cut between two elements it is a data set, of less
            assert stow(file[:size]).status_code in (200, 409)

    @pytest.mark.parametrize("length", [b"\xff\xff\xff\x7f", b"\xfe\xff\xff\xff"])
    def test_a_huge_length_reserves_no_memory(self, stow: Stow, length: bytes) -> None:
        slice_ = a_slice(pixels=None)
        slice_.add_new(0x00091001, "OB", b"abcd")
        file = file_of(slice_)
        at = file.index(b"OB\0\0\x04\0\0\0abcd") + 4
        assert failed(stow(file[:at] + length + file[at + 4 :]).json)[0][0] == CANNOT_UNDERSTAND

    def test_a_deflate_bomb_is_stopped(self, stow: Stow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(part10, "MAX_INFLATED_BYTES", 1_000_000)
        compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        bomb = compressor.compress(bytes(50_000_000)) + compressor.flush()
        assert len(bomb) < 100_000
        head = file_of(a_slice(TransferSyntaxUID=DeflatedExplicitVRLittleEndian))
        meta_end = 132 + 12 + int.from_bytes(head[140:144], "little")
        assert failed(stow(head[:meta_end] + bomb).json) == [(OUT_OF_RESOURCES, None)]

    def test_too_many_elements_are_stopped(self, stow: Stow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(part10, "MAX_READS", 200)
        slice_ = a_slice()
        slice_.private_block(0x0009, "TEST", create=True)
        for element in range(200):
            slice_.add_new(0x00091000 + element, "LO", "x")
        assert failed(stow(slice_).json)[0][0] == OUT_OF_RESOURCES

    def test_attributes_that_no_index_can_hold_are_refused(self, stow: Stow) -> None:
        slice_ = a_slice()
        slice_.add_new(0x00081030, "UT", "x" * 600_000)
        assert failed(stow(slice_).json) == [(OUT_OF_RESOURCES, slice_.SOPInstanceUID)]

    def test_sequences_nested_without_end_are_refused(self, stow: Stow) -> None:
        nested = b""
        for _ in range(3000):
            header = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
            nested = header + nested
        file = file_of(a_slice(pixels=None))
        assert failed(stow(file + nested).json)[0][0] == CANNOT_UNDERSTAND

    def test_random_damage_never_fails_the_server(self, stow: Stow) -> None:
        import random

        chance = random.Random(7)
        file = bytearray(file_of(a_slice()))
        for _ in range(60):
            damaged = bytearray(file)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.randrange(132, len(damaged))] = chance.randrange(256)
            assert stow(bytes(damaged)).status_code in (200, 409)

    def test_a_media_directory_is_not_stored(self, stow: Stow) -> None:
        slice_ = a_slice(SOPClassUID="1.2.840.10008.1.3.10")
        assert failed(stow(slice_).json)[0][0] == 0x0122


def file_of_parts(slice_, missing: str) -> bytes:
    """The file without one of its UIDs."""
    full = file_of(slice_)
    element = slice_[missing]
    value = element.value.encode() + b"\0" * (len(element.value) % 2)
    tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
    encoded = tag + b"UI" + len(value).to_bytes(2, "little") + value
    assert full.count(encoded) == 1
    return full.replace(encoded, b"")
