"""What lies on an image and around it: overlays, pixel shapes, colour profiles, annotation, presentation states.
PS3.3 sections C.9.2, C.7.6.3.1.7, C.10, C.11; PS3.18 section 8.3.5.1.
"""

import struct
from io import BytesIO

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage, generate_uid

from dicomweb import profiles
from tests.dicomweb.conftest import Stow, a_slice
from tests.dicomweb.test_rendering import PNG, image
from tests.dicomweb.test_wado import address, content


def an_image(values_: np.ndarray, **values: object) -> Dataset:
    """An unsigned image of 8 bits that is shown as it is."""
    rows, columns = values_.shape[:2]
    known = {
        "Rows": rows, "Columns": columns, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "RescaleIntercept": None, "RescaleSlope": None, "pixels": values_.astype(np.uint8),
    }  # fmt: skip
    if values_.ndim == 3:
        known |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    return a_slice(**(known | values))


GREY = np.full((4, 6), 100, np.uint8)


class TestOverlays:
    def test_a_plane_is_burnt_in_where_its_origin_says(self, stow: Stow, client: FlaskClient) -> None:
        dataset = an_image(GREY)
        for element, vr, value in ((0x10, "US", 2), (0x11, "US", 3), (0x40, "CS", "G"), (0x50, "SS", [2, 3])):
            dataset.add_new(0x60000000 | element, vr, value)
        dataset.add_new(0x60000100, "US", 1)
        dataset.add_new(0x60000102, "US", 0)
        dataset.add_new(0x60003000, "OW", bytes([0b101_011, 0]))
        stow(dataset)
        expected = GREY.copy()
        expected[1, 2:4] = 255
        expected[2, [2, 4]] = 255
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
        assert shown.tolist() == expected.tolist()

    def test_of_older_objects_it_is_a_bit_of_each_pixel(self, stow: Stow, client: FlaskClient) -> None:
        pixels = np.array([[0x0010, 0x1010], [0x1020, 0x0020]], "<u2")
        dataset = a_slice(
            Rows=2, Columns=2, pixels=pixels, BitsStored=8, HighBit=7, PixelRepresentation=0, RescaleIntercept="0"
        )
        for element, vr, value in ((0x10, "US", 2), (0x11, "US", 2), (0x50, "SS", [1, 1]), (0x100, "US", 16)):
            dataset.add_new(0x60000000 | element, vr, value)
        dataset.add_new(0x60000102, "US", 12)
        stow(dataset)
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
        assert shown.tolist() == [[16, 255], [255, 32]]

    @pytest.mark.parametrize("origin", [[-1, -2], [4, 6], [100, 100], [0, 0]])
    def test_what_lies_outside_is_not_seen(self, stow: Stow, client: FlaskClient, origin: list[int]) -> None:
        dataset = an_image(GREY)
        for element, vr, value in ((0x10, "US", 4), (0x11, "US", 6), (0x50, "SS", origin)):
            dataset.add_new(0x60000000 | element, vr, value)
        dataset.add_new(0x60003000, "OW", b"\xff" * 4)
        stow(dataset)
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
        down, across = origin[0] - 1, origin[1] - 1
        expected = GREY.copy()
        expected[max(0, down) : max(0, 4 + down), max(0, across) : max(0, 6 + across)] = 255
        assert shown.tolist() == expected.tolist()


class TestPixelShapes:
    @pytest.mark.parametrize(
        ("values", "size"),
        [
            ({"PixelSpacing": [2, 1]}, (60, 80)),
            ({"PixelSpacing": [1, 2]}, (120, 40)),
            ({"PixelAspectRatio": ["3", "2"]}, (60, 60)),
            ({"ImagerPixelSpacing": [1, 1]}, (60, 40)),
        ],
    )
    def test_pixels_are_shown_square(
        self, stow: Stow, client: FlaskClient, values: dict, size: tuple[int, int]
    ) -> None:
        dataset = an_image(np.zeros((40, 60)), **values)
        stow(dataset)
        shown = image(client.get(f"{address(dataset)}/rendered", headers=PNG))
        assert (shown.shape[1], shown.shape[0]) == size
        if size == (60, 80):
            small = image(client.get(f"{address(dataset)}/rendered?viewport=40,40", headers=PNG))
            assert small.shape == (40, 30)


