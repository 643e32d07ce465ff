"""OHIF as npm has it, on an origin of its own, on our DICOMweb: logged in by OpenID Connect, across origins."""

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydicom
import pytest
import requests
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Locator, Page, Response
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from docs import ohif
from radloop import mongod
from tests.dicomweb.conftest import CONTENT_TYPE, CT_SERIES, file_of, message
from tests.server import Server

pytestmark = pytest.mark.browser

LIT = 0.02  # of a viewport's pixels at least: what is seen is no empty one
GREYS = 16
COLOURED = 100  # pixels
RETIRED = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")  # processes of JPEG that OHIF has no decoder for
USER = "frontdesk"


@pytest.fixture(scope="module")
def viewer(server: Server) -> Iterator[str]:
    """The origin of an OHIF that the server knows."""
    try:
        with ohif.served(mongod.free_port(), server.settings) as origin:
            told = server.command(
                *("client", "add", ohif.CLIENT_ID, "--type", "public", "--scope", ohif.SCOPE, "--name", "OHIF"),
                *("--redirect-uri", f"{origin}/callback", "--origin", origin),
            )
            assert told.returncode == 0, told.stdout
            yield origin
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


class Ohif:
    """A browser with OHIF, and all that it logged and was answered by our server."""

    def __init__(self, page: Page, origin: str, server: Server) -> None:
        self.page, self.origin, self._server = page, origin, server
        self.errors: list[str] = []
        self.answers: list[tuple[int, str]] = []
        page.set_default_timeout(60_000)
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("response", self._note)

    def open(self, path: str) -> None:
        """Load one of its views anew, which asks to log in and to consent (it keeps no token)."""
        self.page.goto(f"{self.origin}{path}")
        name, allow = self.page.get_by_label("Name"), self.page.get_by_role("button", name="Allow", exact=True)
        name.or_(allow).first.wait_for()
        if name.is_visible():
            name.fill(USER)
            self.page.get_by_label("Password").fill(self._server.credentials["users"][USER])
            self.page.get_by_role("button", name="Log in").click()
        allow.click()

    def see(self, study: str) -> None:
        """Open a study and wait for its picture in the viewport. Raises AssertionError when there is none."""
        self.open(f"/viewer?StudyInstanceUIDs={study}")
        self.wait_for_picture(0)

    def canvas(self, index: int) -> Locator:
        return self.page.locator("canvas.cornerstone-canvas").nth(index)

    def wait_for_picture(self, index: int) -> None:
        self.canvas(index).wait_for()
        self.until(lambda: is_picture(self.canvas(index).screenshot()))

    def wait_for_change(self, look: Callable[[], bytes]) -> None:
        before = look()
        self.until(lambda: look() != before)

    def until(self, seen: Callable[[], object]) -> None:
        """Raises AssertionError when it is not seen in time."""
        for _ in range(80):
            if seen():
                return
            self.page.wait_for_timeout(250)
        raise AssertionError(f"it is not seen; {self.errors}")

    def skip_the_tour(self) -> None:
        """What covers the views at first."""
        for text in ("Skip all", "Confirm and hide"):
            self.page.get_by_text(text).first.click()

    def colours(self) -> bool:
        """Whether there is anything that is not grey in the middle of the first image."""
        with Image.open(io.BytesIO(self.canvas(0).screenshot())) as image:
            red, _, blue = middle(image).convert("RGB").split()
        return sum(ImageChops.difference(red, blue).histogram()[32:]) > COLOURED

    def asked(self, part: str) -> int:
        return sum(part in address for _, address in self.answers)

    def _note(self, response: Response) -> None:
        if response.url.startswith(self._server.settings.dicomweb_base):
            self.answers.append((response.status, response.url))


def is_picture(png: bytes) -> bool:
    """Whether pixels of many greys are lit: neither an empty viewport nor one with its text alone."""
    with Image.open(io.BytesIO(png)) as image:
        histogram = middle(image).convert("L").histogram()
    return sum(histogram[24:]) > LIT * sum(histogram) and sum(n > 0 for n in histogram) >= GREYS


def middle(image: Image.Image) -> Image.Image:
    """Without what is written at the edges."""
    width, height = image.size
    return image.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4))


