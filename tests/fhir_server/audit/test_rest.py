"""An AuditEvent for each interaction. IHE BALP 1.1, section 3:5.7; HL7 FHIR R4 auditevent.html"""

import json
from base64 import b64decode
from collections.abc import Iterable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.audit import rest
from fhir_server.audit.service import Audit
from fhir_server.bulk.lines import Line, store_lines
from fhir_server.repository import Repository
from tests.auditor import AUDITOR, Audited
from tests.fhir_server.audit.conftest import NURSE

DCM = "http://dicom.nema.org/resources/ontology/DCM"
BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
ORDER = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/ada"},
}


def codes(event: dict) -> tuple[str, str, str]:
    """(subtype, action, outcome)"""
    return event["subtype"][0]["code"], event["action"], event["outcome"]


def agent(event: dict, code: str) -> dict:
    (found,) = (one for one in event["agent"] if one["type"]["coding"][0]["code"] == code)
    return found


def entities(event: dict, role: str) -> list[dict]:
    return [one for one in event.get("entity", []) if one.get("role", {}).get("code") == role]


def patients(events: Iterable[dict]) -> list[str]:
    return [one["what"]["reference"] for event in events for one in entities(event, "1")]


def whats(event: dict) -> list[str]:
    return [one["what"]["reference"] for one in entities(event, "4") if "what" in one]


class TestRead:
    def test_tells_who_read_which_version_of_whose(self, client: FlaskClient, audited: Audited, ada: str) -> None:
        answer = client.get(f"/fhir/{ada}", headers={"X-Request-Id": "req-7"})
        assert answer.status_code == 200
        (event,) = audited()
        assert event["meta"]["profile"] == [f"{BALP}PatientRead"]
        assert (event["type"]["system"], event["type"]["code"]) == (
            "http://terminology.hl7.org/CodeSystem/audit-event-type",
            "rest",
        )
        assert event["subtype"][0]["system"] == "http://hl7.org/fhir/restful-interaction"
        assert codes(event) == ("read", "R", "0")
        assert patients([event]) == [ada]
        assert whats(event) == [f"{ada}/_history/1"]
        (id_of_request,) = (one for one in event["entity"] if one["type"]["code"] == "XrequestId")
        assert id_of_request["what"]["identifier"]["value"] == answer.headers["X-Request-Id"] == "req-7"
        assert event["source"]["site"] == "127.0.0.1:8080"
        assert event["source"]["observer"]["identifier"]["value"] == "http://127.0.0.1:8080/fhir"

    def test_names_program_server_and_person(self, client: FlaskClient, audited: Audited, ada: str) -> None:
        client.get(f"/fhir/{ada}")
        (event,) = audited()
        program, server, person = agent(event, "110152"), agent(event, "110153"), agent(event, "IRCP")
        assert program["who"] == {"identifier": {"value": "tracker"}}
        assert program["network"] == {"address": "127.0.0.1", "type": "2"}
        assert server["who"]["identifier"]["value"] == "http://127.0.0.1:8080/fhir"
        assert person["who"] == {"reference": "Practitioner/nina"}
        assert (person["name"], person["role"]) == ("nina", [{"text": "front-desk"}])
        assert person["policy"] == ["jti-of-nina"]
        assert "network" not in person and "media" not in person
        assert [one["requestor"] for one in event["agent"]] == [False, False, True]

    def test_a_program_of_its_own_is_the_requestor(
        self, app: Flask, client: FlaskClient, audited: Audited, ada: str
    ) -> None:
        scopes = (Scope("system", "*", "rs"),)
        app.config["ACCESS"] = Access("client:pacs", scopes, None, client_id="pacs", token="jti-of-pacs")
        client.get(f"/fhir/{ada}")
        (event,) = audited()
        program, server = event["agent"]
        assert (program["who"]["identifier"]["value"], program["policy"]) == ("pacs", ["jti-of-pacs"])
        assert (program["requestor"], server["requestor"]) == (True, False)

    @pytest.mark.parametrize(
        ("path", "subtype"),
        [
            ("Patient/ada/_history/1", "vread"),
            ("Patient/ada/_history", "history-instance"),
            ("Patient/_history", "history-type"),
            ("_history", "history-system"),
        ],
    )
    def test_versions(self, client: FlaskClient, audited: Audited, ada: str, path: str, subtype: str) -> None:
        assert client.get(f"/fhir/{path}").status_code == 200
        (event,) = audited()
        assert codes(event) == (subtype, "R", "0")
        assert (patients([event]), whats(event)) == ([ada], [f"{ada}/_history/1"])

    def test_what_is_of_no_patient(self, client: FlaskClient, audited: Audited, repository: Repository) -> None:
        repository.update(NURSE, {"resourceType": "Organization", "id": "o1", "name": "Lakeside"})
        client.get("/fhir/Organization/o1")
        (event,) = audited()
        assert event["meta"]["profile"] == [f"{BALP}Read"]
        assert (patients([event]), whats(event)) == ([], ["Organization/o1/_history/1"])

    def test_a_failure_tells_why(self, client: FlaskClient, audited: Audited) -> None:
        outcome = client.get("/fhir/Patient/nobody").json
        (event,) = audited()
        assert codes(event) == ("read", "R", "4")
        assert event["outcomeDesc"] == "Patient/nobody is not known here"
        (entity,) = entities(event, "4")
        assert entity["what"] == {"reference": "Patient/nobody"}
        assert json.loads(b64decode(entity["detail"][0]["valueBase64Binary"])) == outcome


