"""Our SMART app inside an EHR, in a real browser: opened by the EHR simulator in a frame 320 pixels wide."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from docs.picture import CT, Cast
from portal.tracker_routes import BUILT
from radloop.demo.ehr_sim import STYLE, EhrSimulator, running
from radloop.demo.players import Referral
from radloop.demo.stage import wait_for
from referral.codes import REFERRAL_NUMBER_SYSTEM
from tests.server import Server
from tests.server import running as running_server

pytestmark = pytest.mark.browser

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, EhrSimulator]]:
    """A server that knows the simulator, and the simulator."""
    if not (BUILT / "tracker.js").is_file():
        pytest.skip("the app is not built: install Node 20, then `make tracker`")
    folder = tmp_path_factory.mktemp("clinic")
    with running("") as ehr:
        servers = folder / "servers.json"
        servers.write_text(
            f'[{{"name": "sim", "kind": "ehr", "title": "The EHR", "issuer": "{ehr.iss}", '
            f'"client_id": "radloop-tracker", "organization": "Organization/lakeside"}}]'
        )
        with running_server(folder, outside_servers=str(servers)) as server:
            ehr.app = f"{server.settings.origin}/tracker/launch"
            yield server, ehr


@pytest.fixture
def ehr(clinic: tuple[Server, EhrSimulator]) -> EhrSimulator:
    """As it is at the start of each test."""
    ehr = clinic[1]
    ehr.style, ehr.banner, ehr.error, ehr.good = None, None, None, True
    return ehr


@pytest.fixture
def cast(clinic: tuple[Server, EhrSimulator]) -> Cast:
    return Cast(clinic[0].settings, clinic[0].credentials)


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    context = browser.new_context(**getattr(request, "param", {}))
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def chart(context: BrowserContext, ehr: EhrSimulator, trouble: list[str]) -> Page:
    """The chart, with the app in it."""
    page = context.new_page()
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(f"{ehr.origin}/?width=320")
    return page


def app_of(chart: Page) -> FrameLocator:
    return chart.frame_locator("iframe")


def fits(chart: Page) -> bool:
    return bool(app_of(chart).locator("html").evaluate("page => page.scrollWidth <= 320"))


def newest(cast: Cast) -> Referral:
    """What the practice's desk sees of the referral that was sent last."""
    tasks = wait_for("the referral", lambda: cast.desk.caller.find("Task", code="fulfill"))
    task = max(tasks, key=lambda task: task["authoredOn"])
    number = next(one["value"] for one in task["identifier"] if one["system"] == REFERRAL_NUMBER_SYSTEM)
    return Referral(
        number,
        task["for"]["reference"],
        task["focus"]["reference"],
        f"Task/{task['id']}",
        REFERRAL_NUMBER_SYSTEM,
    )


def send(chart: Page) -> None:
    """Send what the chart filled in."""
    app = app_of(chart)
    expect(app.get_by_label("Family name")).to_have_value("Sandoval")
    app.get_by_role("button", name="Send the referral").click()
    expect(app.get_by_role("heading", level=1)).to_have_text("MR of the right knee without contrast")


class TestInTheChart:
    def test_is_prefilled_sent_and_hears_of_news_by_itself(self, chart: Page, cast: Cast) -> None:
        app = app_of(chart)
        for label, value in (
            ("Given name", "Rosa"),
            ("Date of birth", "1968-04-12"),
            ("Sex", "female"),
            ("Exam, with side and contrast", "MR of the right knee without contrast"),
            ("Reason in words", "Locking of the right knee since a fall"),
            ("Priority", "urgent"),
            ("Who pays", "Helvia Health"),
            ("Number of the insured person", "HL-204417"),
        ):
            expect(app.get_by_label(label)).to_have_value(value)
        assert fits(chart)
        send(chart)
        expect(app.locator("#live")).to_have_text("Live")
        app.locator("html").evaluate("() => { window.stays = true; }")
        expect(app.locator(".words")).to_have_text("Received by the practice")
        cast.desk.book(_accepted(cast), CT)
        expect(app.locator(".words")).to_have_text("Appointment set")
        expect(app.locator(".line")).to_contain_text("Appointment booked")
        expect(app.locator("#news")).to_have_text("Appointment set")
        assert app.locator("html").evaluate("() => window.stays")
        assert fits(chart)

    def test_opens_report_and_images(self, chart: Page, cast: Cast) -> None:
        send(chart)
        app = app_of(chart)
        expect(app.locator(".words")).to_have_text("Received by the practice")
        referral = _accepted(cast)
        appointment = cast.desk.book(referral, CT)
        cast.reach(referral, "appointment-booked")
        cast.arrive(referral, appointment)
        _complete(cast, referral)
        expect(app.locator(".words")).to_have_text("The report is there")
        expect(app.locator(".report")).to_contain_text("No acute finding")
        app.get_by_role("button", name="Show images").click()
        picture = app.locator(".pictures img").first
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0

    def test_faults_are_told_at_their_fields(self, chart: Page, trouble: list[str]) -> None:
        app = app_of(chart)
        app.get_by_label("Phone").fill("")
        app.get_by_role("button", name="Send the referral").click()
        expect(app.locator("#phone-fault")).to_have_text("Please answer this.")
        expect(app.get_by_label("Phone")).to_be_focused()
        trouble[:] = [text for text in trouble if "422" not in text]  # the browser itself logs the answer

    def test_works_with_the_keyboard(self, chart: Page) -> None:
        app = app_of(chart)
        expect(app.get_by_label("Family name")).to_have_value("Sandoval")
        app.get_by_label("Family name").click()  # the frame has the focus, as once somebody works in it
        app.get_by_role("button", name="My referrals").focus()
        chart.keyboard.press("Enter")
        heading = app.get_by_role("heading", level=1)
        expect(heading).to_have_text("My referrals")
        # Of the frame: whether the frame has the focus of the window is for the browser to say.
        wait_for("the focus", lambda: heading.evaluate("heading => heading === document.activeElement"))

    def test_ends_when_somebody_says_so(self, chart: Page) -> None:
        app = app_of(chart)
        expect(app.get_by_label("Family name")).to_have_value("Sandoval")
        with chart.expect_response(lambda answer: answer.url.endswith("/tracker/end")) as ended:
            app.get_by_role("button", name="End", exact=True).click()
        assert ended.value.status == 204
        expect(app.get_by_role("heading", level=1)).to_have_text("Goodbye")
        expect(app.locator("#live")).to_contain_text("has ended")
        expect(app.get_by_text("Sandoval")).to_have_count(0)
        token = ended.value.request.headers["authorization"]
        address = ended.value.url.replace("/end", "/referrals")

        def is_refused() -> bool:
            return requests.get(address, headers={"Authorization": token}, timeout=10).status_code == 401

        wait_for("the end of the token in each process", is_refused)  # two seconds at most

    def test_shows_no_code_in_its_address(self, chart: Page) -> None:
        expect(app_of(chart).get_by_label("Family name")).to_have_value("Sandoval")
        assert "code=" not in app_of(chart).locator("html").evaluate("() => location.href")


