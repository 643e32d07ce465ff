"""Searches over several types and in compartments. https://hl7.org/fhir/R4/http.html#search"""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server import store
from fhir_server.access import Access, Scope
from tests.fhir_server.conftest import ALL, BASE
from tests.fhir_server.test_rest import assert_outcome
from tests.fhir_server.test_search import ORIGIN, ids, link, put, search

STRICT = {"Prefer": "handling=strict"}
OBSERVATION = {"status": "final", "code": {"text": "x"}}
TAGGED = {"meta": {"tag": [{"system": "urn:t", "code": "it"}]}}


@pytest.fixture(autouse=True)
def stored(client: FlaskClient) -> None:
    """In this order: p1, o1, p2, o2, d1, o3."""
    put(client, "Patient", "p1", active=True, **TAGGED)
    put(client, "Observation", "o1", subject={"reference": "Patient/p1"}, **OBSERVATION, **TAGGED)
    put(client, "Patient", "p2", active=True)
    put(client, "Observation", "o2", subject={"reference": "Patient/p2"}, **OBSERVATION, **TAGGED)
    put(client, "Device", "d1", patient={"reference": "Patient/p1"})
    put(
        client,
        "Observation",
        "o3",
        subject={"reference": "Patient/p1"},
        device={"reference": "Device/d1"},
        **OBSERVATION,
    )


def walked(client: FlaskClient, address: str) -> list[str]:
    """The matches of all pages."""
    found: list[str] = []
    next: str | None = address
    for _ in range(20):
        bundle = client.get(next or "", headers=STRICT).get_json(force=True)
        found += ids(bundle)
        next = (link(bundle, "next") or "").removeprefix(ORIGIN)
        if not next:
            return found
    raise AssertionError("paging does not end")


class TestSystem:
    def test_all_types_newest_first(self, client: FlaskClient) -> None:
        assert ids(search(client, "")) == ["o3", "d1", "o2", "p2", "o1", "p1"]
        assert ids(client.get("/fhir?_type=Patient").get_json(force=True)) == ["p2", "p1"]
        assert ids(search(client, "", ("_type", "Patient,Device"))) == ["d1", "p2", "p1"]
        assert ids(search(client, "", ("_tag", "urn:t|it"))) == ["o2", "o1", "p1"]
        assert ids(search(client, "", ("_type", "Observation"), ("status", "final"), ("_id", "o1,o2"))) == [
            "o2",
            "o1",
        ]

    def test_by_post(self, client: FlaskClient) -> None:
        for address in ("/fhir/_search", "/fhir/_search?_type=Patient"):
            data = {"_tag": "urn:t|it", **({} if "?" in address else {"_type": "Patient"})}
            assert ids(client.post(address, data=data).get_json(force=True)) == ["p1"]

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_pages(self, client: FlaskClient, count: int) -> None:
        assert walked(client, f"/fhir?_count={count}") == ["o3", "d1", "o2", "p2", "o1", "p1"]
        put(client, "Patient", "p1", active=False)
        expected = ["p1", "o3", "d1", "o2", "p2", "o1"]
        assert walked(client, f"/fhir?_sort=-_lastUpdated&_count={count}") == expected
        assert walked(client, f"/fhir?_sort=_lastUpdated&_count={count}") == expected[::-1]

    def test_pages_that_end_early_where_resources_are_large(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "MAX_PAGE_BYTES", 400)
        assert walked(client, "/fhir?_count=5") == ["o3", "d1", "o2", "p2", "o1", "p1"]

    def test_totals_and_links(self, client: FlaskClient) -> None:
        bundle = search(client, "", ("_type", "Patient,Observation"), ("_count", "1"), ("_total", "accurate"))
        assert bundle["total"] == 5
        assert link(bundle, "self") == f"{BASE}?_type=Patient%2CObservation&_count=1&_total=accurate"
        assert search(client, "", ("_summary", "count"))["total"] == 6
        assert search(client, "", ("_count", "0"))["total"] == 6

    def test_includes_chains_and_subsets(self, client: FlaskClient) -> None:
        bundle = search(
            client, "", ("_type", "Observation,Device"), ("patient.active", "true"), ("_include", "Device:patient")
        )
        assert ids(bundle) == ["o3", "d1", "o2", "o1"]
        assert ids(bundle, "include") == ["p1"]
        bundle = search(client, "", ("_type", "Patient"), ("_summary", "true"))
        assert all(one["resource"]["meta"]["tag"][-1]["code"] == "SUBSETTED" for one in bundle["entry"])

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("_type=Nothing", None),
            ("_type=Patient&_type=Device", "invalid"),
            ("_type=Patient,Observation&active=true", "not-supported"),
            ("status=final", "not-supported"),
            ("_sort=_id", "invalid"),
            ("_sort=birthdate", "invalid"),
            ("_type=Patient&_sort=family,_id", "invalid"),
            ("_include=*", "invalid"),
            ("_page=x", "invalid"),
        ],
    )
    def test_what_not_all_types_know_is_refused(self, client: FlaskClient, query: str, code: str | None) -> None:
        answer = client.get(f"/fhir?{query}", headers=STRICT)
        assert answer.status_code in (400, 404), answer.text
        if code:
            assert_outcome(answer, 400, code)

    def test_lenient_handling_says_what_was_left_out_once(self, client: FlaskClient) -> None:
        bundle = search(client, "", ("active", "true"), ("_type", "Patient,Observation"))
        assert len(ids(bundle)) == 5
        assert len(bundle["entry"][-1]["resource"]["issue"]) == 1
        assert link(bundle, "self") == f"{BASE}?_type=Patient%2CObservation"


