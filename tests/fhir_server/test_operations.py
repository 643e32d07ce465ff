"""https://hl7.org/fhir/R4/operations.html and the operations on any resource."""

from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.admission import Write
from fhir_server.capability import capability_statement
from fhir_server.errors import Unprocessable
from fhir_server.operation import Answer, Operation, OperationRequest
from fhir_server.operations import standard
from fhir_server.repository import Repository
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.operations import app_with, json_of, post, values
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send

ORDER = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}


@pytest.fixture
def app(repository: Repository) -> Flask:
    return app_with(repository, standard.operations(repository))


@pytest.fixture
def patient(repository: Repository) -> str:
    return repository.create(PRACTICE, dict(PATIENT)).version.id


def codes(outcome: dict) -> set[str]:
    assert outcome["resourceType"] == "OperationOutcome"
    return {issue["code"] for issue in outcome["issue"]}


def places(outcome: dict) -> set[str]:
    return {place for issue in outcome["issue"] for place in issue.get("expression", [])}


class TestAddresses:
    """https://hl7.org/fhir/R4/operations.html#executing"""

    @pytest.fixture
    def app(self, repository: Repository) -> Flask:
        def told(request: OperationRequest) -> dict:
            about = [str(request.resource_type), str(request.id), str(request.if_match), request.prefer]
            parameters = [{"name": "about", "valueString": "/".join(about)}, *request.parameters]
            return {"resourceType": "Parameters", "parameter": parameters}

        def accepted(_request: OperationRequest) -> Answer:
            return Answer(None, 202, {"Content-Location": f"{BASE}/jobs/1"})

        def operation(name: str, resource_type: str | None, **levels: bool) -> Operation:
            allowed = {"instance": False, "type_level": False, "affects_state": False} | levels
            handler = accepted if name == "later" else told
            return Operation(name, f"urn:{name}", resource_type, handler=handler, **allowed)

        self.operations = [
            operation("tell", None, system=True, type_level=True, instance=True),
            operation("tell", "Device", type_level=True),
            operation("change", "Patient", instance=True, affects_state=True),
            operation("later", None, system=True),
        ]
        return app_with(repository, self.operations)

    @pytest.mark.parametrize(
        ("path", "about"),
        [("$tell", "None/None"), ("Patient/$tell", "Patient/None"), ("Patient/p1/$tell", "Patient/p1")],
    )
    def test_system_type_and_instance(self, client: FlaskClient, path: str, about: str) -> None:
        assert values(json_of(client.get(f"/fhir/{path}")))["about"] == f"{about}/None/"
        assert values(json_of(post(client, path, [])))["about"] == f"{about}/None/"

    @pytest.mark.parametrize(
        ("accept", "query", "expected"),
        [
            ("text/plain", "", "text/plain"),
            ("*/*", "", "text/plain"),
            ("text/plain", "?_format=xml", "fhir+xml"),
            ("application/fhir+json", "", "fhir+json"),
            ("application/fhir+xml", "", "fhir+xml"),
        ],
    )
    def test_a_binary_is_answered_as_if_it_were_read(
        self, repository: Repository, accept: str, query: str, expected: str
    ) -> None:
        binary = {"resourceType": "Binary", "contentType": "text/plain", "data": "eA=="}
        told = Operation("file", "urn:file", None, False, False, False, lambda _request: binary, system=True)
        answer = app_with(repository, [told]).test_client().get(f"/fhir/$file{query}", headers={"Accept": accept})
        assert answer.status_code == 200
        assert expected in answer.content_type
        if expected == "text/plain":
            assert answer.data == b"x"
            assert answer.headers["Content-Disposition"] == "attachment"
            assert "sandbox" in answer.headers["Content-Security-Policy"]

    def test_the_operation_of_a_type_goes_before_that_of_all(self, client: FlaskClient) -> None:
        assert client.get("/fhir/Device/$tell").status_code == 200
        assert_outcome(client.get("/fhir/Device/d1/$tell"), 404, "not-found")

    def test_parameters_of_the_body_come_before_those_of_the_query(self, client: FlaskClient) -> None:
        sent = [{"name": "a", "valueCode": "body"}]
        answer = json_of(post(client, "$tell?b=query&_format=json", sent))
        assert answer["parameter"][1:] == [*sent, {"name": "b", "valueString": "query"}]

    def test_headers_reach_the_operation(self, client: FlaskClient) -> None:
        answer = post(client, "Patient/p1/$change", [], If_Match='W/"3"', Prefer="respond-async")
        assert values(json_of(answer))["about"] == "Patient/p1/3/respond-async"

    def test_what_changes_something_takes_post(self, client: FlaskClient) -> None:
        assert_outcome(client.get("/fhir/Patient/p1/$change"), 405, "not-supported")

    def test_an_answer_can_be_other_than_a_resource(self, client: FlaskClient) -> None:
        answer = client.get("/fhir/$later")
        assert (answer.status_code, answer.data) == (202, b"")
        assert answer.headers["Content-Location"] == f"{BASE}/jobs/1"

    @pytest.mark.parametrize(
        "path", ["$nothing", "Patient/$nothing", "Patient/p1/$nothing", "Patient/$change", "$change"]
    )
    def test_unknown_operations_and_levels_are_404(self, client: FlaskClient, path: str) -> None:
        assert_outcome(client.get(f"/fhir/{path}"), 404, "not-found")

    @pytest.mark.parametrize(
        ("path", "status"), [("Nothing/$tell", 404), ("Nothing/1/$tell", 404), ("Patient/a_b/$tell", 400)]
    )
    def test_unknown_types_and_ids_that_are_none_are_refused(
        self, client: FlaskClient, path: str, status: int
    ) -> None:
        assert client.get(f"/fhir/{path}").status_code == status

    @pytest.mark.parametrize("path", ["$tell", "Patient/p1/$change"])
    def test_a_form_that_there_is_not_is_refused(self, client: FlaskClient, path: str) -> None:
        assert_outcome(post(client, path, [], Accept="image/png"), 406, "not-supported")

    @pytest.mark.parametrize(
        "body",
        [
            b"[]",
            b"{",
            b'{"resourceType": "Patient"}',
            b'{"resourceType": "Parameters", "parameter": [1]}',
            b'{"a": 1}',
        ],
    )
    def test_bodies_that_are_no_parameters_are_400(self, client: FlaskClient, body: bytes) -> None:
        assert_outcome(post(client, "$tell", body), 400, "invalid")

    def test_the_capability_statement_names_each_where_it_can_be_called(self, app: Flask) -> None:
        assert app
        statement = capability_statement(BASE, datetime.now(UTC), "0", self.operations, {}, lambda _type: [])
        rest = statement["rest"][0]
        offered = {row["type"]: [one["name"] for one in row.get("operation", [])] for row in rest["resource"]}
        assert [row["name"] for row in rest["operation"]] == ["tell", "later"]
        assert offered["Patient"] == ["tell", "change"]
        assert offered["Basic"] == ["tell"]


