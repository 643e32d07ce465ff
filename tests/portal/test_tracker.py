"""Our SMART app inside another EHR, up to its page: launch, callback, what is read there, what the page may ask here.

The EHR is the simulator of the demonstrations, over real HTTP. https://hl7.org/fhir/smart-app-launch/app-launch.html
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from joserfc.jwk import ECKey

import fhir_server.routes
from portal import tracker_routes
from radloop.demo.ehr_sim import CLIENT_ID, PATIENT, SCOPES, STYLE, EhrSimulator, running
from referral.context import Practice
from smart_auth.models import digest
from smart_auth.outside.servers import Server
from smart_auth.service import AuthService
from smart_auth.users import deactivate_user
from subscriptions.binding import Bindings
from subscriptions.mail_store import Outbox
from tests.portal.conftest import LAKESIDE, LIVE, create_app
from tests.smart_auth.oauth import ORIGIN, Clock

LAUNCH, CALLBACK = f"{ORIGIN}/tracker/launch", f"{ORIGIN}/tracker/callback"
FORM = {
    "family": "Sandoval",
    "given": "Rosa",
    "birthdate": "1968-04-12",
    "gender": "female",
    "phone": "+1-555-0142",
    "exam": "MR of the right knee",
    "reason": "Locking",
    "priority": "urgent",
    "payer": "Helvia Health",
    "insured": "HL-204417",
}


@pytest.fixture
def real_clock() -> Clock:
    """Today: the simulator's id_tokens go by the machine's clock."""
    clock = Clock()
    clock.now = datetime.now(UTC)
    return clock


@pytest.fixture
def ehr() -> Iterator[EhrSimulator]:
    with running(LAUNCH) as ehr:
        yield ehr


@pytest.fixture(autouse=True)
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is proved here is the server; its page need not be built for it."""
    (tmp_path / "tracker.js").write_text("")
    monkeypatch.setattr(tracker_routes, "BUILT", tmp_path)
    return tmp_path


@pytest.fixture
def app(
    auth: AuthService, practice: Practice, bindings: Bindings, outbox: Outbox, ehr: EhrSimulator
) -> Callable[..., Flask]:
    def create(**more: Any) -> Flask:
        server = Server(
            "sim", "ehr", "The EHR", ehr.iss, CLIENT_ID, SCOPES, LAKESIDE, frozenset({"referrer"}), **more
        )
        service = replace(auth, outside={"sim": server})
        app = create_app(service, practice, bindings, outbox, public_paths=tracker_routes.PUBLIC_PATHS)
        app.register_blueprint(tracker_routes.create_blueprint(practice, service, LIVE))
        app.register_blueprint(fhir_server.routes.create_blueprint(practice.repository, [], dict), url_prefix="/fhir")
        return app

    return create


@pytest.fixture
def browser(app: Callable[..., Flask]) -> FlaskClient:
    return app().test_client()


def authorize(browser: FlaskClient, ehr: EhrSimulator) -> str:
    """Launch the app; where the EHR is asked for authorization."""
    response = browser.get(ehr.launch_address().removeprefix(ORIGIN))
    assert response.status_code == 302, response.text
    return response.location


def agreed(address: str) -> str:
    """Where the EHR sends the browser back to, below our origin."""
    back = requests.get(address, allow_redirects=False).headers["Location"]
    assert back.startswith(f"{CALLBACK}?")
    return back.removeprefix(ORIGIN)


def open_app(browser: FlaskClient, ehr: EhrSimulator) -> dict[str, Any]:
    """The session of the page that opens."""
    page = browser.get(agreed(authorize(browser, ehr)))
    assert page.status_code == 200, page.text
    found = re.search(r'<script type="application/json" id="session">(.*?)</script>', page.text)
    assert found
    return json.loads(found[1])


