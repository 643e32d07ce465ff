"""What is no image has a picture as well: documents, curves, contours, films; and can be had as what it is."""

import base64
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    RTStructureSetStorage,
    TwelveLeadECGWaveformStorage,
    VideoPhotographicImageStorage,
)

from dicomweb.documents import html_of, lines_of
from dicomweb.pool import PixelPool
from docs import contact_sheet
from tests.dicomweb.conftest import CT_SERIES, DATA, Stow, a_slice
from tests.dicomweb.test_rendering import PNG, image
from tests.dicomweb.test_wado import address

# Two pages, the first of which has a black square on it.
PDF = base64.b64decode(
    "JVBERi0xLjQKMSAwIG9iajw8L1R5cGUvQ2F0YWxvZy9QYWdlcyAyIDAgUj4+ZW5kb2JqCjIgMCBvYmo8PC9UeXBlL1BhZ2VzL0tpZHNbMyAwIFIg"
    "NSAwIFJdL0NvdW50IDI+PmVuZG9iagozIDAgb2JqPDwvVHlwZS9QYWdlL1BhcmVudCAyIDAgUi9NZWRpYUJveFswIDAgMjAwIDEwMF0vQ29udGVu"
    "dHMgNCAwIFI+PmVuZG9iago0IDAgb2JqPDwvTGVuZ3RoIDIzPj5zdHJlYW0KMCBnIDAgMCAxMDAgMTAwIHJlIGYgCmVuZHN0cmVhbSBlbmRvYmoK"
    "NSAwIG9iajw8L1R5cGUvUGFnZS9QYXJlbnQgMiAwIFIvTWVkaWFCb3hbMCAwIDEwMCAyMDBdPj5lbmRvYmoKdHJhaWxlcjw8L1Jvb3QgMSAwIFI+"
    "PgolJUVPRgo="
)


def an_object(sop_class: str, **values: object) -> Dataset:
    """An object without pixel data."""
    image_only = (
        "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "RescaleIntercept", "RescaleSlope",
    )  # fmt: skip
    return a_slice(**({"pixels": None, "SOPClassUID": sop_class} | dict.fromkeys(image_only) | values))


def code(meaning: str, value: str = "1") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", meaning
    return item


