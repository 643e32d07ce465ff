"""EHR launch and launch contexts. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server.access import Access
from fhir_server.repository import Repository
from smart_auth import launch
from smart_auth.models import Context
from smart_auth.service import AuthService
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import (
    FHIR,
    Assertions,
    Clock,
    answer,
    authorization,
    bearer,
    consent_form,
    exchange,
    get_code,
    hidden,
    log_in,
)

REFERRAL = Context(
    "Patient/p1", "Encounter/e1", ("ServiceRequest/s1", "ImagingStudy/i1"), intent="view-images", banner=True
)
Begin = Callable[..., str]


@pytest.fixture
def begin(service: AuthService, clients: Clients, users: None) -> Begin:
    """A launch of the viewer by a user: the opaque value that the app gets."""

    def begin(user: str = "frida", context: Context = REFERRAL) -> str:
        found = service.store.user(user)
        assert found is not None
        address = launch.begin(service, found, "viewer", context)
        assert address is not None
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://app.example.org/launch"
        query = parse_qs(parts.query)
        assert query["iss"] == [FHIR]
        return query["launch"][0]

    return begin


def tokens(browser: FlaskClient, http: FlaskClient, user: str = "frida", **differences: str | None) -> dict:
    code = get_code(browser, user, **{"client_id": "viewer", **differences})
    return exchange(http, code, client_id="viewer").json


class TestEhrLaunch:
    def test_tells_the_app_what_the_user_has_in_view(
        self, browser: FlaskClient, http: FlaskClient, begin: Begin
    ) -> None:
        granted = tokens(browser, http, launch=begin(), scope="launch openid user/ImagingStudy.rs")
        assert granted["scope"] == "launch openid user/ImagingStudy.rs"
        assert (granted["patient"], granted["encounter"]) == ("p1", "e1")
        assert granted["fhirContext"] == [{"reference": "ServiceRequest/s1"}, {"reference": "ImagingStudy/i1"}]
        assert (granted["intent"], granted["need_patient_banner"]) == ("view-images", True)
        assert granted["smart_style_url"].startswith("http://127.0.0.1:8080/auth/smart-style.json?v=")

    def test_may_narrow_the_token_to_its_patient(self, browser: FlaskClient, http: FlaskClient, begin: Begin) -> None:
        granted = tokens(browser, http, launch=begin(), scope="launch patient/*.rs")
        seen = http.get("/fhir/whoami", headers=bearer(granted["access_token"])).json
        assert seen["patient"] == "Patient/p1"
        assert seen["audience"] == ["@Patient/p1", "@any", "@owner/user:frida"]

    def test_tells_which_office_launches(self, browser: FlaskClient, http: FlaskClient, begin: Begin) -> None:
        assert tokens(browser, http, "ruth", launch=begin("ruth"), scope="launch user/Task.rs")["tenant"] == "o1"
        assert "tenant" not in tokens(browser, http, launch=begin(), scope="launch user/Task.rs"), (
            "the practice's own"
        )

    @pytest.mark.parametrize(
        "context, told",
        [
            (REFERRAL, "launch/patient launch/encounter launch/imagingstudy"),
            (Context("Patient/p1", None, ("ServiceRequest/s1",)), "launch/patient"),
        ],
    )
    def test_has_more_to_ask_for_by_name(
        self, browser: FlaskClient, http: FlaskClient, database: Database, begin: Begin, context: Context, told: str
    ) -> None:
        """What there is to tell of it is granted; there is no choosing of visits and images."""
        wanted = "launch/patient launch/encounter launch/imagingstudy"
        database["auth_clients"].update_one({"_id": "viewer"}, {"$set": {"scope": f"launch {wanted}"}})
        granted = tokens(browser, http, launch=begin(context=context), scope=f"launch {wanted}")
        assert granted["scope"] == f"launch {told}"

    def test_asks_for_no_other_patient(self, browser: FlaskClient, begin: Begin) -> None:
        log_in(browser, "frida")
        asked = authorization(client_id="viewer", launch=begin(), scope="launch launch/patient patient/*.rs")
        assert "Allow" in browser.get("/auth/authorize", query_string=asked).text

    def test_tells_nothing_to_an_app_that_shall_not_know(
        self, browser: FlaskClient, http: FlaskClient, begin: Begin
    ) -> None:
        log_in(browser, "frida")
        asked = authorization(client_id="viewer", launch=begin(), scope="launch user/Task.rs")
        form = consent_form(browser.get("/auth/authorize", query_string=asked).text)
        form["approve"] = ["user/Task.rs"]
        code = answer(browser.post("/auth/consent", data=form))["code"]
        assert not {"patient", "encounter", "fhirContext"} & set(exchange(http, code, client_id="viewer").json)

    def test_is_told_by_introspection_too(
        self, browser: FlaskClient, http: FlaskClient, begin: Begin, assertion: Assertions
    ) -> None:
        token = tokens(browser, http, launch=begin(), scope="launch openid user/Task.rs")["access_token"]
        told = http.post("/auth/introspect", data={"token": token, **assertion("pacs")}).json
        assert (told["active"], told["patient"], told["intent"]) == (True, "p1", "view-images")

    @pytest.mark.parametrize(
        "differences",
        [
            {"launch": "made-up", "scope": "launch user/Task.rs"},
            {"launch": "", "scope": "launch user/Task.rs"},
            {"launch": None, "scope": "launch user/Task.rs"},
            {"scope": "user/Task.rs"},
            {"client_id": "app", "scope": "launch user/Task.rs"},
        ],
    )
    def test_with_a_fault_gets_no_code(self, browser: FlaskClient, begin: Begin, differences: dict) -> None:
        log_in(browser, "frida")
        asked = authorization(**{"client_id": "viewer", "launch": begin(), **differences})
        got = answer(browser.get("/auth/authorize", query_string=asked))
        assert got["error"] == "invalid_request"
        assert "code" not in got

    def test_works_once(self, browser: FlaskClient, http: FlaskClient, begin: Begin) -> None:
        value = begin()
        tokens(browser, http, launch=value, scope="launch user/Task.rs")
        asked = authorization(client_id="viewer", launch=value, scope="launch user/Task.rs")
        assert answer(browser.get("/auth/authorize", query_string=asked))["error"] == "invalid_request"

    def test_gives_one_code_to_two_consents(self, browser: FlaskClient, begin: Begin) -> None:
        log_in(browser, "frida")
        asked = authorization(client_id="viewer", launch=begin(), scope="launch user/Task.rs")
        form = consent_form(browser.get("/auth/authorize", query_string=asked).text)
        assert "code" in answer(browser.post("/auth/consent", data=form))
        assert answer(browser.post("/auth/consent", data=form))["error"] == "invalid_request"

    def test_ends_after_five_minutes(self, browser: FlaskClient, clock: Clock, begin: Begin) -> None:
        log_in(browser, "frida")
        asked = authorization(client_id="viewer", launch=begin(), scope="launch user/Task.rs")
        clock.forward(seconds=301)
        assert answer(browser.get("/auth/authorize", query_string=asked))["error"] == "invalid_request"

    def test_of_one_user_is_none_of_anothers(self, browser: FlaskClient, begin: Begin) -> None:
        asked = authorization(client_id="viewer", launch=begin("ruth"), scope="launch user/Task.rs")
        assert browser.get("/auth/authorize", query_string=asked).status_code == 200, "nobody has logged in yet"
        log_in(browser, "frida")
        assert answer(browser.get("/auth/authorize", query_string=asked))["error"] == "invalid_request"

    def test_is_for_apps_that_registered_for_it(self, service: AuthService, clients: Clients, users: None) -> None:
        frida = service.store.user("frida")
        assert frida is not None
        assert [client.client_id for client in launch.launchable(service)] == ["viewer"]
        assert launch.begin(service, frida, "app", REFERRAL) is None
        assert launch.begin(service, frida, "nobody", REFERRAL) is None


class TestStandaloneLaunch:
    """The user chooses the patient: https://hl7.org/fhir/smart-app-launch/app-launch.html#launch-app-standalone-launch"""

    @pytest.fixture(autouse=True)
    def patients(self, repository: Repository) -> None:
        for id, family, born in (("p1", "Chalmers", "1974-12-25"), ("p2", "Childs", "1980-01-02")):
            name = [{"family": family, "given": ["Peter"]}]
            number = [{"system": "urn:mrn", "value": f"MRN-{id}"}]
            patient = {"resourceType": "Patient", "id": id, "name": name, "birthDate": born, "identifier": number}
            repository.update(Access.system("test"), patient)

    def ask(self, browser: FlaskClient, user: str = "frida", scope: str = "launch/patient patient/*.rs") -> Any:
        log_in(browser, user)
        return browser.get("/auth/authorize", query_string=authorization(client_id="viewer", scope=scope))

    def look_for(self, browser: FlaskClient, shown: Any, text: str) -> Any:
        return browser.post("/auth/patient", data=consent_form(shown.text) | {"find": text})

    @pytest.mark.parametrize("text", ["chal", "peter CHALMERS", "1974-12-25", "MRN-p1"])
    def test_lets_the_user_choose_a_patient(self, browser: FlaskClient, http: FlaskClient, text: str) -> None:
        shown = self.ask(browser)
        assert "Which patient" in shown.text
        found = self.look_for(browser, shown, text)
        assert "Chalmers" in found.text
        assert "Childs" not in found.text
        consent = browser.post("/auth/patient", data=consent_form(found.text) | {"patient": "Patient/p1"})
        assert "Peter Chalmers" in consent.text
        code = answer(browser.post("/auth/consent", data=consent_form(consent.text)))["code"]
        granted = exchange(http, code, client_id="viewer").json
        assert granted["patient"] == "p1"
        seen = http.get("/fhir/whoami", headers=bearer(granted["access_token"])).json
        assert seen["audience"] == ["@Patient/p1", "@any", "@owner/user:frida"]

    def test_says_when_nobody_is_found(self, browser: FlaskClient) -> None:
        found = self.look_for(browser, self.ask(browser), "Nobody, <b>at all|")
        assert "Nobody was found" in found.text
        assert "<b>at all" not in found.text

    def test_keeps_names_out_of_addresses(self, browser: FlaskClient) -> None:
        shown = self.ask(browser)
        assert 'action="/auth/patient"' in shown.text
        assert browser.get("/auth/patient?find=chal").status_code == 405

    @pytest.mark.parametrize("patient", ["Patient/nobody", "Practitioner/p1", "", "Patient/../p1"])
    def test_with_a_patient_that_is_none_gets_no_patient_scope(self, browser: FlaskClient, patient: str) -> None:
        form = consent_form(self.ask(browser).text) | {"patient": patient}
        form["approve"] = ["launch/patient", "patient/*.rs"]
        assert answer(browser.post("/auth/consent", data=form))["error"] == "access_denied"

    def test_is_not_needed_for_the_user_s_own_record(self, browser: FlaskClient, http: FlaskClient) -> None:
        granted = tokens(browser, http, "paul", scope="launch/patient patient/*.rs")
        assert granted["patient"] == "p1"

    def test_drops_patient_scopes_of_who_has_no_patient_to_give(self, browser: FlaskClient) -> None:
        shown = self.ask(browser, "adam", "launch/patient patient/*.rs user/Task.rs")
        assert consent_form(shown.text)["approve"] == ["user/Task.rs"]

    def test_lets_a_referring_physician_choose_among_their_own(
        self, browser: FlaskClient, http: FlaskClient, repository: Repository
    ) -> None:
        """Both must hold then: that the office sees it, and that it is of that patient."""
        order = {"resourceType": "ServiceRequest", "id": "s1", "status": "active", "intent": "order"}
        order |= {"subject": {"reference": "Patient/p1"}, "requester": {"reference": "Organization/o1"}}
        repository.update(Access.system("test"), {"resourceType": "Organization", "id": "o1", "name": "O"})
        repository.update(Access.system("test"), order)
        shown = self.ask(browser, "ruth")
        assert "Nobody was found" in self.look_for(browser, shown, "childs").text
        found = self.look_for(browser, shown, "chal")
        consent = browser.post("/auth/patient", data=consent_form(found.text) | {"patient": "Patient/p1"})
        assert consent_form(consent.text)["approve"] == ["launch/patient", "patient/*.rs"]
        code = answer(browser.post("/auth/consent", data=consent_form(consent.text)))["code"]
        granted = exchange(http, code, client_id="viewer").json
        assert (granted["patient"], granted["scope"]) == ("p1", "launch/patient patient/*.rs")
        seen = http.get("/fhir/whoami", headers=bearer(granted["access_token"])).json
        assert seen["audience"] == ["@Organization/o1", "@any", "@owner/user:ruth"]
        assert seen["compartment"] == ["@Patient/p1", "@any", "@owner/user:ruth"]

    def test_gives_a_referring_physician_no_patient_of_another_office(self, browser: FlaskClient) -> None:
        form = consent_form(self.ask(browser, "ruth").text) | {"patient": "Patient/p2"}
        form["approve"] = ["launch/patient", "patient/*.rs"]
        assert answer(browser.post("/auth/consent", data=form))["error"] == "access_denied"

    def test_needs_the_form_s_own_token(self, browser: FlaskClient) -> None:
        form = consent_form(self.ask(browser).text) | {"csrf_token": "x", "find": "chal"}
        assert browser.post("/auth/patient", data=form).status_code == 403

    def test_without_a_word_to_the_user_is_refused(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        asked = authorization(client_id="viewer", scope="patient/*.rs", prompt="none")
        assert answer(browser.get("/auth/authorize", query_string=asked))["error"] == "interaction_required"


class TestStyle:
    def test_is_read_from_any_origin_under_an_address_of_its_content(
        self, http: FlaskClient, service: AuthService
    ) -> None:
        path = service.style_url.removeprefix("http://127.0.0.1:8080")
        style = http.get(path, headers={"Origin": "https://anywhere.example.org"})
        assert style.headers["Access-Control-Allow-Origin"] == "*"
        assert style.json["color_background"].startswith("#")


class TestConnectedApps:
    """The page where a user takes access back: `management_endpoint`."""

    def test_shows_the_user_s_apps_and_takes_access_back(self, browser: FlaskClient, http: FlaskClient) -> None:
        granted = tokens(browser, http, scope="user/Task.rs offline_access")
        page = browser.get("/auth/apps")
        assert "viewer" in page.text
        assert "Read and search Task" in page.text
        form = {"client_id": "viewer", "csrf_token": hidden(page.text, "csrf_token")}
        assert "No app has access" in browser.post("/auth/apps", data=form).text
        assert http.get("/fhir/whoami", headers=bearer(granted["access_token"])).status_code == 401
        again = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"], "client_id": "viewer"}
        assert http.post("/auth/token", data=again).json["error"] == "invalid_grant"

    def test_shows_no_one_else_s(self, browser: FlaskClient, http: FlaskClient) -> None:
        tokens(browser, http, scope="user/Task.rs")
        log_in(browser, "ruth")
        assert "No app has access" in browser.get("/auth/apps").text

    def test_takes_nothing_without_the_form_s_token(self, browser: FlaskClient, http: FlaskClient) -> None:
        granted = tokens(browser, http, scope="user/Task.rs")
        assert browser.post("/auth/apps", data={"client_id": "viewer"}).status_code == 403
        assert http.get("/fhir/whoami", headers=bearer(granted["access_token"])).status_code == 200

    def test_asks_to_log_in(self, http: FlaskClient) -> None:
        assert http.get("/auth/apps").status_code == 401
