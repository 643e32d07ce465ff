"""https://hl7.org/fhir/R4/patient-operation-everything.html and the whole of a referral."""

from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

import conformance
from fhir_server.access import Access, Scope
from fhir_server.audit.store import AuditStore
from fhir_server.index import rules
from fhir_server.operations import everything, standard
from fhir_server.repository import Repository
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.operations import app_with, json_of, post
from tests.fhir_server.test_rest import assert_outcome

CODE = {"text": "x"}


def ref(target: str) -> dict:
    return {"reference": target}


RESOURCES: list[dict] = [
    {"resourceType": "Organization", "id": "lakeside", "name": "Lakeside"},
    {"resourceType": "Organization", "id": "hillcrest", "name": "Hillcrest"},
    {"resourceType": "Practitioner", "id": "ana", "name": [{"family": "Lindqvist"}]},
    {
        "resourceType": "PractitionerRole",
        "id": "ana-role",
        "practitioner": ref("Practitioner/ana"),
        "organization": ref("Organization/lakeside"),
    },
    {"resourceType": "Schedule", "id": "ct", "actor": [ref("Practitioner/ana")]},
    {
        "resourceType": "Slot",
        "id": "slot",
        "schedule": ref("Schedule/ct"),
        "status": "busy",
        "start": "2026-01-02T10:00:00Z",
        "end": "2026-01-02T10:30:00Z",
    },
    {"resourceType": "Patient", "id": "p1", "generalPractitioner": [ref("Practitioner/ana")]},
    {"resourceType": "Patient", "id": "p2"},
    {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": ref("Patient/p1"),
    },
    {
        "resourceType": "ServiceRequest",
        "id": "order",
        "status": "active",
        "intent": "order",
        "subject": ref("Patient/p1"),
        "requester": ref("PractitionerRole/ana-role"),
        "encounter": ref("Encounter/e1"),
        "supportingInfo": [ref("Patient/p2")],
    },
    {
        "resourceType": "ServiceRequest",
        "id": "other",
        "status": "active",
        "intent": "order",
        "subject": ref("Patient/p2"),
        "requester": ref("Organization/hillcrest"),
    },
    {
        "resourceType": "Task",
        "id": "tracker",
        "status": "requested",
        "intent": "order",
        "focus": ref("ServiceRequest/order"),
        "for": ref("Patient/p1"),
    },
    {
        "resourceType": "Appointment",
        "id": "appointment",
        "status": "booked",
        "basedOn": [ref("ServiceRequest/order")],
        "slot": [ref("Slot/slot")],
        "start": "2026-01-02T10:00:00Z",
        "end": "2026-01-02T10:30:00Z",
        "participant": [{"actor": ref("Patient/p1"), "status": "accepted"}],
    },
    {
        "resourceType": "AppointmentResponse",
        "id": "answer",
        "appointment": ref("Appointment/appointment"),
        "actor": ref("Patient/p1"),
        "participantStatus": "accepted",
    },
    {
        "resourceType": "ImagingStudy",
        "id": "study",
        "status": "available",
        "subject": ref("Patient/p1"),
        "basedOn": [ref("ServiceRequest/order")],
    },
    {"resourceType": "Binary", "id": "letter", "contentType": "text/plain", "data": "eA=="},
    {
        "resourceType": "DiagnosticReport",
        "id": "report",
        "status": "final",
        "code": CODE,
        "subject": ref("Patient/p1"),
        "basedOn": [ref("ServiceRequest/order")],
        "imagingStudy": [ref("ImagingStudy/study")],
        "presentedForm": [{"url": "Binary/letter"}],
    },
    {
        "resourceType": "DocumentReference",
        "id": "document",
        "status": "current",
        "subject": ref("Patient/p1"),
        "content": [{"attachment": {"title": "x"}}],
        "context": {"related": [ref("ServiceRequest/order")]},
    },
    {
        "resourceType": "Communication",
        "id": "message",
        "status": "completed",
        "basedOn": [ref("ServiceRequest/order")],
        "subject": ref("Patient/p1"),
    },
    {
        "resourceType": "QuestionnaireResponse",
        "id": "survey",
        "status": "completed",
        "basedOn": [ref("ServiceRequest/order")],
    },
    {
        "resourceType": "Observation",
        "id": "finding",
        "status": "final",
        "code": CODE,
        "subject": ref("Patient/p1"),
        "encounter": ref("Encounter/e1"),
    },
    {"resourceType": "Observation", "id": "others", "status": "final", "code": CODE, "subject": ref("Patient/p2")},
]
AUDIT = {
    "resourceType": "AuditEvent",
    "id": "audit",
    "type": {"code": "rest"},
    "recorded": "2026-01-01T00:00:00Z",
    "agent": [{"requestor": True}],
    "source": {"observer": ref("Organization/lakeside")},
    "entity": [{"what": ref("ServiceRequest/order")}],
}
REFERRAL = {
    "Appointment/appointment",
    "AppointmentResponse/answer",
    "Communication/message",
    "DiagnosticReport/report",
    "DocumentReference/document",
    "ImagingStudy/study",
    "QuestionnaireResponse/survey",
    "ServiceRequest/order",
    "Task/tracker",
}
SUPPORT = {
    "Binary/letter",
    "Encounter/e1",
    "Organization/lakeside",
    "Patient/p1",
    "Practitioner/ana",
    "PractitionerRole/ana-role",
    "Schedule/ct",
    "Slot/slot",
}