class TestParameters:
    COLOURS = np.full((64, 64, 3), (200, 10, 10), np.uint8)

    @pytest.mark.parametrize(("value", "has"), [("no", False), ("yes", True), ("srgb", True), ("rommrgb", True)])
    def test_iccprofile(self, stow: Stow, client: FlaskClient, value: str, has: bool) -> None:
        dataset = an_image(self.COLOURS)
        stow(dataset)
        for media_type in ("image/png", "image/jpeg"):
            answer = client.get(f"{address(dataset)}/rendered?iccprofile={value}", headers={"Accept": media_type})
            assert ("icc_profile" in Image.open(BytesIO(answer.data)).info) is has

    @pytest.mark.parametrize("name", profiles.SPACES)
    def test_colours_are_those_of_the_profile_that_is_asked_for(
        self, stow: Stow, client: FlaskClient, name: str
    ) -> None:
        """Back from the space by its definition, they are the image's."""
        dataset = an_image(np.dstack([np.full((8, 8), value, np.uint8) for value in (200, 90, 30)]))
        stow(dataset)
        answer = client.get(f"{address(dataset)}/rendered?iccprofile={name}", headers=PNG)
        made = Image.open(BytesIO(answer.data))
        assert made.info["icc_profile"] == profiles.profile(name)
        assert ImageCms.getProfileName(ImageCms.ImageCmsProfile(BytesIO(made.info["icc_profile"]))).strip()
        space = profiles.SPACES[name]
        light = profiles.to_pcs(space) @ space.curve(np.asarray(made)[4, 4] / 255)
        # The matrix of sRGB to XYZ under D50, of the profile that everybody uses for it.
        srgb = np.array(((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410)))
        encoded = np.array((200, 90, 30)) / 255
        expected = srgb @ np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        assert light == pytest.approx(expected, abs=0.004)
        assert (np.asarray(made)[4, 4] != (200, 90, 30)).any()

    def test_a_gif_cannot_say_what_its_colours_are(self, stow: Stow, client: FlaskClient) -> None:
        dataset = an_image(self.COLOURS)
        stow(dataset)
        url = f"{address(dataset)}/rendered"
        plain, asked = (
            client.get(f"{url}{q}", headers={"Accept": "image/gif"}) for q in ("", "?iccprofile=adobergb")
        )
        assert (plain.status_code, plain.data) == (200, asked.data)

    def test_annotation_writes_into_the_corners(self, stow: Stow, client: FlaskClient) -> None:
        dataset = an_image(np.zeros((200, 300)), SeriesDescription="Axial")
        stow(dataset)
        url = f"{address(dataset)}/rendered"
        plain, patient, both = (
            image(client.get(f"{url}?annotation={value}", headers=PNG))
            for value in ("", "patient", "patient,technique")
        )
        assert not plain.any()
        assert patient[:60, :100].any()
        assert not patient[:, 200:].any()
        assert both[:60, 200:].any()

    @pytest.mark.parametrize("query", ["annotation=name", "iccprofile=cmyk", "iccprofile=x", "annotation=patient,x"])
    def test_what_is_not_offered_is_refused(self, stow: Stow, client: FlaskClient, query: str) -> None:
        dataset = an_image(GREY)
        stow(dataset)
        assert client.get(f"{address(dataset)}/rendered?{query}").status_code == 400