class TestValidate:
    """https://hl7.org/fhir/R4/resource-operation-validate.html"""

    def test_says_that_nothing_is_wrong(self, client: FlaskClient, repository: Repository) -> None:
        outcome = json_of(post(client, "Patient/$validate", PATIENT))
        assert [issue["severity"] for issue in outcome["issue"]] == ["information"]
        assert repository.store.count("Patient", {}) == 0

    def test_names_every_fault_and_answers_200(self, client: FlaskClient) -> None:
        body = {"resourceType": "Patient", "name": [{"family": 5}], "colour": "blue", "birthDate": "yesterday"}
        outcome = json_of(post(client, "Patient/$validate", body))
        assert places(outcome) == {"Patient.name[0].family", "Patient.colour", "Patient.birthDate"}

    @pytest.mark.parametrize("mode", [None, "create"])
    def test_takes_the_resource_in_parameters(self, client: FlaskClient, mode: str | None) -> None:
        entries: list[dict] = [{"name": "resource", "resource": {"resourceType": "Patient", "gender": 5}}]
        entries += [{"name": "mode", "valueCode": mode}] if mode else []
        assert places(json_of(post(client, "Patient/$validate", entries))) == {"Patient.gender"}

    def test_without_a_mode_asks_for_the_content_alone(self, client: FlaskClient) -> None:
        body = {**ORDER, "subject": {"reference": "Patient/nobody"}}
        assert codes(json_of(post(client, "ServiceRequest/$validate", body))) == {"informational"}

    def test_create_checks_what_a_create_would(self, client: FlaskClient, repository: Repository) -> None:
        def refuse(_write: Write) -> dict:
            raise Unprocessable("no orders on Sundays", "ServiceRequest.authoredOn")

        repository.admissions["ServiceRequest"] = (refuse,)
        body = {**ORDER, "subject": {"reference": "Patient/nobody"}}
        outcome = json_of(post(client, "ServiceRequest/$validate?mode=create", body))
        assert places(outcome) == {"ServiceRequest.authoredOn", "ServiceRequest.subject"}
        assert codes(outcome) == {"business-rule", "not-found"}
        assert repository.store.count("ServiceRequest", {}) == 0

    def test_create_checks_that_the_caller_may(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "r"),), None)
        assert codes(json_of(post(client, "Patient/$validate?mode=create", PATIENT))) == {"forbidden"}

    def test_update_is_about_the_resource_of_the_address(self, client: FlaskClient, patient: str) -> None:
        body = {**PATIENT, "id": patient, "gender": "other"}
        path = f"Patient/{patient}/$validate?mode=update"
        assert codes(json_of(post(client, path, body))) == {"informational"}
        assert codes(json_of(post(client, path, body, If_Match='W/"7"'))) == {"conflict"}
        assert client.get(f"/fhir/Patient/{patient}").headers["ETag"] == 'W/"1"'

    def test_delete_needs_no_content_and_deletes_nothing(
        self, client: FlaskClient, repository: Repository, patient: str
    ) -> None:
        def refuse(_write: Write) -> None:
            raise Unprocessable("patients stay")

        path = f"/fhir/Patient/{patient}/$validate?mode=delete"
        assert codes(json_of(client.get(path))) == {"informational"}
        repository.admissions["Patient"] = (refuse,)
        assert codes(json_of(client.get(path))) == {"business-rule"}
        assert client.get(f"/fhir/Patient/{patient}").status_code == 200

    def test_without_content_validates_what_is_stored(self, app: Flask, client: FlaskClient, patient: str) -> None:
        path = f"/fhir/Patient/{patient}/$validate"
        assert codes(json_of(client.get(path))) == {"informational"}
        assert_outcome(client.get("/fhir/Patient/nobody/$validate"), 404, "not-found")
        app.config["ACCESS"] = an_office("o1")
        assert_outcome(client.get(path), 404, "not-found")

    def test_profile_of_the_type_is_what_all_are_checked_against(self, client: FlaskClient, patient: str) -> None:
        profile = "http://hl7.org/fhir/StructureDefinition/Patient"
        assert codes(json_of(post(client, f"Patient/$validate?profile={profile}", PATIENT))) == {"informational"}
        path = f"/fhir/Patient/{patient}/$validate?mode=profile&profile={profile}"
        assert codes(json_of(client.get(path))) == {"informational"}

    def test_a_profile_that_is_not_known_is_an_error(self, client: FlaskClient) -> None:
        answer = post(client, "Patient/$validate?profile=http://example.org/nothing", PATIENT)
        assert_outcome(answer, 422, "not-supported")

    @pytest.mark.parametrize(
        ("path", "body", "expression"),
        [
            ("Patient/$validate", [], None),
            ("Patient/$validate?mode=guess", PATIENT, None),
            ("Patient/$validate?mode=update", PATIENT, None),
            ("Patient/$validate?mode=delete", PATIENT, None),
            ("Patient/$validate?mode=profile", PATIENT, None),
            ("Patient/p1/$validate?mode=create", {**PATIENT, "id": "p1"}, None),
            ("Patient/p1/$validate", {**PATIENT, "id": "p2"}, "Patient.id"),
            ("Device/$validate", PATIENT, "Patient"),
            ("Patient/$validate?colour=blue", PATIENT, None),
            ("Patient/$validate", [{"name": "resource", "valueString": "x"}], None),
            (
                "Patient/$validate",
                [{"name": "mode", "valueInteger": 5}],
                "Parameters.parameter[0].value.ofType(integer)",
            ),
            ("Patient/$validate", [{"name": "mode", "valueCode": "x"}], "Parameters.parameter[0].value.ofType(code)"),
            ("Patient/$validate", [{"name": ["x"]}], "Parameters.parameter[0].name"),
            ("Patient/$validate", [{"name": "resource", "resource": [1]}], "Parameters.parameter[0]"),
        ],
    )
    def test_calls_that_make_no_sense_are_400(
        self, client: FlaskClient, path: str, body: dict | list, expression: str | None
    ) -> None:
        answer = post(client, path, body)
        assert answer.status_code == 400, answer.text
        if expression:
            assert expression in places(answer.get_json(force=True))


