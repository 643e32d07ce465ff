"""https://hl7.org/fhir/R4/http.html#transaction"""

from typing import Any

import pytest
from flask.testing import FlaskClient

from fhir_server.repository import Repository
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send

ORDER = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}


def bundle(*entries: dict, kind: str = "transaction") -> dict:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def post(resource: dict, full_url: str | None = None, **request: Any) -> dict:
    entry: dict = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"], **request}}
    return entry | ({"fullUrl": full_url} if full_url else {})


def put(resource: dict, **request: Any) -> dict:
    url = f"{resource['resourceType']}/{resource['id']}"
    return {"resource": resource, "request": {"method": "PUT", "url": url, **request}}


def test_links_entries_by_urn_uuid(client: FlaskClient) -> None:
    patient = post(PATIENT, "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0")
    order = post({**ORDER, "subject": {"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"}})
    answer = send(client, "POST", "/fhir", bundle(order, patient))
    assert answer.status_code == 200, answer.text
    entries = answer.get_json(force=True)["entry"]
    assert [entry["response"]["status"] for entry in entries] == ["201 Created", "201 Created"]
    order_url, patient_url = (entry["fullUrl"] for entry in entries)
    subject = client.get(order_url.removeprefix("http://127.0.0.1:8080")).get_json(force=True)["subject"]
    assert subject["reference"] == patient_url.removeprefix("http://127.0.0.1:8080/fhir/")


def test_is_all_or_nothing_and_names_the_entry(client: FlaskClient, repository: Repository) -> None:
    broken = post({**ORDER, "subject": {"reference": "Patient/nobody"}})
    answer = send(client, "POST", "/fhir", bundle(post(PATIENT), broken))
    assert_outcome(answer, 422, "not-found", "Bundle.entry[1].resource.subject")
    assert repository.store.count("Patient", {}) == 0


def test_names_a_structural_fault_by_its_entry(client: FlaskClient, repository: Repository) -> None:
    answer = send(client, "POST", "/fhir", bundle(post(PATIENT), post({**PATIENT, "gender": 5})))
    assert_outcome(answer, 400, "value", "Bundle.entry[1].resource.gender")
    assert repository.store.count("Patient", {}) == 0


def test_a_stale_if_match_stops_all_of_it(client: FlaskClient, repository: Repository) -> None:
    send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
    stale = put({**PATIENT, "id": "a", "gender": "other"}, ifMatch='W/"9"')
    assert_outcome(send(client, "POST", "/fhir", bundle(post(PATIENT), stale)), 412, "conflict")
    assert repository.store.count("Patient", {}) == 1


def test_conditional_creates_and_references_find_what_is_there(client: FlaskClient, repository: Repository) -> None:
    body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
    condition = {"ifNoneExist": "identifier=urn:mrn|1"}
    urn = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"
    order = post({**ORDER, "subject": {"reference": urn}})
    for expected in ("201 Created", "200 OK"):
        answer = send(client, "POST", "/fhir", bundle(post(body, urn, **condition), order))
        assert answer.get_json(force=True)["entry"][0]["response"]["status"] == expected, answer.text
    by_query = post({**ORDER, "subject": {"reference": "Patient?identifier=urn:mrn|1"}})
    assert send(client, "POST", "/fhir", bundle(by_query)).status_code == 200
    assert repository.store.count("Patient", {}) == 1
    nobody = post({**ORDER, "subject": {"reference": "Patient?identifier=urn:mrn|2"}})
    assert_outcome(send(client, "POST", "/fhir", bundle(nobody)), 412, "conflict")


@pytest.mark.parametrize(
    ("broken", "expression"),
    [
        ({"resource": PATIENT}, "Bundle.entry[0].request"),
        ({"resource": PATIENT, "request": {"method": "POST"}}, "Bundle.entry[0].request"),
        ({"request": {"method": "POST", "url": "Patient"}}, "Bundle.entry[0].resource"),
        ({"resource": PATIENT, "request": {"method": "POST", "url": "Task"}}, "Bundle.entry[0].request.url"),
        ({"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/x"}}, "Bundle.entry[0].resource.id"),
        ({"resource": PATIENT, "request": {"method": "BREW", "url": "Patient"}}, "Bundle.entry[0].request.method"),
    ],
)
def test_refuses_entries_that_make_no_sense(client: FlaskClient, broken: dict, expression: str) -> None:
    answer = send(client, "POST", "/fhir", bundle(broken))
    assert answer.status_code in (400, 422)
    assert_outcome(answer, answer.status_code, answer.get_json(force=True)["issue"][0]["code"], expression)


def test_refuses_a_urn_that_no_entry_has(client: FlaskClient) -> None:
    order = post({**ORDER, "subject": {"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"}})
    answer = send(client, "POST", "/fhir", bundle(order))
    assert_outcome(answer, 422, "business-rule", "Bundle.entry[0].resource.subject.reference")


def test_a_batch_answers_each_entry_for_itself(client: FlaskClient, repository: Repository) -> None:
    broken = post({**PATIENT, "gender": 5})
    answer = send(client, "POST", "/fhir", bundle(post(PATIENT), broken, kind="batch"))
    statuses = [entry["response"]["status"] for entry in answer.get_json(force=True)["entry"]]
    assert statuses == ["201 Created", "400 Bad Request"]
    assert repository.store.count("Patient", {}) == 1
