"""A SMART app of somebody else: fhirclient of npm as it is published, in a real browser, against a whole server.

https://github.com/smart-on-fhir/client-js. The app is a page of another origin, as an EHR vendor would write it.
"""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask, Response
from joserfc.jwk import ECKey
from playwright.sync_api import Browser, Page, expect
from werkzeug.serving import make_server

from docs.picture import Cast
from radloop.demo.players import Referral
from radloop.practice import patients
from tests.server import Server

pytestmark = pytest.mark.browser

LIBRARY = Path(__file__).parents[2] / "apps/tracker/node_modules/fhirclient/build/fhir-client.pure.min.js"
KINDS = ["public", "confidential-symmetric", "confidential-asymmetric"]
HTML = (
    '<!doctype html><title>Foreign app</title><link rel="icon" href="data:,"><script src="/fhirclient.js"></script>'
)
SHOWN = """
<pre id="shown"></pre><button id="refresh">Refresh</button>
<script>
FHIR.oauth2.ready().then(async (client) => {
  window.client = client;
  const answer = client.state.tokenResponse;
  const name = client.patient.id ? (await client.patient.read()).name[0].family : null;
  const contexts = (answer.fhirContext ?? []).map((one) => one.reference);
  const order = contexts.find((one) => one.startsWith("ServiceRequest/"));
  const exam = order ? (await client.request(order)).code.text : null;
  document.getElementById("shown").textContent = JSON.stringify(
    { name, exam, contexts, fhirUser: client.user.fhirUser, intent: answer.intent ?? null, scope: answer.scope });
}).catch((error) => { document.getElementById("shown").textContent = `failed: ${error.message}`; });
document.getElementById("refresh").addEventListener("click", async () => {
  const before = client.state.tokenResponse.access_token;
  const spent = client.state.tokenResponse.refresh_token;
  let told;
  try {
    await client.refresh();
    const now = client.state.tokenResponse;
    const found = await client.request("Task");
    told = `${now.access_token !== before} ${now.refresh_token !== spent} ${found.resourceType}`;
  } catch (error) {
    told = `failed: ${error.message}`;
  }
  document.getElementById("shown").textContent = told;
});
</script>
"""


@dataclass
class App:
    """The origin of the app, and the settings that its launch page gives to fhirclient."""

    origin: str
    settings: dict

    @property
    def launch(self) -> str:
        return f"{self.origin}/launch"


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    """One for all tests: the server looks for new origins every ten seconds."""
    if not LIBRARY.is_file():
        pytest.skip("fhirclient of npm is not there: install Node 20, then `make tracker`")
    flask = Flask("foreign-app")
    http = make_server("127.0.0.1", 0, flask, threaded=True)
    found = App(f"http://127.0.0.1:{http.server_port}", {})

    @flask.get("/fhirclient.js")
    def library() -> Response:
        return Response(LIBRARY.read_bytes(), content_type="text/javascript")

    @flask.get("/launch")
    def launch() -> str:
        return f"{HTML}<script>FHIR.oauth2.authorize({json.dumps(found.settings)});</script>"

    @flask.get("/app")
    def shown() -> str:
        return HTML + SHOWN

    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield found
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(scope="module")
def referral(cast: Cast) -> Referral:
    return cast.refer(9, "CT for another app")


@pytest.fixture
def register(server: Server, app: App, tmp_path: Path) -> Callable[..., None]:
    def add(client_id: str, kind: str, scope: str, **settings: object) -> None:
        more = ["--type", kind]
        if kind == "confidential-asymmetric":
            file, settings["clientPrivateJwk"] = key_file(tmp_path)
            more += ["--jwks-file", str(file)]
        done = server.command(
            *("client", "add", client_id, "--name", f"App {client_id}", "--scope", scope),
            *("--redirect-uri", f"{app.origin}/app", "--launch-uri", app.launch, "--origin", app.origin, *more),
        )
        assert done.returncode == 0, done.stdout
        if kind == "confidential-symmetric":
            settings["clientSecret"] = done.stdout.rpartition(": ")[2].strip()
        own = {"clientId": client_id, "scope": scope, "redirectUri": f"{app.origin}/app", "pkceMode": "required"}
        app.settings = own | settings

    return add


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def log_in(page: Page, server: Server, user: str) -> None:
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(server.credentials["users"][user])
    page.get_by_role("button", name="Log in").click()


def shown(page: Page) -> dict:
    """What the app read with its token."""
    expect(page.locator("#shown")).not_to_be_empty()
    text = page.locator("#shown").text_content() or ""
    assert text.startswith("{"), text
    return dict(json.loads(text))


def refresh(page: Page, kind: str) -> None:
    """Have the app renew its token, and use the new one."""
    page.get_by_role("button", name="Refresh").click()
    if kind == "confidential-asymmetric":  # this library renews without a client assertion, which may not pass
        expect(page.locator("#shown")).to_contain_text("invalid_grant")
    else:
        expect(page.locator("#shown")).to_have_text("true true Bundle")


def key_file(folder: Path) -> tuple[Path, dict]:
    """The public keys of the app as a file, and its private one."""
    key = ECKey.generate_key("P-384", {"alg": "ES384", "use": "sig"}, private=True, auto_kid=True)
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [dict(key.as_dict(private=False))]}))
    return file, dict(key.as_dict(private=True)) | {"alg": "ES384", "key_ops": ["sign"]}


@pytest.mark.parametrize("kind", KINDS)
def test_standalone_launch_with_a_patient_picker_and_refresh(
    page: Page,
    server: Server,
    app: App,
    register: Callable[..., None],
    referral: Referral,
    kind: str,
) -> None:
    scope = "launch/patient openid fhirUser patient/*.rs offline_access"
    register(f"alone-{kind}", kind, scope, iss=server.settings.fhir_base)
    page.goto(app.launch)
    log_in(page, server, "frontdesk")
    family = patients()[9]["name"][0]["family"]
    page.get_by_label("Name, date of birth").fill(family)
    page.get_by_role("button", name="Find").click()
    page.locator(".found button").first.click()
    page.get_by_role("button", name="Allow", exact=True).click()
    found = shown(page)
    assert found["name"] == family
    assert "offline_access" in found["scope"].split()
    refresh(page, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_ehr_launch_from_the_page_of_a_referral(
    page: Page,
    server: Server,
    app: App,
    register: Callable[..., None],
    referral: Referral,
    kind: str,
) -> None:
    client_id = f"opened-{kind}"
    register(client_id, kind, "launch openid fhirUser user/*.rs online_access")
    page.goto(f"{server.settings.origin}/referrals/{referral.task.partition('/')[2]}")
    log_in(page, server, "lakeside")
    with page.expect_popup() as opened:
        page.get_by_role("link", name=f"App {client_id}").click()
    opened.value.get_by_role("button", name="Allow", exact=True).click()
    found = shown(opened.value)
    assert found["exam"] == "CT for another app"
    assert found["contexts"] == [referral.order, referral.task]
    assert found["intent"] == "referral-status"
    assert found["fhirUser"].endswith("PractitionerRole/lakeside-role")
    refresh(opened.value, kind)
