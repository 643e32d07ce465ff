"""Takes the pictures of the portal that the README shows: `make picture`. Starts a server, plays some referrals
through its public interfaces, and looks at the pages in Debian's chromium.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from playwright.sync_api import Browser, Page, sync_playwright

from radloop import practice
from radloop.commands.demo import server_of_its_own
from radloop.demo.ehr_sim import PORT, EhrSimulator, running
from radloop.demo.oauth import AppToken, BackendToken
from radloop.demo.play import NOSHOW_MARGIN_MINUTES, load_credentials
from radloop.demo.players import Desk, Ehr, Modality, Referral
from radloop.demo.stage import Caller, wait_for
from radloop.settings import Settings

IMAGES = Path(__file__).parent / "images"
FLAGS = (  # headless, in a container, and without a word to anybody else
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CT, MR, US = (modality.display for modality in practice.MODALITIES)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's chromium. Raises FileNotFoundError, saying how to get it, where it is not installed."""
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def log_in(page: Page, origin: str, user: str, password: str) -> None:
    """Log in by the page, and arrive at the user's own."""
    page.goto(f"{origin}/")
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


class Cast:
    """The practice and one office, acting through the public interfaces of a demonstration server."""

    def __init__(self, settings: Settings, credentials: dict) -> None:
        self._settings = settings
        origin, clients, users = settings.origin, credentials["clients"], credentials["users"]

        def backend(name: str) -> BackendToken:
            client = clients[name]
            return BackendToken(origin, client["client_id"], client["key"], client["scope"])

        app = clients["demo-app"]
        staff = AppToken(
            origin, app["client_id"], app["redirect_uri"], "frontdesk", users["frontdesk"], "user/*.cruds"
        )
        self.ehr = Ehr(Caller(settings.fhir_base, backend("demo-ehr")), "", "")
        self.desk = Desk(Caller(settings.fhir_base, staff), origin)
        self.modality = Modality(backend("demo-modality"), settings.dicomweb_base)

    def refer(self, patient: int, exam: str, priority: str = "routine") -> Referral:
        """A referral that the practice has received. patient: one of the ten of the sample."""
        referral = self.ehr.refer(practice.patients()[patient], exam, priority)
        self.reach(referral, "received")
        return referral

    def accept(self, referral: Referral) -> Referral:
        self.desk.accept(referral)
        self.reach(referral, "awaiting-scheduling")
        return referral

    def book(self, referral: Referral, service: str) -> dict:
        appointment = self.desk.book(self.accept(referral), service)
        self.reach(referral, "appointment-booked")
        return appointment

    def arrive(self, referral: Referral, appointment: dict) -> None:
        self.desk.mark(appointment, "arrived")
        self.reach(referral, "patient-arrived")

    def miss(self, referral: Referral, appointment: dict) -> None:
        """Let the appointment pass: the clock is moved past the grace period, and back."""
        settings, start = self._settings, minutes_until(appointment)
        grace = settings.noshow_grace_minutes + settings.noshow_correction_minutes + NOSHOW_MARGIN_MINUTES
        self.desk.move_clock(start + grace)
        self.reach(referral, "appointment-noshow")
        self.desk.move_clock(0)

    def complete(self, referral: Referral, patient: int) -> None:
        """Images and a final report."""
        task = self.desk.caller.get(referral.task)
        accession = next(i["value"] for i in task["identifier"] if i["system"].endswith("/accession-number"))
        study, slices = self.modality.scan(practice.patients()[patient], accession)
        self.modality.store(study, slices)
        self.reach(referral, "images-available")
        query = {"identifier": f"urn:dicom:uid|urn:oid:{study}"}
        imaging = wait_for(
            "the ImagingStudy", lambda: next(iter(self.desk.caller.find("ImagingStudy", **query)), None)
        )
        self.desk.report(referral, imaging, "No acute finding. No follow-up needed.")
        self.reach(referral, "report-final")

    def reach(self, referral: Referral, state: str) -> None:
        wait_for(state, lambda: self.ehr.business_status(referral) == state)


def minutes_until(appointment: dict) -> float:
    """Minutes from now until the appointment begins."""
    return (datetime.fromisoformat(appointment["start"]) - datetime.now(UTC)).total_seconds() / 60


def play(cast: Cast) -> Referral:
    """An ordinary day at the front desk; the referral that is complete at the end of it."""
    missed = cast.refer(1, "MR lumbar spine")
    cast.miss(missed, cast.book(missed, MR))  # before the others, which would wait too long by the moved clock
    done = cast.refer(0, "CT abdomen with contrast", "urgent")
    cast.arrive(done, cast.book(done, CT))
    cast.complete(done, 0)
    here = cast.refer(2, "CT chest", "urgent")
    cast.arrive(here, cast.book(here, CT))
    cast.book(cast.refer(3, "Ultrasound of the upper abdomen"), US)
    cast.accept(cast.refer(4, "MR right knee"))
    cast.refer(5, "Ultrasound of the left shoulder")
    cast.refer(6, "CT pulmonary angiography", "asap")
    cast.refer(7, "CT head without contrast", "stat")
    return done


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with server_of_its_own() as settings, chromium() as browser:
        credentials = load_credentials(settings.data_path)
        done = play(Cast(settings, credentials))
        for user, path, name, width in (
            ("frontdesk", "/desk", "desk", 1360),
            ("lakeside", f"/referrals/{done.task.partition('/')[2]}", "referral", 900),
        ):
            page = browser.new_page(viewport={"width": width, "height": 960})
            log_in(page, settings.origin, user, credentials["users"][user])
            page.goto(f"{settings.origin}{path}")
            page.get_by_text("Live", exact=True).wait_for()
            page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
            click.echo(f"{(IMAGES / name).relative_to(Path.cwd())}.png")
            page.close()
        with running(f"{settings.origin}/tracker/launch", PORT) as ehr:
            picture_in_a_chart(browser, ehr)


def picture_in_a_chart(browser: Browser, ehr: EhrSimulator) -> None:
    """Our app inside an EHR, once its referral was received."""
    page = browser.new_page(viewport={"width": 760, "height": 990})
    page.goto(f"{ehr.origin}/?width=320")
    app = page.frame_locator("iframe")
    app.get_by_role("button", name="Send the referral").click()
    app.get_by_text("Received by the practice").first.wait_for()
    app.get_by_text("Live", exact=True).wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=IMAGES / "tracker.png")
    page.close()


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as missing:
        sys.exit(str(missing))
