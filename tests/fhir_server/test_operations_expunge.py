"""Deleting for good: who may, what goes, what stays."""

from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.operations import standard
from fhir_server.operations.expunge import DELETED, OLD
from fhir_server.repository import Repository
from tests.fhir_server.conftest import ALL, PRACTICE, an_office
from tests.fhir_server.operations import app_with, json_of, post, values
from tests.fhir_server.test_rest import PATIENT, assert_outcome

ADMIN = Access("user:root", ALL, frozenset({"@any"}), roles=frozenset({"admin"}))
STAFF = Access("user:desk", ALL, None, roles=frozenset({"front-desk"}))
PATH = "Patient/p1/$expunge"
OLD_ONES = [{"name": OLD, "valueBoolean": True}]
DELETED_ONES = [{"name": DELETED, "valueBoolean": True}]


@pytest.fixture
def app(repository: Repository) -> Flask:
    for gender in ("male", "female", "other"):
        repository.update(PRACTICE, {**PATIENT, "id": "p1", "gender": gender})
    repository.update(PRACTICE, {**PATIENT, "id": "p2"})
    return app_with(repository, standard.operations(repository))


def versions(repository: Repository, id: str = "p1") -> list[int]:
    return [version.version for version in repository.store.history("Patient", id)]


def test_previous_versions_go_and_the_current_one_stays(client: FlaskClient, repository: Repository) -> None:
    assert values(json_of(post(client, PATH, OLD_ONES))) == {"count": 2}
    assert versions(repository) == [3]
    assert client.get("/fhir/Patient/p1").headers["ETag"] == 'W/"3"'
    assert client.get("/fhir/Patient?gender=other&_total=accurate").get_json(force=True)["total"] == 1
    assert_outcome(client.get("/fhir/Patient/p1/_history/1"), 404, "not-found")
    assert versions(repository, "p2") == [1]


def test_a_deleted_resource_goes_altogether(client: FlaskClient, repository: Repository) -> None:
    assert_outcome(post(client, PATH, DELETED_ONES), 409, "conflict")
    repository.delete(PRACTICE, "Patient", "p1")
    assert values(json_of(post(client, PATH, DELETED_ONES))) == {"count": 4}
    assert versions(repository) == []
    assert_outcome(client.get("/fhir/Patient/p1"), 404, "not-found")
    assert_outcome(post(client, PATH, DELETED_ONES), 404, "not-found")


def test_the_id_can_be_used_again(client: FlaskClient, repository: Repository) -> None:
    repository.delete(PRACTICE, "Patient", "p1")
    post(client, PATH, DELETED_ONES)
    assert repository.update(PRACTICE, {**PATIENT, "id": "p1"}).version.version == 1


def test_the_criteria_of_a_conditional_create_go_along(client: FlaskClient, repository: Repository) -> None:
    body = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "secret"}]}
    id = repository.create(PRACTICE, body, if_none_exist="identifier=urn:mrn|secret").version.id
    guards = repository.store.database["guards"]
    repository.delete(PRACTICE, "Patient", id)
    assert guards.count_documents({}) == 1
    post(client, f"Patient/{id}/$expunge", DELETED_ONES)
    assert guards.count_documents({}) == 0
    assert repository.create(PRACTICE, body, if_none_exist="identifier=urn:mrn|secret").created


@pytest.mark.parametrize("caller", [ADMIN, replace(ADMIN, roles=frozenset({"practice"})), PRACTICE])
def test_administrators_and_the_practices_systems_may(app: Flask, client: FlaskClient, caller: Access) -> None:
    app.config["ACCESS"] = caller
    assert values(json_of(post(client, PATH, OLD_ONES))) == {"count": 2}


@pytest.mark.parametrize(
    "caller",
    [STAFF, an_office("lakeside"), replace(ADMIN, scopes=(Scope("user", "*", "crus"),))],
)
def test_nobody_else_may(app: Flask, client: FlaskClient, repository: Repository, caller: Access) -> None:
    app.config["ACCESS"] = caller
    assert_outcome(post(client, PATH, OLD_ONES), 403, "forbidden")
    assert versions(repository) == [3, 2, 1]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"name": OLD, "valueBoolean": False}],
        [{"name": OLD, "valueString": "yes"}],
        [{"name": "expungeEverything", "valueBoolean": True}],
    ],
)
def test_what_is_to_go_has_to_be_said(client: FlaskClient, repository: Repository, entries: list) -> None:
    assert post(client, PATH, entries).status_code == 400
    assert client.get(f"/fhir/{PATH}").status_code == 405
    assert versions(repository) == [3, 2, 1]


def test_the_log_tells_who_and_how_much_but_not_of_whom(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    post(client, PATH, OLD_ONES)
    assert "system:test expunged 2 versions of one Patient" in caplog.text
    assert "p1" not in caplog.text
