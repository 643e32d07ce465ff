"""https://hl7.org/fhir/R4/http.html#mime-type"""

import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from fhir_server import fhir_xml
from fhir_server.errors import Issue, NotAcceptable, UnsupportedMediaType
from fhir_server.formats import FHIR_JSON, FHIR_XML, negotiate, sent_format
from fhir_server.repository import Repository
from fhir_server.validation import faults
from tests.fhir_server.test_rest import PATIENT, send
from tests.fhir_server.test_xml import EVERYTHING

IN_XML = b'<Patient xmlns="http://hl7.org/fhir"><name><family value="Chalmers"/></name></Patient>'


@pytest.mark.parametrize(
    ("format", "accept", "sent", "expected"),
    [
        (None, "", None, FHIR_JSON),
        (None, "*/*", None, FHIR_JSON),
        (None, "", FHIR_XML, FHIR_XML),
        (None, "*/*", FHIR_XML, FHIR_XML),
        (None, FHIR_JSON, FHIR_XML, FHIR_JSON),
        (None, "application/xml", None, FHIR_XML),
        (None, "text/xml", None, FHIR_XML),
        (None, "application/xml+fhir", None, FHIR_XML),
        (None, "application/json+fhir", None, FHIR_JSON),
        (None, "text/json", None, FHIR_JSON),
        (None, "Application/FHIR+XML; charset=utf-8", None, FHIR_XML),
        (None, "application/fhir+xml, */*", None, FHIR_XML),
        (None, "application/fhir+xml;q=0.5, application/fhir+json;q=0.9", None, FHIR_JSON),
        (None, "application/fhir+xml;q=0.9, application/fhir+json;q=0.5", None, FHIR_XML),
        (None, "application/fhir+json;q=0, */*", None, FHIR_XML),
        (None, "image/png, application/*;q=0.1", None, FHIR_JSON),
        (None, "application/fhir+json; fhirVersion=4.0", None, FHIR_JSON),
        (None, "application/fhir+json; fhirVersion=5.0, application/fhir+xml", None, FHIR_XML),
        ("xml", FHIR_JSON, None, FHIR_XML),
        ("json", FHIR_XML, None, FHIR_JSON),
        ("application/fhir xml", "", None, FHIR_XML),
        ("text/xml", "", None, FHIR_XML),
    ],
)
def test_the_form_of_the_answer(format: str | None, accept: str, sent: str | None, expected: str) -> None:
    assert negotiate(format, accept, sent) == expected


@pytest.mark.parametrize(
    ("format", "accept"),
    [
        (None, "image/png"),
        (None, "application/fhir+turtle"),
        (None, "application/fhir+json;q=0"),
        (None, "application/fhir+json; fhirVersion=3.0"),
        ("ttl", "*/*"),
        ("nonsense", FHIR_JSON),
    ],
)
def test_other_forms_are_not_acceptable(format: str | None, accept: str) -> None:
    with pytest.raises(NotAcceptable):
        negotiate(format, accept)


