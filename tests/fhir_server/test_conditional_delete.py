"""https://hl7.org/fhir/R4/http.html#3.1.0.7.1: what the criteria match is deleted, one or several by setting."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.errors import BadRequest
from fhir_server.repository import Repository
from radloop.settings import BadSettings, Settings
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.test_conditional import at_once
from tests.fhir_server.test_integrity import basic, between
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send
from tests.fhir_server.test_transaction import bundle, entry, performed, put, statuses

BY_NUMBER = "identifier=urn:mrn|1"
LIMIT = 3


def person(id: str, **more: object) -> dict:
    return {**PATIENT, "id": id, "identifier": [{"system": "urn:mrn", "value": "1"}], **more}


@pytest.fixture
def people(repository: Repository) -> list[str]:
    """As many of that number as may be deleted at once, and one of another number."""
    repository.deletes_at_once = LIMIT
    ids = [f"p{n}" for n in range(LIMIT)]
    for id in ids:
        repository.update(PRACTICE, person(id))
    repository.update(PRACTICE, {**PATIENT, "id": "other"})
    return ids


def current(repository: Repository) -> set[str]:
    return {version.id for version in repository.search(PRACTICE, "Patient", "").matches}


class TestSeveral:
    def test_all_that_match_are_deleted(self, client: FlaskClient, repository: Repository, people: list[str]) -> None:
        answer = client.delete(f"/fhir/Patient?{BY_NUMBER}")
        assert (answer.status_code, answer.data) == (204, b"")
        assert current(repository) == {"other"}
        for id in people:
            assert client.get(f"/fhir/Patient/{id}").status_code == 410
            assert [version.version for version in repository.history(PRACTICE, "Patient", id)] == [2, 1]

    def test_their_number_is_told_to_who_asks(self, client: FlaskClient, people: list[str]) -> None:
        answer = client.delete(f"/fhir/Patient?{BY_NUMBER}", headers={"Prefer": "return=OperationOutcome"})
        assert answer.status_code == 200
        assert f"and {len(people) - 1} more" in answer.get_json(force=True)["issue"][0]["diagnostics"]

    @pytest.mark.usefixtures("people")
    def test_more_than_the_limit_are_left(self, client: FlaskClient, repository: Repository) -> None:
        repository.update(PRACTICE, person("one-more"))
        before = current(repository)
        assert_outcome(client.delete(f"/fhir/Patient?{BY_NUMBER}"), 412, "conflict")
        assert current(repository) == before

    def test_all_stay_when_one_is_referred_to(
        self, client: FlaskClient, repository: Repository, people: list[str]
    ) -> None:
        repository.create(PRACTICE, basic(f"Patient/{people[1]}"))
        assert_outcome(client.delete(f"/fhir/Patient?{BY_NUMBER}"), 409, "conflict")
        assert set(people) < current(repository)

    def test_those_that_refer_to_one_another_go_together(
        self, client: FlaskClient, repository: Repository, people: list[str]
    ) -> None:
        link = [{"other": {"reference": f"Patient/{people[0]}"}, "type": "seealso"}]
        repository.update(PRACTICE, person(people[1], link=link))
        assert client.delete(f"/fhir/Patient?{BY_NUMBER}").status_code == 204
        assert current(repository) == {"other"}

    @pytest.mark.usefixtures("people")
    def test_none_is_meant_by_if_match(self, client: FlaskClient, repository: Repository) -> None:
        before = current(repository)
        answer = client.delete(f"/fhir/Patient?{BY_NUMBER}", headers={"If-Match": 'W/"1"'})
        assert_outcome(answer, 412, "conflict")
        assert current(repository) == before

    def test_no_conditions_are_not_all(self, client: FlaskClient, repository: Repository, people: list[str]) -> None:
        for query, status in (("", 422), ("_format=json", 422), ("_count=1", 400), ("colour=blue", 400)):
            assert client.delete(f"/fhir/Patient?{query}").status_code == status
        assert set(people) < current(repository)

    def test_what_the_caller_cannot_see_stays(
        self, app: Flask, client: FlaskClient, repository: Repository, people: list[str]
    ) -> None:
        app.config["ACCESS"] = an_office("o1")
        assert client.delete(f"/fhir/Patient?{BY_NUMBER}").status_code == 204
        assert set(people) < current(repository)

    @pytest.mark.usefixtures("people")
    def test_what_no_longer_matches_at_the_commit_stays(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        between(repository, monkeypatch, lambda: repository.update(PRACTICE, {**PATIENT, "id": "p1"}))
        written = repository.delete(PRACTICE, "Patient", None, criteria=BY_NUMBER)
        assert written.others == LIMIT - 2
        assert current(repository) == {"p1", "other"}

    @pytest.mark.usefixtures("people")
    def test_many_at_once_delete_each_once(self, repository: Repository) -> None:
        results = at_once(8, lambda _: repository.delete(PRACTICE, "Patient", None, criteria=BY_NUMBER))
        assert sum(result.changed for result in results if hasattr(result, "changed")) == 1
        assert repository.store.count("Patient", {"op": "delete"}) == LIMIT


class TestInABundle:
    @pytest.mark.parametrize("kind", ["batch", "transaction"])
    @pytest.mark.usefixtures("people")
    def test_all_that_match_are_deleted(self, client: FlaskClient, repository: Repository, kind: str) -> None:
        done = performed(client, put({**PATIENT, "id": "new"}), entry("DELETE", f"Patient?{BY_NUMBER}"), kind=kind)
        assert statuses(done) == ["201", "204"]
        assert current(repository) == {"new", "other"}

    def test_none_of_them_is_written_by_another_entry(
        self, client: FlaskClient, repository: Repository, people: list[str]
    ) -> None:
        answer = send(
            client, "POST", "/fhir", bundle(put(person(people[2])), entry("DELETE", f"Patient?{BY_NUMBER}"))
        )
        assert_outcome(answer, 400, "invalid", "Bundle.entry[0].resource")
        assert set(people) < current(repository)

    @pytest.mark.usefixtures("people")
    def test_what_another_entry_deletes_is_not_deleted_twice(
        self, client: FlaskClient, repository: Repository
    ) -> None:
        done = performed(client, entry("DELETE", "Patient/p1"), entry("DELETE", f"Patient?{BY_NUMBER}"))
        assert statuses(done) == ["204", "204"]
        assert repository.store.count("Patient", {"op": "delete"}) == LIMIT

    def test_a_conflict_stops_the_transaction_and_names_the_entry(
        self, client: FlaskClient, repository: Repository, people: list[str]
    ) -> None:
        repository.create(PRACTICE, basic(f"Patient/{people[1]}"))
        sent = bundle(put({**PATIENT, "id": "new"}), entry("DELETE", f"Patient?{BY_NUMBER}"))
        assert_outcome(send(client, "POST", "/fhir", sent), 409, "conflict", "Bundle.entry[1].resource")
        assert current(repository) == {*people, "other"}

    def test_a_criterion_that_is_none_is_refused(self, repository: Repository, people: list[str]) -> None:
        sent = bundle(entry("DELETE", "Patient?colour=blue"))
        with pytest.raises(BadRequest):
            repository.perform(PRACTICE, sent)
        assert set(people) < current(repository)


@pytest.mark.parametrize("given", ["0", "1000", "all"])
def test_the_setting_is_a_number_that_fits_in_one_commit(given: str) -> None:
    with pytest.raises(BadSettings):
        Settings.from_env({"RADLOOP_CONDITIONAL_DELETE_LIMIT": given})
    assert Settings.from_env({}).conditional_delete_limit == 1
