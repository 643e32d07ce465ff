"""https://hl7.org/fhir/R4/http.html#cond-update, #cond-delete, #concurrency"""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.errors import Conflict, FhirError, PreconditionFailed
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send

ANNA = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
BY_NUMBER = "identifier=urn:mrn|1"
CLIENTS = 64
ROUNDS = [5, pytest.param(100, marks=pytest.mark.slow, id="many")]


def at_once(count: int, call: Any) -> list:
    """What each of that many parallel calls returns or raises."""
    barrier = Barrier(count)

    def one(index: int) -> Any:
        barrier.wait()
        try:
            return call(index)
        except FhirError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


class TestConditionalUpdate:
    def test_creates_when_nothing_matches(self, client: FlaskClient, repository: Repository) -> None:
        answer = send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", ANNA)
        assert (answer.status_code, answer.headers["ETag"]) == (201, 'W/"1"')
        assert repository.store.count("Patient", {}) == 1

    def test_creates_under_the_id_given(self, client: FlaskClient) -> None:
        answer = send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", {**ANNA, "id": "anna"})
        assert (answer.status_code, answer.get_json(force=True)["id"]) == (201, "anna")

    def test_an_id_that_is_taken_by_another_is_a_conflict(self, client: FlaskClient) -> None:
        send(client, "PUT", "/fhir/Patient/anna", {**PATIENT, "id": "anna"})
        answer = send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", {**ANNA, "id": "anna"})
        assert_outcome(answer, 409, "conflict")
        assert client.get("/fhir/Patient/anna").headers["ETag"] == 'W/"1"'

    @pytest.mark.parametrize("named", [True, False])
    def test_updates_the_one_that_matches(self, client: FlaskClient, named: bool) -> None:
        id = send(client, "POST", "/fhir/Patient", ANNA).get_json(force=True)["id"]
        changed = {**ANNA, "gender": "female"} | ({"id": id} if named else {})
        answer = send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", changed)
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
        assert answer.get_json(force=True)["id"] == id

    def test_refuses_another_id_than_that_of_the_match(self, client: FlaskClient) -> None:
        send(client, "POST", "/fhir/Patient", ANNA)
        answer = send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", {**ANNA, "id": "other"})
        assert_outcome(answer, 400, "invalid", "Patient.id")

    def test_refuses_when_several_match(self, client: FlaskClient) -> None:
        for _ in range(2):
            send(client, "POST", "/fhir/Patient", ANNA)
        assert_outcome(send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", ANNA), 412, "conflict")

    def test_obeys_if_match(self, client: FlaskClient) -> None:
        send(client, "POST", "/fhir/Patient", ANNA)
        changed = {**ANNA, "gender": "female"}
        stale = send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", changed, If_Match='W/"3"')
        assert_outcome(stale, 412, "conflict")
        assert send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", changed, If_Match='W/"1"').status_code == 200

    @pytest.mark.parametrize(
        ("query", "status"), [("", 422), ("_format=json", 422), ("_sort=family", 400), ("colour=blue", 400)]
    )
    def test_needs_conditions(self, client: FlaskClient, repository: Repository, query: str, status: int) -> None:
        for method in ("PUT", "DELETE"):
            assert send(client, method, f"/fhir/Patient?{query}", ANNA).status_code == status
        assert repository.store.count("Patient", {}) == 0

    def test_does_not_meet_what_the_caller_cannot_see(self, app: Flask, client: FlaskClient) -> None:
        send(client, "POST", "/fhir/Patient", ANNA)
        app.config["ACCESS"] = an_office("o1")
        assert send(client, "PUT", f"/fhir/Patient?{BY_NUMBER}", {**ANNA, "gender": "other"}).status_code == 201


class TestConditionalCreate:
    def test_takes_its_conditions_from_the_address_too(self, client: FlaskClient) -> None:
        """As fhirpy and others state them; a condition is never ignored."""
        address = "/fhir/Patient?identifier=urn:mrn%7C77&_format=json"
        patient = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "77"}]}
        first, again = (send(client, "POST", address, patient) for _ in range(2))
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.get_json(force=True)["id"] == again.get_json(force=True)["id"]
        assert_outcome(send(client, "POST", "/fhir/Patient?colour=blue", patient), 400, "not-supported")


