"""https://hl7.org/fhir/R4/http.html#patch, https://hl7.org/fhir/R4/fhirpatch.html"""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from fhir_server import fhirpath_patch, json_patch, merge_patch
from fhir_server.errors import BadRequest, FhirError, Unprocessable
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send

ANNA = {
    "resourceType": "Patient",
    "id": "a",
    "identifier": [{"system": "urn:mrn", "value": "1"}, {"system": "urn:b", "value": "2"}],
    "active": True,
    "name": [{"use": "official", "family": "A", "given": ["x", "y", "z"]}, {"use": "old", "family": "B"}],
    "birthDate": "1990-01-01",
    "_birthDate": {"extension": [{"url": "http://x.example/t", "valueDateTime": "1990-01-01T10:00:00Z"}]},
    "extension": [{"url": "http://x.example/n", "valueDecimal": 1}],
}


def patched(*operations: dict) -> dict:
    return json_patch.parse(list(operations))(json.loads(json.dumps(ANNA)))


def op(name: str, path: str, **members: Any) -> dict:
    return {"op": name, "path": path, **members}


class TestJsonPatch:
    """https://www.rfc-editor.org/rfc/rfc6902"""

    def test_add(self) -> None:
        assert patched(op("add", "/gender", value="female"))["gender"] == "female"
        assert patched(op("add", "/active", value=False))["active"] is False
        assert patched(op("add", "/name/0/given/1", value="n"))["name"][0]["given"] == ["x", "n", "y", "z"]
        assert patched(op("add", "/name/0/given/-", value="n"))["name"][0]["given"] == ["x", "y", "z", "n"]

    def test_remove(self) -> None:
        assert "active" not in patched(op("remove", "/active"))
        assert patched(op("remove", "/name/0/given/1"))["name"][0]["given"] == ["x", "z"]

    def test_a_list_that_becomes_empty_goes_too(self) -> None:
        assert "extension" not in patched(op("remove", "/extension/0"))

    def test_replace(self) -> None:
        assert patched(op("replace", "/name/1/family", value="C"))["name"][1]["family"] == "C"

    def test_move(self) -> None:
        assert patched({"op": "move", "from": "/name/1", "path": "/name/0"})["name"][0]["family"] == "B"

    def test_copy(self) -> None:
        changed = patched({"op": "copy", "from": "/identifier/0", "path": "/identifier/-"})
        assert [each["value"] for each in changed["identifier"]] == ["1", "2", "1"]

    @pytest.mark.parametrize(("value", "equal"), [(1, True), (True, False), ("1", False), (2, False)])
    def test_test(self, value: Any, equal: bool) -> None:
        operation = op("test", "/extension/0/valueDecimal", value=value)
        if equal:
            patched(operation)
        else:
            with pytest.raises(Unprocessable):
                patched(operation)

    def test_escapes_of_a_pointer(self) -> None:
        change = json_patch.parse([op("add", "/a~1b~0c", value=1)])
        assert change({}) == {"a/b~c": 1}

    @pytest.mark.parametrize(
        "document",
        [
            {},
            "x",
            [1],
            [{"op": "brew", "path": "/a"}],
            [{"op": "add", "path": "/a"}],
            [{"op": "add", "path": "a", "value": 1}],
            [{"op": "add", "path": "/~2", "value": 1}],
            [{"op": "add", "value": 1}],
            [{"op": "copy", "path": "/a"}],
            [{"op": "move", "from": "/name", "path": "/name/0"}],
            [{"op": "remove", "path": "/a" * 100}],
            [{"op": "remove", "path": "/a"}] * 1001,
        ],
    )
    def test_what_is_no_patch_is_a_bad_request(self, document: Any) -> None:
        with pytest.raises(BadRequest):
            json_patch.parse(document)

    @pytest.mark.parametrize(
        "operation",
        [
            op("remove", "/gender"),
            op("remove", ""),
            op("replace", "/gender", value="x"),
            op("add", "/name/9", value={}),
            op("add", "/name/01", value={}),
            op("add", "/name/x", value={}),
            op("add", "/nothing/here", value=1),
            op("add", "/active/deeper", value=1),
            {"op": "copy", "from": "/name/9", "path": "/name/0"},
        ],
    )
    def test_what_does_not_fit_is_unprocessable(self, operation: dict) -> None:
        with pytest.raises(Unprocessable, match="operation 0"):
            patched(operation)

    def test_copies_do_not_grow_without_bound(self) -> None:
        double = {"op": "copy", "from": "/name", "path": "/name/-"}
        with pytest.raises(FhirError) as refused:
            patched(*[double] * 60)
        assert refused.value.status < 500


