"""https://hl7.org/fhir/R4/search.html, by the REST API. What generated searches find is in test_search_oracle."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server import store
from fhir_server.access import Access, Scope
from fhir_server.errors import BadRequest
from fhir_server.repository import Repository
from fhir_server.search import include, planner, request, through
from fhir_server.search.condition import MAX_SCANS
from fhir_server.search.values import implied, number_value
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import assert_outcome, send

ORIGIN = BASE.removesuffix("/fhir")


def put(client: FlaskClient, resource_type: str, id: str, **elements: Any) -> None:
    resource = {"resourceType": resource_type, "id": id, **elements}
    answer = send(client, "PUT", f"/fhir/{resource_type}/{id}", resource)
    assert answer.status_code in (200, 201), answer.text


def search(client: FlaskClient, address: str, *parameters: tuple[str, str], **headers: str) -> dict:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.get(f"/fhir/{address}?{urlencode(parameters)}", headers=names)
    assert answer.status_code == 200, answer.text
    return answer.get_json(force=True)


def ids(bundle: dict, mode: str = "match") -> list[str]:
    return [one["resource"]["id"] for one in bundle.get("entry", []) if one["search"]["mode"] == mode]


def link(bundle: dict, relation: str) -> str | None:
    return next((one["url"] for one in bundle["link"] if one["relation"] == relation), None)


class TestHandling:
    """https://hl7.org/fhir/R4/search.html#errors"""

    @pytest.mark.parametrize(
        "name",
        [
            "colour",
            "subject.colour",
            "subject:Patient.colour",
            "_has:Task:colour:status",
            "_has:Task:focus:colour",
            "_has:Nothing:focus:status",
            "_has:Task",
            "_query",
            "",
        ],
    )
    def test_unknown_parameters_are_refused_or_reported_and_never_applied(
        self, client: FlaskClient, name: str
    ) -> None:
        put(client, "ServiceRequest", "a", status="active", intent="order", subject={"display": "x"})
        query = urlencode([(name, "x"), ("status", "active")])
        strict = client.get(f"/fhir/ServiceRequest?{query}", headers={"Prefer": "handling=strict"})
        assert_outcome(strict, 400, "not-supported")
        lenient = search(client, "ServiceRequest", (name, "x"), ("status", "active"))
        assert ids(lenient) == ["a"]
        outcome = [one["resource"] for one in lenient["entry"] if one["search"]["mode"] == "outcome"]
        assert outcome[0]["issue"][0]["severity"] == "warning"
        assert link(lenient, "self") == f"{BASE}/ServiceRequest?status=active"

    def test_a_refusal_names_what_there_is(self, client: FlaskClient) -> None:
        answer = client.get("/fhir/Slot?colour=x", headers={"Prefer": "handling=strict"})
        assert "schedule" in answer.get_json(force=True)["issue"][0]["diagnostics"]

    def test_a_parameter_without_a_value_is_not_taken_for_all(self, client: FlaskClient) -> None:
        answer = client.get("/fhir/Task?patient=", headers={"Prefer": "handling=strict"})
        assert_outcome(answer, 400, "not-supported")

    @pytest.mark.parametrize(
        "query",
        [
            "birthdate=yesterday",
            "birthdate=2024-02-30",
            "birthdate=xx2024",
            "birthdate=",
            "birthdate=2024,,2023",
            "_lastUpdated=x",
            "gender=|",
            "gender=a|b|c",
            "identifier:of-type=a|b",
            "active:not=urn:x|true",
            "organization=Nothing/1",
            "organization=a/b/c",
            "organization:Patient=1",
            "organization:Organization=Patient/1",
            "organization:identifier=|",
            "family:like=x",
            "family=%CC%81",
            "gender:exact=male",
            "gender:missing=perhaps",
            "family.given=x",
            "organization:Group.name=x",
            "family=" + "x" * 500,
            "identifier=" + "x" * 3000,
            "_count=-1",
            "_count=x",
            "_count=1&_count=2",
            "_total=yes",
            "_summary=some",
            "_elements=a.b",
            "_elements=name&_summary=true",
            "_sort=colour",
            "_page=x",
            "_page=gAAAAABk",
            "_page=%C3%A4",
            "_sort=name,organization.name",
            "_sort=name,,birthdate",
            "_sort=organization",
            "_sort=" + ",".join(["name"] * 9),
            "_include=Patient",
            "_include=Nothing:x",
            "_include:some=Patient:organization",
            "_revinclude=*",
            "family=%00",
            "family=a%ED%A0%80b%00",
            "x=1&" * 101,
            "_summary=text&_include=Patient:organization",
            "organization.partof.partof.partof.partof.partof.name=x",
            "birthdate=" + ",".join(["2024"] * (MAX_SCANS + 1)),
            "_tag=" + ",".join(["a"] * 1001),
            "x" * 401 + "=1",
        ],
    )
    def test_what_cannot_be_read_is_refused_even_when_lenient(self, client: FlaskClient, query: str) -> None:
        put(client, "Patient", "a")
        answer = client.get(f"/fhir/Patient?{query}")
        if query == "birthdate=":  # nothing to read
            assert "outcome" in answer.text
        else:
            assert answer.status_code == 400, answer.text
            assert answer.get_json(force=True)["resourceType"] == "OperationOutcome"

    @pytest.mark.parametrize(
        "query",
        [
            "value-quantity=x",
            "value-quantity=5|mg",
            "value-quantity=5||",
            "value-quantity=1e9999",
            "code-value-quantity=a",
            "code-value-quantity=a$5$6",
            "code-value-quantity=a$x",
        ],
    )
    def test_quantities_and_composites_that_cannot_be_read(self, client: FlaskClient, query: str) -> None:
        assert client.get(f"/fhir/Observation?{query}").status_code == 400

    def test_a_refusal_does_not_repeat_the_value(self, client: FlaskClient) -> None:
        assert "Chalmers" not in client.get("/fhir/Patient?birthdate=Chalmers").text

    def test_lone_surrogates_are_refused(self, repository: Repository) -> None:
        with pytest.raises(BadRequest):
            repository.search(PRACTICE, "Patient", [("family", "\ud800")])