def bearer(session: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {session['token']}"}


class TestLaunch:
    def test_asks_the_ehr_with_launch_aud_state_and_pkce(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        asked = {name: value[0] for name, value in parse_qs(urlsplit(authorize(browser, ehr)).query).items()}
        assert asked["aud"] == ehr.iss
        assert "launch" in asked["scope"].split()
        assert asked["launch"]
        assert asked["redirect_uri"] == CALLBACK
        assert asked["code_challenge_method"] == "S256"
        assert len(asked["state"]) >= 43

    def test_of_an_unknown_ehr_is_a_page_and_no_call(
        self, browser: FlaskClient, ehr: EhrSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requests, "request", lambda *_a, **_k: pytest.fail("an outbound call"))
        for iss in ("https://evil.example.org/fhir", "", f"{ehr.iss}/more", f"{ehr.iss}@evil.example.org"):
            response = browser.get("/tracker/launch", query_string={"iss": iss, "launch": "x"})
            assert response.status_code == 403
            assert "not set up here" in response.text

    def test_without_a_launch_value_is_a_page(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        assert browser.get("/tracker/launch", query_string={"iss": ehr.iss}).status_code == 400

    def test_of_an_ehr_that_is_away_is_a_page(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        address = ehr.launch_address().removeprefix(ORIGIN)
        ehr.away = True
        response = browser.get(address)
        assert response.status_code == 502
        assert "cannot be reached" in response.text

    def test_finds_the_way_in_metadata_where_there_is_no_other(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        ehr.old = True
        assert open_app(browser, ehr)["ehr"] == "The EHR"

    def test_says_when_the_app_is_not_built(self, browser: FlaskClient, ehr: EhrSimulator, built: Path) -> None:
        (built / "tracker.js").unlink()
        response = browser.get(ehr.launch_address().removeprefix(ORIGIN))
        assert response.status_code == 503
        assert "make tracker" in response.text

    def test_binds_the_browser_by_a_cookie(self, browser: FlaskClient, ehr: EhrSimulator, auth: AuthService) -> None:
        cookie = browser.get(ehr.launch_address().removeprefix(ORIGIN)).headers["Set-Cookie"]
        wanted = "SameSite=None" if auth.sessions.secure else "SameSite=Lax"
        assert "HttpOnly" in cookie
        assert wanted in cookie

    def test_under_https_the_cookie_works_inside_a_frame(
        self, auth: AuthService, practice: Practice, ehr: EhrSimulator
    ) -> None:
        server = Server("sim", "ehr", "The EHR", ehr.iss, CLIENT_ID, SCOPES, LAKESIDE, frozenset({"referrer"}))
        origin = "https://radloop.example.org"
        service = replace(auth, outside={"sim": server}, origin=origin, sessions=replace(auth.sessions, secure=True))
        app = Flask("https")
        app.register_blueprint(tracker_routes.create_blueprint(practice, service, LIVE))
        response = app.test_client().get(ehr.launch_address().removeprefix(ORIGIN), base_url=origin)
        cookie = response.headers["Set-Cookie"]
        for part in ("__Secure-", "Secure;", "SameSite=None", "Partitioned", "HttpOnly"):
            assert part in cookie, cookie


class TestCallback:
    def test_opens_the_page_and_keeps_the_ehrs_token(
        self, browser: FlaskClient, ehr: EhrSimulator, auth: AuthService
    ) -> None:
        page = browser.get(agreed(authorize(browser, ehr)))
        token = next(iter(ehr._tokens))
        assert token not in page.text
        assert token not in str(page.headers)
        assert page.headers["Cache-Control"] == "no-store"
        policy = page.headers["Content-Security-Policy"]
        assert f"frame-ancestors {ehr.origin}" in policy
        assert "script-src 'self';" in policy
        assert len(auth.store.users()) == 5, "the physician is a user here now"

    def test_each_state_is_good_once(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        back = agreed(authorize(browser, ehr))
        assert browser.get(back).status_code == 200
        response = browser.get(back)
        assert response.status_code == 403
        assert "used before" in response.text

    def test_and_in_the_browser_that_began_it(
        self, app: Callable[..., Flask], browser: FlaskClient, ehr: EhrSimulator
    ) -> None:
        back = agreed(authorize(browser, ehr))
        response = app().test_client().get(back)
        assert response.status_code == 403
        assert "another browser" in response.text

    @pytest.mark.parametrize(
        ("error", "words"),
        [("access_denied", "did not allow"), ("<b>odd</b>", "reported an error"), ("invalid_scope", "administrator")],
    )
    def test_tells_an_error_of_the_ehr_in_words(
        self, browser: FlaskClient, ehr: EhrSimulator, error: str, words: str
    ) -> None:
        ehr.error = error
        response = browser.get(agreed(authorize(browser, ehr)))
        assert response.status_code == 403
        assert words in response.text
        assert "<b>" not in response.text

    def test_lets_nobody_in_whose_access_was_ended(
        self, browser: FlaskClient, ehr: EhrSimulator, auth: AuthService
    ) -> None:
        open_app(browser, ehr)
        name = auth.store.linked("sim", digest("dr1"))
        assert name is not None
        deactivate_user(auth.store, name)
        response = browser.get(agreed(authorize(browser, ehr)))
        assert response.status_code == 403
        assert "ended" in response.text

    def test_takes_on_colours_that_can_be_read(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        ehr.style, ehr.banner = STYLE, False
        session = open_app(browser, ehr)
        assert session["colours"] == {"page": "#fdf6e3", "text": "#2b2b2b", "accent": "#7a3e00"}
        assert session["banner"] is False

    @pytest.mark.parametrize(
        "style",
        [
            STYLE | {"color_text": "#fdf0e0"},
            STYLE | {"color_text": "red; background: url(https://evil.example.org)"},
            {"color_text": "#000000"},
            {},
        ],
    )
    def test_and_no_others(self, browser: FlaskClient, ehr: EhrSimulator, style: dict) -> None:
        ehr.style = style
        assert open_app(browser, ehr)["colours"] == {}


class TestPrefill:
    def test_is_what_the_chart_says(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        found = browser.get("/tracker/prefill", headers=bearer(open_app(browser, ehr))).json
        assert found["fields"] == FORM | {
            "exam": "MR of the right knee without contrast",
            "reason": "Locking of the right knee since a fall",
        }
        assert found["missing"] == []

    def test_asks_below_its_iss_alone(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        browser.get("/tracker/prefill", headers=bearer(open_app(browser, ehr)))
        assert [path.partition("?")[0] for path in ehr.asked] == [
            f"/fhir/Patient/{PATIENT}",
            "/fhir/ServiceRequest/o1",
            "/fhir/Condition",
            "/fhir/Coverage",
        ]

    def test_works_with_less_than_was_asked_for(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        ehr.scopes = frozenset({"launch", "openid", "fhirUser", "patient/Patient.rs"})
        found = browser.get("/tracker/prefill", headers=bearer(open_app(browser, ehr))).json
        assert found["fields"]["family"] == "Sandoval"
        assert "exam" not in found["fields"]
        assert found["missing"] == ["order", "reason", "insurance"]

    @pytest.mark.parametrize(
        ("coverage", "filled"),
        [
            ({"status": "cancelled", "payor": [{"display": "Old"}]}, {}),
            ({"status": "active", "payor": [{"reference": "Organization/9"}], "subscriberId": "7"}, {}),
            ({"status": "active", "payor": [{}, {"display": "Second"}]}, {"payer": "Second"}),
            ({"status": "active", "payor": "Helvia", "subscriberId": 5}, {}),
            ({"status": "active", "payor": [{"display": "A\nB"}], "subscriberId": {}}, {"payer": "A B"}),
        ],
    )
    def test_fills_in_an_insurance_that_stands_and_has_a_name(
        self,
        browser: FlaskClient,
        ehr: EhrSimulator,
        monkeypatch: pytest.MonkeyPatch,
        coverage: dict,
        filled: dict,
    ) -> None:
        session = open_app(browser, ehr)
        given = coverage | {
            "resourceType": "Coverage",
            "id": "v9",
            "beneficiary": {"reference": f"Patient/{PATIENT}"},
        }
        monkeypatch.setattr("radloop.demo.ehr_sim.RESOURCES", (given,))
        found = browser.get("/tracker/prefill", headers=bearer(session)).json
        assert {name: found["fields"][name] for name in ("payer", "insured") if name in found["fields"]} == filled
        assert ("insurance" in found["missing"]) == (not filled)

    def test_works_when_the_ehrs_token_has_expired(self, browser: FlaskClient, ehr: EhrSimulator) -> None:
        session = open_app(browser, ehr)
        ehr.good = False
        found = browser.get("/tracker/prefill", headers=bearer(session)).json
        assert found["fields"] == {}
        assert found["missing"] == ["patient", "order", "reason", "insurance"]

    @pytest.mark.parametrize(
        "odd",
        [
            {"resourceType": "Patient", "name": "Sandoval", "telecom": {"system": "phone"}, "birthDate": 5},
            {"resourceType": "Patient", "name": [5, {"family": ["x"], "given": "y"}], "gender": None},
            {"resourceType": "Condition"},
        ],
    )
    def test_survives_what_is_no_fhir(
        self, browser: FlaskClient, ehr: EhrSimulator, monkeypatch: pytest.MonkeyPatch, odd: dict
    ) -> None:
        session = open_app(browser, ehr)
        monkeypatch.setattr("radloop.demo.ehr_sim.RESOURCES", (odd | {"id": PATIENT},))
        response = browser.get("/tracker/prefill", headers=bearer(session))
        assert response.status_code == 200
        assert "family" not in response.json["fields"]


class TestPage:
    """What the page may ask here, with its own token."""

    @pytest.fixture
    def session(self, browser: FlaskClient, ehr: EhrSimulator) -> dict[str, Any]:
        return open_app(browser, ehr)

    def send(self, browser: FlaskClient, session: dict[str, Any], **more: str) -> Any:
        return browser.post("/tracker/refer", json=FORM | {"once": session["once"]} | more, headers=bearer(session))

    def test_sends_a_referral_and_follows_it(
        self, browser: FlaskClient, session: dict[str, Any], react: Callable[[], None]
    ) -> None:
        sent = self.send(browser, session)
        assert sent.status_code == 201, sent.text
        react()
        listed = browser.get("/tracker/referrals", headers=bearer(session)).json["referrals"]
        assert [(line["id"], line["exam"]) for line in listed] == [(sent.json["id"], FORM["exam"])]
        one = browser.get(f"/tracker/referrals/{sent.json['id']}", headers=bearer(session)).json
        assert one["state"] == "Received by the practice"
        assert one["entries"][-1]["what"] == "Received"
        assert one["insurance"] == ["Helvia Health, HL-204417"]

    def test_sends_the_insurance_along_where_there_is_one(
        self, browser: FlaskClient, session: dict[str, Any], react: Callable[[], None]
    ) -> None:
        self.send(browser, session)
        react()
        headers = bearer(session)
        found = browser.get("/fhir/ServiceRequest?_include=ServiceRequest:patient", headers=headers).json
        order, patient = (
            next(one["resource"] for one in found["entry"] if one["resource"]["resourceType"] == name)
            for name in ("ServiceRequest", "Patient")
        )
        coverage = browser.get(f"/fhir/{order['insurance'][0]['reference']}", headers=headers).json
        assert coverage["payor"] == [{"display": "Helvia Health"}]
        assert coverage["subscriberId"] == "HL-204417"
        assert coverage["beneficiary"] == {"reference": f"Patient/{patient['id']}"}

    def test_sends_no_insurance_where_there_is_none(self, browser: FlaskClient, session: dict[str, Any]) -> None:
        assert self.send(browser, session, payer="", insured=" ").status_code == 201
        headers = bearer(session)
        assert "entry" not in browser.get("/fhir/Coverage", headers=headers).json
        order = browser.get("/fhir/ServiceRequest", headers=headers).json["entry"][0]["resource"]
        assert "insurance" not in order

    def test_a_number_of_no_insurance_is_a_fault(self, browser: FlaskClient, session: dict[str, Any]) -> None:
        response = self.send(browser, session, payer="")
        assert response.status_code == 422
        assert set(response.json["faults"]) == {"payer"}

    def test_sending_twice_refers_once(self, browser: FlaskClient, session: dict[str, Any]) -> None:
        assert self.send(browser, session).json["id"] == self.send(browser, session).json["id"]
        assert len(browser.get("/tracker/referrals", headers=bearer(session)).json["referrals"]) == 1

    def test_faults_are_told_by_field(self, browser: FlaskClient, session: dict[str, Any]) -> None:
        response = self.send(browser, session, birthdate="2999-01-01", exam="")
        assert response.status_code == 422
        assert set(response.json["faults"]) == {"birthdate", "exam"}

    @pytest.mark.parametrize("body", [[], {"exam": 5}, "text", None])
    def test_what_is_no_form_is_400(self, browser: FlaskClient, session: dict[str, Any], body: Any) -> None:
        response = browser.post("/tracker/refer", json=body, headers=bearer(session))
        assert response.status_code == 400

    def test_its_token_does_no_more_than_the_page_needs(self, browser: FlaskClient, session: dict[str, Any]) -> None:
        headers = bearer(session)
        assert browser.get("/fhir/DiagnosticReport", headers=headers).status_code == 200
        assert browser.get("/fhir/Condition", headers=headers).status_code == 403
        denied = browser.post(
            "/fhir/Communication", json={"resourceType": "Communication", "status": "completed"}, headers=headers
        )
        assert denied.status_code == 403
        assert browser.post("/live", headers=headers).status_code == 200

    def test_ends_when_the_page_says_so(self, browser: FlaskClient, session: dict[str, Any]) -> None:
        assert browser.post("/tracker/end", headers=bearer(session)).status_code == 204
        assert browser.get("/tracker/referrals", headers=bearer(session)).status_code == 401

    def test_ends_after_an_hour(self, browser: FlaskClient, session: dict[str, Any], real_clock: Clock) -> None:
        real_clock.forward(seconds=3601)
        assert browser.get("/tracker/prefill", headers=bearer(session)).status_code == 401

    def test_a_token_of_another_app_opens_nothing(self, browser: FlaskClient, auth: AuthService) -> None:
        user = auth.store.user("ruth")
        assert user is not None
        token = auth.issuer.issue_for_user(user, "user/*.rs")
        response = browser.get("/tracker/prefill", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 401

    @pytest.mark.parametrize("path", ["/tracker/prefill", "/tracker/referrals", "/tracker/referrals/1"])
    def test_is_closed_without_a_token(self, browser: FlaskClient, path: str) -> None:
        assert browser.get(path).status_code == 401


class TestForAdministrators:
    def test_one_page_says_what_to_register(self, browser: FlaskClient) -> None:
        page = browser.get("/tracker/").text
        for text in (LAUNCH, CALLBACK, f"{ORIGIN}/tracker/jwks", SCOPES):
            assert text in page

    def test_the_keys_are_public_members_only(self, app: Callable[..., Flask]) -> None:
        key = ECKey.generate_key("P-384", private=True, auto_kid=True)
        found = app(key=key).test_client().get("/tracker/jwks").json["keys"]
        assert [(one["kid"], one["use"]) for one in found] == [(key.kid, "sig")]
        assert "d" not in found[0]
