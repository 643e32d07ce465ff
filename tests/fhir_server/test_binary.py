"""https://hl7.org/fhir/R4/binary.html#rest"""

import base64

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server import fhir_xml
from tests.fhir_server.conftest import an_office
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send

PDF = b"%PDF-1.7 \x00\xff"


def create(client: FlaskClient, content: bytes = PDF, kind: str = "application/pdf", **headers: str) -> str:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post("/fhir/Binary", data=content, content_type=kind, headers=names)
    assert answer.status_code == 201, answer.text
    return answer.get_json(force=True)["id"]


class TestNative:
    def test_what_is_sent_as_it_is_comes_back_as_it_is(self, client: FlaskClient) -> None:
        answer = client.get(f"/fhir/Binary/{create(client)}")
        assert (answer.data, answer.mimetype) == (PDF, "application/pdf")
        assert answer.headers["ETag"] == 'W/"1"'
        assert "Last-Modified" in answer.headers

    def test_a_browser_does_not_take_it_for_a_page_of_ours(self, client: FlaskClient) -> None:
        id = create(client, b"<script>alert(1)</script>", "text/html")
        answer = client.get(f"/fhir/Binary/{id}", headers={"Accept": "text/html,*/*;q=0.8"})
        assert answer.mimetype == "text/html"
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        "accept", ["application/pdf", "application/*", "*/*", "image/png, application/pdf;q=0.1"]
    )
    def test_is_given_to_who_accepts_its_type(self, client: FlaskClient, accept: str) -> None:
        assert client.get(f"/fhir/Binary/{create(client)}", headers={"Accept": accept}).data == PDF

    @pytest.mark.parametrize("accept", ["image/png", "text/*"])
    def test_is_refused_to_who_does_not(self, client: FlaskClient, accept: str) -> None:
        answer = client.get(f"/fhir/Binary/{create(client)}", headers={"Accept": accept})
        assert_outcome(answer, 406, "not-supported")

    def test_is_updated_and_read_by_version(self, client: FlaskClient) -> None:
        id = create(client)
        answer = client.put(f"/fhir/Binary/{id}", data=b"two", content_type="text/plain; charset=utf-8")
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
        assert client.get(f"/fhir/Binary/{id}/_history/1").data == PDF
        assert client.get(f"/fhir/Binary/{id}").headers["Content-Type"] == "text/plain; charset=utf-8"
        assert client.put("/fhir/Binary/mine", data=b"x", content_type="text/plain").status_code == 201

    def test_is_not_sent_again_to_who_has_it(self, client: FlaskClient) -> None:
        answer = client.get(f"/fhir/Binary/{create(client)}", headers={"If-None-Match": 'W/"1"'})
        assert (answer.status_code, answer.data) == (304, b"")

    def test_json_that_is_no_binary_is_content(self, client: FlaskClient) -> None:
        id = create(client, b'{"a": 1}', "application/json")
        assert client.get(f"/fhir/Binary/{id}").data == b'{"a": 1}'
        assert client.get(f"/fhir/Binary/{id}", headers={"Accept": "application/json"}).data == b'{"a": 1}'
        patient = create(client, b'{"resourceType": "Patient"}', "application/fhir+json")
        assert b"data" in client.get(f"/fhir/Binary/{patient}?_format=json").data

    @pytest.mark.parametrize(
        ("content", "kind"), [(b"x", "nonsense"), (b"", "text/plain"), (b"{", "application/fhir+json")]
    )
    def test_refuses_what_it_cannot_keep(self, client: FlaskClient, content: bytes, kind: str) -> None:
        assert_outcome(client.post("/fhir/Binary", data=content, content_type=kind), 400, "invalid")

    def test_a_content_type_that_is_none_is_a_stream_of_octets(self, client: FlaskClient) -> None:
        body = {"resourceType": "Binary", "contentType": "text/html; x=\u00e4", "data": "YQ=="}
        id = send(client, "POST", "/fhir/Binary", body).get_json(force=True)["id"]
        answer = client.get(f"/fhir/Binary/{id}")
        assert (answer.mimetype, answer.data) == ("application/octet-stream", b"a")


class TestAsResource:
    @pytest.mark.parametrize(
        "accept", ["application/fhir+json", "application/json", "application/fhir+json, */*;q=0.1"]
    )
    def test_is_given_to_who_asks_for_fhir(self, client: FlaskClient, accept: str) -> None:
        answer = client.get(f"/fhir/Binary/{create(client)}", headers={"Accept": accept})
        body = answer.get_json(force=True)
        assert (body["contentType"], base64.b64decode(body["data"])) == ("application/pdf", PDF)

    def test_is_given_in_xml_too(self, client: FlaskClient) -> None:
        answer = client.get(f"/fhir/Binary/{create(client)}?_format=xml")
        assert base64.b64decode(fhir_xml.loads(answer.data)["data"]) == PDF

    def test_what_is_sent_as_resource_is_one(self, client: FlaskClient) -> None:
        body = {"resourceType": "Binary", "contentType": "application/pdf", "data": base64.b64encode(PDF).decode()}
        id = send(client, "POST", "/fhir/Binary", body).get_json(force=True)["id"]
        assert client.get(f"/fhir/Binary/{id}").data == PDF
        assert send(client, "PUT", f"/fhir/Binary/{id}", {**body, "id": "other"}).status_code == 400


class TestSecurityContext:
    def test_is_kept_in_both_forms(self, client: FlaskClient) -> None:
        patient = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        for context in (f"Patient/{patient}", f"http://127.0.0.1:8080/fhir/Patient/{patient}"):
            id = create(client, X_Security_Context=context)
            assert client.get(f"/fhir/Binary/{id}").headers["X-Security-Context"] == f"Patient/{patient}"
            body = client.get(f"/fhir/Binary/{id}?_format=json").get_json(force=True)
            assert body["securityContext"] == {"reference": f"Patient/{patient}"}

    def test_leads_somewhere(self, client: FlaskClient) -> None:
        answer = client.post(
            "/fhir/Binary", data=PDF, content_type="application/pdf", headers={"X-Security-Context": "Patient/nobody"}
        )
        assert_outcome(answer, 422, "not-found", "Binary.securityContext")

    def test_decides_who_reads(self, app: Flask, client: FlaskClient) -> None:
        id = create(client)
        app.config["ACCESS"] = an_office("o1")
        assert client.get(f"/fhir/Binary/{id}").status_code == 404