class TestValues:
    def test_special_signs_are_what_they_are(self, client: FlaskClient) -> None:
        """https://hl7.org/fhir/R4/search.html#escaping; and nothing of a regular expression or a MongoDB operator."""
        put(client, "Patient", "comma", name=[{"family": "a,b"}], identifier=[{"value": "1,2"}])
        put(client, "Patient", "bar", name=[{"family": "a|b"}], identifier=[{"system": "urn:x", "value": "1|2"}])
        put(client, "Patient", "dot", name=[{"family": "a.*b"}], identifier=[{"value": "$ne"}])
        assert ids(search(client, "Patient", ("family", r"a\,b"))) == ["comma"]
        assert ids(search(client, "Patient", ("identifier", r"1\,2"))) == ["comma"]
        assert ids(search(client, "Patient", ("identifier", r"urn:x|1\|2"))) == ["bar"]
        assert ids(search(client, "Patient", ("family", "a|b"))) == ["bar"]
        assert ids(search(client, "Patient", ("family", "a.*"))) == ["dot"]
        assert ids(search(client, "Patient", ("family:contains", ".*"))) == ["dot"]
        assert ids(search(client, "Patient", ("identifier", "$ne"))) == ["dot"]

    @pytest.mark.parametrize(
        ("text", "low", "high"),
        [("100", "99.5", "100.5"), ("100.00", "99.995", "100.005"), ("1e2", "95", "105"), ("-5.4", "-5.45", "-5.35")],
    )
    def test_a_number_means_what_its_digits_say(self, text: str, low: str, high: str) -> None:
        """https://hl7.org/fhir/R4/search.html#number"""
        assert implied(number_value("x", text)[1]) == (number_value("x", low)[1], number_value("x", high)[1])

    def test_of_type(self, client: FlaskClient) -> None:
        kind = {"coding": [{"system": "urn:v2", "code": "MR"}]}
        put(client, "Patient", "a", identifier=[{"system": "urn:x", "value": "1", "type": kind}])
        put(client, "Patient", "b", identifier=[{"system": "urn:x", "value": "1"}])
        assert ids(search(client, "Patient", ("identifier:of-type", "urn:v2|MR|1"))) == ["a"]

    def test_uris_below_and_above(self, client: FlaskClient) -> None:
        for id, url in (("a", "http://x.example/a"), ("b", "http://x.example/a/b"), ("c", "http://x.example/ab")):
            put(client, "ValueSet", id, status="active", url=url)
        assert set(ids(search(client, "ValueSet", ("url:below", "http://x.example/a")))) == {"a", "b"}
        assert set(ids(search(client, "ValueSet", ("url:above", "http://x.example/a/b/c")))) == {"a", "b"}
        assert ids(search(client, "ValueSet", ("url", "http://x.example/a"))) == ["a"]

    def test_composites_are_met_by_one_element(self, client: FlaskClient) -> None:
        """https://hl7.org/fhir/R4/search.html#composite"""

        def part(code: str, value: int) -> dict:
            coding = [{"system": "http://loinc.org", "code": code}]
            return {"code": {"coding": coding}, "valueQuantity": {"value": value, "system": "urn:u", "code": "mm"}}

        pressure = {"status": "final", "code": {"text": "blood pressure"}}
        put(client, "Observation", "a", component=[part("sys", 107), part("dia", 60)], **pressure)
        put(client, "Observation", "b", component=[part("sys", 60), part("dia", 107)], **pressure)
        name = "component-code-value-quantity"
        assert ids(search(client, "Observation", (name, "http://loinc.org|sys$gt100"))) == ["a"]
        assert ids(search(client, "Observation", (name, "sys$lt100|urn:u|mm"))) == ["b"]
        assert set(ids(search(client, "Observation", (name, "sys$60,sys$107")))) == {"a", "b"}
        assert ids(search(client, "Observation", ("combo-code-value-quantity", "dia$60"))) == ["a"]
        assert ids(search(client, "Observation", (name, "sys$gt100||cm"))) == []

    def test_last_updated(self, client: FlaskClient) -> None:
        put(client, "Patient", "a")
        year = datetime.now(UTC).year
        for value, expected in (
            (f"{year}", ["a"]),
            (f"gt{year}", []),
            (f"ge{year}", ["a"]),
            (f"lt{year}", []),
            (f"le{year}", ["a"]),
            (f"sa{year - 1}", ["a"]),
            (f"eb{year}", []),
            (f"ne{year}", []),
            ("ap9999", []),
            (f"ap{year}", ["a"]),
            ("9999", []),
            ("gt0001", ["a"]),
        ):
            assert ids(search(client, "Patient", ("_lastUpdated", value))) == expected, value

    def test_approximate_dates(self, client: FlaskClient) -> None:
        put(client, "Patient", "a", birthDate="1950-06-01")
        assert ids(search(client, "Patient", ("birthdate", "ap1952"))) == ["a"]
        assert ids(search(client, "Patient", ("birthdate", "ap1990"))) == []


