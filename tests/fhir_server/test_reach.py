"""Scopes with parameters: what they leave out cannot be read, found, written or inferred.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
"""

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.clauses import clauses_of
from fhir_server.operations import standard
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.operations import app_with
from tests.fhir_server.test_access import ids
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send
from tests.fhir_server.test_transaction import ORDER

LABORATORY, VITAL = "laboratory", "vital-signs"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def an_observation(category: str, **more: object) -> dict:
    coding = {"system": CATEGORY, "code": category}
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [coding]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3"}]},
        **more,
    }


def scope(text: str) -> Scope:
    """`Observation.rs?category=laboratory`"""
    path, _, query = text.partition("?")
    resource_type, _, letters = path.partition(".")
    clauses = clauses_of(resource_type, query) if query else ()
    assert clauses is not None
    return Scope("user", resource_type, letters, clauses)


def with_scopes(*texts: str, access: Access = PRACTICE) -> Access:
    return replace(access, subject="user:ruth", scopes=tuple(map(scope, texts)), roles=frozenset({"front-desk"}))


@pytest.fixture
def app(repository: Repository) -> Flask:
    return app_with(repository, standard.operations(repository))


@pytest.fixture
def stored(app: Flask, client: FlaskClient) -> dict[str, str]:
    """Category -> id of an Observation of it."""
    return {
        category: send(client, "POST", "/fhir/Observation", an_observation(category)).get_json(force=True)["id"]
        for category in (LABORATORY, VITAL)
    }


def allow(app: Flask, *texts: str) -> None:
    app.config["ACCESS"] = with_scopes(*texts)


