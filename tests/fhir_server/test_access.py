"""Who sees what: the same answer by every road."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.version import Version
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send
from tests.fhir_server.test_transaction import ORDER

PRACTICE_TASK = {"resourceType": "Task", "status": "requested", "intent": "order"}


def an_order_of(app: Flask, client: FlaskClient, office: str) -> tuple[str, str]:
    """(patient, order): ids of a referral that this office placed."""
    app.config["ACCESS"] = an_office(office)
    patient = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
    body = {**ORDER, "subject": {"reference": f"Patient/{patient}"}}
    return patient, send(client, "POST", "/fhir/ServiceRequest", body).get_json(force=True)["id"]


def ids(client: FlaskClient, address: str) -> set[str]:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return {entry["resource"]["id"] for entry in answer.get_json(force=True).get("entry", [])}


def test_an_office_sees_its_own_referrals_and_no_others(app: Flask, client: FlaskClient) -> None:
    mine, my_order = an_order_of(app, client, "mine")
    theirs, their_order = an_order_of(app, client, "theirs")
    app.config["ACCESS"] = an_office("mine")
    assert ids(client, "/fhir/ServiceRequest") == {my_order}
    assert ids(client, "/fhir/Patient") == {mine}
    assert ids(client, "/fhir/Patient?family=Chalmers") == {mine}
    for address in (f"/fhir/Patient/{theirs}", f"/fhir/ServiceRequest/{their_order}"):
        assert_outcome(client.get(address), 404, "not-found")
        assert_outcome(client.get(f"{address}/_history"), 404, "not-found")
        assert_outcome(client.get(f"{address}/_history/1"), 404, "not-found")
    assert client.get("/fhir/Patient?_summary=count").get_json(force=True)["total"] == 1
    history = client.get("/fhir/ServiceRequest/_history").get_json(force=True)
    assert [entry["resource"]["id"] for entry in history["entry"]] == [my_order]


def test_includes_and_chains_show_no_more(app: Flask, client: FlaskClient) -> None:
    _, my_order = an_order_of(app, client, "mine")
    theirs, _ = an_order_of(app, client, "theirs")
    app.config["ACCESS"] = an_office("mine")
    assert theirs not in ids(client, "/fhir/ServiceRequest?_include=ServiceRequest:subject")
    assert ids(client, "/fhir/ServiceRequest?subject:Patient.family=Chalmers") == {my_order}


def test_an_office_cannot_refer_to_what_it_does_not_see(app: Flask, client: FlaskClient) -> None:
    """An order for a foreign patient would open that patient to the office."""
    theirs, _ = an_order_of(app, client, "theirs")
    app.config["ACCESS"] = an_office("mine")
    body = {**ORDER, "subject": {"reference": f"Patient/{theirs}"}}
    assert_outcome(send(client, "POST", "/fhir/ServiceRequest", body), 422, "not-found")


def test_an_office_cannot_write_what_it_does_not_see(app: Flask, client: FlaskClient) -> None:
    theirs, _ = an_order_of(app, client, "theirs")
    app.config["ACCESS"] = an_office("mine")
    answer = send(client, "PUT", f"/fhir/Patient/{theirs}", {**PATIENT, "id": theirs, "gender": "other"})
    assert_outcome(answer, 403, "forbidden")
    assert_outcome(client.delete(f"/fhir/Patient/{theirs}"), 403, "forbidden")


def test_what_hangs_on_an_order_is_seen_by_who_placed_it(app: Flask, client: FlaskClient) -> None:
    patient, order = an_order_of(app, client, "mine")
    app.config["ACCESS"] = PRACTICE
    participant = {"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"}
    appointment = {
        "resourceType": "Appointment",
        "status": "proposed",
        "participant": [participant],
        "basedOn": [{"reference": f"ServiceRequest/{order}"}],
    }
    id = send(client, "POST", "/fhir/Appointment", appointment).get_json(force=True)["id"]
    app.config["ACCESS"] = an_office("mine")
    assert ids(client, f"/fhir/Appointment?based-on=ServiceRequest/{order}") == {id}
    app.config["ACCESS"] = an_office("theirs")
    assert ids(client, "/fhir/Appointment") == set()


def test_an_order_that_the_practice_enters_opens_the_patient_to_its_office(app: Flask, client: FlaskClient) -> None:
    app.config["ACCESS"] = PRACTICE
    send(client, "PUT", "/fhir/Organization/mine", {"resourceType": "Organization", "id": "mine", "name": "M"})
    patient = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
    app.config["ACCESS"] = an_office("mine")
    assert ids(client, "/fhir/Patient") == set()
    app.config["ACCESS"] = PRACTICE
    by_phone = {
        **ORDER,
        "subject": {"reference": f"Patient/{patient}"},
        "requester": {"reference": "Organization/mine"},
    }
    assert send(client, "POST", "/fhir/ServiceRequest", by_phone).status_code == 201
    app.config["ACCESS"] = an_office("mine")
    assert ids(client, "/fhir/Patient") == {patient}
    assert client.get(f"/fhir/Patient/{patient}").status_code == 200


def test_so_does_one_that_comes_with_its_patient(app: Flask, client: FlaskClient) -> None:
    """In one transaction, whether the patient is new, is changed by it, is left as it was, or is found by it."""
    app.config["ACCESS"] = PRACTICE
    for office in ("mine", "theirs", "third", "fourth"):
        send(
            client, "PUT", f"/fhir/Organization/{office}", {"resourceType": "Organization", "id": office, "name": "M"}
        )
    new = {**PATIENT, "identifier": [{"system": "urn:mrn", "value": "1"}]}
    changed = new | {"id": "p", "active": True}
    entries = {
        "mine": (new | {"id": "p"}, {"method": "PUT", "url": "Patient/p"}),
        "theirs": (changed, {"method": "PUT", "url": "Patient/p"}),
        "third": (changed, {"method": "PUT", "url": "Patient/p"}),
        "fourth": (new, {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn:mrn|1"}),
    }
    for office, (patient, request) in entries.items():
        order = {
            **ORDER,
            "requester": {"reference": f"Organization/{office}"},
            "subject": {"reference": "urn:uuid:p"},
        }
        bundle = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {"fullUrl": "urn:uuid:p", "resource": patient, "request": request},
                {"resource": order, "request": {"method": "POST", "url": "ServiceRequest"}},
            ],
        }
        app.config["ACCESS"] = PRACTICE
        answer = send(client, "POST", "/fhir", bundle)
        assert answer.status_code == 200, answer.data
        app.config["ACCESS"] = an_office(office)
        assert ids(client, "/fhir/Patient") == {"p"}, office


class TestViews:
    """Parts of a resource that some of its readers shall not see are hidden on every road to it."""

    SHOWN, HIDDEN = "shown to its owner", "***"

    @pytest.fixture
    def repository(self, store: VersionStore) -> Repository:
        def view(access: Access, version: Version) -> Version:
            if version.by == access.subject or version.body is None:
                return version
            return replace(version, body=version.body.replace(self.SHOWN.encode(), self.HIDDEN.encode()))

        return Repository(store, BASE, lambda: datetime.now(UTC), views={"Basic": view})

    def test_every_road_shows_the_same(self, repository: Repository) -> None:
        owner, other = an_office("mine"), PRACTICE
        basic = {"resourceType": "Basic", "id": "b", "code": {"text": self.SHOWN}}
        written = repository.update(owner, basic)
        assert written.version.resource()["code"]["text"] == self.SHOWN

        def roads(access: Access) -> set[str]:
            found = [
                repository.read(access, "Basic", "b"),
                repository.vread(access, "Basic", "b", 1),
                *repository.history(access, "Basic", "b"),
                *repository.history(access, "Basic"),
                *repository.search(access, "Basic", "_id=b").matches,
                repository.update(access, basic).version,
            ]
            assert len(found) == 6
            return {version.resource()["code"]["text"] for version in found}

        assert roads(owner) == {self.SHOWN}
        assert roads(other) == {self.HIDDEN}