class TestPages:
    """https://hl7.org/fhir/R4/http.html#paging"""

    def test_nothing_is_lost_or_repeated_while_others_write(self, client: FlaskClient) -> None:
        for number in range(12):
            put(client, "Patient", f"p{number}", active=True)
        seen: list[str] = []
        address = "/fhir/Patient?active=true&_count=5"
        for page in range(10):
            bundle = client.get(address).get_json(force=True)
            seen += ids(bundle)
            put(client, "Patient", f"new{page}", active=True)
            put(client, "Patient", seen[0], active=True, gender="male")
            put(client, "Patient", "p0", active=True, birthDate=f"20{page:02}")
            address = (link(bundle, "next") or "").removeprefix(ORIGIN)
            if not address:
                break
        assert seen == [f"p{number}" for number in range(11, -1, -1)]

    def test_a_page_ends_early_where_resources_are_large(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "MAX_PAGE_BYTES", 2500)
        for number in range(5):
            put(client, "Patient", f"p{number}", name=[{"text": "x" * 1000}])
        pages = []
        address = "/fhir/Patient?_sort=birthdate"
        while address:
            bundle = client.get(address).get_json(force=True)
            pages.append(ids(bundle))
            address = (link(bundle, "next") or "").removeprefix(ORIGIN)
        assert pages == [["p0", "p1"], ["p2", "p3"], ["p4"]]

    def test_the_total_is_told_when_it_costs_nothing_or_is_asked_for(self, client: FlaskClient) -> None:
        for number in range(3):
            put(client, "Patient", f"p{number}")
        assert search(client, "Patient")["total"] == 3
        assert "total" not in search(client, "Patient", ("_count", "2"))
        assert search(client, "Patient", ("_count", "2"), ("_total", "accurate"))["total"] == 3
        assert "total" not in search(client, "Patient", ("_total", "none"))
        for only_count in (("_count", "0"), ("_summary", "count")):
            bundle = search(client, "Patient", only_count)
            assert (bundle["total"], "entry" in bundle, link(bundle, "next")) == (3, False, None)

    def test_a_count_beyond_the_limit_is_the_limit(self, client: FlaskClient) -> None:
        assert (
            link(search(client, "Patient", ("_count", "5000")), "self")
            == f"{BASE}/Patient?_count={request.MAX_COUNT}"
        )

    def test_a_type_without_resources_has_none(self, client: FlaskClient) -> None:
        for query in (
            (),
            (("_sort", "-date"),),
            (("patient.family", "x"),),
            (("_has:Task:focus:status", "x"),),
            (("date", "2024"),),
        ):
            bundle = search(client, "Appointment", *query)
            assert (bundle["total"], ids(bundle)) == (0, [])

    def test_what_is_deleted_or_no_longer_so_is_not_found(self, client: FlaskClient) -> None:
        put(client, "Patient", "a", gender="male")
        put(client, "Patient", "a", gender="female")
        put(client, "Patient", "b", gender="male")
        client.delete("/fhir/Patient/b")
        assert search(client, "Patient", ("gender", "male"))["total"] == 0
        assert ids(search(client, "Patient", ("_id", "a,b"))) == ["a"]


