"""Clauses of the specification that no other test is about. Each says in its name what the server shall do."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

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
        assert by_post["link"] == by_get["link"]
        both = client.post("/fhir/Patient/_search?family=Chalmers", data={"_count": "1"}).get_json(force=True)
        assert both["entry"] == by_get["entry"]

    def test_an_outcome_in_a_searchset_has_no_error_and_its_mode(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        entries = bundle_of(client, "/fhir/Patient?colour=red")["entry"]
        outcomes = [entry for entry in entries if entry["resource"]["resourceType"] == "OperationOutcome"]
        assert [entry["search"]["mode"] for entry in outcomes] == ["outcome"]
        assert {issue["severity"] for issue in outcomes[0]["resource"]["issue"]} == {"warning"}


class TestBundle:
    """https://hl7.org/fhir/R4/bundle.html"""

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