def content(kind: str, name: str, **values: object) -> Dataset:
    item = Dataset()
    item.ValueType, item.ConceptNameCodeSequence = kind, [code(name)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def a_report() -> Dataset:
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "42.5", [code("millimetre", "mm")]
    findings = content(
        "CONTAINER",
        "Findings",
        ContentSequence=[
            content("TEXT", "Finding", TextValue="<script>alert(1)</script> Größe 3 cm"),
            content("NUM", "Length", MeasuredValueSequence=[measured]),
            content("CODE", "Side", ConceptCodeSequence=[code("left")]),
            content("PNAME", "Observer", PersonName="Doe^Jane"),
            content("DATE", "Seen", Date="20240131"),
        ],
    )
    return an_object(
        BasicTextSRStorage, Modality="SR", SpecificCharacterSet="ISO_IR 192",
        ConceptNameCodeSequence=[code("Radiology Report")], ContentSequence=[findings],
    )  # fmt: skip


class TestReports:
    def test_the_content_tree_line_by_line(self, stow: Stow, client: FlaskClient) -> None:
        report = a_report()
        stow(report)
        (metadata,) = client.get(f"{address(report)}/metadata").json
        assert [(line.depth, line.name, line.value) for line in lines_of(metadata)] == [
            (0, "Findings", ""),
            (1, "Finding", "<script>alert(1)</script> Größe 3 cm"),
            (1, "Length", "42.5 mm"),
            (1, "Side", "left"),
            (1, "Observer", "Doe, Jane"),
            (1, "Seen", "2024-01-31"),
        ]

    def test_as_a_page_that_can_do_nothing(self, stow: Stow, client: FlaskClient) -> None:
        report = a_report()
        stow(report)
        answer = client.get(f"{address(report)}/rendered", headers={"Accept": "text/html"})
        assert answer.content_type == "text/html; charset=utf-8"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert "<h1>Radiology Report</h1>" in answer.text
        assert "&lt;script&gt;" in answer.text
        assert "<script" not in answer.text

    def test_as_a_picture(self, stow: Stow, client: FlaskClient) -> None:
        report = a_report()
        stow(report)
        page = image(client.get(f"{address(report)}/rendered", headers=PNG))
        assert page.shape == (960, 720, 3)
        assert (page < 100).any()
        thumbnail = image(client.get(f"{address(report)}/thumbnail", headers=PNG))
        assert max(thumbnail.shape[:2]) == 128

    def test_a_tree_without_end_ends(self) -> None:
        tree: dict = {"0040A040": {"vr": "CS", "Value": ["CONTAINER"]}}
        for _ in range(60):
            tree = {"0040A730": {"vr": "SQ", "Value": [tree] * 3}, "0040A040": {"vr": "CS", "Value": ["CONTAINER"]}}
            tree["0040A730"]["Value"] = tree["0040A730"]["Value"][:1]
        assert lines_of(tree) == []
        assert html_of(tree).startswith("<!DOCTYPE html>")


class TestPdf:
    @pytest.fixture
    def pdf(self, stow: Stow) -> Dataset:
        dataset = an_object(
            EncapsulatedPDFStorage, Modality="DOC", MIMETypeOfEncapsulatedDocument="application/pdf",
            EncapsulatedDocument=PDF + bytes(len(PDF) % 2), EncapsulatedDocumentLength=len(PDF),
        )  # fmt: skip
        assert stow(dataset).status_code == 200
        return dataset

    def test_its_pages_are_pictures(self, client: FlaskClient, pdf: Dataset) -> None:
        first = image(client.get(f"{address(pdf)}/rendered", headers=PNG))
        assert (first.shape[1], first.shape[0]) == (800, 400)
        assert (first[200, 100].tolist(), first[200, 700].tolist()) == ([0, 0, 0], [255, 255, 255])
        second = image(client.get(f"{address(pdf)}/frames/2/rendered?viewport=50,50", headers=PNG))
        assert (second.shape[1], second.shape[0]) == (25, 50)
        assert client.get(f"{address(pdf)}/frames/3/rendered").status_code == 406

    def test_it_can_be_had_as_it_is(self, client: FlaskClient, pdf: Dataset) -> None:
        answer = client.get(f"{address(pdf)}/rendered", headers={"Accept": "application/pdf"})
        assert (answer.content_type, answer.data) == ("application/pdf", PDF)

    def test_a_broken_one_is_told_as_such(self, stow: Stow, client: FlaskClient) -> None:
        dataset = an_object(
            EncapsulatedPDFStorage, MIMETypeOfEncapsulatedDocument="application/pdf",
            EncapsulatedDocument=b"%PDF-1.4 nothing",
        )  # fmt: skip
        stow(dataset)
        assert client.get(f"{address(dataset)}/rendered").status_code == 406


def test_a_film_has_a_poster_and_can_be_had_as_it_is(stow: Stow, client: FlaskClient) -> None:
    film = b"\0\0\0\x18ftypmp42" + bytes(100)
    dataset = a_slice(
        SOPClassUID=VideoPhotographicImageStorage, TransferSyntaxUID=MPEG4HP41, NumberOfFrames=250, CineRate=25,
        Rows=720, Columns=1280, pixels=encapsulate([film]),
    )  # fmt: skip
    dataset["PixelData"].is_undefined_length = True
    stow(dataset)
    assert image(client.get(f"{address(dataset)}/rendered", headers=PNG)).shape == (480, 640, 3)
    assert image(client.get(f"{address(dataset)}/thumbnail", headers=PNG)).shape == (96, 128, 3)
    answer = client.get(f"{address(dataset)}/rendered", headers={"Accept": "video/mp4"})
    assert (answer.content_type, answer.data) == ("video/mp4", film)


def test_a_waveform_is_drawn_to_scale(stow: Stow, client: FlaskClient) -> None:
    """A rectangle of 1 mV is 10 mm high, a second 25 mm wide: 40 and 100 pixels."""
    values = np.zeros((500, 2), "<i2")
    values[250:, 0] = 1000
    group, first, second = Dataset(), Dataset(), Dataset()
    for channel, name in ((first, "Lead I"), (second, "Lead II")):
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [code(name)], [code("uV", "uV")]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = (
            "1",
            "1",
            "0",
        )
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.SamplingFrequency = 2, 500, "500"
    group.ChannelDefinitionSequence, group.WaveformBitsAllocated = [first, second], 16
    group.WaveformSampleInterpretation, group.WaveformData = "SS", values.tobytes()
    group["WaveformData"].VR = "OW"
    dataset = an_object(TwelveLeadECGWaveformStorage, Modality="ECG", WaveformSequence=[group])
    assert stow(dataset).status_code == 200
    shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG)).astype(int)
    ink = shown.sum(axis=2) < 150
    before, after = (np.flatnonzero(ink[40:160, x]) for x in (80, 130))
    assert before.mean() - after.mean() == pytest.approx(40, abs=1.5)