class TestSubsets:
    """https://hl7.org/fhir/R4/search.html#summary"""

    @pytest.fixture
    def study(self, client: FlaskClient) -> None:
        series = {"uid": "1.2", "modality": {"code": "CT"}, "instance": [{"uid": "1.3", "sopClass": {"code": "x"}}]}
        text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
        put(client, "Patient", "p")
        put(
            client,
            "ImagingStudy",
            "a",
            status="available",
            subject={"reference": "Patient/p"},
            description="d",
            note=[{"text": "n"}],
            series=[series],
            text=text,
            meta={"tag": [{"code": "mine"}]},
        )

    def found(self, client: FlaskClient, *parameters: tuple[str, str]) -> dict:
        resource = search(client, "ImagingStudy", *parameters)["entry"][0]["resource"]
        assert [tag["code"] for tag in resource["meta"]["tag"]] == ["mine", "SUBSETTED"]
        return {name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")}

    def test_elements_brings_those_and_the_mandatory_ones(self, client: FlaskClient, study: None) -> None:
        assert self.found(client, ("_elements", "description")).keys() == {"status", "subject", "description"}

    def test_a_summary_has_no_more_than_is_marked_so(self, client: FlaskClient, study: None) -> None:
        found = self.found(client, ("_summary", "true"))
        assert found.keys() == {"status", "subject", "description", "note", "series"}
        assert found["series"] == [{"uid": "1.2", "modality": {"code": "CT"}}]

    def test_text_and_data(self, client: FlaskClient, study: None) -> None:
        assert self.found(client, ("_summary", "text")).keys() == {"status", "subject", "text"}
        assert self.found(client, ("_summary", "data")).keys() == {
            "status",
            "subject",
            "description",
            "note",
            "series",
        }

    def test_what_is_stored_stays_whole(self, client: FlaskClient, study: None) -> None:
        self.found(client, ("_summary", "true"))
        assert "SUBSETTED" not in client.get("/fhir/ImagingStudy/a").text


class TestIncludes:
    """https://hl7.org/fhir/R4/search.html#include"""

    def test_all_that_a_match_refers_to(self, client: FlaskClient) -> None:
        put(client, "Organization", "o", name="Lakeside")
        put(client, "Patient", "p", managingOrganization={"reference": "Organization/o"})
        order = {"status": "active", "intent": "order", "subject": {"reference": "Patient/p"}}
        put(client, "ServiceRequest", "s", requester={"reference": "Organization/o"}, **order)
        for value in ("*", "ServiceRequest:*"):
            assert sorted(ids(search(client, "ServiceRequest", ("_include", value)), "include")) == ["o", "p"]

    def test_more_than_a_page_can_hold_is_said(self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(include, "MAX_INCLUDED", 2)
        put(client, "Patient", "p")
        for number in range(3):
            put(
                client,
                "Observation",
                f"o{number}",
                status="final",
                code={"text": "x"},
                subject={"reference": "Patient/p"},
            )
        bundle = search(client, "Patient", ("_revinclude", "Observation:subject"))
        assert len(ids(bundle, "include")) == 2
        assert bundle["entry"][-1]["resource"]["issue"][0]["code"] == "too-costly"

    def test_a_type_that_the_caller_may_not_read_is_not_included(self, app: Flask, client: FlaskClient) -> None:
        put(client, "Patient", "p")
        put(client, "Observation", "o", status="final", code={"text": "x"}, subject={"reference": "Patient/p"})
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Observation", "rs"),), None)
        assert ids(search(client, "Observation", ("_include", "Observation:subject")), "include") == []
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "rs"),), None)
        assert ids(search(client, "Patient", ("_revinclude", "Observation:subject")), "include") == []


