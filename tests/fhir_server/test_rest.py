"""https://hl7.org/fhir/R4/http.html"""

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from tests.fhir_server.conftest import BASE, PRACTICE

PATIENT = {"resourceType": "Patient", "name": [{"family": "Chalmers", "given": ["Peter"]}], "gender": "male"}


def send(client: FlaskClient, method: str, path: str, body: Any, **headers: str) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.open(path, method=method, data=data, content_type="application/fhir+json", headers=names)


def assert_outcome(answer: TestResponse, status: int, code: str, expression: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    outcome = answer.get_json(force=True)
    assert outcome["resourceType"] == "OperationOutcome"
    assert code in {issue["code"] for issue in outcome["issue"]}
    if expression:
        assert expression in {place for issue in outcome["issue"] for place in issue.get("expression", [])}


@pytest.fixture
def patient(client: FlaskClient) -> str:
    return send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]


class TestCreate:
    """https://hl7.org/fhir/R4/http.html#create"""

    def test_answers_201_with_location_etag_and_the_resource(self, client: FlaskClient) -> None:
        answer = send(client, "POST", "/fhir/Patient", PATIENT)
        body = answer.get_json(force=True)
        assert answer.status_code == 201
        assert answer.headers["Location"] == f"{BASE}/Patient/{body['id']}/_history/1"
        assert answer.headers["ETag"] == 'W/"1"'
        assert "Last-Modified" in answer.headers
        assert body["meta"]["versionId"] == "1"
        assert body["name"] == PATIENT["name"]

    def test_gives_an_id_of_its_own(self, client: FlaskClient) -> None:
        body = send(client, "POST", "/fhir/Patient", {**PATIENT, "id": "mine"}).get_json(force=True)
        assert body["id"] != "mine"

    def test_keeps_decimals_digit_for_digit(self, client: FlaskClient) -> None:
        text = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10}}'
        id = send(client, "POST", "/fhir/Observation", text).get_json(force=True)["id"]
        assert b'"value":1.10}' in client.get(f"/fhir/Observation/{id}").data

    def test_if_none_exist_makes_one(self, client: FlaskClient) -> None:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        first = send(client, "POST", "/fhir/Patient", body, If_None_Exist="identifier=urn:mrn|1")
        again = send(client, "POST", "/fhir/Patient", body, If_None_Exist="identifier=urn:mrn|1")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.get_json(force=True)["id"] == again.get_json(force=True)["id"]

    def test_if_none_exist_refuses_when_several_match(self, client: FlaskClient) -> None:
        for _ in range(2):
            send(client, "POST", "/fhir/Patient", PATIENT)
        answer = send(client, "POST", "/fhir/Patient", PATIENT, If_None_Exist="family=Chalmers")
        assert_outcome(answer, 412, "conflict")

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b'{"resourceType": "Patient"', 400, "invalid"),
            (b"[]", 400, "invalid"),
            (b"", 400, "invalid"),
            (b'{"resourceType": "Patient", "birthDate": NaN}', 400, "invalid"),
            (b'{"resourceType": "Observation"}', 400, "invalid"),
            (b'{"resourceType": "Patient", "birthDate": "yesterday"}', 400, "value"),
            (b'{"resourceType": "Patient", "colour": "blue"}', 400, "structure"),
            (b'{"resourceType": "Patient", "contained": [{"resourceType": "Nothing"}]}', 400, "structure"),
            (b'{"resourceType": "Patient", "name": [{"family": "\\ud800"}]}', 400, None),
            (b"[" * 20000, 400, "invalid"),
            (b'{"resourceType": "Patient", "$where": "1"}', 400, "structure"),
        ],
    )
    def test_refuses_what_is_no_patient_and_stores_nothing(
        self, client: FlaskClient, repository: Repository, body: bytes, status: int, code: str | None
    ) -> None:
        answer = send(client, "POST", "/fhir/Patient", body)
        assert_outcome(answer, status, code or answer.get_json(force=True)["issue"][0]["code"])
        assert repository.store.count("Patient", {}) == 0

    def test_names_the_element_at_fault(self, client: FlaskClient) -> None:
        body = {"resourceType": "Patient", "name": [{"family": "A"}, {"family": 5}]}
        assert_outcome(send(client, "POST", "/fhir/Patient", body), 400, "value", "Patient.name[1].family")

    def test_refuses_unknown_types(self, client: FlaskClient) -> None:
        assert_outcome(send(client, "POST", "/fhir/Nothing", {"resourceType": "Nothing"}), 404, "not-supported")

    def test_refuses_other_media_types(self, client: FlaskClient) -> None:
        answer = client.post("/fhir/Patient", data="Patient", content_type="text/plain")
        assert_outcome(answer, 415, "not-supported")

    def test_refuses_references_that_lead_nowhere(self, client: FlaskClient, repository: Repository) -> None:
        body = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}
        answer = send(client, "POST", "/fhir/ServiceRequest", {**body, "subject": {"reference": "Patient/nobody"}})
        assert_outcome(answer, 422, "not-found", "ServiceRequest.subject")
        assert repository.store.count("ServiceRequest", {}) == 0


