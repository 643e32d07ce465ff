"""Operations as entries of a Bundle. https://hl7.org/fhir/R4/operations.html#executing, http.html#transaction"""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.operations import standard
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE
from tests.fhir_server.operations import app_with, values
from tests.fhir_server.test_integrity import basic
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send
from tests.fhir_server.test_transaction import bundle, entry, performed, post, put, statuses

META = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}]}


def validate(resource: dict, **more: Any) -> dict:
    return entry("POST", "Patient/$validate", resource) | more


@pytest.fixture
def app(repository: Repository) -> Flask:
    repository.update(PRACTICE, {**PATIENT, "id": "a"})
    repository.update(PRACTICE, basic("Patient/a", id="b"))
    return app_with(repository, standard.operations(repository))


@pytest.mark.parametrize("kind", ["batch", "transaction"])
class TestWhatChangesNothing:
    def test_everything(self, client: FlaskClient, kind: str) -> None:
        done = performed(client, entry("GET", "Patient/a/$everything?_type=Basic,Patient"), kind=kind)
        assert statuses(done) == ["200"]
        assert [found["resource"]["id"] for found in done[0]["resource"]["entry"]] == ["a", "b"]

    def test_validate(self, client: FlaskClient, repository: Repository, kind: str) -> None:
        good, bad = performed(client, validate(PATIENT), validate({**PATIENT, "gender": "blue"}), kind=kind)
        assert good["resource"]["issue"][0]["severity"] == "information"
        assert bad["resource"]["issue"][0]["expression"] == ["Patient.gender"]
        assert repository.store.count("Patient", {}) == 1

    def test_parameters_in_the_resource_or_the_address(self, client: FlaskClient, kind: str) -> None:
        system = "http://hl7.org/fhir/administrative-gender"
        sent = {"resourceType": "Parameters", "parameter": [{"name": "code", "valueCode": "male"}]}
        sent["parameter"].append({"name": "system", "valueUri": system})
        done = performed(
            client,
            entry("POST", "CodeSystem/$lookup", sent),
            entry("GET", f"CodeSystem/$lookup?system={system}&code=male&_format=json"),
            entry("GET", f"http://127.0.0.1:8080/fhir/CodeSystem/$lookup?system={system}&code=male"),
            kind=kind,
        )
        assert statuses(done) == ["200"] * 3
        assert {values(each["resource"])["display"] for each in done} == {"Male"}

    def test_what_the_operation_refuses_is_told_in_its_entry(self, client: FlaskClient, kind: str) -> None:
        done = performed(
            client,
            entry("GET", "Patient/nobody/$everything"),
            entry("POST", "Patient/$validate", {"resourceType": "Parameters", "parameter": [{"name": "x"}]}),
            put({**PATIENT, "id": "new"}),
            kind=kind,
        )
        assert statuses(done) == ["404", "400", "201"]
        issues = [each["response"]["outcome"]["issue"][0] for each in done[:2]]
        assert issues[0]["expression"] == ["Bundle.entry[0].request.url"]
        assert issues[1]["expression"] == ["Bundle.entry[1].resource.parameter[0].name"]

    def test_rights_are_those_of_the_caller(self, app: Flask, client: FlaskClient, kind: str) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Basic", "rs"),), None)
        assert statuses(performed(client, entry("GET", "Patient/a/$everything"), kind=kind)) == ["403"]


def test_a_transaction_calls_after_its_commit(client: FlaskClient) -> None:
    called, written = performed(client, entry("GET", "Patient/new/$meta"), put({**PATIENT, "id": "new"}))
    assert written["response"]["status"] == "201 Created"
    assert values(called["resource"])["return"]["versionId"] == "1"


def test_a_batch_calls_what_changes_something(client: FlaskClient, repository: Repository) -> None:
    done = performed(client, entry("POST", "Patient/a/$meta-add", META), kind="batch")
    assert statuses(done) == ["200"]
    assert repository.read(PRACTICE, "Patient", "a").resource()["meta"]["tag"] == [{"code": "x"}]


def test_a_transaction_refuses_what_changes_something(client: FlaskClient, repository: Repository) -> None:
    sent = bundle(post(PATIENT), entry("POST", "Patient/a/$meta-add", META))
    assert_outcome(send(client, "POST", "/fhir", sent), 422, "business-rule", "Bundle.entry[1].request.url")
    assert repository.store.count("Patient", {}) == 1


@pytest.mark.parametrize(
    ("called", "status", "place"),
    [
        (entry("GET", "Patient/a/$nothing"), 404, "request.url"),
        (entry("GET", "$everything"), 404, "request.url"),
        (entry("GET", "Patient/$everything"), 404, "request.url"),
        (entry("GET", "Patient/a/b/$everything"), 422, "request.url"),
        (entry("GET", "Nothing/a/$everything"), 404, "request.url"),
        (entry("GET", "Patient/a/$every$thing"), 422, "request.url"),
        (entry("GET", "$"), 422, "request.url"),
        (entry("PUT", "Patient/a/$everything", PATIENT), 405, "request.method"),
        (entry("DELETE", "Patient/a/$everything"), 405, "request.method"),
        (entry("HEAD", "Patient/a/$everything"), 405, "request.method"),
    ],
)
def test_what_is_no_call_stops_a_transaction(
    client: FlaskClient, repository: Repository, called: dict, status: int, place: str
) -> None:
    answer = send(client, "POST", "/fhir", bundle(post(PATIENT), called))
    assert answer.status_code == status, answer.text
    assert f"Bundle.entry[1].{place}" in answer.text
    assert repository.store.count("Patient", {}) == 1
    alone = performed(client, called, kind="batch")
    assert statuses(alone) == [str(status)]


def test_what_changes_something_takes_post(client: FlaskClient) -> None:
    assert statuses(performed(client, entry("GET", "Patient/a/$meta-add"), kind="batch")) == ["405"]


@pytest.mark.parametrize("content", [PATIENT, [], "x", {"resourceType": "Parameters", "parameter": 5}])
def test_content_that_is_no_parameters_is_refused(client: FlaskClient, content: Any) -> None:
    done = performed(client, entry("POST", "Patient/a/$everything", content), kind="batch")
    assert statuses(done) == ["400"]
    assert "Bundle.entry[0].resource" in done[0]["response"]["outcome"]["issue"][0]["expression"][0]