class TestChains:
    """That lead through more than can be followed at once. https://hl7.org/fhir/R4/search.html#chaining"""

    CHAINED, REVERSED = ("patient.gender", "male"), ("_has:Observation:patient:status", "final")

    @pytest.fixture(autouse=True)
    def many(self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """Patients p0 to p9, of whom the even ones are men, and an Observation of each."""
        monkeypatch.setattr(planner, "MAX_CHAINED", 3)
        monkeypatch.setattr(planner, "FEW_CHAINED", 2)
        monkeypatch.setattr(through, "AT_ONCE", 2)
        monkeypatch.setattr(through, "MANY", 3)
        monkeypatch.setattr(through, "MOST", 4)
        for number in range(10):
            put(client, "Patient", f"p{number}", gender="female" if number % 2 else "male")
            subject = {"reference": f"Patient/p{number}"}
            status = "final" if number < 8 else "preliminary"
            put(client, "Observation", f"o{number}", status=status, code={"text": "x"}, subject=subject)

    def pages(self, client: FlaskClient, address: str, *parameters: tuple[str, str]) -> list[list[str]]:
        bundle = search(client, address, *parameters)
        found = [ids(bundle)]
        while following := link(bundle, "next"):
            bundle = client.get(following.removeprefix(ORIGIN)).get_json(force=True)
            found.append(ids(bundle))
        return found

    def test_are_followed_from_what_meets_the_rest(self, client: FlaskClient) -> None:
        assert self.pages(client, "Observation", self.CHAINED, ("_count", "2")) == [
            ["o8", "o6"],
            ["o4", "o2"],
            ["o0"],
        ]
        assert self.pages(client, "Patient", self.REVERSED, ("_count", "3")) == [
            ["p7", "p6"],  # no more was looked at
            ["p5", "p4", "p3"],
            ["p2", "p1", "p0"],
        ]
        assert self.pages(client, "Observation", self.CHAINED, ("_sort", "_id"))[0] == ["o0", "o2"]

    def test_a_page_may_have_none_and_lead_on(self, client: FlaskClient) -> None:
        for number in range(6):
            put(client, "Observation", f"lone{number}", status="final", code={"text": "x"})
        first = search(client, "Observation", self.CHAINED)
        assert (ids(first), "total" in first) == ([], False)
        pages = self.pages(client, "Observation", self.CHAINED)
        assert [one for page in pages for one in page] == ["o8", "o6", "o4", "o2", "o0"]
        second = client.get((link(first, "next") or "").removeprefix(ORIGIN)).get_json(force=True)
        back = [second]
        while preceding := link(back[-1], "previous"):
            back.append(client.get(preceding.removeprefix(ORIGIN)).get_json(force=True))
        assert [ids(page) for page in back] == [["o8"], [], []]

    def test_totals_and_orders_without_an_index_are_refused(self, client: FlaskClient) -> None:
        for asked in (("_summary", "count"), ("_total", "accurate"), ("_sort", "status")):
            answer = client.get(f"/fhir/Observation?{urlencode([self.CHAINED, asked])}")
            assert_outcome(answer, 400, "too-costly")

    def test_what_is_narrowed_is_answered_at_once(self, client: FlaskClient) -> None:
        found = search(client, "Observation", self.CHAINED, ("_id", "o2,o3"), ("_total", "accurate"))
        assert (ids(found), found["total"]) == (["o2"], 1)

    def test_only_what_the_caller_may_search(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = an_office("o1")
        assert self.pages(client, "Observation", self.CHAINED) == [[]]


class TestScopes:
    def test_chains_need_a_scope_for_what_they_lead_through(self, app: Flask, client: FlaskClient) -> None:
        """A chain tells about the far end, so that what cannot be searched cannot be chained to."""
        put(client, "Patient", "p", gender="male")
        put(client, "Observation", "o", status="final", code={"text": "x"}, subject={"reference": "Patient/p"})
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Observation", "rs"),), None)
        assert_outcome(client.get("/fhir/Observation?patient.gender=male"), 403, "forbidden")
        assert_outcome(client.get("/fhir/Observation?subject:Patient.gender=male"), 403, "forbidden")
        assert ids(search(client, "Observation", ("subject.identifier:missing", "true"))) == []
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "rs"),), None)
        assert_outcome(client.get("/fhir/Patient?_has:Observation:patient:status=final"), 403, "forbidden")