class TestLevels:
    """PS3.18 section 10.4.1.1.3: rendered instances of a study, a series, an instance, frames."""

    @pytest.fixture
    def three(self, stow: Stow) -> list[Dataset]:
        datasets = [an_image(np.full((4, 6), grey), InstanceNumber=n) for n, grey in enumerate((10, 20, 30), 1)]
        assert stow(*datasets).status_code == 200
        return datasets

    def test_one_picture_stands_for_a_series_and_parts_are_all_of_them(
        self, client: FlaskClient, three: list[Dataset]
    ) -> None:
        series = address(three[0]).partition("/instances/")[0]
        for url in (series, series.partition("/series/")[0]):
            assert image(client.get(f"{url}/rendered", headers=PNG))[0, 0] == 20
            answer = client.get(f"{url}/rendered", headers={"Accept": 'multipart/related; type="image/png"'})
            shown = [np.asarray(Image.open(BytesIO(data)))[0, 0] for _, data in content(answer)]
            assert shown == [10, 20, 30]

    def test_several_frames_come_in_parts(self, stow: Stow, client: FlaskClient) -> None:
        frames = np.repeat(np.array([[10], [20], [30]], np.uint8), 24, axis=1).reshape(3, 4, 6)
        dataset = an_image(frames[0], NumberOfFrames=3, pixels=frames)
        stow(dataset)
        answer = client.get(f"{address(dataset)}/frames/3,1/rendered", headers=PNG)
        assert [np.asarray(Image.open(BytesIO(data)))[0, 0] for _, data in content(answer)] == [30, 10]

    def test_who_has_the_picture_is_told_so(self, client: FlaskClient, three: list[Dataset]) -> None:
        url = f"{address(three[0])}/rendered"
        tag = client.get(url).headers["ETag"]
        again = client.get(url, headers={"If-None-Match": tag})
        assert (again.status_code, again.data) == (304, b"")
        assert client.get(f"{url}?quality=10", headers={"If-None-Match": tag}).status_code == 200
        assert client.get(f"{address(three[1])}/rendered", headers={"If-None-Match": tag}).status_code == 200

    def test_the_second_time_gives_the_same(self, client: FlaskClient, three: list[Dataset]) -> None:
        url = f"{address(three[0])}/thumbnail"
        assert client.get(url).data == client.get(url).data


def a_state(target: Dataset, **values: object) -> Dataset:
    """A grayscale softcopy presentation state for an image."""
    image_, series = Dataset(), Dataset()
    image_.ReferencedSOPClassUID, image_.ReferencedSOPInstanceUID = target.SOPClassUID, target.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedImageSequence = target.SeriesInstanceUID, [image_]
    state = a_slice(
        pixels=None, SOPClassUID=GrayscaleSoftcopyPresentationStateStorage, Modality="PR",
        SeriesInstanceUID=generate_uid(), RescaleIntercept=None, RescaleSlope=None, Rows=None, Columns=None,
        BitsAllocated=None, BitsStored=None, HighBit=None, PixelRepresentation=None, SamplesPerPixel=None,
        PhotometricInterpretation=None, ReferencedSeriesSequence=[series], PresentationLUTShape="IDENTITY",
    )  # fmt: skip
    for keyword, value in values.items():
        setattr(state, keyword, value)
    return state


