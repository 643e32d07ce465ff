"""The desk for studies in a real browser, also on a narrow screen; and a photo for a referral."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pydicom.uid import generate_uid

from docs.picture import Cast
from radloop.practice import patients

pytestmark = pytest.mark.browser

Visit = Callable[..., Page]


def pictured(page: Page, name: str) -> None:
    """Keep a picture of the page where somebody asks for pictures."""
    if folder := os.environ.get("RADLOOP_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.fixture(scope="session")
def stray(cast: Cast) -> str:
    """The name in a study that names no order of ours."""
    study, slices = cast.modality.scan(patients()[1], "NOBODYS-1")
    other = generate_uid()
    for number, one in enumerate(slices):
        one.PatientName = "Stray^Sam"
        one.PatientID = "S-77"
        if number >= len(slices) // 2:
            one.SeriesInstanceUID = other
            one.SeriesDescription = "Of somebody else"
    cast.modality.store(study, slices)
    return "Stray Sam"


def test_staff_gives_a_study_to_its_referral(visit: Visit, cast: Cast, stray: str) -> None:
    referral = cast.refer(1, "CT of the chest", "routine")
    page = visit("frontdesk", "/desk")
    link = page.get_by_role("link", name="Unmatched studies")
    for _ in range(50):
        if "1" in link.inner_text():
            break
        page.wait_for_timeout(200)
        page.reload()
    pictured(page, "navigation")
    link.click()
    pictured(page, "studies")
    page.get_by_role("link", name=stray).click()
    expect(page.get_by_text("No order has the number that the images name.")).to_be_visible()
    task = referral.task.partition("/")[2]
    page.get_by_label("Name, number or date of birth").fill(patients()[1]["name"][0]["family"])
    page.get_by_role("button", name="Find the patient").click()
    pictured(page, "study")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    pictured(page, "study-320")
    form = page.locator(f"form:has(input[name=task][value='{task}'])")
    form.get_by_role("button", name="It belongs to this referral").click()
    expect(page.get_by_text("The study has its patient now.")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    pictured(page, "studies-320")
    page.goto(page.url.partition("/desk")[0] + f"/referrals/{task}")
    expect(page.get_by_role("heading", name="Images", exact=True)).to_be_visible(timeout=30_000)


def test_a_photo_is_added_to_a_referral(visit: Visit, cast: Cast) -> None:
    referral = cast.refer(1, "Skin of the left hand", "routine")
    photo = BytesIO()
    Image.new("RGB", (40, 30), (90, 60, 50)).save(photo, "JPEG")
    page = visit("frontdesk", f"/referrals/{referral.task.partition('/')[2]}")
    page.locator("#attach").click()
    page.locator("#attach-file").set_input_files(
        {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo.getvalue()}
    )
    page.locator("#attach-send").click()
    expect(page.get_by_text("The file is with the referral")).to_be_visible()
    for _ in range(50):
        if page.get_by_text("1 file sent with the referral").count():
            break
        page.wait_for_timeout(200)
        page.reload()
    expect(page.get_by_text("1 file sent with the referral")).to_be_visible()
    page.set_viewport_size({"width": 320, "height": 640})
    page.locator("#attach").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    pictured(page, "photo-320")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Photo 1").click()
    shown = opened.value.locator("img")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [40, 30]
