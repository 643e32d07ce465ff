"""Search parameters that clients define: refused with the element, indexed online, then like any other.
https://hl7.org/fhir/R4/search.html#new
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server.capability import capability_statement
from fhir_server.index import searchable
from fhir_server.reindex.admission import can_be_searched_by
from fhir_server.reindex.worker import Reindexer
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import assert_outcome, send
from tests.fhir_server.test_search import ids, put, search

EYES = {
    "resourceType": "SearchParameter",
    "id": "eyes",
    "url": "http://example.org/SearchParameter/eyes",
    "name": "EyeColour",
    "status": "active",
    "description": "Colour of the eyes",
    "code": "eye-colour",
    "base": ["Patient"],
    "type": "token",
    "expression": "Patient.extension.where(url = 'http://example.org/eyes').value",
}


def eyes(colour: str) -> dict:
    return {"extension": [{"url": "http://example.org/eyes", "valueCode": colour}]}


@pytest.fixture
def repository(store: VersionStore) -> Repository:
    return Repository(store, BASE, lambda: datetime.now(UTC), admissions={"SearchParameter": (can_be_searched_by,)})


@pytest.fixture
def reindexer(repository: Repository) -> Reindexer:
    return Reindexer(repository.store, repository.parameters, BASE, grace=timedelta())


@pytest.fixture
def index(reindexer: Reindexer) -> Callable[[], None]:
    """Do all that a worker has to do."""

    def run() -> None:
        for _ in range(50):
            if not reindexer.run_next(Event()):
                break
        assert reindexer.waiting() == {}

    return run


@pytest.fixture
def people(client: FlaskClient) -> None:
    put(client, "Patient", "a", **eyes("green"))
    put(client, "Patient", "b", **eyes("brown"))
    put(client, "Patient", "c")


def define(client: FlaskClient, **changes: Any) -> None:
    put(
        client,
        "SearchParameter",
        changes.get("id", "eyes"),
        **{k: v for k, v in (EYES | changes).items() if k not in ("id", "resourceType")},
    )


class TestUntilItIsIndexed:
    def test_a_search_by_it_is_refused_whatever_the_handling(
        self, client: FlaskClient, people: None, repository: Repository
    ) -> None:
        define(client)
        for prefer in ("handling=lenient", "handling=strict"):
            for query in ("eye-colour=green", "eye-colour:not=green", "eye-colour:missing=true"):
                answer = client.get(f"/fhir/Patient?{query}", headers={"Prefer": prefer})
                assert_outcome(answer, 503, "transient")
                assert answer.headers["Retry-After"]
            for address in ("Basic?subject:Patient.eye-colour=green", "Basic?subject.eye-colour=green"):
                assert_outcome(client.get(f"/fhir/{address}", headers={"Prefer": prefer}), 503, "transient")

    def test_other_searches_go_on(self, client: FlaskClient, people: None) -> None:
        define(client)
        assert ids(search(client, "Patient", ("_id", "a"))) == ["a"]

    def test_the_capability_statement_does_not_claim_it(
        self, client: FlaskClient, people: None, repository: Repository, index: Callable
    ) -> None:
        def claimed() -> set[str]:
            with repository.parameters.current().applied():
                found = capability_statement(BASE, datetime.now(UTC), "1", [], {}, searchable)
            (patient,) = (one for one in found["rest"][0]["resource"] if one["type"] == "Patient")
            return {one["name"] for one in patient["searchParam"]}

        define(client)
        assert "eye-colour" not in claimed()
        index()
        assert "eye-colour" in claimed()


class TestOnceItIsIndexed:
    def test_it_finds_what_was_there_and_what_comes(self, client: FlaskClient, people: None, index: Callable) -> None:
        define(client)
        put(client, "Patient", "between", **eyes("green"))
        index()
        put(client, "Patient", "after", **eyes("green"))
        put(client, "Patient", "a", **eyes("blue"))
        found = search(client, "Patient", ("eye-colour", "green"), ("_sort", "_id"), ("_total", "accurate"))
        assert (ids(found), found["total"]) == (["after", "between"], 2)
        assert ids(search(client, "Patient", ("eye-colour:missing", "true"))) == ["c"]
        assert set(ids(search(client, "Patient", ("eye-colour:not", "green")))) == {"a", "b", "c"}

    def test_it_can_be_chained_and_reverse_chained(self, client: FlaskClient, people: None, index: Callable) -> None:
        define(client)
        coded = {"code": {"text": "x"}}
        put(client, "Basic", "of-a", subject={"reference": "Patient/a"}, **coded)
        put(client, "Basic", "of-b", subject={"reference": "Patient/b"}, **coded)
        define(
            client,
            id="about",
            url="http://example.org/SearchParameter/about",
            code="about",
            base=["Basic"],
            type="reference",
            target=["Patient"],
            expression="Basic.subject",
        )
        index()
        assert ids(search(client, "Basic", ("subject:Patient.eye-colour", "green"))) == ["of-a"]
        assert ids(search(client, "Basic", ("about:Patient.eye-colour", "brown"))) == ["of-b"]
        assert ids(search(client, "Patient", ("_has:Basic:about:_id", "of-b"))) == ["b"]
        included = search(client, "Basic", ("_id", "of-a"), ("_include", "Basic:about"))
        assert ids(included, "include") == ["a"]
        turned = search(client, "Patient", ("_id", "b"), ("_revinclude", "Basic:about"))
        assert ids(turned, "include") == ["of-b"]

    def test_a_single_date_can_be_sorted_by(self, client: FlaskClient, index: Callable) -> None:
        for id, born in (("x", "1980-05-01"), ("y", "1940-01-01"), ("z", "1960-01-01")):
            put(client, "Patient", id, birthDate=born)
        define(client, code="born", type="date", expression="Patient.birthDate")
        index()
        assert ids(search(client, "Patient", ("_sort", "-born"))) == ["x", "z", "y"]
        assert ids(search(client, "Patient", ("born", "lt1970"), ("_sort", "born"))) == ["y", "z"]

    @pytest.mark.parametrize(
        ("type", "expression", "value", "found"),
        [
            ("string", "Patient.name.suffix", "jun", ["a"]),
            ("number", "(Patient.multipleBirth as integer)", "gt1", ["a"]),
            ("uri", "Patient.meta.source", "urn:here", ["a"]),
            ("token", "Patient.contact.relationship | Patient.maritalStatus", "N", ["a"]),
            ("date", "Patient.identifier.period", "2020-05", ["a"]),
            ("quantity", "Patient.extension('http://example.org/height')", "180|http://unitsofmeasure.org|cm", ["a"]),
        ],
    )
    def test_it_can_be_of_any_type(
        self, client: FlaskClient, index: Callable, type: str, expression: str, value: str, found: list[str]
    ) -> None:
        height = {"value": 180, "system": "http://unitsofmeasure.org", "code": "cm"}
        put(
            client,
            "Patient",
            "a",
            name=[{"suffix": ["Junior"]}],
            multipleBirthInteger=2,
            meta={"source": "urn:here"},
            contact=[{"relationship": [{"coding": [{"code": "N"}]}], "name": {"text": "x"}}],
            identifier=[{"value": "1", "period": {"start": "2020-05-02", "end": "2020-05-03"}}],
            extension=[{"url": "http://example.org/height", "valueQuantity": height}],
        )
        put(client, "Patient", "b")
        define(client, type=type, expression=expression)
        index()
        assert ids(search(client, "Patient", ("eye-colour", value))) == found

    def test_other_processes_know_it_without_a_restart(
        self, client: FlaskClient, people: None, index: Callable, database: Database
    ) -> None:
        other = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC))
        other.parameters._refresh_s = 0
        assert other.search(PRACTICE, "Patient", "eye-colour=green").outcome is not None
        define(client)
        index()
        assert [one.id for one in other.search(PRACTICE, "Patient", "eye-colour=green").matches] == ["a"]
        other.update(PRACTICE, {"resourceType": "Patient", "id": "d", **eyes("green")})
        assert ids(search(client, "Patient", ("eye-colour", "green"))) == ["d", "a"]


class TestWhatAProcessWritesThatDoesNotKnowIt:
    def test_is_found_all_the_same(
        self, client: FlaskClient, people: None, index: Callable, database: Database
    ) -> None:
        late = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC))
        late.parameters._refresh_s = 3600
        late.parameters.current()
        define(client)
        late.update(PRACTICE, {"resourceType": "Patient", "id": "late", **eyes("green")})
        late.update(PRACTICE, {"resourceType": "Patient", "id": "b", **eyes("green")})
        index()
        assert sorted(ids(search(client, "Patient", ("eye-colour", "green")))) == ["a", "b", "late"]

    def test_is_waited_for(
        self, client: FlaskClient, people: None, repository: Repository, database: Database
    ) -> None:
        patient = Reindexer(repository.store, repository.parameters, BASE, grace=timedelta(hours=1))
        define(client)
        patient.run_next(Event())
        assert not patient.run_next(Event())
        assert_outcome(client.get("/fhir/Patient?eye-colour=green"), 503, "transient")
        late = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC))
        late.parameters._refresh_s = 3600
        late.parameters._looked = float("inf")
        late.update(PRACTICE, {"resourceType": "Patient", "id": "c", **eyes("green")})
        patient._grace = timedelta()
        for _ in range(5):
            patient.run_next(Event())
        assert sorted(ids(search(client, "Patient", ("eye-colour", "green")))) == ["a", "c"]


class TestChanges:
    def test_another_expression_is_indexed_before_it_counts(
        self, client: FlaskClient, people: None, index: Callable
    ) -> None:
        define(client)
        index()
        put(client, "Patient", "d", gender="other")
        define(client, expression="Patient.gender")
        assert_outcome(client.get("/fhir/Patient?eye-colour=green"), 503, "transient")
        index()
        assert ids(search(client, "Patient", ("eye-colour", "other"))) == ["d"]
        assert ids(search(client, "Patient", ("eye-colour", "green"))) == []

    @pytest.mark.parametrize("end", ["delete", "retire"])
    def test_without_it_the_parameter_is_unknown(
        self, client: FlaskClient, people: None, index: Callable, database: Database, end: str
    ) -> None:
        define(client)
        index()
        if end == "delete":
            client.delete("/fhir/SearchParameter/eyes")
        else:
            define(client, status="retired")
        strict = client.get("/fhir/Patient?eye-colour=green", headers={"Prefer": "handling=strict"})
        assert_outcome(strict, 400, "not-supported")
        index()
        keys = database["versions_Patient"].distinct("keys")
        assert not [key for key in keys if "eye-colour" in key]

    def test_one_that_comes_again_is_not_taken_for_indexed(
        self, client: FlaskClient, people: None, index: Callable
    ) -> None:
        define(client)
        index()
        client.delete("/fhir/SearchParameter/eyes")
        put(client, "Patient", "d", **eyes("green"))
        define(client)
        assert_outcome(client.get("/fhir/Patient?eye-colour=green"), 503, "transient")
        index()
        assert ids(search(client, "Patient", ("eye-colour", "green"))) == ["d", "a"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "element"),
        [
            ({"expression": "Patient.name.matches('x')"}, "expression"),
            ({"expression": "Patient.("}, "expression"),
            ({"expression": "Patient.colour"}, "expression"),
            ({"expression": "Patient.name.colour"}, "expression"),
            ({"expression": "Observation.code"}, "expression"),
            ({"expression": "Patient." + "a." * 600 + "b"}, "expression"),
            ({"expression": "Patient.name.where(" * 6 + "use" + ")" * 6}, "expression"),
            ({"expression": " | ".join(["Patient.name"] * 30)}, "expression"),
            ({"expression": None}, "expression"),
            ({"code": "gender"}, "code"),
            ({"code": "_eyes"}, "code"),
            ({"code": "eye.colour"}, "code"),
            ({"type": "special"}, "type"),
            ({"type": "composite"}, "component"),
            (
                {"type": "composite", "component": [{"definition": "http://x.org/y", "expression": "code"}]},
                "component[0].definition",
            ),
        ],
    )
    def test_what_cannot_be_searched_by_is_refused_with_the_element(
        self, client: FlaskClient, changes: dict, element: str
    ) -> None:
        content = {name: value for name, value in (EYES | changes).items() if value is not None}
        answer = send(client, "PUT", "/fhir/SearchParameter/eyes", content)
        assert answer.status_code == 422, answer.text
        assert f"SearchParameter.{element}" in [
            where for issue in answer.get_json(force=True)["issue"] for where in issue["expression"]
        ]
        assert client.get("/fhir/SearchParameter/eyes").status_code == 404

    def test_a_code_is_given_once(self, client: FlaskClient) -> None:
        define(client)
        other = EYES | {"id": "other", "url": "http://example.org/other"}
        assert_outcome(send(client, "PUT", "/fhir/SearchParameter/other", other), 422, "duplicate")
        define(client, description="the same one, in other words")

    def test_it_is_the_practices_to_define(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = an_office("o1")
        assert_outcome(send(client, "PUT", "/fhir/SearchParameter/eyes", EYES), 403, "forbidden")

    def test_a_draft_is_stored_and_nothing_more(self, client: FlaskClient, reindexer: Reindexer) -> None:
        define(client, status="draft", expression="Patient.nothing()")
        assert reindexer.waiting() == {}

    def test_an_official_one_is_stored_and_nothing_more(self, client: FlaskClient, reindexer: Reindexer) -> None:
        define(client, url="http://hl7.org/fhir/SearchParameter/individual-gender", code="gender")
        assert reindexer.waiting() == {}