class TestMeta:
    """https://hl7.org/fhir/R4/resource-operation-meta.html"""

    TAG = {"system": "urn:tags", "code": "vip", "display": "VIP"}

    def change(self, client: FlaskClient, path: str, meta: dict, **headers: str) -> dict:
        return values(json_of(post(client, path, [{"name": "meta", "valueMeta": meta}], **headers)))["return"]

    def test_tells_the_meta_of_the_resource(self, client: FlaskClient, patient: str) -> None:
        meta = values(json_of(client.get(f"/fhir/Patient/{patient}/$meta")))["return"]
        assert meta == client.get(f"/fhir/Patient/{patient}").get_json(force=True)["meta"]

    def test_add_and_delete_make_new_versions(self, client: FlaskClient, patient: str) -> None:
        added = self.change(client, f"Patient/{patient}/$meta-add", {"tag": [self.TAG], "profile": ["urn:p"]})
        assert (added["versionId"], added["tag"], added["profile"]) == ("2", [self.TAG], ["urn:p"])
        assert client.get("/fhir/Patient?_tag=urn:tags|vip&_total=accurate").get_json(force=True)["total"] == 1
        gone = {"tag": [{"system": "urn:tags", "code": "vip"}]}
        left = self.change(client, f"Patient/{patient}/$meta-delete", gone)
        assert (left["versionId"], left["profile"]) == ("3", ["urn:p"])
        assert "tag" not in left
        assert client.get(f"/fhir/Patient/{patient}/_history/2").get_json(force=True)["meta"]["tag"] == [self.TAG]

    def test_what_changes_nothing_makes_no_version(self, client: FlaskClient, patient: str) -> None:
        self.change(client, f"Patient/{patient}/$meta-add", {"tag": [self.TAG]})
        again = self.change(client, f"Patient/{patient}/$meta-add", {"tag": [{**self.TAG, "display": "Other"}]})
        other = self.change(client, f"Patient/{patient}/$meta-delete", {"tag": [{"code": "vip"}]})
        assert (again["versionId"], other["versionId"], other["tag"]) == ("2", "2", [self.TAG])

    def test_if_match_decides(self, client: FlaskClient, patient: str) -> None:
        entries = [{"name": "meta", "valueMeta": {"tag": [self.TAG]}}]
        path = f"Patient/{patient}/$meta-add"
        assert_outcome(post(client, path, entries, If_Match='W/"2"'), 412, "conflict")
        assert self.change(client, path, {"tag": [self.TAG]}, If_Match='W/"1"')["versionId"] == "2"
        assert_outcome(post(client, path, entries, If_Match='W/"1"'), 412, "conflict")

    def test_asks_for_the_right_to_update(self, app: Flask, client: FlaskClient, patient: str) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "rs"),), None)
        entries = [{"name": "meta", "valueMeta": {"tag": [self.TAG]}}]
        assert_outcome(post(client, f"Patient/{patient}/$meta-add", entries), 403, "forbidden")
        app.config["ACCESS"] = an_office("o1")
        assert_outcome(post(client, f"Patient/{patient}/$meta-add", entries), 404, "not-found")
        assert_outcome(client.get(f"/fhir/Patient/{patient}/$meta"), 404, "not-found")

    @pytest.mark.parametrize(
        ("meta", "expression"),
        [
            ("x", "Parameters.parameter[0].value.ofType(Meta)"),
            ({"tag": {"code": "a"}}, "Parameters.parameter[0].value.ofType(Meta).tag"),
            ({"tag": [{"code": 5}]}, "Parameters.parameter[0].value.ofType(Meta).tag[0]"),
            ({"profile": [5]}, "Parameters.parameter[0].value.ofType(Meta).profile[0]"),
            (
                {"security": [{"code": "R", "system": 1}]},
                "Parameters.parameter[0].value.ofType(Meta).security[0].system",
            ),
        ],
    )
    def test_names_what_is_no_meta(self, client: FlaskClient, patient: str, meta: object, expression: str) -> None:
        answer = post(client, f"Patient/{patient}/$meta-add", [{"name": "meta", "valueMeta": meta}])
        assert_outcome(answer, 400, "invalid", expression)

    def test_a_meta_is_needed(self, client: FlaskClient, patient: str) -> None:
        assert_outcome(post(client, f"Patient/{patient}/$meta-add", []), 400, "required")


def test_rest_goes_on_as_before(client: FlaskClient, patient: str) -> None:
    """Addresses with `$` and ids do not take each other's place."""
    assert client.get(f"/fhir/Patient/{patient}").status_code == 200
    assert send(client, "PUT", f"/fhir/Patient/{patient}", {**PATIENT, "id": patient}).status_code == 200
    assert_outcome(client.post(f"/fhir/Patient/{patient}"), 405, "not-supported")
