"""https://hl7.org/fhir/R4/http.html#transaction"""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
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


URN = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"
OTHER_URN = "urn:uuid:7d3a7f4e-7f3e-4b55-a8b5-3f2b9a6c1d10"


def entry(method: str, url: str, resource: dict | None = None, **request: Any) -> dict:
    made: dict = {"request": {"method": method, "url": url, **request}}
    return made | ({"resource": resource} if resource is not None else {})


def performed(client: FlaskClient, *entries: dict, kind: str = "transaction", **headers: str) -> list[dict]:
    answer = send(client, "POST", "/fhir", bundle(*entries, kind=kind), **headers)
    assert answer.status_code == 200, answer.text
    body = answer.get_json(force=True)
    assert body["type"] == f"{kind}-response"
    return body["entry"]


def statuses(entries: list[dict]) -> list[str]:
    return [entry["response"]["status"][:3] for entry in entries]


def stored(client: FlaskClient, answer: dict) -> dict:
    return client.get(answer["fullUrl"].removeprefix("http://127.0.0.1:8080")).get_json(force=True)


class TestOrder:
    """https://hl7.org/fhir/R4/http.html#trules"""

    def test_deletes_come_first_and_reads_last_whatever_the_order_of_entries(self, client: FlaskClient) -> None:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        send(client, "PUT", "/fhir/Patient/old", {**body, "id": "old"})
        send(client, "PUT", "/fhir/Patient/b", {**PATIENT, "id": "b"})
        entries = performed(
            client,
            entry("GET", "Patient/b"),
            put({**PATIENT, "id": "b", "gender": "female"}),
            post(body, ifNoneExist="identifier=urn:mrn|1"),
            entry("DELETE", "Patient/old"),
        )
        assert statuses(entries) == ["200", "200", "201", "204"]
        assert entries[0]["resource"]["gender"] == "female"

    def test_a_resource_is_written_once(self, client: FlaskClient, repository: Repository) -> None:
        twice = bundle(put({**PATIENT, "id": "a"}), entry("DELETE", "Patient/a"))
        assert_outcome(send(client, "POST", "/fhir", twice), 400, "invalid", "Bundle.entry[0].resource")
        assert repository.store.count("Patient", {}) == 0

    def test_two_equal_conditional_updates_are_not_both_done(
        self, client: FlaskClient, repository: Repository
    ) -> None:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        twice = [entry("PUT", "Patient?identifier=urn:mrn|1", body) for _ in range(2)]
        assert_outcome(send(client, "POST", "/fhir", bundle(*twice)), 400, "invalid", "Bundle.entry[1].resource")
        send(client, "POST", "/fhir/Patient", body)
        assert send(client, "POST", "/fhir", bundle(*twice)).status_code == 400
        assert repository.store.count("Patient", {}) == 1

    def test_two_equal_conditional_creates_make_one(self, client: FlaskClient, repository: Repository) -> None:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        order = post({**ORDER, "subject": {"reference": OTHER_URN}})
        makes = [post(body, urn, ifNoneExist="identifier=urn:mrn|1") for urn in (URN, OTHER_URN)]
        entries = performed(client, *makes, order)
        assert statuses(entries) == ["201", "200", "201"]
        assert entries[0]["response"]["location"] == entries[1]["response"]["location"]
        assert stored(client, entries[2])["subject"]["reference"] in entries[0]["fullUrl"]
        assert repository.store.count("Patient", {}) == 1