@pytest.mark.parametrize(
    "sent",
    ["", "text/plain", "json", "application/fhir+json; charset=utf-16", "application/fhir+json; fhirVersion=3.0"],
)
def test_other_forms_are_not_taken(sent: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        sent_format(sent)


def test_xml_is_stored_and_answered_in_both_forms(client: FlaskClient) -> None:
    answer = client.post("/fhir/Patient", data=IN_XML, content_type="application/fhir+xml")
    assert (answer.status_code, answer.mimetype) == (201, FHIR_XML)
    id = fhir_xml.loads(answer.data)["id"]
    in_json = client.get(f"/fhir/Patient/{id}")
    assert in_json.mimetype == FHIR_JSON
    assert in_json.get_json(force=True)["name"] == [{"family": "Chalmers"}]
    in_xml = client.get(f"/fhir/Patient/{id}", headers={"Accept": FHIR_XML})
    assert fhir_xml.loads(in_xml.data) == in_json.get_json(force=True)
    assert "Accept" in in_xml.headers["Vary"]


def test_searches_history_and_statements_are_answered_in_xml(client: FlaskClient) -> None:
    client.post("/fhir/Patient", data=IN_XML, content_type="application/fhir+xml")
    for address in ("/fhir/Patient?_format=xml", "/fhir/Patient/_history?_format=xml"):
        bundle = fhir_xml.loads(client.get(address).data)
        assert bundle["entry"][0]["resource"]["name"] == [{"family": "Chalmers"}]
    form = {"_format": "xml", "family": "chalmers"}
    assert client.post("/fhir/Patient/_search", data=form).mimetype == FHIR_XML


def test_refusals_come_in_the_form_asked_for(client: FlaskClient) -> None:
    answer = client.get("/fhir/Patient/nobody?_format=xml")
    assert (answer.status_code, answer.mimetype) == (404, FHIR_XML)
    assert fhir_xml.loads(answer.data)["issue"][0]["code"] == "not-found"
    broken = client.post("/fhir/Patient", data=b"<Patient", content_type="application/fhir+xml")
    assert (broken.status_code, broken.mimetype) == (400, FHIR_XML)
    unknown = client.get("/fhir/Patient/nobody?_format=ttl")
    assert (unknown.status_code, unknown.mimetype) == (406, FHIR_JSON)


@pytest.mark.parametrize("format", ["json", "xml"])
@pytest.mark.parametrize("path", ["/fhir/Patient/%00", "/fhir/Patient/a/%00/b"])
def test_a_refusal_quotes_no_character_that_fhir_has_not(client: FlaskClient, path: str, format: str) -> None:
    answer = client.get(path, query_string={"_format": format})
    outcome = fhir_xml.loads(answer.data) if answer.mimetype == FHIR_XML else json.loads(answer.data)
    assert outcome["resourceType"] == "OperationOutcome"
    assert faults(outcome) == []


@pytest.mark.parametrize("quoted", ["a\x01b", "a\ud800b", "a\ufffeb"])
def test_an_issue_quotes_no_character_that_fhir_has_not(quoted: str) -> None:
    issue = Issue("value", f"{quoted} is none", f"Patient.{quoted}").as_fhir()
    assert (issue["diagnostics"], issue["expression"]) == ("a\ufffdb is none", ["Patient.a\ufffdb"])


def test_pretty_is_indented_and_says_the_same(client: FlaskClient) -> None:
    id = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
    plain, pretty = (client.get(f"/fhir/Patient/{id}?_pretty={value}") for value in ("false", "true"))
    assert b"\n" not in plain.data
    assert b'\n  "resourceType"' in pretty.data
    assert json.loads(pretty.data) == json.loads(plain.data)
    assert b"\n  <name>" in client.get(f"/fhir/Patient/{id}?_pretty=true&_format=xml").data


def test_encoded_content_is_not_taken(client: FlaskClient) -> None:
    assert send(client, "POST", "/fhir/Patient", PATIENT, Content_Encoding="gzip").status_code == 415


class TestHead:
    """https://hl7.org/fhir/R4/http.html#head"""

    def test_answers_as_get_without_content(self, client: FlaskClient) -> None:
        id = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        for address in (f"/fhir/Patient/{id}", "/fhir/Patient", f"/fhir/Patient/{id}/_history", "/fhir/metadata"):
            got, head = client.get(address), client.head(address)
            assert (head.status_code, head.data) == (got.status_code, b"")
            assert head.headers["Content-Length"] == str(len(got.data))
            assert head.headers.get("ETag") == got.headers.get("ETag")
        assert client.head("/fhir/Patient/nobody").status_code == 404


class TestConditionalRead:
    """https://hl7.org/fhir/R4/http.html#cread"""

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"If-None-Match": 'W/"1"'}, 304),
            ({"If-None-Match": '"1"'}, 304),
            ({"If-None-Match": 'W/"7", W/"1"'}, 304),
            ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": 'W/"2"'}, 200),
            ({"If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"}, 304),
            ({"If-Modified-Since": "Thu, 01 Jan 2015 00:00:00 GMT"}, 200),
            ({"If-Modified-Since": "yesterday"}, 200),
            ({"If-None-Match": 'W/"2"', "If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"}, 200),
        ],
    )
    def test_answers_304_without_content(self, client: FlaskClient, headers: dict, status: int) -> None:
        id = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        answer = client.get(f"/fhir/Patient/{id}", headers=headers)
        assert answer.status_code == status
        assert answer.headers["ETag"] == 'W/"1"'
        assert bool(answer.data) == (status == 200)

    def test_the_last_modified_of_an_answer_is_not_modified(self, client: FlaskClient) -> None:
        created = send(client, "POST", "/fhir/Patient", PATIENT)
        id, since = created.get_json(force=True)["id"], created.headers["Last-Modified"]
        assert client.get(f"/fhir/Patient/{id}", headers={"If-Modified-Since": since}).status_code == 304