def test_every_search_goes_by_an_index(database: Database) -> None:
    """MongoDB's profiler sees no scan of a collection, whatever is asked."""
    sorts = {"Appointment": ["date"]}
    repository = Repository(VersionStore(database, sorts), BASE, lambda: datetime.now(UTC))
    repository.update(
        PRACTICE, {"resourceType": "Patient", "id": "p", "name": [{"family": "x"}], "birthDate": "2000"}
    )
    actor = {"actor": {"reference": "Patient/p"}, "status": "accepted"}
    time = {"start": "2024-05-01T10:00:00Z", "end": "2024-05-01T10:30:00Z"}
    appointment = {"status": "booked", **time, "participant": [actor]}
    repository.update(PRACTICE, {"resourceType": "Appointment", "id": "a", **appointment})
    office = Access("client:x", PRACTICE.scopes, frozenset({"@any", "@Patient/p"}))
    database.command("profile", 2)
    for query in (
        "",
        "status=booked",
        "status:not=x",
        "patient=p&status=booked",
        "date=ge2024-05-01&date=lt2024-05-02",
        "date=gt2023&_sort=date",
        "_sort=-date",
        "_sort=date",
        "_sort=_id",
        "_sort=-_lastUpdated",
        "_lastUpdated=gt2024",
        "patient.family=x",
        "patient.birthdate=2000",
        "_summary=count",
        "status=booked&_total=accurate",
        "_include=Appointment:actor",
        "_id=a",
        "date:missing=true&_sort=date",
    ):
        for access in (PRACTICE, office):
            found = repository.search(access, "Appointment", query, strict=True, default_count=1)
            assert len(found.matches) == (query not in ("_summary=count", "date:missing=true&_sort=date")), query
    repository.search(
        PRACTICE, "Patient", "_has:Appointment:patient:date=2024&_revinclude=Appointment:patient", strict=True
    )
    database.command("profile", 0)
    seen = list(database["system.profile"].find({"ns": {"$regex": "versions_"}, "op": {"$in": ["query", "command"]}}))
    assert len(seen) > 60
    assert not [one["command"] for one in seen if "COLLSCAN" in one.get("planSummary", "")]


class TestATypeWithoutVersions:
    """Its collection is not there, so that no index of it can be named."""

    def test_is_looked_for_once(self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
        looked = []
        listed = Database.list_collection_names
        monkeypatch.setattr(Database, "list_collection_names", lambda *a, **b: looked.append(b) or listed(*a, **b))
        for _ in range(3):
            assert ids(search(client, "Flag", ("status", "active"), ("_sort", "date"))) == []
        assert looked == [{"filter": {"name": "versions_Flag"}}]

    def test_is_found_as_soon_as_another_process_wrote_one(self, client: FlaskClient, database: Database) -> None:
        assert ids(search(client, "Basic", ("_id", "b"))) == []
        other = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC))
        other.update(PRACTICE, {"resourceType": "Basic", "id": "b", "code": {"text": "x"}})
        assert ids(search(client, "Basic", ("_id", "b"))) == ["b"]
