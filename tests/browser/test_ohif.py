"""OHIF as npm has it, on an origin of its own, on our DICOMweb: logged in by OpenID Connect, across origins."""

import io
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, Response

from docs import ohif
from radloop import mongod
from tests.dicomweb.conftest import CONTENT_TYPE, CT_SERIES, message
from tests.server import Server

pytestmark = pytest.mark.browser

LIT = 0.02  # of a viewport's pixels at least: what is seen is no empty one
GREYS = 16
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
        canvas = self.page.locator("canvas.cornerstone-canvas").first
        canvas.wait_for()
        for _ in range(60):
            if is_picture(canvas.screenshot()):
                return
            self.page.wait_for_timeout(250)
        raise AssertionError(f"no picture of {study} is seen; {self.errors}")

    def asked(self, part: str) -> int:
        return sum(part in address for _, address in self.answers)

    def _note(self, response: Response) -> None:
        if response.url.startswith(self._server.settings.dicomweb_base):
            self.answers.append((response.status, response.url))


def is_picture(png: bytes) -> bool:
    """Whether pixels of many greys are lit: neither an empty viewport nor one with its text alone."""
    with Image.open(io.BytesIO(png)) as image:
        grey = image.convert("L")
        width, height = grey.size
        histogram = grey.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4)).histogram()
    return sum(histogram[24:]) > LIT * sum(histogram) and sum(n > 0 for n in histogram) >= GREYS


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


def store(server: Server, files: list[Path]) -> str:
    """Store them; the UID of the study of the first."""
    headers = {"Content-Type": CONTENT_TYPE, "Authorization": f"Bearer {server.backend('demo-modality')()}"}
    body = message(*(file.read_bytes() for file in files))
    answer = requests.post(f"{server.settings.dicomweb_base}/studies", data=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def test_it_lists_studies_and_shows_one(ohif_page: Ohif, server: Server) -> None:
    study = store(server, sorted(CT_SERIES.glob("*.dcm")))
    name = pydicom.dcmread(CT_SERIES / "ct-1.dcm", stop_before_pixels=True).PatientName.family_name

    ohif_page.open("/")
    ohif_page.page.get_by_text(name).first.wait_for()
    ohif_page.see(study)

    assert ohif_page.asked("/frames/1")
    assert ohif_page.asked("/metadata")


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        "cr-dx/cr-pixel-spacing.dcm",
        "cr-dx/cr-monochrome1-j2k-lossless.dcm",
        "us/examples_palette.dcm",
    ],
)
def test_it_shows_each_kind_of_image(files: str, ohif_page: Ohif, server: Server, shared_data: Path) -> None:
    ohif_page.see(store(server, sorted((shared_data / "dicom").glob(files))))