class TestPrefer:
    """https://hl7.org/fhir/R4/http.html#ops"""

    def test_minimal_answers_headers_only(self, client: FlaskClient) -> None:
        answer = send(client, "POST", "/fhir/Patient", PATIENT, Prefer="return=minimal")
        assert (answer.status_code, answer.data) == (201, b"")
        assert answer.headers["Location"].endswith("/_history/1")

    def test_representation_is_the_default(self, client: FlaskClient) -> None:
        for prefer in ("", "return=representation", "respond-async-not; return=representation, handling=lenient"):
            answer = send(client, "POST", "/fhir/Patient", PATIENT, Prefer=prefer)
            assert answer.get_json(force=True)["resourceType"] == "Patient"
            assert answer.headers["Content-Location"] == answer.headers["Location"]

    def test_an_operation_outcome_says_what_was_done(self, client: FlaskClient) -> None:
        wanted = {"Prefer": "return=OperationOutcome"}
        answer = send(client, "POST", "/fhir/Patient", PATIENT, **wanted)
        outcome = answer.get_json(force=True)
        assert (answer.status_code, outcome["resourceType"]) == (201, "OperationOutcome")
        assert outcome["issue"][0]["severity"] == "information"


def test_options_tells_the_methods(client: FlaskClient) -> None:
    allowed = {method.strip() for method in client.options("/fhir/Patient/1").headers["Allow"].split(",")}
    assert {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} <= allowed


def test_a_method_that_is_not_there_is_told_with_those_that_are(client: FlaskClient) -> None:
    answer = client.delete("/fhir/Patient/a/_history")
    assert answer.status_code == 405
    assert {"GET", "HEAD"} <= {method.strip() for method in answer.headers["Allow"].split(",")}


def test_what_is_read_in_xml_and_sent_back_is_no_change(client: FlaskClient) -> None:
    assert send(client, "PUT", "/fhir/Observation/a", EVERYTHING).status_code == 201
    assert sent_back_in_xml(client, "/fhir/Observation/a") == (200, 'W/"1"')


@pytest.mark.shared_data
def test_the_examples_of_the_specification_come_back_unchanged(
    client: FlaskClient, repository: Repository, shared_data: Path
) -> None:
    repository.check_references = False
    failed = []
    for file in sorted((shared_data / "fhir" / "hl7-examples").rglob("*.json")):
        resource = json.loads(file.read_bytes())
        address = f"/fhir/{resource['resourceType']}/{resource['id']}"
        answer = send(client, "PUT", address, file.read_bytes())
        if answer.status_code == 201 and sent_back_in_xml(client, address) != (200, 'W/"1"'):
            failed.append(file.name)
    assert failed == []


def sent_back_in_xml(client: FlaskClient, address: str) -> tuple[int, str | None]:
    """(status, ETag) of an update with what was read in XML."""
    text = client.get(f"{address}?_format=xml").data
    answer = client.put(address, data=text, content_type="application/fhir+xml")
    return answer.status_code, answer.headers.get("ETag")