class TestSearch:
    @pytest.fixture
    def orders(self, repository: Repository, ada: str) -> None:
        repository.update(NURSE, {"resourceType": "Patient", "id": "bob"})
        for patient in ("ada", "ada", "bob"):
            repository.create(NURSE, ORDER | {"subject": {"reference": f"Patient/{patient}"}})

    @pytest.mark.usefixtures("orders")
    def test_one_event_a_patient_and_nothing_of_what_was_found(self, client: FlaskClient, audited: Audited) -> None:
        client.get("/fhir/ServiceRequest?status=active&_format=json")
        events = audited()
        assert sorted(patients(events)) == ["Patient/ada", "Patient/bob"]
        for event in events:
            assert event["meta"]["profile"] == [f"{BALP}PatientQuery"]
            assert codes(event) == ("search-type", "E", "0")
            (query,) = entities(event, "24")
            assert b64decode(query["query"]).decode() == "/fhir/ServiceRequest?status=active&_format=json"
            assert query["description"] == "/fhir/ServiceRequest?status=active"
            assert "what" not in query and whats(event) == []
            assert agent(event, "110153")["who"] == {"identifier": {"value": "tracker"}}

    def test_that_found_nothing(self, client: FlaskClient, audited: Audited) -> None:
        client.get("/fhir/Patient?family=nobody")
        (event,) = audited()
        assert event["meta"]["profile"] == [f"{BALP}Query"]
        assert len(entities(event, "24")) == 1

    def test_by_post_with_its_body(self, client: FlaskClient, audited: Audited, ada: str) -> None:
        client.post("/fhir/Patient/_search?_sort=_id", data={"family": "Byron"})
        (event,) = audited()
        assert patients([event]) == [ada]
        (query,) = entities(event, "24")
        assert b64decode(query["query"]).decode() == "/fhir/Patient/_search?_sort=_id\n\nfamily=Byron"
        assert query["description"] == "/fhir/Patient/_search?_sort=_id&family=Byron"

    @pytest.mark.usefixtures("orders")
    def test_of_a_compartment_and_of_the_system(self, client: FlaskClient, audited: Audited) -> None:
        client.get("/fhir/Patient/ada/ServiceRequest")
        client.get("/fhir/Patient/bob/*")
        client.get("/fhir?_type=Patient&_id=ada")
        events = audited()
        assert [codes(event)[0] for event in events] == ["search-type", "search", "search-system"]
        assert patients(events) == ["Patient/ada", "Patient/bob", "Patient/ada"]

    @pytest.mark.usefixtures("orders")
    def test_what_is_included_counts(self, client: FlaskClient, audited: Audited) -> None:
        client.get("/fhir/Patient?_id=bob&_revinclude=ServiceRequest:subject")
        client.get("/fhir/ServiceRequest?_count=0")
        assert patients(audited()) == ["Patient/bob"]