class TestFaults:
    def test_an_error_of_the_ehr_is_told(
        self, context: BrowserContext, ehr: EhrSimulator, trouble: list[str]
    ) -> None:
        ehr.error = "access_denied"
        page = context.new_page()
        page.goto(ehr.origin)
        expect(app_of(page).get_by_role("alert")).to_contain_text("did not allow it")

    def test_a_token_that_has_ended_is_told(self, chart: Page, trouble: list[str]) -> None:
        app = app_of(chart)
        expect(app.get_by_label("Family name")).to_have_value("Sandoval")
        chart.route("**/tracker/referrals", lambda route: route.fulfill(status=401, body="{}"))
        app.get_by_role("button", name="My referrals").click()
        expect(app.get_by_role("alert")).to_contain_text("open the app again from your EHR")
        trouble[:] = [text for text in trouble if "401" not in text]


class TestLook:
    @pytest.mark.parametrize("context", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
    def test_has_the_contrast_of_wcag_aa(self, chart: Page) -> None:
        app = app_of(chart)
        expect(app.get_by_label("Family name")).to_have_value("Sandoval")
        assert app.locator("html").evaluate(CONTRAST) == []
        app.get_by_role("button", name="My referrals").click()
        expect(app.get_by_role("heading", level=1)).to_have_text("My referrals")
        assert app.locator("html").evaluate(CONTRAST) == []
        assert fits(chart)

    def test_takes_on_the_ehrs_colours_and_leaves_the_banner_to_it(
        self, context: BrowserContext, ehr: EhrSimulator
    ) -> None:
        ehr.style, ehr.banner = STYLE, False
        page = context.new_page()
        page.goto(ehr.origin)
        app = app_of(page)
        expect(app.get_by_label("Family name")).to_have_value("Sandoval")
        expect(app.locator(".banner")).to_have_count(0)
        expect(app.locator("body")).to_have_css("background-color", "rgb(253, 246, 227)")
        assert app.locator("html").evaluate(CONTRAST) == []

    def test_shows_the_patient_where_the_ehr_does_not(self, chart: Page) -> None:
        expect(app_of(chart).locator(".banner")).to_contain_text("Sandoval, Rosa")


def _accepted(cast: Cast) -> Referral:
    """The newest referral, once the practice has it, and accepted."""
    referral = newest(cast)
    cast.desk.accept(referral)
    cast.reach(referral, "awaiting-scheduling")
    return referral


def _complete(cast: Cast, referral: Referral) -> None:
    """Images and a final report."""
    task = cast.desk.caller.get(referral.task)
    accession = next(one["value"] for one in task["identifier"] if one["system"].endswith("/accession-number"))
    patient = cast.desk.caller.get(referral.patient)
    patient["identifier"] = [{"value": ""}, {"value": referral.number}]  # what the worklist gives the scanner
    study, slices = cast.modality.scan(patient, accession)
    cast.modality.store(study, slices)
    query = {"identifier": f"urn:dicom:uid|urn:oid:{study}", "status": "available"}
    imaging = wait_for("the ImagingStudy", lambda: next(iter(cast.desk.caller.find("ImagingStudy", **query)), None))
    cast.desk.report(referral, imaging, "No acute finding. No follow-up needed.")