class TestRead:
    """https://hl7.org/fhir/R4/http.html#read"""

    def test_answers_404_for_an_id_never_stored(self, client: FlaskClient) -> None:
        assert_outcome(client.get("/fhir/Patient/nobody"), 404, "not-found")

    def test_answers_410_once_deleted(self, client: FlaskClient, patient: str) -> None:
        assert client.delete(f"/fhir/Patient/{patient}").status_code == 204
        assert_outcome(client.get(f"/fhir/Patient/{patient}"), 410, "deleted")

    def test_answers_304_for_the_version_the_client_has(self, client: FlaskClient, patient: str) -> None:
        answer = client.get(f"/fhir/Patient/{patient}", headers={"If-None-Match": 'W/"1"'})
        assert answer.status_code == 304
        assert answer.data == b""

    def test_answers_406_for_formats_it_lacks(self, client: FlaskClient, patient: str) -> None:
        answer = client.get(f"/fhir/Patient/{patient}", headers={"Accept": "image/png"})
        assert_outcome(answer, 406, "not-supported")

    def test_refuses_ids_that_are_none(self, client: FlaskClient) -> None:
        assert_outcome(client.get("/fhir/Patient/a_b"), 400, "invalid")


class TestUpdate:
    """https://hl7.org/fhir/R4/http.html#update"""

    def test_makes_the_next_version(self, client: FlaskClient, patient: str) -> None:
        body = {**PATIENT, "id": patient, "gender": "female"}
        answer = send(client, "PUT", f"/fhir/Patient/{patient}", body, If_Match='W/"1"')
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')

    def test_creates_under_the_clients_id(self, client: FlaskClient) -> None:
        assert send(client, "PUT", "/fhir/Patient/mine", {**PATIENT, "id": "mine"}).status_code == 201

    def test_of_the_same_content_makes_no_version(self, client: FlaskClient, patient: str) -> None:
        answer = send(client, "PUT", f"/fhir/Patient/{patient}", {**PATIENT, "id": patient})
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"1"')

    def test_refuses_a_stale_if_match(self, client: FlaskClient, patient: str) -> None:
        body = {**PATIENT, "id": patient, "gender": "female"}
        assert_outcome(send(client, "PUT", f"/fhir/Patient/{patient}", body, If_Match='W/"7"'), 412, "conflict")
        assert client.get(f"/fhir/Patient/{patient}").headers["ETag"] == 'W/"1"'

    def test_refuses_an_if_match_it_cannot_read(self, client: FlaskClient, patient: str) -> None:
        body = {**PATIENT, "id": patient}
        assert_outcome(send(client, "PUT", f"/fhir/Patient/{patient}", body, If_Match="abc"), 400, "invalid")

    def test_refuses_another_id_in_the_body(self, client: FlaskClient, patient: str) -> None:
        answer = send(client, "PUT", f"/fhir/Patient/{patient}", {**PATIENT, "id": "other"})
        assert_outcome(answer, 400, "invalid", "Patient.id")

    def test_only_the_newest_version_is_found(self, client: FlaskClient, patient: str) -> None:
        send(client, "PUT", f"/fhir/Patient/{patient}", {**PATIENT, "id": patient, "gender": "female"})
        assert client.get("/fhir/Patient?gender=male&_total=accurate").get_json(force=True)["total"] == 0
        assert client.get("/fhir/Patient?gender=female&_total=accurate").get_json(force=True)["total"] == 1


class TestHistory:
    """https://hl7.org/fhir/R4/http.html#history"""

    def test_lists_all_versions_newest_first(self, client: FlaskClient, patient: str) -> None:
        send(client, "PUT", f"/fhir/Patient/{patient}", {**PATIENT, "id": patient, "gender": "female"})
        client.delete(f"/fhir/Patient/{patient}")
        bundle = client.get(f"/fhir/Patient/{patient}/_history").get_json(force=True)
        assert bundle["type"] == "history"
        assert [entry["request"]["method"] for entry in bundle["entry"]] == ["DELETE", "PUT", "POST"]
        assert [entry["response"]["etag"] for entry in bundle["entry"]] == ['W/"3"', 'W/"2"', 'W/"1"']
        assert "resource" not in bundle["entry"][0]

    def test_is_paged_without_loss(self, client: FlaskClient, patient: str) -> None:
        for number in range(5):
            body = {**PATIENT, "id": patient, "multipleBirthInteger": number}
            send(client, "PUT", f"/fhir/Patient/{patient}", body)
        seen: list[str] = []
        address = f"/fhir/Patient/{patient}/_history?_count=2"
        while address:
            bundle = client.get(address).get_json(force=True)
            seen += [entry["response"]["etag"] for entry in bundle["entry"]]
            links = {link["relation"]: link["url"] for link in bundle["link"]}
            address = links.get("next", "").removeprefix("http://127.0.0.1:8080")
        assert seen == [f'W/"{version}"' for version in range(6, 0, -1)]

    def test_vread_answers_the_version_as_it_was(self, client: FlaskClient, patient: str) -> None:
        send(client, "PUT", f"/fhir/Patient/{patient}", {**PATIENT, "id": patient, "gender": "female"})
        assert client.get(f"/fhir/Patient/{patient}/_history/1").get_json(force=True)["gender"] == "male"
        assert_outcome(client.get(f"/fhir/Patient/{patient}/_history/9"), 404, "not-found")


class TestScopes:
    def test_an_interaction_without_scope_is_forbidden(self, app: Flask, client: FlaskClient, patient: str) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "r"),), None)
        assert client.get(f"/fhir/Patient/{patient}").status_code == 200
        assert_outcome(client.get("/fhir/Patient"), 403, "forbidden")
        assert_outcome(send(client, "POST", "/fhir/Patient", PATIENT), 403, "forbidden")
        assert_outcome(client.delete(f"/fhir/Patient/{patient}"), 403, "forbidden")

    def test_the_practice_sees_all(self, app: Flask, client: FlaskClient, patient: str) -> None:
        app.config["ACCESS"] = PRACTICE
        assert client.get(f"/fhir/Patient/{patient}").status_code == 200