@pytest.fixture
def ohif_page(browser: Browser, viewer: str, server: Server) -> Iterator[Ohif]:
    """Neither an error in its console nor an answer of ours that refuses is let pass."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    shown = Ohif(context.new_page(), viewer, server)
    yield shown
    context.close()
    assert shown.answers
    assert [answer for answer in shown.answers if answer[0] >= 400] == []
    assert shown.errors == []


def store(server: Server, files: Iterable[Path | Dataset]) -> str:
    """Store them; the UID of the study of the first. Some have what is mended."""
    bodies = [file_of(file) if isinstance(file, Dataset) else file.read_bytes() for file in files]
    headers = {"Content-Type": CONTENT_TYPE, "Authorization": f"Bearer {server.backend('demo-modality')()}"}
    answer = requests.post(
        f"{server.settings.dicomweb_base}/studies", data=message(*bodies), headers=headers, timeout=60
    )
    assert answer.status_code in (200, 202), answer.text
    assert "00081198" not in answer.json()
    return str(pydicom.dcmread(io.BytesIO(bodies[0]), stop_before_pixels=True).StudyInstanceUID)


def ct(**values: object) -> list[Dataset]:
    """The CT series as a study of its own, that says so; None: not at all."""
    study, series = generate_uid(), generate_uid()
    slices = [pydicom.dcmread(path) for path in sorted(CT_SERIES.glob("*.dcm"))]
    for dataset in slices:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
    return slices


def test_it_lists_studies_and_shows_one(ohif_page: Ohif, server: Server) -> None:
    study = store(server, sorted(CT_SERIES.glob("*.dcm")))
    name = pydicom.dcmread(CT_SERIES / "ct-1.dcm", stop_before_pixels=True).PatientName.family_name

    ohif_page.open("/")
    ohif_page.page.get_by_text(name).first.wait_for()
    ohif_page.see(study)

    assert ohif_page.asked("/frames/1")
    assert ohif_page.asked("/metadata")


def test_it_shows_images_with_a_window_that_is_none_and_with_the_name_of_its_function(
    ohif_page: Ohif, server: Server
) -> None:
    ohif_page.see(store(server, ct(WindowCenter="0", WindowWidth="0")))
    ohif_page.see(store(server, ct(WindowCenter="40", WindowWidth="400", VOILUTFunction="LINEAR")))


def test_its_configuration_is_what_the_guide_says() -> None:
    guide = (ohif.DIST.parents[4] / "docs" / "guides" / "viewers.md").read_text()
    assert "`@ohif/app`" in guide
    assert ohif.VERSION in guide
    assert ohif.MENDS.name in guide


@pytest.mark.slow
class TestEachKind:
    """Of the sample, one of each kind that OHIF has a view for."""

    @pytest.fixture
    def see(self, ohif_page: Ohif, server: Server, shared_data: Path) -> Callable[..., Ohif]:
        """Store files of the sample and open their study."""

        def of(*patterns: str) -> Ohif:
            files = [file for pattern in patterns for file in sorted((shared_data / "dicom").glob(pattern))]
            ohif_page.see(store(server, files))
            return ohif_page

        return of

    @pytest.mark.parametrize(
        "files",
        [
            "cr-dx/cr-pixel-spacing.dcm",
            "cr-dx/cr-monochrome1-j2k-lossless.dcm",
            "ct/abdomen-3slice/*",
            "mg/mg-outofbounds-overlay.dcm",
            "mr/brain-19slices/*",  # their window has a width of 0
            "mr/prostate-slice.dcm",  # its window names its function
            "mr/enhanced/emri_small.dcm",
            "nm/nm-image-storage-2frames.dcm",
            "nm/nm-in-sc-j2k.dcm",
            "pet/pet-slice.dcm",
            "us/examples_palette.dcm",
            "us/examples_rgb_color.dcm",
            "us/us-palette-rle-10frames.dcm",
            "us/us-ybrfull-jpeg-fragmented-8frames.dcm",
            "xa/xa-96frames-jpeg.dcm",
            "video/mpeg4-avc-720p.dcm",
            "waveform/ecg-12lead.dcm",
        ],
    )
    def test_is_seen(self, see: Callable[..., Ohif], files: str) -> None:
        see(files)

    def test_a_whole_slide_by_its_tiles(self, see: Callable[..., Ohif]) -> None:
        ohif_page = see("sm/sm_image_jpegls.dcm")
        assert ohif_page.asked("/frames/") > 10

    def test_every_transfer_syntax_is_decoded(self, ohif_page: Ohif, server: Server, shared_data: Path) -> None:
        study, series = generate_uid(), generate_uid()
        files = sorted((shared_data / "dicom" / "transfer-syntaxes" / "ct-512x512").glob("*.dcm"))
        images = [image for image in map(pydicom.dcmread, files) if image.file_meta.TransferSyntaxUID not in RETIRED]
        for number, image in enumerate(images, 1):
            image.StudyInstanceUID, image.SeriesInstanceUID, image.InstanceNumber = study, series, number
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ohif_page.see(store(server, images))
        ohif_page.until(lambda: ohif_page.asked("/frames/1") == len(images))

    def test_frames_one_after_the_other(self, see: Callable[..., Ohif]) -> None:
        ohif_page = see("us/us-ybrfull-jpeg-fragmented-8frames.dcm")
        ohif_page.skip_the_tour()
        ohif_page.page.locator('[data-cy="cine-player-play-pause"]').click()
        ohif_page.wait_for_change(lambda: ohif_page.canvas(0).screenshot())

    def test_a_volume_in_three_planes(self, see: Callable[..., Ohif]) -> None:
        ohif_page = see("ct/breast-rt/*")
        ohif_page.skip_the_tour()
        ohif_page.page.locator('[data-cy="Layout"]').click()
        ohif_page.page.get_by_text("MPR", exact=True).click()
        for index in range(3):
            ohif_page.wait_for_picture(index)

    @pytest.mark.parametrize(
        ("files", "name"),
        [
            (("ct/abdomen-3slice/*", "seg/liver.dcm"), "Liver Segmentation"),
            (("ct/breast-rt/*", "rt/breast-rt/rtstruct*"), "RT Structure Set"),
        ],
    )
    def test_what_is_drawn_over_its_images(self, see: Callable[..., Ohif], files: tuple[str, ...], name: str) -> None:
        ohif_page = see(*files)
        ohif_page.skip_the_tour()
        assert not ohif_page.colours()
        ohif_page.page.get_by_text(name).first.dblclick()
        ohif_page.page.get_by_role("button", name="Yes").click()
        ohif_page.until(ohif_page.colours)

    @pytest.mark.parametrize("file", ["pdf/ecg-in-pdf.dcm", "pdf/encapsulated-fax.dcm"])
    def test_a_document(self, ohif_page: Ohif, server: Server, shared_data: Path, file: str) -> None:
        ohif_page.open(f"/viewer?StudyInstanceUIDs={store(server, [shared_data / 'dicom' / file])}")
        shown = ohif_page.page.locator("object, iframe, embed").first
        shown.wait_for()
        ohif_page.until(lambda: ohif_page.asked("/rendered"))

    def test_a_report(self, ohif_page: Ohif, server: Server, shared_data: Path) -> None:
        report = shared_data / "dicom" / "sr" / "basic-text-siemens.dcm"
        ohif_page.open(f"/viewer?StudyInstanceUIDs={store(server, [report])}")
        ohif_page.page.get_by_text("Recording Observer's Name").first.wait_for()

    def test_a_length_is_measured_and_listed(self, see: Callable[..., Ohif]) -> None:
        ohif_page = see("ct/abdomen-3slice/*")
        ohif_page.skip_the_tour()
        page = ohif_page.page
        page.locator('[data-cy="trackedMeasurements-btn"]').click()
        page.locator('[data-cy="MeasurementTools-split-button-primary"]').click()
        box = ohif_page.canvas(0).bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.click(x - 60, y)
        page.mouse.move(x + 40, y + 20, steps=5)
        page.mouse.click(x + 60, y + 40)
        page.locator('[data-cy="prompt-begin-tracking-yes-btn"]').click()
        page.locator('[data-cy="data-row-details"]').filter(has_text="mm").wait_for()

    def test_the_list_is_searched_by_name_date_and_modality(self, ohif_page: Ohif, server: Server) -> None:
        wanted = ct(PatientName="Zwetschge^Ada", StudyDate="20190704")
        other = ct(PatientName="Zwetschge^Ida", StudyDate="20110704")
        store(server, wanted)
        store(server, other)
        ohif_page.open("/")
        page = ohif_page.page
        page.get_by_text("Zwetschge").first.wait_for()
        page.get_by_role("textbox").first.fill("zwet")
        ohif_page.until(lambda: ohif_page.asked("PatientName="))
        ada, ida = page.get_by_text("Zwetschge, Ada"), page.get_by_text("Zwetschge, Ida")
        ida.wait_for()
        dates = (("Start", "2019-01-01"), ("End", "2019-12-31"))
        for place, day in dates:
            page.get_by_placeholder(place).fill(day)
            page.get_by_placeholder(place).press("Enter")
        ida.wait_for(state="detached")
        ada.wait_for()
        ohif_page.until(lambda: ohif_page.asked("StudyDate=20190101-20191231"))