class TestCompartments:
    """https://hl7.org/fhir/R4/compartmentdefinition.html"""

    def test_one_type_of_a_compartment(self, client: FlaskClient) -> None:
        assert ids(search(client, "Patient/p1/Observation")) == ["o3", "o1"]
        bundle = search(client, "Patient/p1/Observation", ("_tag", "urn:t|it"), ("_total", "accurate"))
        assert (ids(bundle), bundle["total"]) == (["o1"], 1)
        assert link(bundle, "self") == f"{BASE}/Patient/p1/Observation?_total=accurate&_tag=urn%3At%7Cit"
        assert ids(search(client, "Device/d1/Observation")) == ["o3"]
        assert walked(client, "/fhir/Patient/p1/Observation?_count=1") == ["o3", "o1"]
        assert ids(search(client, "Patient/unknown/Observation")) == []

    def test_all_of_a_compartment(self, client: FlaskClient) -> None:
        assert ids(search(client, "Patient/p1/*")) == ["o3", "o1", "p1"]
        assert ids(search(client, "Patient/p1/*", ("_type", "Patient"))) == ["p1"]
        assert walked(client, "/fhir/Patient/p1/*?_count=2") == ["o3", "o1", "p1"]

    def test_by_post(self, client: FlaskClient) -> None:
        answer = client.post("/fhir/Patient/p1/Observation/_search", data={"_tag": "urn:t|it"})
        assert ids(answer.get_json(force=True)) == ["o1"]
        assert ids(client.post("/fhir/Patient/p1/_search", data={"_id": "o1"}).get_json(force=True)) == ["o1"]

    @pytest.mark.parametrize("address", ["Patient/p1/Organization", "Organization/o/Patient"])
    def test_what_is_no_compartment_is_not_found(self, client: FlaskClient, address: str) -> None:
        assert client.get(f"/fhir/{address}").status_code == 404
        assert client.get("/fhir/Organization/o/*").status_code == 404
        assert client.get("/fhir/Patient/p1/*?_type=Organization").status_code == 404
        assert client.get("/fhir/Patient/p1/Nothing").status_code == 404


class TestAccess:
    """A narrow token sees and counts no more here than anywhere else."""

    def test_only_what_the_audience_has(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = Access("client:x", ALL, frozenset({"@Patient/p1"}))
        assert ids(search(client, "")) == ["o3", "o1", "p1"]
        assert search(client, "", ("_summary", "count"))["total"] == 3
        assert walked(client, "/fhir?_count=1") == ["o3", "o1", "p1"]
        assert ids(search(client, "Patient/p2/*")) == []
        assert ids(search(client, "Patient/p2/Observation")) == []
        assert search(client, "Patient/p2/Observation", ("_total", "accurate"))["total"] == 0

    def test_only_types_of_the_scopes(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "rs"),), None)
        assert ids(search(client, "")) == ["p2", "p1"]
        assert ids(search(client, "Patient/p1/*")) == ["p1"]
        for address in ("?_type=Patient,Device", "/Patient/p1/Observation", "/Patient/p1/*?_type=Observation"):
            assert_outcome(client.get(f"/fhir{address}"), 403, "forbidden")
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "r"),), None)
        assert_outcome(client.get("/fhir"), 403, "forbidden")
        assert_outcome(client.get("/fhir/Patient/p1/*"), 403, "forbidden")