def operation(**parts: Any) -> dict:
    """One operation; a value is given as {"valueString": ...} or {"part": [...]}."""
    made = []
    for name, part in parts.items():
        kind = "valueInteger" if isinstance(part, int) else "valueCode" if name == "type" else "valueString"
        made.append({"name": name} | (part if isinstance(part, dict) else {kind: part}))
    return {"name": "operation", "part": made}


def parameters(*operations: dict) -> dict:
    return {"resourceType": "Parameters", "parameter": list(operations)}


def changed(*operations: dict) -> dict:
    return fhirpath_patch.parse(parameters(*operations))(json.loads(json.dumps(ANNA)))


class TestMergePatch:
    """https://www.rfc-editor.org/rfc/rfc7396"""

    @pytest.mark.parametrize(
        ("target", "patch", "expected"),
        [
            ({"a": "b"}, {"a": "c"}, {"a": "c"}),
            ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
            ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
            ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
            ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
            ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
            ({"a": "foo"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
        ],
    )
    def test_the_examples_of_its_specification(self, target: dict, patch: dict, expected: dict) -> None:
        before = json.dumps(target)
        assert merge_patch.parse(patch)(target) == expected
        assert json.dumps(target) == before

    @pytest.mark.parametrize("patch", [[], "x", None])
    def test_is_an_object(self, patch: Any) -> None:
        with pytest.raises(BadRequest):
            merge_patch.parse(patch)

    def test_is_not_too_deep(self) -> None:
        patch: dict = {}
        for _ in range(600):
            patch = {"a": patch}
        with pytest.raises(BadRequest):
            merge_patch.parse(patch)


class TestFhirPathPatch:
    """https://hl7.org/fhir/R4/fhirpatch.html"""

    def test_add(self) -> None:
        value = {"valueCode": "female"}
        assert changed(operation(type="add", path="Patient", name="gender", value=value))["gender"] == "female"

    def test_add_to_a_list(self) -> None:
        value = {"valueString": "n"}
        found = changed(operation(type="add", path="Patient.name[0]", name="given", value=value))
        assert found["name"][0]["given"] == ["x", "y", "z", "n"]

    def test_add_of_a_choice_takes_its_name_from_the_type(self) -> None:
        value = {"valueBoolean": True}
        assert changed(operation(type="add", path="Patient", name="deceased", value=value))["deceasedBoolean"] is True

    def test_add_of_a_part_of_a_resource(self) -> None:
        parts = [
            {"name": "gender", "valueCode": "male"},
            {"name": "name", "valueHumanName": {"family": "C"}},
            {"name": "telecom", "valueContactPoint": {"system": "phone", "value": "1"}},
        ]
        found = changed(operation(type="add", path="Patient", name="contact", value={"part": parts}))
        contact = {"gender": "male", "name": {"family": "C"}, "telecom": [{"system": "phone", "value": "1"}]}
        assert found["contact"] == [contact]

    def test_add_of_what_is_there_is_refused(self) -> None:
        with pytest.raises(Unprocessable):
            changed(operation(type="add", path="Patient", name="birthDate", value={"valueDate": "2000-01-01"}))

    def test_insert(self) -> None:
        made = operation(type="insert", path="Patient.name[0].given", index=1, value={"valueString": "n"})
        assert changed(made)["name"][0]["given"] == ["x", "n", "y", "z"]

    @pytest.mark.parametrize(
        "path",
        [
            "Patient.name[1]",
            "Patient.name.where(use = 'old')",
            "name.where(use='old' and family = 'B')",
            "Patient.name.where(use != 'official')",
            "Patient.name.last()",
            "Patient.name.where(family = 'B').first()",
        ],
    )
    def test_delete(self, path: str) -> None:
        assert [name["use"] for name in changed(operation(type="delete", path=path))["name"]] == ["official"]

    def test_delete_takes_what_stands_beside_a_value(self) -> None:
        found = changed(operation(type="delete", path="Patient.birthDate"))
        assert "birthDate" not in found
        assert "_birthDate" not in found

    def test_delete_of_nothing_is_no_fault(self) -> None:
        assert changed(operation(type="delete", path="Patient.gender")) == ANNA

    def test_replace(self) -> None:
        value = {"valueDate": "2000-01-01"}
        assert changed(operation(type="replace", path="Patient.birthDate", value=value))["birthDate"] == "2000-01-01"

    def test_replace_changes_the_type_of_a_choice(self) -> None:
        path = "Patient.extension('http://x.example/n').value.ofType(decimal)"
        found = changed(operation(type="replace", path=path, value={"valueString": "one"}))
        assert found["extension"] == [{"url": "http://x.example/n", "valueString": "one"}]

    def test_move(self) -> None:
        found = changed(operation(type="move", path="Patient.name[0].given", source=2, destination=0))
        assert found["name"][0]["given"] == ["z", "x", "y"]

    @pytest.mark.parametrize(
        "broken",
        [
            {"name": "op"},
            operation(type="brew", path="Patient"),
            operation(type="delete"),
            operation(type="add", path="Patient", value={"valueString": "x"}),
            operation(type="replace", path="Patient.active"),
            operation(type="insert", path="Patient.name", value={"valueString": "x"}),
            operation(type="move", path="Patient.name", source=0),
            operation(type="delete", path="Patient.name["),
            operation(type="delete", path="Patient.name.repeat(a)"),
            operation(type="delete", path="Patient.where(" * 50),
            operation(type="delete", path="Patient.name.where(use ~ 'a')"),
            operation(type="delete", path="Patient" + ".name" * 1000),
            {"name": "operation", "part": [{"name": ["type"], "valueCode": "delete"}]},
            {"name": "operation", "part": ["type"]},
        ],
    )
    def test_what_is_no_patch_is_a_bad_request_and_named(self, broken: dict) -> None:
        with pytest.raises(BadRequest) as refused:
            changed(broken)
        assert str(refused.value.expression).startswith("Parameters.parameter[0]")

    @pytest.mark.parametrize(
        "unfit",
        [
            operation(type="delete", path="Patient.name"),
            operation(type="delete", path="Patient"),
            operation(type="replace", path="Patient", value={"valueString": "x"}),
            operation(type="replace", path="Patient.gender", value={"valueCode": "male"}),
            operation(type="add", path="Patient", name="colour", value={"valueString": "x"}),
            operation(type="add", path="Patient.active", name="id", value={"valueString": "x"}),
            operation(type="add", path="Patient.contact", name="gender", value={"valueCode": "x"}),
            operation(type="insert", path="Patient.name[0].given", index=9, value={"valueString": "n"}),
            operation(type="move", path="Patient.name", source=0, destination=5),
        ],
    )
    def test_what_does_not_fit_is_unprocessable(self, unfit: dict) -> None:
        with pytest.raises(Unprocessable):
            changed(unfit)


class TestPatch:
    """https://hl7.org/fhir/R4/http.html#patch"""

    @pytest.fixture
    def id(self, client: FlaskClient) -> str:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        return send(client, "POST", "/fhir/Patient", body).get_json(force=True)["id"]

    @pytest.fixture
    def told(self, client: FlaskClient, request: pytest.FixtureRequest) -> str:
        """A patient with a narrative of this status."""
        div = '<div xmlns="http://www.w3.org/1999/xhtml">A man.</div>'
        body = {**PATIENT, "text": {"status": request.param, "div": div}}
        return send(client, "POST", "/fhir/Patient", body).get_json(force=True)["id"]

    @pytest.mark.parametrize("told", ["generated", "extensions"], indirect=True)
    def test_a_narrative_made_from_the_data_goes_with_them(self, client: FlaskClient, told: str) -> None:
        change = [{"op": "replace", "path": "/gender", "value": "female"}]
        patched = self.patch(client, f"Patient/{told}", change)
        assert patched.status_code == 200
        assert "text" not in patched.get_json(force=True)

    @pytest.mark.parametrize("told", ["additional"], indirect=True)
    def test_a_narrative_that_says_more_is_to_be_patched_as_well(self, client: FlaskClient, told: str) -> None:
        change: list[dict] = [{"op": "replace", "path": "/gender", "value": "female"}]
        assert_outcome(self.patch(client, f"Patient/{told}", change), 422, "business-rule", "Patient.text")
        div = '<div xmlns="http://www.w3.org/1999/xhtml">A woman.</div>'
        change.append({"op": "replace", "path": "/text/div", "value": div})
        patched = self.patch(client, f"Patient/{told}", change)
        assert patched.get_json(force=True)["text"]["div"] == div

    @pytest.mark.parametrize("told", ["generated", "additional"], indirect=True)
    def test_a_narrative_stays_where_the_data_stay(self, client: FlaskClient, told: str) -> None:
        change = [{"op": "add", "path": "/meta/tag", "value": [{"code": "x"}]}]
        assert "text" in self.patch(client, f"Patient/{told}", change).get_json(force=True)

    def patch(self, client: FlaskClient, address: str, document: Any, **headers: str) -> TestResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = "application/json-patch+json"
        return client.patch(f"/fhir/{address}", data=json.dumps(document), content_type=kind, headers=names)

    def test_makes_the_next_version(self, client: FlaskClient, id: str) -> None:
        answer = self.patch(client, f"Patient/{id}", [op("replace", "/gender", value="female")])
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
        assert answer.get_json(force=True)["gender"] == "female"

    def test_takes_parameters_in_both_forms(self, client: FlaskClient, id: str) -> None:
        made = parameters(operation(type="replace", path="Patient.gender", value={"valueCode": "other"}))
        assert send(client, "PATCH", f"/fhir/Patient/{id}", made).get_json(force=True)["gender"] == "other"
        in_xml = (
            '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
            '<part><name value="type"/><valueCode value="delete"/></part>'
            '<part><name value="path"/><valueString value="Patient.gender"/></part></parameter></Parameters>'
        )
        answer = client.patch(f"/fhir/Patient/{id}", data=in_xml, content_type="application/fhir+xml")
        assert (answer.status_code, b"gender" in answer.data) == (200, False)

    @pytest.mark.parametrize("type", ["application/merge-patch+json", "application/json"])
    def test_takes_a_part_to_merge(self, client: FlaskClient, id: str, type: str) -> None:
        part = json.dumps({"gender": None, "active": True})
        answer = client.patch(f"/fhir/Patient/{id}", data=part, content_type=type)
        assert answer.status_code == 200, answer.text
        assert ("gender" in answer.get_json(force=True), answer.get_json(force=True)["active"]) == (False, True)
        other = client.patch(f"/fhir/Patient/{id}", data='{"id": "other"}', content_type=type)
        assert_outcome(other, 422, "business-rule")
        wrong = client.patch(f"/fhir/Patient/{id}", data='{"gender": "x"}', content_type=type)
        assert_outcome(wrong, 400, "code-invalid", "Patient.gender")

    def test_plain_json_may_be_each_patch_that_is_json(self, client: FlaskClient, id: str) -> None:
        made = parameters(operation(type="replace", path="Patient.gender", value={"valueCode": "other"}))
        for content, expected in ((made, "other"), ([op("replace", "/gender", value="female")], "female")):
            answer = client.patch(f"/fhir/Patient/{id}", json=content)
            assert (answer.status_code, answer.get_json(force=True)["gender"]) == (200, expected)

    def test_fhir_json_is_no_part_to_merge(self, client: FlaskClient, id: str) -> None:
        assert_outcome(send(client, "PATCH", f"/fhir/Patient/{id}", {"gender": "other"}), 400, "invalid")

    def test_obeys_if_match(self, client: FlaskClient, id: str) -> None:
        change = [op("remove", "/gender")]
        assert_outcome(self.patch(client, f"Patient/{id}", change, If_Match='W/"9"'), 412, "conflict")
        assert self.patch(client, f"Patient/{id}", change, If_Match='W/"1"').status_code == 200

    def test_that_changes_nothing_makes_no_version(self, client: FlaskClient, id: str) -> None:
        answer = self.patch(client, f"Patient/{id}", [op("test", "/gender", value="male")])
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"1"')

    def test_of_what_is_not_there(self, client: FlaskClient, id: str) -> None:
        assert_outcome(self.patch(client, "Patient/nobody", []), 404, "not-found")
        client.delete(f"/fhir/Patient/{id}")
        assert_outcome(self.patch(client, f"Patient/{id}", []), 410, "deleted")

    @pytest.mark.parametrize(
        "document",
        [
            [op("replace", "/id", value="other")],
            [op("replace", "/resourceType", value="Person")],
            [op("remove", "/id")],
            [op("replace", "", value=[])],
            [op("add", "/colour", value="blue")],
            [op("replace", "/gender", value=5)],
            [op("test", "/gender", value="female")],
        ],
    )
    def test_refuses_what_would_be_no_such_patient(self, client: FlaskClient, id: str, document: list) -> None:
        answer = self.patch(client, f"Patient/{id}", document)
        assert answer.status_code in (400, 422), answer.text
        assert client.get(f"/fhir/Patient/{id}").headers["ETag"] == 'W/"1"'

    def test_refuses_other_media_types_and_tells_its_own(self, client: FlaskClient, id: str) -> None:
        answer = client.patch(f"/fhir/Patient/{id}", data="x", content_type="text/plain")
        assert_outcome(answer, 415, "not-supported")
        assert "application/json-patch+json" in answer.headers["Accept-Patch"]

    def test_may_be_conditional(self, client: FlaskClient, id: str) -> None:
        change = [op("replace", "/gender", value="female")]
        answer = self.patch(client, "Patient?identifier=urn:mrn|1", change)
        assert (answer.status_code, answer.get_json(force=True)["id"]) == (200, id)
        assert_outcome(self.patch(client, "Patient?identifier=urn:mrn|2", change), 404, "not-found")
        send(client, "POST", "/fhir/Patient", {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]})
        assert_outcome(self.patch(client, "Patient?identifier=urn:mrn|1", change), 412, "conflict")
