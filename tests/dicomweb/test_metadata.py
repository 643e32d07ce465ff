"""Metadata as DICOM JSON. PS3.18 annex F."""

import gzip

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from tests.dicomweb.conftest import BASE, DATA, Stow, a_slice, file_of
from tests.dicomweb.test_wado import address


@pytest.fixture
def metadata(stow: Stow, client: FlaskClient):
    """Store a data set, or a file that it belongs to; its metadata."""

    def of(dataset: Dataset, file: bytes | None = None) -> dict:
        assert stow(file or dataset).status_code in (200, 202)  # 202 when something had to be mended
        (found,) = client.get(f"{address(dataset)}/metadata").json
        return found

    return of


def replaced(dataset: Dataset, old: bytes, new: bytes) -> bytes:
    """The file with a value of another length, which pydicom would not write. The VR has a length of 2 bytes."""
    file = file_of(dataset)
    before = len(old).to_bytes(2, "little") + old
    assert file.count(before) == 1
    return file.replace(before, len(new).to_bytes(2, "little") + new)


class TestValues:
    def test_a_decimal_that_is_too_long_is_mended_not_dropped(self, metadata) -> None:
        dataset = a_slice(ImagePositionPatient=["-177.5", "1", "2"])
        found = metadata(dataset, replaced(dataset, b"-177.5\\1\\2", b"-177.79999999999998\\1e2\\.5 "))
        assert found["00200032"]["vr"] == "DS"
        assert found["00200032"]["Value"] == [pytest.approx(-177.8, abs=1e-12), 100.0, 0.5]
        assert len(str(found["00200032"]["Value"][0])) <= 16
        assert Dataset.from_json(found).ImagePositionPatient[0] == pytest.approx(-177.8)

    def test_a_number_that_is_none_stays_as_text(self, metadata) -> None:
        dataset = a_slice(SliceThickness="1.25", SeriesNumber=1, AcquisitionNumber=7)
        file = replaced(dataset, b"1.25", b"1,25")
        found = metadata(dataset, file)
        assert found["00180050"]["Value"] == ["1,25"]

    def test_numbers(self, metadata) -> None:
        dataset = a_slice(WindowCenter=["40", "-600.5"], WindowWidth=["400", "1500"], InstanceNumber=3)
        dataset.private_block(0x0009, "TEST", create=True)
        dataset.add_new(0x00091001, "FD", [1.5, float("nan"), float("inf")])
        dataset.add_new(0x00091002, "UV", [2**63, 5])
        dataset.add_new(0x00091003, "SS", -5)
        dataset.add_new(0x00091004, "AT", [0x00100020, 0x7FE00010])
        found = metadata(dataset)
        assert found["00281050"]["Value"] == [40, -600.5]
        assert found["00200013"]["Value"] == [3]
        assert found["00091001"]["Value"] == [1.5, "NaN", "Infinity"]
        assert found["00091002"]["Value"] == [str(2**63), 5]
        assert found["00091003"]["Value"] == [-5]
        assert found["00091004"]["Value"] == ["00100020", "7FE00010"]

    def test_names_have_groups_of_components_and_empty_values_are_null(self, metadata) -> None:
        dataset = a_slice(
            SpecificCharacterSet="ISO_IR 192",
            PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
            ReferringPhysicianName="^^^",
            ImageType=["ORIGINAL", "", "AXIAL"],
            StudyDescription="",
        )
        found = metadata(dataset)
        assert found["00100010"]["Value"] == [
            {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
        ]
        assert found["00080090"] == {"vr": "PN"}
        assert found["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
        assert found["00081030"] == {"vr": "LO"}

    def test_character_sets_become_utf_8(self, stow: Stow, client: FlaskClient) -> None:
        file = (DATA / "chrH31.dcm").read_bytes()
        assert stow(file).status_code == 200
        (found,) = client.get(f"{address(pydicom.dcmread(DATA / 'chrH31.dcm'))}/metadata").json
        assert found["00100010"]["Value"][0]["Ideographic"] == "山田^太郎"
        assert found["00080005"]["Value"] == ["ISO_IR 192"]

    @pytest.mark.parametrize(
        ("charset", "raw", "shown"),
        [
            ("ISO-IR 100", "Jörg".encode("latin-1"), "Jörg"),
            ("NO_SUCH_SET", "Jörg".encode(), "Jörg"),
            ("", "Jörg".encode("latin-1"), "Jörg"),
            ("ISO_IR 192", "Jörg".encode("latin-1") + b" ", "Jörg"),
        ],
    )
    def test_wrong_character_sets_lose_no_letter(self, metadata, charset: str, raw: bytes, shown: str) -> None:
        dataset = a_slice(SpecificCharacterSet="XXXXXXXXXXXX", PatientName="NNNNNN")
        padded = charset.encode().ljust(12)
        file = file_of(dataset).replace(b"X" * 12, padded).replace(b"NNNNNN", raw.ljust(6))
        assert metadata(dataset, file)["00100010"]["Value"] == [{"Alphabetic": shown}]

    def test_sequences_and_unknown_elements(self, metadata) -> None:
        item = Dataset()
        item.CodeValue, item.CodeMeaning = "T-D4000", "Abdomen"
        dataset = a_slice(AnatomicRegionSequence=[item], InstitutionCodeSequence=[])
        dataset.add_new(0x00091001, "UN", b"\x01\x02\x03\x04")
        dataset.add_new(0x00189999, "UN", b"ab")
        found = metadata(dataset)
        assert found["00082218"]["Value"][0]["00080100"] == {"vr": "SH", "Value": ["T-D4000"]}
        assert found["00080082"] == {"vr": "SQ"}
        assert found["00091001"] == {"vr": "UN", "InlineBinary": "AQIDBA=="}
        assert found["00189999"]["vr"] == "UN"
        assert not any(tag.endswith("0000") or tag.startswith("0002") for tag in found)

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
    def test_other_encodings_say_the_same(self, stow: Stow, client: FlaskClient, syntax: str) -> None:
        values = {
            "SmallestImagePixelValue": -5,
            "WindowCenter": "40",
            "WindowWidth": "400",
            "RequestAttributesSequence": [Dataset()],
            "SOPInstanceUID": generate_uid(),
        }
        values["RequestAttributesSequence"][0].RequestedProcedureID = "RP1"
        stow(a_slice(**values))
        plain = client.get(f"{address(a_slice(**values))}/metadata").json[0]
        values["SOPInstanceUID"] = generate_uid()
        other = a_slice(TransferSyntaxUID=syntax, **values)
        if syntax == ExplicitVRBigEndian:
            other.PixelData = np.arange(0, 12 * 90, 90, dtype=">i2").tobytes()
        assert stow(other).status_code == 200
        found = client.get(f"{address(other)}/metadata").json[0]
        different = {"00080018", "7FE00010"}
        assert {t: v for t, v in found.items() if t not in different} == {
            t: v for t, v in plain.items() if t not in different
        }
        assert found["00280106"] == {"vr": "SS", "Value": [-5]}


class TestBulkData:
    def test_large_binary_values_are_named_and_can_be_fetched(self, metadata, client: FlaskClient) -> None:
        wave = bytes(range(256)) * 64
        item = Dataset()
        item.WaveformData = wave
        item["WaveformData"].VR = "OW"
        item.WaveformBitsAllocated = 16
        dataset = a_slice(WaveformSequence=[Dataset(), item])
        found = metadata(dataset)
        uri = found["54000100"]["Value"][1]["54001010"]["BulkDataURI"]
        assert uri == f"{BASE}{address(dataset)[9:]}/bulkdata/54000100/1/54001010"
        fetched = client.get(
            uri.removeprefix("http://127.0.0.1:8080"), headers={"Accept": "application/octet-stream"}
        )
        assert fetched.data == wave
        pixels = client.get(found["7FE00010"]["BulkDataURI"].removeprefix("http://127.0.0.1:8080"))
        assert dataset.PixelData in pixels.data

    def test_a_text_that_looks_like_an_address_stays_as_it_is(self, metadata) -> None:
        text = '"BulkDataURI":"/studies'
        assert metadata(a_slice(StudyDescription=text))["00081030"]["Value"] == [text]


class TestAnswer:
    def test_the_slices_of_a_series_are_in_order(self, stow: Stow, client: FlaskClient) -> None:
        slices = [a_slice(InstanceNumber=number) for number in (10, 2, 33, 1)]
        stow(*slices)
        path = address(slices[0]).partition("/instances/")[0]
        found = client.get(f"{path}/metadata").json
        assert [instance["00200013"]["Value"][0] for instance in found] == [1, 2, 10, 33]

    def test_gzip_for_who_takes_it(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice()
        stow(dataset)
        plain = client.get(f"{address(dataset)}/metadata")
        packed = client.get(f"{address(dataset)}/metadata", headers={"Accept-Encoding": "gzip, br"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.data) == plain.data
        assert plain.content_type == packed.content_type == "application/dicom+json"

    @pytest.mark.parametrize(
        ("accept", "status"),
        [
            ("application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*", 200),
            ("application/json", 200),
            ('multipart/related; type="application/dicom+json"', 200),
            ('multipart/related; type="application/pdf"', 406),
        ],
    )
    def test_what_viewers_accept(self, stow: Stow, client: FlaskClient, accept: str, status: int) -> None:
        dataset = a_slice()
        stow(dataset)
        assert client.get(f"{address(dataset)}/metadata", headers={"Accept": accept}).status_code == status