class TestReading:
    def test_what_is_left_out_is_not_there(self, app: Flask, client: FlaskClient, stored: dict[str, str]) -> None:
        allow(app, f"Observation.rs?category={LABORATORY}")
        assert client.get(f"/fhir/Observation/{stored[LABORATORY]}").status_code == 200
        assert client.get(f"/fhir/Observation/{stored[LABORATORY]}/_history/1").status_code == 200
        for road in ("", "/_history", "/_history/1", "/$meta"):
            assert_outcome(client.get(f"/fhir/Observation/{stored[VITAL]}{road}"), 404, "not-found")

    def test_a_search_finds_counts_and_pages_the_rest(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.rs?category={CATEGORY}|{LABORATORY}")
        for query in ("", "?code=2823-3", "?category:not=nonsense", "?_sort=-_lastUpdated", "?status:missing=false"):
            assert ids(client, f"/fhir/Observation{query}") == {stored[LABORATORY]}, query
        assert ids(client, f"/fhir/Observation?category={VITAL}") == set()
        assert client.get("/fhir/Observation?_summary=count").get_json(force=True)["total"] == 1
        assert client.get("/fhir/Observation?_total=accurate").get_json(force=True)["total"] == 1
        assert ids(client, "/fhir/?_type=Observation") == {stored[LABORATORY]}

    def test_several_scopes_of_a_type_are_a_union(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.rs?category={LABORATORY}", f"Observation.rs?category={VITAL}&status=final")
        assert ids(client, "/fhir/Observation") == set(stored.values())
        allow(app, f"Observation.rs?category={LABORATORY}", "Observation.r")
        assert ids(client, "/fhir/Observation") == {stored[LABORATORY]}
        assert client.get(f"/fhir/Observation/{stored[VITAL]}").status_code == 200

    def test_several_parameters_of_a_scope_must_all_be_met(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.rs?category={LABORATORY},{VITAL}&status=final")
        assert ids(client, "/fhir/Observation") == set(stored.values())
        allow(app, f"Observation.rs?category={LABORATORY}&status=preliminary")
        assert ids(client, "/fhir/Observation") == set()

    def test_history_has_the_versions_that_were_within_the_scope(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        """A version is judged by its own content; and nothing of a resource is told that is beyond the scope now."""
        lab, vital = stored[LABORATORY], stored[VITAL]
        send(client, "PUT", f"/fhir/Observation/{lab}", an_observation(VITAL, id=lab))
        send(client, "PUT", f"/fhir/Observation/{vital}", an_observation(LABORATORY, id=vital))
        allow(app, f"Observation.rs?category={LABORATORY}")
        assert_outcome(client.get(f"/fhir/Observation/{lab}/_history/1"), 404, "not-found")
        assert_outcome(client.get(f"/fhir/Observation/{vital}/_history/1"), 404, "not-found")
        assert client.get(f"/fhir/Observation/{vital}/_history/2").status_code == 200
        entries = client.get(f"/fhir/Observation/{vital}/_history").get_json(force=True)["entry"]
        assert [entry["resource"]["meta"]["versionId"] for entry in entries] == ["2"]
        for address in ("/fhir/Observation/_history", "/fhir/_history", "/fhir/Observation/_history?_count=1"):
            bundle = client.get(address).get_json(force=True)
            told = [(one["resource"]["id"], one["resource"]["meta"]["versionId"]) for one in bundle["entry"]]
            assert told == [(vital, "2"), (lab, "1")][: len(told)], address
        following = next(link["url"] for link in bundle["link"] if link["relation"] == "next")
        assert ids(client, following) == {lab}

    def test_a_deletion_is_told_as_what_was_deleted_would_be(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        for id in stored.values():
            client.delete(f"/fhir/Observation/{id}")
        allow(app, f"Observation.rs?category={LABORATORY}")
        assert_outcome(client.get(f"/fhir/Observation/{stored[LABORATORY]}"), 410, "deleted")
        assert_outcome(client.get(f"/fhir/Observation/{stored[VITAL]}"), 404, "not-found")
        entries = client.get("/fhir/Observation/_history").get_json(force=True)["entry"]
        assert {entry["fullUrl"].rpartition("/")[2] for entry in entries} == {stored[LABORATORY]}

    def test_includes_chains_and_operations_bring_no_more(self, app: Flask, client: FlaskClient) -> None:
        patient = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        subject = {"reference": f"Patient/{patient}"}
        order = send(client, "POST", "/fhir/ServiceRequest", {**ORDER, "subject": subject}).get_json(force=True)["id"]
        based = {"subject": subject, "basedOn": [{"reference": f"ServiceRequest/{order}"}]}
        lab, vital = (
            send(client, "POST", "/fhir/Observation", an_observation(category, **based)).get_json(force=True)["id"]
            for category in (LABORATORY, VITAL)
        )
        allow(app, "Patient.rs", "ServiceRequest.rs", f"Observation.rs?category={LABORATORY}")
        assert ids(client, "/fhir/Patient?_revinclude=Observation:subject") == {patient, lab}
        assert ids(client, f"/fhir/Patient/{patient}/$everything") == {patient, order, lab}
        assert ids(client, f"/fhir/Patient/{patient}/*") == {patient, order, lab}
        assert ids(client, f"/fhir/Patient/{patient}/Observation") == {lab}
        assert ids(client, f"/fhir/Patient?_has:Observation:patient:category={VITAL}") == set()
        assert ids(client, f"/fhir/Patient?_has:Observation:patient:category={LABORATORY}") == {patient}
        assert ids(client, f"/fhir/Observation/$lastn?patient={patient}&category={VITAL},{LABORATORY}") == {lab}
        allow(app, "Observation.rs", "ServiceRequest.rs?status=completed", "Patient.rs?active=false")
        assert ids(client, "/fhir/Observation?_include=Observation:based-on&_include=*") == {lab, vital}
        assert ids(client, f"/fhir/Observation?subject:Patient.family={PATIENT['name'][0]['family']}") == set()
        assert_outcome(client.get(f"/fhir/Patient/{patient}/$everything"), 404, "not-found")

    def test_each_entry_of_a_batch_is_held_against_the_scope(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.rs?category={LABORATORY}")
        urls = [f"Observation/{stored[LABORATORY]}", f"Observation/{stored[VITAL]}", "Observation"]
        batch = {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"request": {"method": "GET", "url": url}} for url in urls],
        }
        entries = send(client, "POST", "/fhir", batch).get_json(force=True)["entry"]
        assert [entry["response"]["status"][:3] for entry in entries] == ["200", "404", "200"]
        assert [one["resource"]["id"] for one in entries[2]["resource"]["entry"]] == [stored[LABORATORY]]

    def test_the_letters_of_each_scope_are_its_own(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.r?category={LABORATORY}", f"Observation.s?category={VITAL}")
        assert ids(client, "/fhir/Observation") == {stored[VITAL]}
        assert client.get(f"/fhir/Observation/{stored[LABORATORY]}").status_code == 200
        assert_outcome(client.get(f"/fhir/Observation/{stored[VITAL]}"), 404, "not-found")

    def test_parameters_that_all_types_have_narrow_all_of_them(self, app: Flask, client: FlaskClient) -> None:
        tag = {"meta": {"tag": [{"system": "urn:tags", "code": "shared"}]}}
        shared = send(client, "POST", "/fhir/Patient", {**PATIENT, **tag}).get_json(force=True)["id"]
        send(client, "POST", "/fhir/Patient", PATIENT)
        allow(app, "*.rs?_tag=urn:tags|shared")
        assert ids(client, "/fhir/Patient") == ids(client, "/fhir/") == {shared}

    def test_what_cannot_be_held_against_them_needs_a_scope_without(self, app: Flask, client: FlaskClient) -> None:
        allow(app, "ValueSet.rs?url=http://acme.example/mine")
        answer = client.get("/fhir/ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/administrative-gender")
        assert_outcome(answer, 403, "forbidden")


class TestWriting:
    def test_creates_within_the_scope_alone(self, app: Flask, client: FlaskClient) -> None:
        allow(app, f"Observation.c?category={LABORATORY}")
        assert send(client, "POST", "/fhir/Observation", an_observation(LABORATORY)).status_code == 201
        assert_outcome(send(client, "POST", "/fhir/Observation", an_observation(VITAL)), 403, "forbidden")

    def test_changes_what_is_and_stays_within_the_scope(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        lab, vital = stored[LABORATORY], stored[VITAL]
        allow(app, f"Observation.u?category={LABORATORY}")
        amended = {"status": "amended"}
        fine = send(client, "PUT", f"/fhir/Observation/{lab}", an_observation(LABORATORY, id=lab, **amended))
        assert fine.status_code == 200
        out = send(client, "PUT", f"/fhir/Observation/{lab}", an_observation(VITAL, id=lab))
        assert_outcome(out, 403, "forbidden")
        into = send(client, "PUT", f"/fhir/Observation/{vital}", an_observation(LABORATORY, id=vital))
        assert_outcome(into, 403, "forbidden")
        patch = [{"op": "replace", "path": "/category/0/coding/0/code", "value": VITAL}]
        media = "application/json-patch+json"
        assert_outcome(client.patch(f"/fhir/Observation/{lab}", json=patch, content_type=media), 403, "forbidden")
        assert_outcome(client.patch(f"/fhir/Observation/{vital}", json=patch, content_type=media), 404, "not-found")
        made = send(client, "PUT", "/fhir/Observation/new", an_observation(VITAL, id="new"))
        assert_outcome(made, 403, "forbidden")

    def test_deletes_what_is_within_the_scope(self, app: Flask, client: FlaskClient, stored: dict[str, str]) -> None:
        allow(app, f"Observation.d?category={LABORATORY}")
        assert_outcome(client.delete(f"/fhir/Observation/{stored[VITAL]}"), 403, "forbidden")
        assert client.delete(f"/fhir/Observation/{stored[LABORATORY]}").status_code in (200, 204)

    def test_revives_no_deleted_resource_from_beyond_it(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        vital = stored[VITAL]
        client.delete(f"/fhir/Observation/{vital}")
        allow(app, f"Observation.u?category={LABORATORY}")
        again = send(client, "PUT", f"/fhir/Observation/{vital}", an_observation(LABORATORY, id=vital))
        assert_outcome(again, 403, "forbidden")

    def test_a_transaction_with_one_write_beyond_it_changes_nothing(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.c?category={LABORATORY}")
        resources = [an_observation(LABORATORY), an_observation(VITAL)]
        entry = [{"resource": one, "request": {"method": "POST", "url": "Observation"}} for one in resources]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
        assert_outcome(send(client, "POST", "/fhir", bundle), 403, "forbidden")
        app.config["ACCESS"] = PRACTICE
        assert ids(client, "/fhir/Observation") == set(stored.values())

    def test_criteria_tell_nothing_of_what_is_beyond_it(
        self, app: Flask, client: FlaskClient, stored: dict[str, str]
    ) -> None:
        allow(app, f"Observation.cud?category={LABORATORY}")
        criteria = urlencode({"category": VITAL})
        assert client.delete(f"/fhir/Observation?{criteria}").status_code in (200, 204)
        made = send(client, "POST", "/fhir/Observation", an_observation(LABORATORY), If_None_Exist=criteria)
        assert made.status_code == 201, "that another such Observation is there is not known to the caller"
        app.config["ACCESS"] = PRACTICE
        assert client.get(f"/fhir/Observation/{stored[VITAL]}").status_code == 200


class TestPatientOfAnOffice:
    """Scopes of a patient, for who sees part of the patients: both must hold."""

    @pytest.fixture
    def mine(self, app: Flask, client: FlaskClient) -> list[str]:
        """Two patients of the office."""
        app.config["ACCESS"] = an_office("mine")
        return [send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"] for _ in range(2)]

    def about(self, patient: str, letters: str = "cruds") -> Access:
        office = an_office("mine")
        within = frozenset({"@any", f"@Patient/{patient}", f"@owner/{office.subject}"})
        return replace(office, scopes=(Scope("patient", "*", letters),), compartment=within)

    def test_see_what_the_office_sees_of_the_patient(self, app: Flask, client: FlaskClient, mine: list[str]) -> None:
        bodies = [{**ORDER, "subject": {"reference": f"Patient/{patient}"}} for patient in mine]
        orders = [send(client, "POST", "/fhir/ServiceRequest", body).get_json(force=True)["id"] for body in bodies]
        app.config["ACCESS"] = PRACTICE
        hidden = send(client, "POST", "/fhir/ServiceRequest", bodies[0]).get_json(force=True)["id"]
        app.config["ACCESS"] = self.about(mine[0])
        assert ids(client, "/fhir/ServiceRequest") == ids(client, "/fhir/ServiceRequest/_history") == {orders[0]}
        assert ids(client, f"/fhir/Patient/{mine[0]}/$everything") == {mine[0], orders[0]}
        assert client.get("/fhir/ServiceRequest?_summary=count").get_json(force=True)["total"] == 1
        for other in (f"Patient/{mine[1]}", f"ServiceRequest/{orders[1]}", f"ServiceRequest/{hidden}"):
            assert_outcome(client.get(f"/fhir/{other}"), 404, "not-found")

    def test_write_in_the_compartment_alone(self, app: Flask, client: FlaskClient, mine: list[str]) -> None:
        app.config["ACCESS"] = self.about(mine[0])
        order = {**ORDER, "subject": {"reference": f"Patient/{mine[0]}"}}
        assert send(client, "POST", "/fhir/ServiceRequest", order).status_code == 201
        other = {**ORDER, "subject": {"reference": f"Patient/{mine[1]}"}}
        assert_outcome(send(client, "POST", "/fhir/ServiceRequest", other), 422, "not-found")
        nobodys = {"resourceType": "Task", "status": "requested", "intent": "order"}
        assert_outcome(send(client, "POST", "/fhir/Task", nobodys), 403, "forbidden")
        changed = {**PATIENT, "id": mine[1], "gender": "other"}
        assert_outcome(send(client, "PUT", f"/fhir/Patient/{mine[1]}", changed), 403, "forbidden")
