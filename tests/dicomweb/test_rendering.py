"""Rendered images: the numbers of PS3.3 C.11, and the parameters of PS3.18 section 8.3.5.1."""

import math
import struct
from io import BytesIO

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset
from werkzeug.test import TestResponse

from dicomweb.display import LINEAR, LINEAR_EXACT, SIGMOID, Display, Lut, Window
from dicomweb.luts import table
from dicomweb.pixels import Undecodable
from dicomweb.render import grey, windowed
from tests.dicomweb.conftest import DATA, Stow, a_slice
from tests.dicomweb.test_wado import address


def linear(x: float, c: float, w: float) -> float:
    """C.11.2.1.2.1 as the standard writes it, for the output 0 to 255."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    if x > c - 0.5 + (w - 1) / 2:
        return 255
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


def linear_exact(x: float, c: float, w: float) -> float:
    """C.11.2.1.3.2"""
    return 0 if x <= c - w / 2 else 255 if x > c + w / 2 else ((x - c) / w + 0.5) * 255


def sigmoid(x: float, c: float, w: float) -> float:
    """C.11.2.1.3.1"""
    return 255 / (1 + math.exp(-4 * (x - c) / w))


class TestWindow:
    @pytest.mark.parametrize(
        ("function", "formula"), [(LINEAR, linear), (LINEAR_EXACT, linear_exact), (SIGMOID, sigmoid)]
    )
    @pytest.mark.parametrize(("center", "width"), [(40, 400), (2048, 4096), (-600.5, 1500), (0, 2), (127.5, 255)])
    def test_each_function_is_the_formula_of_the_standard(
        self, function: str, formula: object, center: float, width: float
    ) -> None:
        values = np.arange(center - width, center + width, width / 64)
        expected = [formula(x, center, width) for x in values]  # type: ignore[operator]
        assert np.allclose(windowed(values, Window(center, width, function)), expected)

    def test_the_examples_of_the_standard(self) -> None:
        """C.11.2.1.2.1: c=2048, w=4096 is x*255/4095; c=2048, w=1 splits at 2047.5; c=0, w=100 ends at -50 and 49."""
        assert np.allclose(windowed(np.array([0, 1, 4095]), Window(2048, 4096)), [0, 255 / 4095, 255])
        assert list(windowed(np.array([2047, 2048]), Window(2048, 1))) == [0, 255]
        assert list(windowed(np.array([-50, 49]), Window(0, 100))) == [0, 255]
        assert list(windowed(np.array([-50, 50]), Window(0, 100, LINEAR_EXACT))) == [0, 255]

    def test_the_table_for_large_images_gives_the_same(self) -> None:
        display = Display(slope=2.0, intercept=-1000.0, window=Window(40, 400))
        for dtype in ("int16", "uint16"):
            large = (
                np.random.default_rng(3).integers(-2000 if dtype == "int16" else 0, 4000, (300, 300)).astype(dtype)
            )
            assert np.array_equal(grey(large, 16, display)[:9, :9], grey(large[:9, :9].copy(), 16, display))


class TestGrey:
    """From stored values to grey levels."""

    pixels = np.array([[0, 100], [200, 300]], np.int16)

    def test_without_a_window_the_range_of_the_image_is_shown(self) -> None:
        assert grey(self.pixels, 16, Display()).tolist() == [[0, 85], [170, 255]]

    def test_padding_is_no_part_of_that_range(self) -> None:
        padded = np.array([[-2000, 0], [100, 100]], np.int16)
        assert grey(padded, 16, Display(padding=(-2000.0, -2000.0))).tolist() == [[0, 0], [255, 255]]

    def test_eight_bits_are_shown_as_they_are(self) -> None:
        assert grey(np.array([[0, 10], [20, 255]], np.uint8), 8, Display()).tolist() == [[0, 10], [20, 255]]

    def test_an_image_of_one_value_is_no_fault(self) -> None:
        assert grey(np.full((2, 2), 7, np.int16), 16, Display()).shape == (2, 2)

    def test_the_window_applies_to_rescaled_values(self) -> None:
        display = Display(slope=10.0, intercept=-1000.0, window=Window(0, 2000, LINEAR_EXACT))
        assert grey(self.pixels, 16, display).tolist() == [[0, 128], [255, 255]]

    def test_monochrome1_is_inverted(self) -> None:
        display = Display(window=Window(150, 300, LINEAR_EXACT), inverse=True)
        assert grey(self.pixels, 16, display).tolist() == [[255, 170], [85, 0]]

    def test_a_voi_lut_is_looked_up_and_clamped(self) -> None:
        lut = Lut(3, 99, 12, struct.pack("<3H", 0, 2048, 4095))
        assert grey(self.pixels, 16, Display(voi_lut=lut)).tolist() == [[0, 128], [255, 255]]

    def test_a_modality_lut_replaces_slope_and_intercept(self) -> None:
        lut = Lut(2, 50, 16, struct.pack("<2H", 10, 20))
        display = Display(slope=99.0, modality_lut=lut, window=Window(15, 10, LINEAR_EXACT))
        assert grey(self.pixels, 16, display).tolist() == [[0, 255], [255, 255]]

    def test_floating_point_pixels(self) -> None:
        values = np.array([[0.0, 0.5], [1.0, np.nan]], np.float32)
        assert grey(values, 32, Display()).tolist() == [[0, 128], [255, 0]]


class TestLookupTables:
    def test_eight_bit_entries_may_be_packed(self) -> None:
        assert table(Lut(4, 0, 8, bytes([1, 2, 3, 4]))).tolist() == [1, 2, 3, 4]
        assert table(Lut(2, 0, 8, struct.pack("<2H", 1, 2))).tolist() == [1, 2]

    def test_segments(self) -> None:
        """C.7.9.2: discrete, linear, and indirect (which repeats the segments at an offset)."""
        words = [0, 2, 10, 20, 1, 3, 50, 2, 1, 0, 0]
        lut = Lut(7, 0, 16, struct.pack(f"<{len(words)}H", *words), segmented=True)
        assert table(lut).tolist() == [10, 20, 30, 40, 50, 10, 20]

    @pytest.mark.parametrize(
        "words", [[], [9, 1, 1], [1, 3, 50], [0, 5, 1], [0, 1, 7, 2, 60000, 0, 0], [0, 1, 7, 2, 1, 3, 0]]
    )
    def test_broken_segments_end(self, words: list[int]) -> None:
        lut = Lut(65536, 0, 16, struct.pack(f"<{len(words)}H", *words), segmented=True)
        try:
            assert len(table(lut)) <= 65536
        except Undecodable:
            pass

    def test_a_table_that_is_too_short_is_refused(self) -> None:
        with pytest.raises(Undecodable):
            table(Lut(4, 0, 16, b"\1\2"))


def image(answer: TestResponse) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(BytesIO(answer.data)))


PNG = {"Accept": "image/png"}


class TestService:
    """GET .../rendered"""

    def test_window_of_the_object_or_of_the_request(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(WindowCenter="-500", WindowWidth="1000")
        stow(dataset)
        values = np.arange(0, 12 * 90, 90) - 1000
        own = image(client.get(f"{address(dataset)}/rendered", headers=PNG)).ravel()
        assert own.tolist() == [math.floor(linear(x, -500, 1000) + 0.5) for x in values]
        for name, formula in (("linear", linear), ("linear-exact", linear_exact), ("SIGMOID", sigmoid)):
            query = f"window=-700,200,{name}"
            shown = image(client.get(f"{address(dataset)}/frames/1/rendered?{query}", headers=PNG)).ravel()
            assert shown.tolist() == [math.floor(formula(x, -700, 200) + 0.5) for x in values]

    def test_the_function_that_the_object_names(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(WindowCenter=["-500", "40"], WindowWidth=["1000", "400"], VOILUTFunction="LINEAR_EXACT")
        stow(dataset)
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG)).ravel()
        assert shown.tolist() == [
            math.floor(linear_exact(x, -500, 1000) + 0.5) for x in np.arange(0, 12 * 90, 90) - 1000
        ]

    def test_the_window_of_each_frame(self, stow: Stow, client: FlaskClient) -> None:
        def groups(center: float) -> Dataset:
            voi, values, group = Dataset(), Dataset(), Dataset()
            voi.WindowCenter, voi.WindowWidth = center, 100
            values.RescaleIntercept, values.RescaleSlope = -1000, 2
            group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [voi], [values]
            return group

        dataset = a_slice(
            NumberOfFrames=2,
            pixels=np.full(24, 500, "<i2"),
            RescaleIntercept=None,
            RescaleSlope=None,
            PerFrameFunctionalGroupsSequence=[groups(0.5), groups(1000)],
        )
        stow(dataset)
        first = image(client.get(f"{address(dataset)}/frames/1/rendered", headers=PNG))
        second = image(client.get(f"{address(dataset)}/frames/2/rendered", headers=PNG))
        assert (first[0, 0], second[0, 0]) == (128, 0)

    def test_monochrome1_and_a_voi_lut(self, stow: Stow, client: FlaskClient) -> None:
        lut = Dataset()
        lut.LUTDescriptor, lut.LUTData = [2, -1000, 8], struct.pack("<2H", 0, 255)
        dataset = a_slice(VOILUTSequence=[lut], PhotometricInterpretation="MONOCHROME1")
        stow(dataset)
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG)).ravel()
        assert shown.tolist() == [255, *[0] * 11]

    def test_colours(self, stow: Stow, client: FlaskClient) -> None:
        for name in ("SC_ybr_full_422_uncompressed", "SC_rgb_small_odd_jpeg"):
            dataset = pydicom.dcmread(DATA / f"{name}.dcm")
            assert stow((DATA / f"{name}.dcm").read_bytes()).status_code == 200
            shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
            assert np.array_equal(shown, dataset.pixel_array)

    def test_a_palette(self, stow: Stow, client: FlaskClient) -> None:
        palette = {}
        for colour, entries in (("Red", [0, 255, 0]), ("Green", [0, 0, 255]), ("Blue", [128, 0, 0])):
            palette[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 1, 16]
            data = struct.pack("<3H", *[entry * 257 for entry in entries])
            palette[f"{colour}PaletteColorLookupTableData"] = data
        dataset = a_slice(
            PhotometricInterpretation="PALETTE COLOR",
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelRepresentation=0,
            pixels=bytes([0, 1, 2, 3, *[200] * 8]),
            **palette,
        )
        stow(dataset)
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
        assert shown[0].tolist() == [[0, 0, 128], [0, 0, 128], [255, 0, 0], [0, 255, 0]]

    @pytest.fixture
    def large(self, stow: Stow) -> Dataset:
        pixels = np.zeros((100, 200), np.uint8)
        pixels[:50, :100] = 250
        dataset = a_slice(
            Rows=100,
            Columns=200,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelRepresentation=0,
            pixels=pixels,
            RescaleIntercept="0",
        )
        stow(dataset)
        return dataset

    @pytest.mark.parametrize(
        ("viewport", "size", "corner"),
        [
            ("50,50", (50, 25), 250),
            ("400,400", (400, 200), 250),
            ("50,50,100,0,100,100", (50, 50), 0),
            ("50,50,,,-200,", (50, 25), 0),
            ("50,50,,,,-100", (50, 25), 0),
            ("50,50,0,0,100,50", (50, 25), 250),
        ],
    )
    def test_viewport(
        self, client: FlaskClient, large: Dataset, viewport: str, size: tuple[int, int], corner: int
    ) -> None:
        shown = image(client.get(f"{address(large)}/rendered?viewport={viewport}", headers=PNG))
        assert (shown.shape[1], shown.shape[0]) == size
        assert shown[0, 0] == corner

    def test_quality(self, client: FlaskClient, large: Dataset) -> None:
        low, high = (client.get(f"{address(large)}/rendered?quality={q}") for q in (10, 100))
        assert low.content_type == high.content_type == "image/jpeg"
        assert len(low.data) < len(high.data)

    def test_thumbnails(self, client: FlaskClient, large: Dataset) -> None:
        series = address(large).partition("/instances/")[0]
        study = series.partition("/series/")[0]
        for path in (address(large), f"{address(large)}/frames/1", series, study):
            assert image(client.get(f"{path}/thumbnail")).shape == (64, 128)

    @pytest.mark.parametrize(
        ("accept", "media_type"),
        [
            ("", "image/jpeg"),
            ("*/*", "image/jpeg"),
            ("image/*", "image/jpeg"),
            ("image/png, image/jpeg;q=0.5", "image/png"),
            ("image/webp, image/png;q=0.9, */*;q=0.1", "image/png"),
            ("text/html", None),
        ],
    )
    def test_media_types(self, client: FlaskClient, large: Dataset, accept: str, media_type: str | None) -> None:
        answer = client.get(f"{address(large)}/rendered", headers={"Accept": accept})
        assert answer.status_code == (200 if media_type else 406)
        assert media_type in (None, answer.content_type)

    def test_accept_as_a_query_parameter(self, client: FlaskClient, large: Dataset) -> None:
        answer = client.get(f"{address(large)}/rendered?accept=image/png", headers={"Accept": "*/*"})
        assert answer.content_type == "image/png"

    @pytest.mark.parametrize(
        "query",
        [
            "window=40",
            "window=40,0",
            "window=40,0.5,linear",
            "window=a,b,linear",
            "window=40,400,cubic",
            "window=nan,400",
            "window=1,inf",
            "viewport=10",
            "viewport=0,10",
            "viewport=99999,10",
            "viewport=10,10,a,b,c,d",
            "viewport=10,10,0,0,0,0",
            "viewport=nan,10",
            "quality=0",
            "quality=101",
            "quality=high",
        ],
    )
    def test_parameters_that_make_no_sense_are_refused(self, client: FlaskClient, large: Dataset, query: str) -> None:
        assert client.get(f"{address(large)}/rendered?{query}").status_code == 400

    def test_what_has_no_image_has_no_frames_but_a_picture(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(pixels=None, Modality="SR")
        stow(dataset)
        assert image(client.get(f"{address(dataset)}/rendered")).size
        assert client.get(f"{address(dataset)}/frames/1").status_code == 406
