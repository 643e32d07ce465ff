"""Clauses of the specification that no other test is about. Each says in its name what the server shall do."""

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server import routes
from fhir_server.repository import Repository
from tests.fhir_server.conftest import BASE, PRACTICE
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send


def bundle_of(client: FlaskClient, address: str) -> dict:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.get_json(force=True)


class TestHttp:
    """https://hl7.org/fhir/R4/http.html"""

    @pytest.mark.parametrize("format", ["json", "xml"])
    def test_content_type_names_the_format_and_utf_8(self, client: FlaskClient, format: str) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        for address in ("Patient/a", "Patient", "Patient/a/_history", "Patient/none"):
            answer = client.get(f"/fhir/{address}?_format={format}")
            assert answer.content_type == f"application/fhir+{format}; charset=utf-8"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            *((value, "xml") for value in ("xml", "text/xml", "application/xml", "application/fhir+xml")),
            *((value, "json") for value in ("json", "application/json", "application/fhir+json")),
        ],
    )
    def test_format_parameter_is_understood_in_all_its_spellings(
        self, client: FlaskClient, value: str, expected: str
    ) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        answer = client.get("/fhir/Patient/a", query_string={"_format": value}, headers={"Accept": "image/png"})
        assert answer.mimetype == f"application/fhir+{expected}"

    def test_read_has_the_id_of_the_address(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        assert client.get("/fhir/Patient/a").get_json(force=True)["id"] == "a"

    def test_vread_has_the_id_and_the_version_of_the_address(self, client: FlaskClient) -> None:
        for gender in ("male", "female"):
            send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a", "gender": gender})
        for version in ("1", "2"):
            found = client.get(f"/fhir/Patient/a/_history/{version}").get_json(force=True)
            assert (found["id"], found["meta"]["versionId"]) == ("a", version)

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_version_and_time_of_the_client_are_ignored(self, client: FlaskClient, method: str) -> None:
        meta = {"versionId": "77", "lastUpdated": "1999-01-01T00:00:00Z", "profile": ["urn:p"]}
        address = "/fhir/Patient" + ("/a" if method == "PUT" else "")
        answer = send(client, method, address, {**PATIENT, "id": "a", "meta": meta})
        stored = answer.get_json(force=True)["meta"]
        assert answer.headers["ETag"] == 'W/"1"'
        assert stored["versionId"] == "1"
        assert stored["lastUpdated"] > "2020"
        assert stored["profile"] == ["urn:p"]

    def test_update_without_an_id_is_refused(self, client: FlaskClient) -> None:
        assert_outcome(send(client, "PUT", "/fhir/Patient/a", PATIENT), 400, "invalid")

    def test_update_answers_last_modified_and_etag(self, client: FlaskClient) -> None:
        for status, gender in ((201, "male"), (200, "female")):
            answer = send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a", "gender": gender})
            assert answer.status_code == status
            version = answer.get_json(force=True)["meta"]["versionId"]
            assert answer.headers["ETag"] == f'W/"{version}"'
            assert "Last-Modified" in answer.headers

    def test_history_keeps_what_was_deleted(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        client.delete("/fhir/Patient/a")
        assert client.get("/fhir/Patient/a/_history/1").status_code == 200

    def test_history_entries_have_a_request_and_writes_a_resource(self, client: FlaskClient) -> None:
        send(client, "POST", "/fhir/Patient", PATIENT)
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        client.delete("/fhir/Patient/a")
        entries = bundle_of(client, "/fhir/Patient/_history")["entry"]
        assert len(entries) == 3
        for entry in entries:
            assert ("resource" in entry) == (entry["request"]["method"] in ("PUT", "POST"))

    def test_history_keeps_its_count_over_the_pages(self, client: FlaskClient) -> None:
        for gender in ("male", "female", "other", "unknown", "male"):
            send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a", "gender": gender})
        sizes, address = [], "/fhir/Patient/a/_history?_count=2"
        while address:
            bundle = bundle_of(client, address)
            sizes.append(len(bundle["entry"]))
            links = {link["relation"]: link["url"] for link in bundle["link"]}
            address = links.get("next", "").removeprefix(BASE.removesuffix("/fhir"))
        assert sizes == [2, 2, 1]

    def test_search_by_post_answers_as_by_get(self, client: FlaskClient) -> None:
        for id in ("a", "b"):
            send(client, "PUT", f"/fhir/Patient/{id}", {**PATIENT, "id": id})
        query = {"family": "Chalmers", "_count": "1"}
        by_get = client.get("/fhir/Patient", query_string=query).get_json(force=True)
        by_post = client.post("/fhir/Patient/_search", data=query).get_json(force=True)
        assert by_post["entry"] == by_get["entry"]
        assert [one["relation"] for one in by_post["link"]] == [one["relation"] for one in by_get["link"]]
        assert by_post["link"][0] == by_get["link"][0]
        both = client.post("/fhir/Patient/_search?family=Chalmers", data={"_count": "1"}).get_json(force=True)
        assert both["entry"] == by_get["entry"]

    def test_an_outcome_in_a_searchset_has_no_error_and_its_mode(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        entries = bundle_of(client, "/fhir/Patient?colour=red")["entry"]
        outcomes = [entry for entry in entries if entry["resource"]["resourceType"] == "OperationOutcome"]
        assert [entry["search"]["mode"] for entry in outcomes] == ["outcome"]
        assert {issue["severity"] for issue in outcomes[0]["resource"]["issue"]} == {"warning"}

    def test_the_etag_of_the_capabilities_changes_with_them(self, repository: Repository) -> None:
        statement = {"resourceType": "CapabilityStatement", "status": "active"}
        app = Flask("test")
        app.register_blueprint(routes.create_blueprint(repository, [], lambda: statement), url_prefix="/fhir")
        client = app.test_client()
        tags = []
        for status, date in (("active", "2026-01-01"), ("active", "2026-01-02"), ("retired", "2026-01-02")):
            statement |= {"status": status, "date": date}  # the date is that of the start of a process
            tags.append(client.get("/fhir/metadata").headers["ETag"])
        assert tags[0] == tags[1] != tags[2]
        assert client.get("/fhir/metadata", headers={"If-None-Match": tags[2]}).status_code == 304
        assert client.get("/fhir/metadata", headers={"If-None-Match": tags[0]}).status_code == 200
        assert client.get("/fhir/metadata", headers={"If-Match": tags[0]}).status_code == 200, "for writes alone"

    @pytest.mark.parametrize("type", ["application/xml-patch+xml", "text/xml", "text/plain"])
    def test_an_xml_patch_is_refused_so_none_of_its_namespaces_is_mistaken(
        self, client: FlaskClient, type: str
    ) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        patch = b'<diff xmlns:f="http://hl7.org/fhir"><remove sel="f:Patient/f:gender"/></diff>'
        answer = client.patch("/fhir/Patient/a", data=patch, content_type=type)
        assert 400 <= answer.status_code < 500
        if type == "application/xml-patch+xml":
            assert answer.status_code == 415
            assert "application/xml-patch+xml" not in answer.headers["Accept-Patch"]
        assert client.get("/fhir/Patient/a").headers["ETag"] == 'W/"1"'

    @pytest.mark.parametrize("namespace", ["", "http://hl7.org/fhir/", "http://www.w3.org/1999/xhtml", "urn:x"])
    def test_a_patch_in_xml_is_of_the_namespace_of_fhir(self, client: FlaskClient, namespace: str) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        patch = (
            f'<Parameters xmlns="{namespace}"><parameter><name value="operation"/>'
            '<part><name value="type"/><valueCode value="delete"/></part>'
            '<part><name value="path"/><valueString value="Patient.gender"/></part></parameter></Parameters>'
        )
        answer = client.patch("/fhir/Patient/a", data=patch, content_type="application/fhir+xml")
        assert answer.status_code == 400
        patch = patch.replace(f'xmlns="{namespace}"', 'xmlns="http://hl7.org/fhir"')
        assert client.patch("/fhir/Patient/a", data=patch, content_type="application/fhir+xml").status_code == 200

    @pytest.mark.parametrize(
        ("method", "address"),
        [
            *(("GET", address) for address in ("Nothing", "Nothing/a", "Nothing/_history", "nowhere/at/all/of/it")),
            *((method, "Nothing/a") for method in ("PUT", "PATCH", "DELETE")),
            ("POST", "Nothing"),
        ],
    )
    def test_a_type_that_is_not_supported_is_not_found(self, client: FlaskClient, method: str, address: str) -> None:
        answer = send(client, method, f"/fhir/{address}", {"resourceType": "Nothing", "id": "a"})
        assert answer.status_code == 404
        assert answer.get_json(force=True)["resourceType"] == "OperationOutcome"

    def test_a_search_answers_200_with_a_searchset(self, client: FlaskClient) -> None:
        assert bundle_of(client, "/fhir/Patient?family=nobody")["type"] == "searchset"

    @pytest.mark.parametrize("query", ["birthdate=yesterday", "_sort=colour", "_count=many"])
    def test_a_search_that_fails_tells_why(self, client: FlaskClient, query: str) -> None:
        answer = client.get(f"/fhir/Patient?{query}")
        assert answer.status_code == 400
        assert answer.get_json(force=True)["issue"][0]["severity"] == "error"

    @pytest.mark.parametrize("name", ["_count", "_since", "_at"])
    def test_a_parameter_of_a_history_stands_once(self, client: FlaskClient, name: str) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        value = "1" if name == "_count" else "2020-01-01T00:00:00Z"
        for address in ("_history", "Patient/_history", "Patient/a/_history"):
            assert client.get(f"/fhir/{address}?{name}={value}").status_code == 200
            assert_outcome(client.get(f"/fhir/{address}?{name}={value}&{name}={value}"), 400, "invalid")

    def test_a_history_has_the_oldest_last_and_what_was_deleted(self, client: FlaskClient) -> None:
        for gender in ("male", "female"):
            send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a", "gender": gender})
        client.delete("/fhir/Patient/a")
        bundle = bundle_of(client, "/fhir/Patient/a/_history")
        assert bundle["type"] == "history"
        assert bundle["entry"][0]["request"]["method"] == "DELETE"
        assert [entry["resource"]["gender"] for entry in bundle["entry"][1:]] == ["female", "male"]

    def test_a_transaction_that_fails_answers_an_outcome(self, client: FlaskClient) -> None:
        entry = {"resource": {**PATIENT, "gender": "blue"}, "request": {"method": "POST", "url": "Patient"}}
        sent = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        answer = send(client, "POST", "/fhir", sent)
        assert 400 <= answer.status_code < 500
        assert answer.get_json(force=True)["resourceType"] == "OperationOutcome"

    def test_a_read_of_what_never_was_is_404(self, client: FlaskClient) -> None:
        for address in ("Patient/nobody", "Patient/nobody/_history", "Patient/nobody/_history/1"):
            assert_outcome(client.get(f"/fhir/{address}"), 404, "not-found")

    def test_a_deleted_version_is_410(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        client.delete("/fhir/Patient/a")
        assert_outcome(client.get("/fhir/Patient/a/_history/2"), 410, "deleted")

    def test_a_delete_of_what_is_deleted_has_no_effect(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        for _ in range(2):
            assert client.delete("/fhir/Patient/a").status_code == 204
        assert len(bundle_of(client, "/fhir/Patient/a/_history")["entry"]) == 2

    def test_what_was_deleted_is_brought_back_by_an_update(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        client.delete("/fhir/Patient/a")
        answer = send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        assert (answer.status_code, answer.headers["ETag"]) == (201, 'W/"3"')

    @pytest.mark.parametrize("address", ["Patient/a", "Patient/a/_history/1"])
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("_summary=true", {"id", "meta", "name", "gender"}),
            ("_summary=text", {"id", "meta", "text"}),
            ("_summary=data", {"id", "meta", "name", "gender", "photo"}),
            ("_elements=gender,photo", {"id", "meta", "gender", "photo"}),
        ],
    )
    def test_a_read_of_a_part_is_marked_as_one(
        self, client: FlaskClient, address: str, query: str, names: set[str]
    ) -> None:
        text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">A man.</div>'}
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a", "photo": [{"title": "x"}], "text": text})
        part = bundle_of(client, f"/fhir/{address}?{query}")
        assert part.keys() - {"resourceType"} == names
        assert part["meta"]["tag"][0]["code"] == "SUBSETTED"
        assert "tag" not in bundle_of(client, f"/fhir/{address}?_summary=false")["meta"]

    @pytest.mark.parametrize(
        "query", ["_summary=count", "_summary=some", "_elements=a.b", "_elements=a&_summary=text"]
    )
    def test_a_part_that_there_is_not_is_refused(self, client: FlaskClient, query: str) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        assert_outcome(client.get(f"/fhir/Patient/a?{query}"), 400, "invalid")

    def test_a_request_id_is_answered(self, client: FlaskClient) -> None:
        assert client.get("/fhir/Patient", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
        assert client.get("/fhir/Patient").headers["X-Request-Id"]


class TestBundle:
    """https://hl7.org/fhir/R4/bundle.html"""

    @pytest.mark.parametrize(
        ("bundle", "expected"),
        [
            ({"type": "document", "entry": [{"resource": PATIENT}]}, "Bundle.entry[0]"),
            ({"type": "message", "entry": [{"resource": PATIENT}]}, "Bundle.entry[0]"),
            ({"type": "document", "identifier": None}, "Bundle.identifier"),
            ({"type": "document", "timestamp": None}, "Bundle.timestamp"),
            ({"type": "collection", "total": 1}, "Bundle.total"),
            ({"type": "collection", "entry": [{"fullUrl": "urn:uuid:x"}]}, "Bundle.entry[0]"),
        ],
        ids=["composition-first", "header-first", "identifier", "timestamp", "total", "empty-entry"],
    )
    def test_a_stored_bundle_keeps_the_rules_of_its_type(
        self, client: FlaskClient, bundle: dict, expected: str
    ) -> None:
        known = {"identifier": {"system": "urn:x", "value": "1"}, "timestamp": "2026-01-01T00:00:00Z"}
        sent = {"resourceType": "Bundle"} | known | bundle
        answer = send(client, "POST", "/fhir/Bundle", {name: value for name, value in sent.items() if value})
        assert answer.status_code in (400, 422), answer.text
        places = [place for issue in answer.get_json(force=True)["issue"] for place in issue["expression"]]
        assert any(place.startswith(expected) for place in places), places

    @pytest.fixture
    def searchset(self, client: FlaskClient) -> dict:
        for id in ("a", "b"):
            send(client, "PUT", f"/fhir/Patient/{id}", {**PATIENT, "id": id})
        return bundle_of(client, "/fhir/Patient?_total=accurate")

    def test_full_urls_agree_with_the_ids_and_have_no_version(self, searchset: dict) -> None:
        for entry in searchset["entry"]:
            assert entry["fullUrl"] == f"{BASE}/Patient/{entry['resource']['id']}"

    def test_full_urls_are_unique_but_in_a_history(self, client: FlaskClient, searchset: dict) -> None:
        urls = [entry["fullUrl"] for entry in searchset["entry"]]
        assert len(urls) == len(set(urls)) == 2

    def test_a_searchset_has_total_and_modes_and_no_requests(self, searchset: dict) -> None:
        assert searchset["total"] == 2
        for entry in searchset["entry"]:
            assert entry["search"] == {"mode": "match"}
            assert not {"request", "response"} & entry.keys()

    def test_a_searchset_names_what_was_searched_for(self, client: FlaskClient) -> None:
        links = {link["relation"]: link["url"] for link in bundle_of(client, "/fhir/Patient?gender=male")["link"]}
        assert links["self"] == f"{BASE}/Patient?gender=male"

    def test_a_response_has_responses_and_no_requests(self, client: FlaskClient) -> None:
        entry = {"resource": PATIENT, "request": {"method": "POST", "url": "Patient"}}
        for kind in ("batch", "transaction"):
            sent = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
            answer = send(client, "POST", "/fhir", sent).get_json(force=True)
            assert answer["type"] == f"{kind}-response"
            assert "total" not in answer
            for given in answer["entry"]:
                assert "response" in given
                assert not {"request", "search"} & given.keys()

    @pytest.mark.parametrize("entry", [{}, {"resource": PATIENT}, {"request": {"method": "POST", "url": "Patient"}}])
    def test_an_entry_needs_its_request_and_a_write_its_resource(self, client: FlaskClient, entry: Any) -> None:
        sent = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        answer = send(client, "POST", "/fhir", sent)
        assert 400 <= answer.status_code < 500
        assert "Bundle.entry[0]" in json.dumps(answer.get_json(force=True))

    def test_a_stored_bundle_comes_back_as_it_was(self, client: FlaskClient, repository: Repository) -> None:
        document = {"resourceType": "Bundle", "id": "c", "type": "collection", "entry": [{"resource": PATIENT}]}
        repository.update(PRACTICE, document)
        assert client.get("/fhir/Bundle/c").get_json(force=True)["entry"] == document["entry"]