class TestInteractions:
    def test_conditional_update_patch_and_delete(self, client: FlaskClient) -> None:
        def person(number: int) -> dict:
            return {**PATIENT, "identifier": [{"system": "urn:mrn", "value": str(number)}]}

        for number in (1, 2, 3):
            send(client, "POST", "/fhir/Patient", person(number))
        patch = {"name": "operation", "part": [{"name": "type", "valueCode": "delete"}]}
        patch["part"].append({"name": "path", "valueString": "Patient.gender"})
        entries = performed(
            client,
            entry("PUT", "Patient?identifier=urn:mrn|1", {**person(1), "gender": "other"}),
            entry("PATCH", "Patient?identifier=urn:mrn|2", {"resourceType": "Parameters", "parameter": [patch]}),
            entry("DELETE", "Patient?identifier=urn:mrn|3"),
            entry("DELETE", "Patient?identifier=urn:mrn|4"),
        )
        assert statuses(entries) == ["200", "200", "204", "204"]
        assert stored(client, entries[0])["gender"] == "other"
        assert "gender" not in stored(client, entries[1])

    def test_a_json_patch_comes_in_a_binary(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        data = base64.b64encode(b'[{"op": "replace", "path": "/gender", "value": "other"}]').decode()
        binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
        assert stored(client, performed(client, entry("PATCH", "Patient/a", binary))[0])["gender"] == "other"

    @pytest.mark.parametrize(
        ("broken", "expression"),
        [
            (entry("PATCH", "Patient/a", {"resourceType": "Binary", "contentType": "text/plain"}), "contentType"),
            (
                entry("PATCH", "Patient/a", {"resourceType": "Parameters", "parameter": [{"name": "x"}]}),
                "Parameters.parameter[0]",
            ),
        ],
    )
    def test_a_broken_patch_is_named(self, client: FlaskClient, broken: dict, expression: str) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        answer = send(client, "POST", "/fhir", bundle(broken))
        place = expression.removeprefix("Parameters.")
        assert_outcome(answer, 400, "invalid", f"Bundle.entry[0].resource.{place}")

    @pytest.mark.parametrize("kind", ["transaction", "batch"])
    def test_get_and_head(self, client: FlaskClient, kind: str) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        entries = performed(
            client,
            entry("GET", "Patient/a"),
            entry("HEAD", "/Patient/a"),
            entry("GET", "Patient/a/_history/1"),
            entry("GET", "Patient/a/_history"),
            entry("GET", "Patient/_history?_count=1"),
            entry("GET", "_history"),
            entry("GET", "Patient?gender=male"),
            entry("GET", "http://127.0.0.1:8080/fhir/Patient/a", ifNoneMatch='W/"1"'),
            entry("GET", "Patient/a", ifModifiedSince="2099-01-01T00:00:00Z"),
            entry("GET", "Patient/nobody"),
            kind=kind,
        )
        assert statuses(entries) == ["200"] * 7 + ["304", "304", "404"]
        assert entries[0]["resource"]["id"] == "a"
        assert "resource" not in entries[1]
        assert entries[3]["resource"]["type"] == "history"
        assert entries[6]["resource"]["total"] == 1
        assert entries[9]["response"]["outcome"]["issue"][0]["code"] == "not-found"

    @pytest.mark.parametrize("url", ["Nothing/a", "Nothing", "Patient/a/b", "", "/", "Patient/", "metadata/x", "$x"])
    def test_what_is_no_read_stops_a_transaction(self, client: FlaskClient, repository: Repository, url: str) -> None:
        answer = send(client, "POST", "/fhir", bundle(post(PATIENT), entry("GET", url)))
        assert answer.status_code in (404, 422)
        assert "Bundle.entry[1].request.url" in answer.text
        assert repository.store.count("Patient", {}) == 0

    def test_if_none_match_creates_only(self, client: FlaskClient) -> None:
        create = put({**PATIENT, "id": "a"}, ifNoneMatch="*")
        assert statuses(performed(client, create)) == ["201"]
        assert_outcome(send(client, "POST", "/fhir", bundle(create)), 412, "conflict", "Bundle.entry[0].resource")

    def test_what_the_entries_bring_back_is_preferred(self, client: FlaskClient) -> None:
        assert "resource" not in performed(client, post(PATIENT))[0]
        shown = performed(client, post(PATIENT), Prefer="return=representation")[0]
        assert shown["resource"]["meta"]["versionId"] == "1"
        told = performed(client, post(PATIENT), Prefer="return=OperationOutcome")[0]
        assert told["response"]["outcome"]["resourceType"] == "OperationOutcome"

    def test_a_caller_without_the_scope_is_told_the_entry(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "c"),), None)
        for second in (post({"resourceType": "Basic", "code": {"text": "x"}}), entry("GET", "Patient/a")):
            answer = send(client, "POST", "/fhir", bundle(post(PATIENT), second))
            assert_outcome(answer, 403, "forbidden")
            assert "Bundle.entry[1]" in answer.text


