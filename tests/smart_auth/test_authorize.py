"""Authorization endpoint. RFC 6749 section 4.1, RFC 7636, SMART App Launch 2.2 (standalone launch)."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from smart_auth.clients import deactivate_client
from smart_auth.service import AuthService
from tests.smart_auth.oauth import (
    CALLBACK,
    FHIR,
    answer,
    authorization,
    bearer,
    consent_form,
    exchange,
    get_code,
    log_in,
)


@pytest.fixture(params=["GET", "POST"])
def ask(request: pytest.FixtureRequest, browser: FlaskClient) -> Any:
    """Ask for a code with either method; both give the same result."""

    def by_get(**differences: str | None) -> Any:
        return browser.get("/auth/authorize", query_string=authorization(**differences))

    def by_post(**differences: str | None) -> Any:
        return browser.post("/auth/authorize", data=authorization(**differences))

    return by_get if request.param == "GET" else by_post


class TestRequest:
    @pytest.mark.parametrize(
        "differences",
        [
            {"client_id": "nobody"},
            {"client_id": None},
            {"client_id": "ehr"},
            {"client_id": "\N{PILE OF POO}"},
            {"redirect_uri": None},
            {"redirect_uri": f"{CALLBACK}/"},
            {"redirect_uri": f"{CALLBACK}?x=1"},
            {"redirect_uri": "https://evil.example.org/\"'<script>é"},
            {"redirect_uri": CALLBACK.upper()},
            {"client_id": "nobody", "response_type": "token"},
            {"redirect_uri": "https://evil.example.org/", "response_type": 'tok"en'},
        ],
    )
    def test_of_an_unknown_client_or_redirect_uri_gets_a_page_and_no_redirect(
        self, ask: Any, differences: dict
    ) -> None:
        response = ask(**differences)
        assert response.status_code == 400
        assert "Location" not in response.headers
        assert "This app cannot be connected" in response.text

    @pytest.mark.parametrize(
        "differences, error",
        [
            ({"aud": None}, "invalid_request"),
            ({"aud": ""}, "invalid_request"),
            ({"aud": "https://other.example.org/fhir"}, "invalid_request"),
            ({"aud": f"{FHIR}//"}, "invalid_request"),
            ({"launch": "abc"}, "invalid_request"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge": ""}, "invalid_request"),
            ({"code_challenge": "short"}, "invalid_request"),
            ({"code_challenge_method": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": 'co"de\N{PILE OF POO}'}, "unsupported_response_type"),
            ({"response_type": None}, "unsupported_response_type"),
            ({"scope": None}, "invalid_scope"),
            ({"scope": "user/Task.dus"}, "invalid_scope"),
            ({"scope": "system/*.rs"}, "invalid_scope"),
            ({"scope": "offline_access"}, "invalid_scope"),
            ({"prompt": "none"}, "login_required"),
        ],
    )
    def test_with_another_fault_goes_back_to_the_client(self, ask: Any, differences: dict, error: str) -> None:
        got = answer(ask(**differences))
        assert (got["error"], got["state"]) == (error, "s t&te")
        assert "code" not in got

    def test_with_a_parameter_twice_gets_no_code(self, browser: FlaskClient) -> None:
        log_in(browser, "frida")
        twice = [*authorization().items(), ("client_id", "app")]
        response = browser.get("/auth/authorize", query_string="&".join(f"{k}={v}" for k, v in twice))
        assert response.status_code == 400

    @pytest.mark.parametrize("differences", [{"aud": f"{FHIR}/"}, {"aud": None, "resource": FHIR}])
    def test_may_write_the_audience_in_two_more_ways(self, ask: Any, differences: dict) -> None:
        assert "Log in" in ask(**differences).text

    def test_of_a_deactivated_client_gets_a_page(self, ask: Any, service: AuthService) -> None:
        deactivate_client(service.store, "app")
        assert ask().status_code == 400


class TestLogin:
    def test_comes_first_and_leads_on_to_the_consent(self, ask: Any, browser: FlaskClient) -> None:
        shown = ask()
        fields = consent_form(shown.text)
        assert fields["next"].startswith("/auth/authorize?")
        fields = {"next": fields["next"], "login_token": fields["login_token"]}
        led = browser.post("/auth/login", data={**fields, "name": "frida", "password": "correct horse"})
        assert led.status_code == 303
        page = browser.get(led.location)
        assert page.status_code == 200
        assert "Allow “app” access?" in page.text
        assert answer(browser.post("/auth/consent", data=consent_form(page.text)))["state"] == "s t&te"

    def test_is_asked_again_when_the_client_wants_it(self, browser: FlaskClient, clock: Any) -> None:
        log_in(browser, "frida")
        clock.forward(minutes=3)
        asked = browser.get("/auth/authorize", query_string=authorization(prompt="login"))
        assert 'name="password"' in asked.text
        log_in(browser, "frida")
        asked = browser.get("/auth/authorize", query_string=authorization(prompt="login"))
        assert "Allow “app” access?" in asked.text


class TestConsent:
    def shown(self, browser: FlaskClient, user: str = "frida", **differences: str | None) -> Any:
        log_in(browser, user)
        return browser.get("/auth/authorize", query_string=authorization(**differences))

    def test_lists_what_is_asked_with_check_boxes(self, browser: FlaskClient) -> None:
        page = self.shown(browser, scope="openid user/Task.rs user/Task.dus nonsense")
        assert consent_form(page.text)["approve"] == ["openid", "user/Task.rs"]
        assert "Read and search Task" in page.text

    def test_is_not_skipped_on_demand(self, browser: FlaskClient) -> None:
        assert answer(self.shown(browser, prompt="none"))["error"] == "consent_required"

    def test_lists_no_more_than_the_user_has(self, browser: FlaskClient) -> None:
        page = self.shown(browser, "adam", scope="user/*.cruds")
        approved = consent_form(page.text)["approve"]
        assert "user/*.rds" in approved
        assert not any(scope.startswith(("user/Patient", "user/Task")) for scope in approved)

    def test_denied_is_access_denied(self, browser: FlaskClient) -> None:
        form = consent_form(self.shown(browser).text) | {"decision": "deny"}
        got = answer(browser.post("/auth/consent", data=form))
        assert got["error"] == "access_denied"
        assert got["state"] == "s t&te"

    def test_without_any_check_mark_is_access_denied(self, browser: FlaskClient) -> None:
        form = consent_form(self.shown(browser).text) | {"approve": []}
        assert answer(browser.post("/auth/consent", data=form))["error"] == "access_denied"

    def test_grants_what_is_checked(self, browser: FlaskClient, http: FlaskClient) -> None:
        form = consent_form(self.shown(browser, scope="user/Task.rs user/Patient.rs").text)
        code = answer(browser.post("/auth/consent", data=form | {"approve": ["user/Patient.rs"]}))["code"]
        assert exchange(http, code).json["scope"] == "user/Patient.rs"

    def test_grants_nothing_that_was_not_offered(self, browser: FlaskClient, http: FlaskClient) -> None:
        form = consent_form(self.shown(browser, "ruth", scope="user/Task.rs").text)
        form["approve"] = ["user/Task.rs", "user/Task.cruds", "system/*.cruds", "user/*.rs"]
        code = answer(browser.post("/auth/consent", data=form))["code"]
        assert exchange(http, code).json["scope"] == "user/Task.rs"

    def test_checks_the_request_again(self, browser: FlaskClient) -> None:
        form = consent_form(self.shown(browser).text)
        assert browser.post("/auth/consent", data=form | {"redirect_uri": "https://evil/"}).status_code == 400
        assert answer(browser.post("/auth/consent", data=form | {"aud": "x"}))["error"] == "invalid_request"
        plain = browser.post("/auth/consent", data=form | {"code_challenge_method": "plain"})
        assert answer(plain)["error"] == "invalid_request"

    @pytest.mark.parametrize("csrf", [None, "", "x" * 43])
    def test_needs_the_csrf_token(self, browser: FlaskClient, csrf: str | None) -> None:
        form = consent_form(self.shown(browser).text)
        form.pop("csrf_token")
        response = browser.post("/auth/consent", data=form | ({} if csrf is None else {"csrf_token": csrf}))
        assert response.status_code == 403

    def test_needs_the_log_in(self, browser: FlaskClient, http: FlaskClient) -> None:
        form = consent_form(self.shown(browser).text)
        assert http.post("/auth/consent", data=form).status_code == 401

    def test_is_not_for_frames(self, browser: FlaskClient) -> None:
        page = self.shown(browser)
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["Cache-Control"] == "no-store"
        assert "<script" not in page.text
        assert "style=" not in page.text


class TestScopesWithParameters:
    """https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters"""

    LABORATORY = "user/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
    VITAL = "user/Observation.rs?category=vital-signs,%7Csurvey&code=http://loinc.org%7C"

    def test_are_shown_in_plain_words_each_with_its_check_box(self, browser: FlaskClient) -> None:
        log_in(browser, "ruth")
        shown = browser.get(
            "/auth/authorize", query_string=authorization(scope=f"{self.LABORATORY} {self.VITAL}")
        ).text
        assert consent_form(shown)["approve"] == [self.LABORATORY, self.VITAL]
        category = "http://terminology.hl7.org/CodeSystem/observation-category"
        assert f"Read and search Observation whose category is laboratory ({category})" in shown
        both = "whose category is vital-signs or survey and code is any code of http://loinc.org"
        assert f"Read and search Observation {both}" in shown

    def test_are_told_in_the_answer_as_they_are_granted(self, browser: FlaskClient, http: FlaskClient) -> None:
        unenforceable = "user/Task.rs?authored-on=gt2020 user/Patient.rs?family=Chalmers"
        code = get_code(browser, "ruth", scope=f"openid {self.LABORATORY} {self.VITAL} {unenforceable}")
        granted = exchange(http, code).json
        assert granted["scope"] == f"openid {self.LABORATORY} {self.VITAL}"
        seen = http.get("/fhir/whoami", headers=bearer(granted["access_token"])).json
        assert seen["scopes"] == [self.LABORATORY, self.VITAL]

    def test_are_granted_as_far_as_they_have_a_check_mark(self, browser: FlaskClient, http: FlaskClient) -> None:
        log_in(browser, "ruth")
        shown = browser.get("/auth/authorize", query_string=authorization(scope=f"{self.LABORATORY} {self.VITAL}"))
        form = consent_form(shown.text) | {"approve": [self.VITAL]}
        assert exchange(http, answer(browser.post("/auth/consent", data=form))["code"]).json["scope"] == self.VITAL

    def test_that_cannot_be_enforced_are_none_alone(self, browser: FlaskClient) -> None:
        log_in(browser, "ruth")
        got = browser.get("/auth/authorize", query_string=authorization(scope="user/Task.rs?authored-on=gt2020"))
        assert answer(got)["error"] == "invalid_scope"


class TestPatientScopes:
    def test_are_dropped_without_a_patient_in_context(self, browser: FlaskClient) -> None:
        log_in(browser, "adam")
        got = browser.get("/auth/authorize", query_string=authorization(scope="patient/*.rs"))
        assert answer(got)["error"] == "invalid_scope"

    def test_are_about_the_users_own_record(self, browser: FlaskClient, http: FlaskClient) -> None:
        granted = exchange(http, get_code(browser, "paul", scope="openid patient/*.rs user/*.rs")).json
        assert granted["scope"] == "openid patient/*.rs"
        assert granted["patient"] == "p1"
        seen = http.get("/fhir/whoami", headers={"Authorization": f"Bearer {granted['access_token']}"}).json
        assert seen["audience"] == ["@Patient/p1", "@any", "@owner/user:paul"]
        assert seen["patient"] == "Patient/p1"