class TestWrites:
    def test_create_update_patch_delete(self, client: FlaskClient, audited: Audited, ada: str) -> None:
        id = client.post("/fhir/ServiceRequest", json=ORDER).json["id"]
        client.put(f"/fhir/ServiceRequest/{id}", json=ORDER | {"id": id, "priority": "urgent"})
        patch = [{"op": "replace", "path": "/priority", "value": "stat"}]
        client.patch(f"/fhir/ServiceRequest/{id}", json=patch, content_type="application/json-patch+json")
        assert client.delete(f"/fhir/ServiceRequest/{id}").status_code == 204
        events = audited()
        assert [codes(event) for event in events] == [
            ("create", "C", "0"),
            ("update", "U", "0"),
            ("patch", "U", "0"),
            ("delete", "D", "0"),
        ]
        names = ("PatientCreate", "PatientUpdate", "PatientUpdate", "PatientDelete")
        assert [event["meta"]["profile"] for event in events] == [[BALP + name] for name in names]
        assert patients(events) == [ada] * 4
        assert [whats(event) for event in events] == [
            [f"ServiceRequest/{id}/_history/{version}"] for version in (1, 2, 3, 4)
        ]
        assert agent(events[0], "110153")["requestor"] is False
        assert agent(events[3], "110150")["who"] == {"identifier": {"value": "tracker"}}
        assert agent(events[3], "custodian")["who"]["identifier"]["value"] == "http://127.0.0.1:8080/fhir"

    def test_a_refused_one(self, client: FlaskClient, audited: Audited) -> None:
        assert client.post("/fhir/ServiceRequest", json=ORDER).status_code == 422  # there is no such patient
        (event,) = audited()
        assert codes(event) == ("create", "C", "4")
        assert event["outcomeDesc"] == "a reference leads nowhere"

    def test_each_of_several_that_are_deleted_by_criteria(
        self, client: FlaskClient, audited: Audited, repository: Repository, ada: str
    ) -> None:
        repository.deletes_at_once = 5
        ids = {repository.create(NURSE, ORDER).version.id for _ in range(3)}
        client.delete("/fhir/ServiceRequest?status=active")
        (event,) = audited()
        assert set(whats(event)) == {f"ServiceRequest/{id}/_history/2" for id in ids}

    def test_transaction_one_event_a_patient_tied_by_the_request(
        self, client: FlaskClient, audited: Audited, ada: str
    ) -> None:
        entries = [
            {
                "resource": {"resourceType": "Patient", "id": "bob"},
                "request": {"method": "PUT", "url": "Patient/bob"},
            },
            {"resource": ORDER, "request": {"method": "POST", "url": "ServiceRequest"}},
            {
                "resource": {"resourceType": "Organization", "id": "o1", "name": "Lakeside"},
                "request": {"method": "PUT", "url": "Organization/o1"},
            },
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = client.post("/fhir", json=bundle)
        events = audited()
        assert [codes(event) for event in events] == [("transaction", "E", "0")] * 3
        by_patient = {tuple(patients([event])): whats(event) for event in events}
        assert by_patient[("Patient/bob",)] == ["Patient/bob/_history/1"]
        assert [what.partition("/")[0] for what in by_patient[(ada,)]] == ["ServiceRequest"]
        assert by_patient[()] == ["Organization/o1/_history/1"]
        ids = {one["what"]["identifier"]["value"] for event in events for one in event["entity"] if "role" not in one}
        assert ids == {answer.headers["X-Request-Id"]}

    def test_batch_with_reads(self, client: FlaskClient, audited: Audited, ada: str) -> None:
        entries = [
            {"request": {"method": "GET", "url": ada}},
            {"request": {"method": "GET", "url": "Patient/nobody"}},
        ]
        client.post("/fhir", json={"resourceType": "Bundle", "type": "batch", "entry": entries})
        (event,) = audited()
        assert codes(event) == ("batch", "E", "0")
        assert (patients([event]), whats(event)) == ([ada], [f"{ada}/_history/1"])

    def test_operation(self, client: FlaskClient, audited: Audited, repository: Repository, ada: str) -> None:
        repository.create(NURSE, ORDER)
        client.get(f"/fhir/{ada}/$everything?_count=10")
        (event,) = audited()
        assert codes(event) == ("operation", "E", "0")
        assert patients([event]) == [ada] and len(whats(event)) == 2
        (query,) = entities(event, "24")
        assert query["description"] == "/fhir/Patient/ada/$everything?_count=10"


class TestRefused:
    def test_without_a_token_once_a_minute_and_address(
        self, app: Flask, client: FlaskClient, audited: Audited, ada: str
    ) -> None:
        app.config["ACCESS"] = None
        assert {client.get(f"/fhir/{ada}").status_code for _ in range(20)} == {401}
        events = audited()
        assert 1 <= len(events) <= 2  # a minute may end while the test runs
        assert (events[0]["type"]["code"], events[0]["outcome"]) == ("110113", "4")
        assert events[0]["subtype"][0] == {
            "system": DCM,
            "code": "110132",
            "display": "Use of Restricted Function",
        }
        assert events[0]["agent"][0]["network"]["address"] == "127.0.0.1"


def test_they_are_valid_audit_events(client: FlaskClient, audited: Audited, repository: Repository, ada: str) -> None:
    id = client.post("/fhir/ServiceRequest", json=ORDER).json["id"]
    client.get(f"/fhir/ServiceRequest/{id}")
    client.get("/fhir/ServiceRequest")
    client.get("/fhir/ServiceRequest/~")
    client.get("/fhir/Nothing/1")
    client.delete(f"/fhir/ServiceRequest/{id}")
    events = audited()
    assert len(events) == 6
    for event in events:
        invalid, found = repository.judge(event)
        assert (invalid, {issue.severity for issue in found}) == ([], {"information"})  # of BALP's profiles, not here


@pytest.mark.parametrize(
    "query",
    [
        "date=ge2020-01-01",
        "patient=Patient/ada",
        "agent=Practitioner/nina",
        "agent-name=nina",
        "altid=user:nina",
        "entity=ServiceRequest/order",
        "entity-role=4",
        "entity-type=1",
        "type=http://terminology.hl7.org/CodeSystem/audit-event-type|rest",
        "subtype=read",
        "action=R",
        "outcome=0",
        "address=127.0.0.1",
        "policy=jti-of-nina",
        "site=127.0.0.1:8080",
        "source:identifier=http://127.0.0.1:8080/fhir",
        "_profile=https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PatientRead",
        "patient.family=Byron",
    ],
)
def test_search_parameters(
    app: Flask, client: FlaskClient, audited: Audited, repository: Repository, ada: str, query: str
) -> None:
    repository.update(NURSE, ORDER | {"id": "order"})
    client.get("/fhir/ServiceRequest/order")
    client.get("/fhir/Patient?family=nobody")
    app.config["ACCESS"] = Access("client:other", (Scope("system", "*", "cruds"),), None, client_id="other")
    client.delete("/fhir/Organization/o2")
    everyone = Access("user:otto", (*AUDITOR.scopes, Scope("user", "*", "rs")), None)
    audited()
    found = repository.search(everyone, "AuditEvent", query, strict=True).matches
    assert 1 <= len(found) <= 3
    assert any("ServiceRequest/order" in str(version.resource()) for version in found)


class TestAppendOnly:
    @pytest.fixture
    def event(self, client: FlaskClient, audited: Audited, ada: str) -> dict:
        client.get(f"/fhir/{ada}")
        return audited()[0]

    @pytest.fixture(params=["practice", "system", "auditor"])
    def anyone(self, app: Flask, request: pytest.FixtureRequest, event: dict) -> None:
        every = (Scope("system", "*", "cruds"), Scope("system", "AuditEvent", "cruds"))
        app.config["ACCESS"] = {
            "practice": Access("user:nina", every, None, roles=frozenset({"admin"})),
            "system": Access("system:open", every, None, roles=frozenset({"system"})),
            "auditor": AUDITOR,
        }[request.param]

    @pytest.mark.usefixtures("anyone")
    def test_nobody_writes_through_the_api(self, client: FlaskClient, event: dict, repository: Repository) -> None:
        here, kept = f"/fhir/AuditEvent/{event['id']}", repository.store.version("AuditEvent", event["id"], 1)
        new = {name: value for name, value in event.items() if name not in ("id", "meta")}
        for answer in (
            client.post("/fhir/AuditEvent", json=new),
            client.put(here, json=event | {"outcome": "8"}),
            client.put("/fhir/AuditEvent/mine", json=new | {"id": "mine"}),
            client.put("/fhir/AuditEvent?action=R", json=new),
            client.patch(here, json={"outcome": "8"}, content_type="application/merge-patch+json"),
            client.delete(here),
            client.delete("/fhir/AuditEvent?action=R"),
        ):
            assert answer.status_code == 405, answer.text
            assert answer.json["issue"][0]["code"] == "not-supported"
        expunged = {"name": "expungePreviousVersions", "valueBoolean": True}
        sent = {"resourceType": "Parameters", "parameter": [expunged]}
        assert client.post(f"{here}/$expunge", json=sent).status_code == 403
        assert repository.store.newest("AuditEvent", event["id"]) == kept
        assert repository.store.newest("AuditEvent", "mine") is None

    @pytest.mark.parametrize("kind", ["batch", "transaction"])
    def test_nor_by_a_bundle(
        self, client: FlaskClient, event: dict, repository: Repository, ada: str, kind: str
    ) -> None:
        requests = [
            {"method": "DELETE", "url": f"AuditEvent/{event['id']}"},
            {"method": "PUT", "url": "AuditEvent/mine"},
            {"method": "POST", "url": "AuditEvent"},
        ]
        entries = [{"request": one, "resource": event | {"id": "mine"}} for one in requests]
        for entry in entries:
            answer = client.post("/fhir", json={"resourceType": "Bundle", "type": kind, "entry": [entry]})
            refused = answer.status_code == 405 if kind == "transaction" else False
            assert refused or answer.json["entry"][0]["response"]["status"].startswith("405")
        assert not repository.store.newest("AuditEvent", event["id"]).deleted
        assert repository.store.newest("AuditEvent", "mine") is None

    def test_they_keep_nothing_from_being_deleted(self, client: FlaskClient, event: dict, ada: str) -> None:
        assert client.delete(f"/fhir/{ada}").status_code == 204


class TestWhoReads:
    @pytest.fixture(autouse=True)
    def something(self, client: FlaskClient, audited: Audited, ada: str) -> None:
        client.get(f"/fhir/{ada}")
        audited()

    def test_not_who_may_read_all_other_types(self, client: FlaskClient, ada: str) -> None:
        assert client.get("/fhir/AuditEvent").status_code == 403
        assert client.get(f"/fhir/{ada}/AuditEvent").status_code == 403
        assert client.get("/fhir/AuditEvent/_history").status_code == 403
        assert client.get("/fhir?_type=AuditEvent").status_code == 403
        for path in ("/fhir", "/fhir/_history", f"/fhir/{ada}/*", f"/fhir/{ada}/$everything"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert {entry["resource"]["resourceType"] for entry in answer.json["entry"]} == {"Patient"}, path
        include = client.get("/fhir/Patient?_revinclude=AuditEvent:patient")
        assert {entry["resource"]["resourceType"] for entry in include.json["entry"]} == {"Patient"}
        assert client.get("/fhir/Patient?_has:AuditEvent:patient:action=R").status_code == 403

    def test_an_auditor_does_and_sees_nothing_else(
        self, app: Flask, client: FlaskClient, audited: Audited, ada: str
    ) -> None:
        app.config["ACCESS"] = AUDITOR
        found = client.get("/fhir/AuditEvent?patient=Patient/ada").json
        assert len(found["entry"]) == 1
        assert client.get(f"/fhir/AuditEvent/{found['entry'][0]['resource']['id']}").status_code == 200
        assert client.get(f"/fhir/{ada}").status_code == 403
        looks = [event for event in audited() if event["agent"][-1]["altId"] == "user:otto"]
        assert [codes(event) for event in looks] == [
            ("search-type", "E", "0"),
            ("read", "R", "0"),
            ("read", "R", "4"),
        ]

    def test_a_client_whose_organization_does_not_run_the_server_sees_none(
        self, app: Flask, client: FlaskClient
    ) -> None:
        audience = frozenset({"@any", "@Organization/o1"})
        app.config["ACCESS"] = Access("client:office", (Scope("system", "AuditEvent", "rs"),), audience)
        assert "entry" not in client.get("/fhir/AuditEvent").json


class TestWithoutTheTrail:
    def test_nothing_is_answered_until_it_can_be_written_again(
        self, client: FlaskClient, audit: Audit, audited: Audited, ada: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("fhir_server.audit.spool.os.write", full)
            for _ in range(3):
                answer = client.get(f"/fhir/{ada}")
                assert answer.status_code == 503
                assert "Byron" not in answer.text and answer.headers["Retry-After"]
                assert answer.json["issue"][0]["code"] == "transient"
            assert client.post("/fhir/Patient", json={"resourceType": "Patient"}).status_code == 503
            assert client.get("/fhir/metadata").status_code == 200
        assert audited() == []
        assert client.get("/fhir/Patient?family=none").status_code == 200
        assert client.get(f"/fhir/{ada}").status_code == 200
        assert [codes(event)[0] for event in audited()] == ["search-type", "read"]
        history = client.get("/fhir/Patient/_history").json
        assert len(history["entry"]) == 1  # the create was not begun


def test_what_a_person_does_on_a_page(app: Flask, audit: Audit, audited: Audited, repository: Repository) -> None:
    @app.post("/desk")
    def assign() -> str:
        rest.record_act(audit.trail, "assigned the study", ["ImagingStudy/1"], ["Patient/ada", "Patient/bob"])
        return "done"

    app.test_client().post("/desk", headers={"X-Request-Id": "req-9"})
    events = audited()
    assert patients(events) == ["Patient/ada", "Patient/bob"]
    for event in events:
        assert (event["type"]["code"], event["action"], whats(event)) == ("110110", "U", ["ImagingStudy/1"])
        assert event["agent"][-1]["who"] == {"reference": "Practitioner/nina"}
        assert [one["description"] for one in event["entity"] if "description" in one] == ["assigned the study"]
        assert repository.judge(event) == ([], [])


def test_an_import_is_refused_line_by_line(audit: Audit, repository: Repository) -> None:
    every = Access("client:pacs", (Scope("system", "*", "cruds"), Scope("system", "AuditEvent", "cruds")), None)
    event = {"resourceType": "AuditEvent", "id": "mine", "type": {"code": "rest"}}
    lines = [Line(0, 1, json.dumps(event).encode()), Line(0, 2, b'{"resourceType": "Patient", "id": "p"}')]
    stored = store_lines(repository, every, lines, final=True, unpack=False)
    ((line, error),) = stored.refused
    assert (line.number, error.status, stored.written) == (1, 405, 1)
    assert audit.store.count() == 0