class TestLinks:
    """https://hl7.org/fhir/R4/http.html#trules: links are replaced wherever they are"""

    def test_in_every_element_that_can_have_one(self, client: FlaskClient) -> None:
        patient = post(PATIENT, URN)
        div = (
            f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{URN}">{URN}</a>'
            f'<img src=\'{URN}\' alt="{URN}"/><a href="#top">t</a></div>'
        )
        document = {
            "resourceType": "DocumentReference",
            "text": {"status": "generated", "div": div},
            "status": "current",
            "contained": [{"resourceType": "Basic", "id": "c", "code": {"text": "x"}, "subject": {"reference": URN}}],
            "extension": [
                {"url": "http://x.example/uri", "valueUri": URN},
                {"url": "http://x.example/canonical", "valueCanonical": f"{URN}|1.0"},
                {"url": "http://x.example/text", "valueString": URN},
            ],
            "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": URN},
            "subject": {"reference": URN},
            "context": {"related": [{"reference": "#c"}]},
            "content": [{"attachment": {"url": URN}}],
            "_status": {"extension": [{"url": "http://x.example/e", "valueReference": {"reference": URN}}]},
        }
        entries = performed(client, patient, post(document))
        target = entries[0]["fullUrl"].removeprefix("http://127.0.0.1:8080/fhir/")
        made = stored(client, entries[1])
        assert made["subject"]["reference"] == target
        assert made["contained"][0]["subject"]["reference"] == target
        assert made["extension"][0]["valueUri"] == target
        assert made["extension"][1]["valueCanonical"] == f"{target}|1.0"
        assert made["content"][0]["attachment"]["url"] == target
        assert made["_status"]["extension"][0]["valueReference"]["reference"] == target
        assert f'<a href="{target}">{URN}</a><img src=\'{target}\' alt="{URN}"/>' in made["text"]["div"]
        # texts that happen to be the same are no links
        assert made["extension"][2]["valueString"] == URN
        assert made["masterIdentifier"]["value"] == URN

    def test_in_a_binary(self, client: FlaskClient) -> None:
        binary = {"resourceType": "Binary", "contentType": "text/plain", "data": "YQ=="}
        entries = performed(client, post(PATIENT, URN), post({**binary, "securityContext": {"reference": URN}}))
        answer = client.get(entries[1]["fullUrl"].removeprefix("http://127.0.0.1:8080") + "?_format=json")
        assert answer.get_json(force=True)["securityContext"]["reference"] in entries[0]["fullUrl"]

    def test_from_neighbours_under_another_root(self, client: FlaskClient) -> None:
        patient = post(PATIENT, "http://other.example/fhir/Patient/p1")
        relative = post(
            {**ORDER, "subject": {"reference": "Patient/p1"}}, "http://other.example/fhir/ServiceRequest/s1"
        )
        absolute = post({**ORDER, "subject": {"reference": "http://other.example/fhir/Patient/p1"}})
        entries = performed(client, patient, relative, absolute)
        target = entries[0]["fullUrl"].removeprefix("http://127.0.0.1:8080/fhir/")
        assert [stored(client, made)["subject"]["reference"] for made in entries[1:]] == [target, target]

    def test_a_version_of_a_link_is_the_one_that_is_made(self, client: FlaskClient) -> None:
        address = "http://other.example/fhir/Patient/p1"
        order = post({**ORDER, "subject": {"reference": f"{address}/_history/7"}})
        entries = performed(client, post(PATIENT, address), order)
        assert stored(client, entries[1])["subject"]["reference"].endswith("/_history/1")

    def test_in_parameters_of_a_patch(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Basic/b", {"resourceType": "Basic", "id": "b", "code": {"text": "x"}})
        parts = [{"name": "type", "valueCode": "add"}, {"name": "path", "valueString": "Basic"}]
        parts += [{"name": "name", "valueString": "subject"}, {"name": "value", "valueReference": {"reference": URN}}]
        patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
        entries = performed(client, entry("PATCH", "Basic/b", patch), post(PATIENT, URN))
        assert stored(client, entries[0])["subject"]["reference"] in entries[1]["fullUrl"]

    def test_conditional_references_find_what_the_same_bundle_makes(self, client: FlaskClient) -> None:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        order = post({**ORDER, "subject": {"reference": "Patient?identifier=urn:mrn|1"}})
        for expected in ("201", "200"):
            entries = performed(client, order, post(body, ifNoneExist="identifier=urn:mrn|1"))
            assert statuses(entries) == ["201", expected]
            assert stored(client, entries[0])["subject"]["reference"] in entries[1]["fullUrl"]

    def test_conditional_references_to_several_are_refused(self, client: FlaskClient) -> None:
        body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
        order = post({**ORDER, "subject": {"reference": "Patient?identifier=urn:mrn|1"}})
        answer = send(client, "POST", "/fhir", bundle(post(body), post(body), order))
        assert_outcome(answer, 412, "conflict", "Bundle.entry[2].resource.subject.reference")

    def test_a_bundle_inside_keeps_its_links(self, client: FlaskClient) -> None:
        inner = {"resourceType": "Bundle", "type": "collection", "entry": [{"fullUrl": URN, "resource": PATIENT}]}
        entries = performed(client, post(PATIENT, URN), post(inner))
        assert stored(client, entries[1])["entry"][0]["fullUrl"] == URN

    def test_a_full_url_stands_once(self, client: FlaskClient) -> None:
        answer = send(client, "POST", "/fhir", bundle(post(PATIENT, URN), post(PATIENT, URN)))
        assert_outcome(answer, 400, "invalid", "Bundle.entry[1].fullUrl")


class TestReferentialIntegrity:
    def test_what_is_deleted_together_may_refer_to_one_another(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        order = {**ORDER, "id": "o", "subject": {"reference": "Patient/a"}}
        send(client, "PUT", "/fhir/ServiceRequest/o", order)
        assert_outcome(send(client, "POST", "/fhir", bundle(entry("DELETE", "Patient/a"))), 409, "conflict")
        assert statuses(performed(client, entry("DELETE", "Patient/a"), entry("DELETE", "ServiceRequest/o"))) == [
            "204",
            "204",
        ]

    def test_what_is_deleted_cannot_be_referred_to(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        order = post({**ORDER, "subject": {"reference": "Patient/a"}})
        answer = send(client, "POST", "/fhir", bundle(entry("DELETE", "Patient/a"), order))
        assert_outcome(answer, 422, "not-found", "Bundle.entry[1].resource.subject")
        assert client.get("/fhir/Patient/a").status_code == 200

    def test_a_reference_may_be_taken_away_along_with_its_target(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
        order = {**ORDER, "id": "o", "subject": {"reference": "Patient/a"}}
        send(client, "PUT", "/fhir/ServiceRequest/o", order)
        moved = put({**order, "subject": {"display": "nobody"}})
        assert statuses(performed(client, moved, entry("DELETE", "Patient/a"))) == ["200", "204"]


@pytest.mark.parametrize("kind", ["collection", "searchset", "document", "history", None, 5])
def test_bundles_of_other_types_are_not_performed(client: FlaskClient, kind: object) -> None:
    answer = send(client, "POST", "/fhir", {"resourceType": "Bundle", "type": kind, "entry": []})
    assert_outcome(answer, 400, "invalid", "Bundle.type")
    assert_outcome(send(client, "POST", "/fhir", PATIENT), 400, "invalid", "Bundle")


def test_a_bundle_without_entries_changes_nothing(client: FlaskClient) -> None:
    assert performed(client) == []


def test_a_batch_performs_every_kind_of_entry_for_itself(client: FlaskClient) -> None:
    send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
    data = base64.b64encode(b'[{"op": "remove", "path": "/gender"}]').decode()
    binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
    entries = performed(
        client,
        post(PATIENT),
        entry("PATCH", "Patient/a", binary),
        entry("PUT", "Patient?identifier=urn:mrn|1", PATIENT),
        entry("DELETE", "Patient/nobody"),
        entry("BREW", "Patient/a"),
        {"resource": PATIENT},
        post({**ORDER, "subject": {"reference": URN}}),
        kind="batch",
    )
    assert statuses(entries) == ["201", "200", "201", "204", "422", "400", "422"]
    assert entries[5]["response"]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[5].request"]


def people(count: int, mark: str) -> list[dict]:
    """As many entries that link to one another as a program that loads a practice sends."""
    made = [post({**PATIENT, "identifier": [{"system": "urn:mrn", "value": mark}]}, URN)]
    return made + [post({**ORDER, "subject": {"reference": URN}, "note": [{"text": mark}]}) for _ in range(count - 1)]


def test_5000_entries_are_taken_and_no_more(client: FlaskClient, repository: Repository) -> None:
    answer = send(client, "POST", "/fhir", bundle(*people(5001, "a")))
    assert_outcome(answer, 422, "business-rule", "Bundle.entry")
    assert len(performed(client, *people(5000, "a"))) == 5000
    assert repository.store.count("ServiceRequest", {"keys": "*"}) == 4999


@pytest.mark.parametrize(
    ("clients", "size"), [(20, 80), pytest.param(20, 1600, marks=pytest.mark.slow, id="as-promised")]
)
def test_large_transactions_at_once_commit_all(app: Flask, repository: Repository, clients: int, size: int) -> None:
    def one(number: int) -> int:
        return send(app.test_client(), "POST", "/fhir", bundle(*people(size, str(number)))).status_code

    with ThreadPoolExecutor(clients) as pool:
        assert list(pool.map(one, range(clients))) == [200] * clients
    assert repository.store.count("ServiceRequest", {"keys": "*"}) == clients * (size - 1)
