"""https://hl7.org/fhir/R4/observation-operation-lastn.html"""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.operations import lastn, standard
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.operations import app_with, json_of, post
from tests.fhir_server.test_rest import assert_outcome


@pytest.fixture
def app(repository: Repository) -> Flask:
    repository.update(PRACTICE, {"resourceType": "Patient", "id": "p1"})
    return app_with(repository, standard.operations(repository))


def observe(repository: Repository, id: str, codes: str, day: str | None, **more: Any) -> None:
    """codes: `a`, `a,b` for two codings, `'some text` for a text alone."""
    code: dict = {"coding": [{"system": "urn:codes", "code": one} for one in codes.split(",")]}
    observation: dict = {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"text": codes[1:]} if codes.startswith("'") else code,
        "subject": {"reference": "Patient/p1"},
    }
    observation |= {"effectiveDateTime": day} if day else {}
    repository.update(PRACTICE, observation | more)


def last(client: FlaskClient, query: str = "") -> list[str]:
    bundle = json_of(client.get(f"/fhir/Observation/$lastn?patient=Patient/p1&category=laboratory{query}"))
    ids = [entry["resource"]["id"] for entry in bundle.get("entry", [])]
    assert (bundle["type"], bundle["total"]) == ("searchset", len(ids))
    return ids


def test_the_most_recent_of_each_code(client: FlaskClient, repository: Repository) -> None:
    for day, (id, code) in enumerate([("old-a", "a"), ("new-a", "a"), ("old-b", "b"), ("new-b", "b")], start=1):
        observe(repository, id, code, f"2026-01-0{day}")
    assert last(client) == ["new-b", "new-a"]
    assert last(client, "&code=a") == ["new-a"]
    assert last(client, "&max=2") == ["new-b", "old-b", "new-a", "old-a"]


def test_those_as_recent_as_the_last_come_along(client: FlaskClient, repository: Repository) -> None:
    for id, day in [("first", "2026-01-03"), ("second", "2026-01-02"), ("tie", "2026-01-02"), ("old", "2026-01-01")]:
        observe(repository, id, "a", day)
    assert last(client) == ["first"]
    answer = last(client, "&max=2")
    assert (answer[0], set(answer[1:])) == ("first", {"second", "tie"})


@pytest.mark.parametrize(
    ("codes", "groups"),
    [
        (["a", "b", "c"], 3),
        (["a", "b", "a,c"], 2),
        (["a", "b", "a,b"], 1),
        (["a", "b,c", "a,d", "d,c"], 1),
        (["'textM", "'Text", "'t e x t"], 3),
        (["'text", "'text"], 1),
    ],
)
def test_groups_are_those_of_the_definition(
    client: FlaskClient, repository: Repository, codes: list[str], groups: int
) -> None:
    for number, code in enumerate(codes, start=1):
        observe(repository, f"o{number}", code, f"2026-01-0{number}")
    assert len(last(client)) == groups


def test_those_without_a_time_come_last(client: FlaskClient, repository: Repository) -> None:
    observe(repository, "undated", "a", None)
    observe(repository, "dated", "a", "2026-01-01")
    assert last(client) == ["dated"]
    assert last(client, "&max=5") == ["dated", "undated"]


def test_nothing_is_no_error(client: FlaskClient) -> None:
    assert last(client) == []


def test_takes_parameters_by_post(client: FlaskClient, repository: Repository) -> None:
    observe(repository, "one", "a", "2026-01-01")
    entries = [
        {"name": "subject", "valueString": "Patient/p1"},
        {"name": "code", "valueString": "urn:codes|a"},
        {"name": "max", "valuePositiveInt": 3},
    ]
    assert json_of(post(client, "Observation/$lastn", entries))["total"] == 1


def test_nobody_is_told_what_is_not_theirs(app: Flask, client: FlaskClient, repository: Repository) -> None:
    observe(repository, "one", "a", "2026-01-01")
    app.config["ACCESS"] = an_office("o1")
    assert last(client) == []


def test_looks_at_so_many_and_no_more(
    client: FlaskClient, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lastn, "MAX_OBSERVATIONS", 1)
    for id in ("one", "two"):
        observe(repository, id, "a", "2026-01-01")
    answer = client.get("/fhir/Observation/$lastn?patient=Patient/p1&category=laboratory")
    assert_outcome(answer, 400, "too-costly")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("category=laboratory", "required"),
        ("patient=Patient/p1", "required"),
        ("patient=Patient/p1&code=a&max=0", "invalid"),
        ("patient=Patient/p1&code=a&max=x", "invalid"),
        ("patient=Patient/p1&code=a&max=1&max=2", "invalid"),
        ("patient=Patient/p1&code=a&_sort=date", "invalid"),
        ("patient=Patient/p1&code=a&_count=5", "invalid"),
        ("patient=Patient/p1&code=a&colour=blue", "not-supported"),
    ],
)
def test_refuses_what_it_cannot_read(client: FlaskClient, query: str, code: str) -> None:
    answer = client.get(f"/fhir/Observation/$lastn?{query}")
    assert_outcome(answer, 400, code)
