"""What scopes open at the FHIR API itself. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import fhir_server.http
from fhir_server import routes
from fhir_server.access import Access
from fhir_server.operations import standard
from fhir_server.repository import Repository
from smart_auth import guard
from smart_auth.models import Context, User
from smart_auth.service import AuthService
from smart_auth.tokens import LIFETIME
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import bearer

SYSTEM = Access.system("test")
MINE, OTHER = "Organization/o1", "Organization/o2"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
Call = Callable[..., Any]


def person(type: str, id: str) -> dict:
    return {"resourceType": type, "id": id, "name": [{"family": id}]}


def an_order(id: str, patient: str, office: str = MINE) -> dict:
    parties = {"subject": {"reference": f"Patient/{patient}"}, "requester": {"reference": office}}
    return {"resourceType": "ServiceRequest", "id": id, "status": "active", "intent": "order", **parties}


def an_observation(id: str, order: str, patient: str, category: str) -> dict:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": category}]}],
        "code": {"text": "something"},
        "subject": {"reference": f"Patient/{patient}"},
        "basedOn": [{"reference": f"ServiceRequest/{order}"}],
    }


STORED = (
    {"resourceType": "Organization", "id": "o1", "name": "Lakeside"},
    {"resourceType": "Organization", "id": "o2", "name": "Hillcrest"},
    person("Practitioner", "frida"),
    person("Practitioner", "ruth"),
    *(person("Patient", id) for id in ("p1", "p2", "p3")),
    an_order("s1", "p1"),
    an_order("s2", "p2"),
    an_order("s3", "p1", OTHER),
    an_observation("lab1", "s1", "p1", "laboratory"),
    an_observation("vital1", "s1", "p1", "vital-signs"),
    an_observation("lab2", "s2", "p2", "laboratory"),
    an_observation("lab3", "s3", "p1", "laboratory"),
)


@pytest.fixture
def http(service: AuthService, repository: Repository, users: None, clients: Clients) -> FlaskClient:
    """The FHIR API behind the guard."""
    for resource in STORED:
        repository.update(SYSTEM, resource)
    app = Flask("fhir")
    fhir_server.http.install(app)
    guard.install(app, service)
    app.register_blueprint(
        routes.create_blueprint(repository, standard.operations(repository), dict), url_prefix="/fhir"
    )
    return app.test_client(use_cookies=False)


@pytest.fixture
def call(http: FlaskClient, service: AuthService) -> Call:
    """Call the API with a token of a user, of these scopes, about a patient."""

    def call(who: str, scope: str, method: str, path: str, body: Any = None, patient: str | None = None) -> Any:
        user = service.store.user(who)
        assert isinstance(user, User)
        token = service.issuer.issue(user.subject, None, scope, LIFETIME, Context(patient=patient))
        data = None if body is None else json.dumps(body).encode()
        return http.open(
            f"/fhir/{path}", method=method, data=data, headers=bearer(token), content_type="application/fhir+json"
        )

    return call


def ids(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {entry["resource"]["id"] for entry in answer.get_json(force=True).get("entry", [])}


NEW = {"resourceType": "Basic", "code": {"text": "x"}}
INTERACTIONS = {  # http://hl7.org/fhir/R4/http.html: what each letter allows
    ("POST", "Basic"): "c",
    ("GET", "Basic/b"): "r",
    ("GET", "Basic/b/_history/1"): "r",
    ("GET", "Basic/b/_history"): "r",
    ("PUT", "Basic/b"): "u",
    ("PATCH", "Basic/b"): "u",
    ("DELETE", "Basic/b"): "d",
    ("GET", "Basic"): "s",
    ("GET", "Basic/_history"): "s",
    ("POST", "Basic/_search"): "s",
}


@pytest.mark.parametrize("letter", "cruds")
def test_each_letter_allows_its_interactions_and_no_others(
    call: Call, http: FlaskClient, service: AuthService, repository: Repository, letter: str
) -> None:
    repository.update(SYSTEM, {**NEW, "id": "b"})
    user = service.store.user("frida")
    assert user is not None
    token = service.issuer.issue_for_user(user, f"user/Basic.{letter}")
    for (method, path), needed in INTERACTIONS.items():
        media = {"PATCH": "application/json-patch+json"}.get(method, "application/fhir+json")
        body: Any = [{"op": "add", "path": "/code/text", "value": "y"}] if method == "PATCH" else {**NEW, "id": "b"}
        data = None if method == "GET" or "_search" in path else json.dumps(body)
        media = "application/x-www-form-urlencoded" if "_search" in path else media
        answer = http.open(f"/fhir/{path}", method=method, data=data, content_type=media, headers=bearer(token))
        if needed == letter:
            assert answer.status_code in (200, 201, 204), (method, path, answer.text)
        else:
            assert answer.status_code == 403, (method, path)
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
            assert answer.get_json(force=True)["issue"][0]["code"] == "forbidden"


def test_each_entry_of_a_transaction_needs_its_scope_or_nothing_is_changed(call: Call) -> None:
    entries = [
        {"request": {"method": "POST", "url": type}, "resource": resource}
        for type, resource in (("Basic", NEW), ("Patient", {"resourceType": "Patient"}))
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert call("frida", "user/Basic.crs", "POST", "", bundle).status_code == 403
    assert ids(call("frida", "user/Basic.crs", "GET", "Basic")) == set()
    batch = call("frida", "user/Basic.crs", "POST", "", bundle | {"type": "batch"})
    statuses = [entry["response"]["status"][:3] for entry in batch.get_json(force=True)["entry"]]
    assert statuses == ["201", "403"]


def test_scopes_of_a_user_give_no_more_than_the_user_has(call: Call) -> None:
    assert ids(call("ruth", "user/*.cruds", "GET", "Patient")) == {"p1", "p2"}
    assert call("ruth", "user/*.cruds", "GET", "Patient/p3").status_code == 404
    assert call("ruth", "user/*.cruds", "DELETE", "Patient/p1").status_code == 403


class TestOnePatient:
    """Scopes of a patient keep to that compartment, by every road."""

    @pytest.mark.parametrize(
        "who, orders, observations",
        [
            ("frida", {"s1", "s3"}, {"lab1", "vital1", "lab3"}),
            ("ruth", {"s1"}, {"lab1", "vital1"}),  # of a referring office, that it sees them must hold as well
        ],
    )
    def test_is_all_that_is_seen(self, call: Call, who: str, orders: set[str], observations: set[str]) -> None:
        def get(path: str, scope: str = "patient/*.rs") -> Any:
            return call(who, scope, "GET", path, patient="Patient/p1")

        assert ids(get("Patient")) == {"p1"}
        assert ids(get("ServiceRequest")) == ids(get("ServiceRequest/_history")) == orders
        assert ids(get("Observation")) == observations
        assert ids(get("Observation?subject:Patient.family=p2")) == set()
        assert ids(get("Patient?_has:ServiceRequest:subject:status=active")) == {"p1"}
        assert ids(get("Patient?_revinclude=ServiceRequest:subject")) == {"p1"} | orders
        assert ids(get("Organization?_revinclude=ServiceRequest:requester")) == {"o1", "o2"} | orders
        assert {"p1"} | orders | observations <= ids(get("Patient/p1/$everything"))
        assert not {"p2", "s2", "lab2"} & (ids(get("Patient/p1/$everything")) | ids(get("_history")) | ids(get("")))
        for hidden in ("Patient/p2", "ServiceRequest/s2", "Observation/lab2", "ServiceRequest/s2/_history"):
            assert get(hidden).status_code == 404, hidden
        batch = {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"request": {"method": "GET", "url": url}} for url in ("Patient/p1", "Patient/p2")],
        }
        answer = call(who, "patient/*.rs", "POST", "", batch, "Patient/p1").get_json(force=True)
        assert [entry["response"]["status"][:3] for entry in answer["entry"]] == ["200", "404"]

    def test_is_all_that_is_written(self, call: Call) -> None:
        def post(order: dict) -> Any:
            fresh = {name: value for name, value in order.items() if name != "id"}
            return call("ruth", "patient/ServiceRequest.crus", "POST", "ServiceRequest", fresh, "Patient/p1")

        assert post(an_order("", "p1")).status_code == 201
        assert post(an_order("", "p2")).status_code in (403, 422)
        changed = an_order("s2", "p2") | {"priority": "urgent"}
        answer = call("ruth", "patient/ServiceRequest.crus", "PUT", "ServiceRequest/s2", changed, "Patient/p1")
        assert answer.status_code == 403

    def test_and_parameters_narrow_it_further(self, call: Call) -> None:
        scope = f"patient/Observation.rs?category={CATEGORY}|laboratory patient/Patient.r"
        for who, found in (("frida", {"lab1", "lab3"}), ("ruth", {"lab1"})):
            assert ids(call(who, scope, "GET", "Observation", patient="Patient/p1")) == found
            assert call(who, scope, "GET", "Observation/vital1", patient="Patient/p1").status_code == 404
            assert call(who, scope, "GET", "Patient/p1", patient="Patient/p1").status_code == 200
            assert call(who, scope, "GET", "Patient", patient="Patient/p1").status_code == 403


class TestFhirUser:
    """Who asks for `fhirUser` may read what it names."""

    def test_is_readable_without_another_scope(self, call: Call) -> None:
        for who in ("frida", "ruth"):
            assert call(who, "openid fhirUser", "GET", f"Practitioner/{who}").status_code == 200
            assert call(who, "openid fhirUser", "GET", "Practitioner").status_code == 403
        assert call("ruth", "openid fhirUser", "GET", "Practitioner/frida").status_code == 404
        assert call("ruth", "openid user/Task.rs", "GET", "Practitioner/ruth").status_code == 403

    def test_is_the_record_of_a_patient(self, call: Call) -> None:
        assert call("paul", "openid fhirUser", "GET", "Patient/p1").status_code == 200
        assert call("paul", "openid fhirUser", "GET", "Patient/p2").status_code == 404
        assert call("paul", "openid fhirUser", "GET", "Observation/lab1").status_code == 403

    def test_takes_nothing_away_from_other_scopes(self, call: Call) -> None:
        assert ids(call("ruth", "openid fhirUser user/*.rs", "GET", "Practitioner")) == {"frida", "ruth"}