class TestPresentationStates:
    PIXELS = np.arange(24).reshape(4, 6) * 10

    def shown(
        self, stow: Stow, client: FlaskClient, pixels: np.ndarray | None = None, **values: object
    ) -> np.ndarray:
        target = an_image(self.PIXELS if pixels is None else pixels)
        state = a_state(target, **values)
        assert stow(target, state).status_code == 200
        return image(client.get(f"{address(state)}/rendered", headers=PNG))

    def test_its_window_replaces_that_of_the_image(self, stow: Stow, client: FlaskClient) -> None:
        voi = Dataset()
        voi.WindowCenter, voi.WindowWidth = 100, 1
        shown = self.shown(stow, client, SoftcopyVOILUTSequence=[voi])
        assert shown.tolist() == np.where(self.PIXELS <= 99.5, 0, 255).tolist()

    def test_inverse(self, stow: Stow, client: FlaskClient) -> None:
        shown = self.shown(stow, client, PresentationLUTShape="INVERSE")
        assert shown.tolist() == (255 - self.PIXELS).tolist()

    def test_a_presentation_lut(self, stow: Stow, client: FlaskClient) -> None:
        lut = Dataset()
        lut.LUTDescriptor, lut.LUTData = [256, 0, 8], struct.pack("<256H", *([7] * 100 + [200] * 156))
        shown = self.shown(stow, client, PresentationLUTSequence=[lut])
        assert shown.tolist() == np.where(self.PIXELS < 100, 7, 200).tolist()

    def test_a_rectangular_shutter(self, stow: Stow, client: FlaskClient) -> None:
        shown = self.shown(
            stow, client, ShutterShape="RECTANGULAR", ShutterLeftVerticalEdge=2, ShutterRightVerticalEdge=5,
            ShutterUpperHorizontalEdge=2, ShutterLowerHorizontalEdge=3, ShutterPresentationValue=0,
        )  # fmt: skip
        expected = np.zeros((4, 6))
        expected[1:3, 1:5] = self.PIXELS[1:3, 1:5]
        assert shown.tolist() == expected.tolist()

    def test_a_circular_shutter(self, stow: Stow, client: FlaskClient) -> None:
        shown = self.shown(
            stow, client, np.full((9, 9), 50), ShutterShape="CIRCULAR", CenterOfCircularShutter=[5, 5],
            RadiusOfCircularShutter=2, ShutterPresentationValue=0xFFFF,
        )  # fmt: skip
        y, x = np.ogrid[1:10, 1:10]
        assert shown.tolist() == np.where((x - 5) ** 2 + (y - 5) ** 2 <= 4, 50, 255).tolist()

    @pytest.mark.parametrize("flip", ["Y", "N"])
    @pytest.mark.parametrize("rotation", [0, 90, 180, 270])
    def test_flip_then_turn_clockwise(self, stow: Stow, client: FlaskClient, rotation: int, flip: str) -> None:
        shown = self.shown(stow, client, ImageRotation=rotation, ImageHorizontalFlip=flip)
        expected = self.PIXELS[:, ::-1] if flip == "Y" else self.PIXELS
        assert shown.tolist() == np.rot90(expected, -rotation // 90).tolist()

    def test_the_displayed_area(self, stow: Stow, client: FlaskClient) -> None:
        area = Dataset()
        area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [2, 3], [4, 4]
        shown = self.shown(stow, client, DisplayedAreaSelectionSequence=[area])
        assert shown.tolist() == self.PIXELS[2:4, 1:4].tolist()

    @pytest.mark.parametrize("rotation", [0, 90])
    def test_graphics_are_drawn_where_they_belong(self, stow: Stow, client: FlaskClient, rotation: int) -> None:
        line, annotation = Dataset(), Dataset()
        line.GraphicAnnotationUnits, line.GraphicDimensions, line.NumberOfGraphicPoints = "PIXEL", 2, 2
        line.GraphicData, line.GraphicType = [10.5, 5.5, 10.5, 25.5], "POLYLINE"
        annotation.GraphicObjectSequence = [line]
        shown = self.shown(
            stow, client, np.zeros((30, 40)), GraphicAnnotationSequence=[annotation], ImageRotation=rotation
        )
        upright = np.rot90(shown, rotation // 90)
        drawn = np.argwhere(upright == 255)
        assert set(drawn[:, 1]) <= {9, 10}
        assert (drawn[:, 0].min(), drawn[:, 0].max()) in ((5, 25), (4, 25), (4, 24), (5, 24))

    def test_words_are_drawn(self, stow: Stow, client: FlaskClient) -> None:
        words, annotation = Dataset(), Dataset()
        words.UnformattedTextValue, words.AnchorPoint = "Here", [20, 20]
        words.AnchorPointAnnotationUnits, words.AnchorPointVisibility = "PIXEL", "N"
        annotation.TextObjectSequence = [words]
        shown = self.shown(stow, client, np.zeros((60, 60)), GraphicAnnotationSequence=[annotation])
        assert shown[15:40, 15:60].max() > 200
        assert not shown[:15].any()

    def test_an_image_that_is_not_here_is_told(self, stow: Stow, client: FlaskClient) -> None:
        target = an_image(GREY)
        state = a_state(target)
        stow(state)
        assert image(client.get(f"{address(state)}/rendered", headers=PNG)).shape == (480, 640, 3)
        assert client.get(f"{address(state)}/frames/2/rendered").status_code == 404

    def test_an_image_that_was_deleted_is_shown_no_more(self, stow: Stow, client: FlaskClient) -> None:
        target = an_image(GREY)
        state = a_state(target)
        stow(target, state)
        before = client.get(f"{address(state)}/rendered", headers=PNG)
        assert image(before).shape == GREY.shape
        client.delete(address(target))
        tag = before.headers["ETag"]
        for headers in (PNG, {**PNG, "If-None-Match": tag}):
            answer = client.get(f"{address(state)}/rendered", headers=headers)
            assert answer.status_code == 200
            assert image(answer).shape == (480, 640, 3)