@pytest.fixture
def app(repository: Repository) -> Flask:
    for resource in RESOURCES:
        repository.update(PRACTICE, dict(resource))
    trail = AuditStore(repository.store, repository.parameters, BASE, repository.clock)
    trail.append("of-the-test", 0, 1, [AUDIT])
    app = app_with(repository, standard.operations(repository))
    app.config["ACCESS"] = replace(PRACTICE, scopes=(*PRACTICE.scopes, Scope("system", "AuditEvent", "rs")))
    return app


def found(bundle: dict, mode: str | None = None) -> list[str]:
    """The references of the entries, in order."""
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
    entries = [entry for entry in bundle.get("entry", []) if mode in (None, entry["search"]["mode"])]
    for entry in entries:
        assert entry["fullUrl"] == f"{BASE}/{entry['resource']['resourceType']}/{entry['resource']['id']}"
    return [f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in entries]


def get(client: FlaskClient, path: str) -> dict:
    return json_of(client.get(f"/fhir/{path}"))


def next_page(bundle: dict) -> str | None:
    links = {link["relation"]: link["url"] for link in bundle["link"]}
    return links["next"].removeprefix(f"{BASE}/") if "next" in links else None


class TestPatient:
    def test_is_the_compartment_and_what_supports_it(self, client: FlaskClient) -> None:
        bundle = get(client, "Patient/p1/$everything")
        assert found(bundle)[0] == "Patient/p1"
        # Neither a Task nor this answer says whose it is, as R4 has it.
        expected = REFERRAL - {"QuestionnaireResponse/survey", "Task/tracker"}
        expected |= {"Patient/p1", "Encounter/e1", "Observation/finding"}
        assert set(found(bundle, "match")) == expected
        assert set(found(bundle, "include")) == SUPPORT - {"Patient/p1", "Encounter/e1"}
        assert next_page(bundle) is None

    def test_pages_lose_and_repeat_nothing_while_others_write(
        self, client: FlaskClient, repository: Repository
    ) -> None:
        whole = set(found(get(client, "Patient/p1/$everything"), "match"))
        seen: list[str] = []
        path: str | None = "Patient/p1/$everything?_count=2"
        while path:
            bundle = get(client, path)
            assert len(found(bundle, "match")) <= 2
            seen += found(bundle, "match")
            path = next_page(bundle)
            observation = {"resourceType": "Observation", "id": "finding", "status": "amended", "code": CODE}
            repository.update(
                PRACTICE, {**observation, "subject": ref("Patient/p1"), "note": [{"text": str(len(seen))}]}
            )
        assert len(seen) == len(set(seen))
        assert set(seen) == whole

    def test_since_asks_for_what_is_newer(self, client: FlaskClient, repository: Repository) -> None:
        message = repository.read(PRACTICE, "Communication", "message").resource() | {"status": "in-progress"}
        since = repository.update(PRACTICE, message).version.last_updated.isoformat().replace("+", "%2B")
        bundle = get(client, f"Patient/p1/$everything?_since={since}")
        assert found(bundle, "match") == ["Communication/message"]

    def test_type_leaves_other_types_out(self, client: FlaskClient) -> None:
        bundle = get(client, "Patient/p1/$everything?_type=Communication,Observation&_type=Patient")
        assert set(found(bundle)) == {"Patient/p1", "Communication/message", "Observation/finding"}

    def test_type_can_name_what_supports_the_record(self, client: FlaskClient) -> None:
        assert set(found(get(client, "Patient/p1/$everything?_type=Slot,Practitioner"))) == {
            "Slot/slot",
            "Practitioner/ana",
        }

    @pytest.mark.parametrize(
        ("query", "there"),
        [
            ("start=2026-01-02", True),
            ("end=2026-01-02", True),
            ("start=2026-01&end=2026", True),
            ("end=2026-01-01", False),
            ("start=2026-01-03", False),
            ("start=2026-01-03&end=2027", False),
        ],
    )
    def test_start_and_end_are_about_the_time_of_care(self, client: FlaskClient, query: str, there: bool) -> None:
        seen = found(get(client, f"Patient/p1/$everything?{query}"), "match")
        assert ("Appointment/appointment" in seen) == there
        assert {"Patient/p1", "Observation/finding"} <= set(seen)  # they say nothing of a time

    def test_takes_parameters_by_post(self, client: FlaskClient) -> None:
        entries = [{"name": "_type", "valueCode": "Communication"}, {"name": "_count", "valueInteger": 5}]
        assert found(json_of(post(client, "Patient/p1/$everything", entries))) == ["Communication/message"]

    def test_tells_an_office_what_it_may_see(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = an_office("hillcrest")
        assert_outcome(client.get("/fhir/Patient/p1/$everything"), 404, "not-found")
        app.config["ACCESS"] = an_office("lakeside")
        bundle = get(client, "Patient/p1/$everything")
        assert "Patient/p1" in found(bundle)
        assert "Observation/finding" not in found(bundle)  # it does not hang on the office's order

    def test_tells_no_type_that_the_token_leaves_out(self, app: Flask, client: FlaskClient) -> None:
        scopes = (Scope("system", "Patient", "rs"), Scope("system", "Communication", "rs"))
        app.config["ACCESS"] = Access("client:x", scopes, None)
        assert set(found(get(client, "Patient/p1/$everything"))) == {"Patient/p1", "Communication/message"}

    @pytest.mark.parametrize(
        "query",
        [
            "_count=0",
            "_count=x",
            "_count=1&_count=2",
            "_type=Nothing",
            "_since=yesterday",
            "_since=2026-01-01",
            "_since=2026-02-30T00:00:00Z",
            "start=yesterday",
            "end=2026-01-01T10:00:00Z",
            "_after=x",
            "_after=Task.x",
            "_after=Nothing.1",
            "_after=Observation.99999999999999999999",
            "colour=blue",
        ],
    )
    def test_refuses_what_it_cannot_read(self, client: FlaskClient, query: str) -> None:
        assert client.get(f"/fhir/Patient/p1/$everything?{query}").status_code == 400

    def test_a_deleted_patient_is_gone(self, client: FlaskClient, repository: Repository) -> None:
        repository.update(PRACTICE, {"resourceType": "Patient", "id": "gone"})
        repository.delete(PRACTICE, "Patient", "gone")
        assert_outcome(client.get("/fhir/Patient/gone/$everything"), 410, "deleted")


def test_times_of_care_are_dates_that_are_indexed() -> None:
    for type, code in everything._CARE_DATES.items():
        assert type in conformance.compartment("Patient")
        assert rules(type)[code].parameter.type == "date"


class TestEncounter:
    """https://hl7.org/fhir/R4/encounter-operation-everything.html"""

    def test_is_the_encounter_and_what_names_it(self, client: FlaskClient) -> None:
        bundle = get(client, "Encounter/e1/$everything")
        assert found(bundle, "match") == ["Encounter/e1", "Observation/finding", "ServiceRequest/order"]
        assert {"Patient/p1", "PractitionerRole/ana-role"} <= set(found(bundle, "include"))


class TestServiceRequest:
    """The whole referral: the order, what hangs on it, and who and what is named there."""

    def test_is_the_referral(self, client: FlaskClient) -> None:
        bundle = get(client, "ServiceRequest/order/$everything")
        assert found(bundle)[0] == "ServiceRequest/order"
        assert set(found(bundle, "match")) == REFERRAL
        assert set(found(bundle, "include")) == SUPPORT

    def test_has_nothing_of_another_patient(self, client: FlaskClient) -> None:
        assert "Patient/p2" not in found(get(client, "ServiceRequest/order/$everything"))

    def test_is_paged(self, client: FlaskClient) -> None:
        seen: list[str] = []
        path: str | None = "ServiceRequest/order/$everything?_count=3"
        while path:
            bundle = get(client, path)
            seen += found(bundle, "match")
            path = next_page(bundle)
        assert sorted(seen) == sorted(REFERRAL)

    def test_is_the_same_for_the_office_that_placed_it_and_nothing_to_others(
        self, app: Flask, client: FlaskClient
    ) -> None:
        app.config["ACCESS"] = an_office("lakeside")
        assert set(found(get(client, "ServiceRequest/order/$everything"), "match")) >= REFERRAL - {
            "AppointmentResponse/answer"
        }
        app.config["ACCESS"] = an_office("hillcrest")
        assert_outcome(client.get("/fhir/ServiceRequest/order/$everything"), 404, "not-found")