def test_structures_are_drawn_in_their_colours(stow: Stow, client: FlaskClient) -> None:
    contour, roi, name = Dataset(), Dataset(), Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
    contour.ContourData = [0, 0, 5, 10, 0, 5, 10, 10, 5, 0, 10, 5]
    roi.ROIDisplayColor, roi.ReferencedROINumber, roi.ContourSequence = [10, 200, 30], 1, [contour]
    name.ROINumber, name.ROIName = 1, "PTV"
    dataset = an_object(
        RTStructureSetStorage, Modality="RTSTRUCT", ROIContourSequence=[roi], StructureSetROISequence=[name]
    )
    stow(dataset)
    shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
    drawn = (shown == (10, 200, 30)).all(axis=2)
    assert drawn[38:43, 40:600].any(axis=0).all()
    assert not drawn[300, 100:500].any()


def test_a_palette_is_a_strip(stow: Stow, client: FlaskClient) -> None:
    values = {}
    for colour, entries in (("Red", range(256)), ("Green", [0] * 256), ("Blue", range(255, -1, -1))):
        values[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        values[f"{colour}PaletteColorLookupTableData"] = struct.pack("256B", *entries)
    dataset = an_object("1.2.840.10008.5.1.4.39.1", ContentLabel="RAINBOW", **values)
    stow(dataset)
    shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
    assert (shown[100, 20].tolist(), shown[100, 619].tolist()) == ([0, 0, 255], [255, 0, 0])


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/gif"])
def test_what_nothing_is_known_of_has_its_name_on_a_card(stow: Stow, client: FlaskClient, media_type: str) -> None:
    dataset = an_object("1.2.826.0.1.3680043.8.498.99", Modality="OT")
    stow(dataset)
    answer = client.get(f"{address(dataset)}/rendered", headers={"Accept": media_type})
    assert answer.content_type == media_type
    assert Image.open(BytesIO(answer.data)).size == (640, 480)
    assert client.get(f"{address(dataset)}/frames/2/rendered").status_code == 404


def test_the_sheet_of_a_folder_has_a_tile_for_each_and_a_reason_for_what_has_none(
    tmp_path: Path, pool: PixelPool
) -> None:
    for file in (*sorted(CT_SERIES.glob("*.dcm"))[:2], DATA / "MR_small.dcm"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.dcm").write_bytes(b"no image")
    picture, refused = contact_sheet.sheet(tmp_path, pool)
    assert [reason.partition(":")[0] for reason in refused] == ["broken.dcm"]
    lit = np.asarray(picture.convert("L"))[: contact_sheet.SIDE]
    tiles = lit.shape[1] // contact_sheet.COLUMNS
    assert [bool(lit[:, at : at + tiles].std() > 10) for at in range(0, 4 * tiles, tiles)] == [True] * 3 + [False]