class TestConditionalDelete:
    def test_deletes_the_one_that_matches(self, client: FlaskClient) -> None:
        id = send(client, "POST", "/fhir/Patient", ANNA).get_json(force=True)["id"]
        answer = client.delete(f"/fhir/Patient?{BY_NUMBER}")
        assert (answer.status_code, answer.headers["ETag"]) == (204, 'W/"2"')
        assert client.get(f"/fhir/Patient/{id}").status_code == 410

    def test_of_nothing_changes_nothing(self, client: FlaskClient) -> None:
        assert client.delete(f"/fhir/Patient?{BY_NUMBER}").status_code == 204

    def test_refuses_when_several_match(self, client: FlaskClient, repository: Repository) -> None:
        for _ in range(2):
            send(client, "POST", "/fhir/Patient", ANNA)
        assert_outcome(client.delete(f"/fhir/Patient?{BY_NUMBER}"), 412, "conflict")
        assert repository.store.count("Patient", {"keys": "*"}) == 2


class TestDelete:
    """https://hl7.org/fhir/R4/http.html#delete"""

    def test_of_what_another_resource_refers_to_is_a_conflict(self, client: FlaskClient) -> None:
        id = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}
        order |= {"subject": {"reference": f"Patient/{id}"}}
        referring = send(client, "POST", "/fhir/ServiceRequest", order).get_json(force=True)["id"]
        assert_outcome(client.delete(f"/fhir/Patient/{id}"), 409, "conflict")
        assert client.delete(f"/fhir/ServiceRequest/{referring}").status_code == 204
        assert client.delete(f"/fhir/Patient/{id}").status_code == 204

    def test_does_not_name_a_resource_that_the_caller_cannot_see(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = an_office("o1")
        id = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        app.config["ACCESS"] = PRACTICE
        basic = {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": f"Patient/{id}"}}
        hidden = send(client, "POST", "/fhir/Basic", basic).get_json(force=True)["id"]
        assert hidden in client.delete(f"/fhir/Patient/{id}").text
        app.config["ACCESS"] = an_office("o1")
        answer = client.delete(f"/fhir/Patient/{id}")
        assert answer.status_code == 409
        assert hidden not in answer.text

    def test_of_what_refers_to_itself_is_done(self, client: FlaskClient) -> None:
        body = {**PATIENT, "id": "a", "link": [{"other": {"reference": "Patient/a"}, "type": "seealso"}]}
        assert send(client, "PUT", "/fhir/Patient/a", body).status_code == 201
        assert client.delete("/fhir/Patient/a").status_code == 204

    def test_is_done_without_a_look_when_references_are_not_checked(self, repository: Repository) -> None:
        repository.check_references = False
        patient = repository.create(PRACTICE, dict(PATIENT)).version
        basic = {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": patient.reference}}
        repository.create(PRACTICE, basic)
        assert repository.delete(PRACTICE, "Patient", patient.id).version.deleted

    def test_tells_what_it_did_to_who_asks(self, client: FlaskClient) -> None:
        id = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        wanted = {"Prefer": "return=OperationOutcome"}
        answer = client.delete(f"/fhir/Patient/{id}", headers=wanted)
        assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
        assert answer.get_json(force=True)["issue"][0]["severity"] == "information"
        again = client.delete("/fhir/Patient/nobody", headers=wanted)
        assert "nothing to delete" in again.text


class TestIfNoneMatch:
    """https://hl7.org/fhir/R4/http.html#concurrency"""

    def test_creates_only(self, client: FlaskClient) -> None:
        body = {**PATIENT, "id": "a"}
        assert send(client, "PUT", "/fhir/Patient/a", body, If_None_Match="*").status_code == 201
        again = send(client, "PUT", "/fhir/Patient/a", {**body, "gender": "other"}, If_None_Match="*")
        assert_outcome(again, 412, "conflict")
        client.delete("/fhir/Patient/a")
        assert send(client, "PUT", "/fhir/Patient/a", body, If_None_Match="*").status_code == 201

    def test_has_one_winner_among_many(self, repository: Repository) -> None:
        def create(index: int) -> Any:
            body = {**PATIENT, "id": "a", "multipleBirthInteger": index}
            return repository.update(PRACTICE, body, if_none_match=True)

        results = at_once(16, create)
        won = [result for result in results if not isinstance(result, FhirError)]
        assert len(won) == 1
        assert {type(result) for result in results if result not in won} == {PreconditionFailed}
        assert repository.store.count("Patient", {}) == 1


class TestRaces:
    """Any number of equal conditional requests at once make one resource."""

    @pytest.mark.parametrize("rounds", ROUNDS)
    def test_equal_conditional_creates_make_one(self, repository: Repository, rounds: int) -> None:
        for round in range(rounds):

            def create(_: int, number: str = str(round)) -> Any:
                return repository.create(PRACTICE, numbered(number), if_none_exist=f"identifier=urn:mrn|{number}")

            assert_one(at_once(CLIENTS, create))
        assert repository.store.count("Patient", {}) == rounds

    @pytest.mark.parametrize("rounds", ROUNDS)
    def test_equal_conditional_updates_make_one(self, repository: Repository, rounds: int) -> None:
        for round in range(rounds):

            def update(_: int, number: str = str(round)) -> Any:
                return repository.update(PRACTICE, numbered(number), criteria=f"identifier=urn:mrn|{number}")

            assert_one(at_once(CLIENTS, update))
        assert repository.store.count("Patient", {}) == rounds

    @pytest.mark.parametrize("rounds", ROUNDS)
    def test_equal_if_match_updates_have_one_winner(self, repository: Repository, rounds: int) -> None:
        repository.update(PRACTICE, {**PATIENT, "id": "a"})
        for version in range(1, rounds + 1):

            def update(index: int, version: int = version) -> Any:
                body = {**PATIENT, "id": "a", "multipleBirthInteger": version * CLIENTS + index}
                return repository.update(PRACTICE, body, if_match=version)

            results = at_once(CLIENTS, update)
            assert sum(not isinstance(result, FhirError) for result in results) == 1
            assert {type(result) for result in results if isinstance(result, FhirError)} == {PreconditionFailed}
        assert versions(repository, "a") == list(range(rounds + 1, 0, -1))

    def test_a_commit_that_starts_anew_keeps_the_ids_that_its_writer_chose(self, repository: Repository) -> None:
        repository.update(PRACTICE, {**PATIENT, "id": "a"})

        def both(index: int) -> Any:
            update = Draft("update", {**PATIENT, "id": "a", "multipleBirthInteger": index})
            return repository.write(PRACTICE, [Draft("create", dict(PATIENT), id=f"mine-{index}"), update])

        results = at_once(6, both)
        won = {index for index, result in enumerate(results) if not isinstance(result, FhirError)}
        assert len(won) > 1
        assert {results[index][0].version.id for index in won} == {f"mine-{index}" for index in won}

    def test_patches_at_once_lose_no_change_and_leave_no_gap(self, repository: Repository) -> None:
        repository.update(PRACTICE, {**PATIENT, "id": "a", "identifier": [{"value": "0"}]})

        def patch(index: int) -> Any:
            def change(resource: dict) -> dict:
                resource["identifier"].append({"value": str(index + 1)})
                return resource

            return repository.patch(PRACTICE, "Patient", "a", change)

        results = at_once(8, patch)
        lost = [result for result in results if isinstance(result, FhirError)]
        assert all(isinstance(result, Conflict) for result in lost)
        won = len(results) - len(lost)
        assert won >= 1
        assert len(repository.read(PRACTICE, "Patient", "a").resource()["identifier"]) == 1 + won
        assert versions(repository, "a") == list(range(1 + won, 0, -1))


def numbered(number: str) -> dict:
    return {**PATIENT, "identifier": [{"system": "urn:mrn", "value": number}]}


def assert_one(results: list) -> None:
    """One made it, and all others were given the same one."""
    assert [result for result in results if isinstance(result, FhirError)] == []
    assert sum(result.created for result in results) == 1
    assert {result.version.version for result in results} == {1}
    assert len({result.version.id for result in results}) == 1


def versions(repository: Repository, id: str) -> list[int]:
    return [version.version for version in repository.history(PRACTICE, "Patient", id, count=1000)]
