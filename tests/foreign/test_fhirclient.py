"""https://github.com/smart-on-fhir/client-py"""

import uuid
from urllib.parse import urlencode

import pytest
from fhirclient.client import FHIRClient
from fhirclient.models.bundle import Bundle
from fhirclient.models.humanname import HumanName
from fhirclient.models.identifier import Identifier
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException, FHIRUnauthorizedException
from requests import HTTPError

from radloop.demo.oauth import AppToken
from tests.server import Server

NUMBERS = "urn:oid:2.999.8"


def logged_in(server: Server, **settings: str) -> FHIRClient:
    """The client after a log-in at the front desk: discovery, PKCE, code and token are its own."""
    app = server.credentials["clients"]["demo-app"]
    smart = FHIRClient(
        {
            "app_id": app["client_id"],
            "api_base": server.settings.fhir_base,
            "redirect_uri": app["redirect_uri"],
        }
        | settings
    )
    smart.wants_patient = False
    assert not smart.prepare()
    password = server.credentials["users"]["frontdesk"]
    browser = AppToken(
        server.settings.origin, app["client_id"], app["redirect_uri"], "frontdesk", password, smart.desired_scope
    )
    landed = browser.landed(smart.authorize_url)
    smart.handle_callback(f"{app['redirect_uri']}?{urlencode(landed, doseq=True)}")
    assert smart.ready
    return smart


@pytest.fixture(scope="module")
def smart(server: Server) -> FHIRClient:
    return logged_in(server, scope="user/*.* openid fhirUser")


@pytest.fixture
def patient() -> Patient:
    made = Patient()
    made.identifier = [Identifier({"system": NUMBERS, "value": uuid.uuid4().hex})]
    made.name = [HumanName({"family": "Chalmers", "given": ["Peter", "James"]})]
    return made


def number_of(patient: Patient) -> str:
    return f"{NUMBERS}|{patient.identifier[0].value}"


def test_logs_in_with_the_scopes_that_it_asks_for_by_itself(server: Server, patient: Patient) -> None:
    smart = logged_in(server)
    assert "user/*.*" in smart.desired_scope.split(), "SMART 1"
    id = patient.create(smart.server)["id"]
    assert Patient.read(id, smart.server).name[0].family == "Chalmers"


def test_reads_what_the_server_does(smart: FHIRClient) -> None:
    statement = smart.server.capabilityStatement
    assert statement.fhirVersion == "4.0.1"
    assert {"Patient", "ServiceRequest"} <= {resource.type for resource in statement.rest[0].resource}


def test_creates_reads_updates_and_deletes(smart: FHIRClient, patient: Patient) -> None:
    id = patient.create(smart.server)["id"]
    read = Patient.read(id, smart.server)
    assert (read.meta.versionId, read.name[0].given) == ("1", ["Peter", "James"])
    assert smart.human_name(read.name[0]) == "Peter James Chalmers"
    read.gender = "female"
    assert read.update(smart.server)["meta"]["versionId"] == "2"
    assert Patient.read_from(f"Patient/{id}/_history/1", smart.server).gender is None
    history = Bundle.read_from(f"Patient/{id}/_history", smart.server)
    assert [entry.request.method for entry in history.entry] == ["PUT", "POST"]
    read.delete(smart.server)
    with pytest.raises(HTTPError) as gone:
        Patient.read(id, smart.server)
    assert gone.value.response.status_code == 410
    with pytest.raises(FHIRNotFoundException):
        Patient.read("nobody", smart.server)


def test_finds_and_goes_through_pages(smart: FHIRClient, patient: Patient) -> None:
    ids = {patient.create(smart.server)["id"] for _ in range(5)}
    search = Patient.where({"identifier": number_of(patient), "_count": "2"})
    pages = list(search.perform_iter(smart.server))
    assert [len(page.entry) for page in pages] == [2, 2, 1]
    assert {one.id for one in search.perform_resources_iter(smart.server)} == ids


def test_commits_a_transaction_and_includes(smart: FHIRClient, patient: Patient) -> None:
    full_url = f"urn:uuid:{uuid.uuid4()}"
    weight = Observation({"status": "final", "code": {"text": "weight"}, "subject": {"reference": full_url}})
    weight.valueQuantity = None
    bundle = Bundle(
        {
            "type": "transaction",
            "entry": [
                {
                    "fullUrl": full_url,
                    "resource": patient.as_json(),
                    "request": {
                        "method": "POST",
                        "url": "Patient",
                        "ifNoneExist": f"identifier={number_of(patient)}",
                    },
                },
                {"resource": weight.as_json(), "request": {"method": "POST", "url": "Observation"}},
            ],
        }
    )
    answer = Bundle(bundle.create(smart.server))
    assert answer.type == "transaction-response"
    assert [entry.response.status[:3] for entry in answer.entry] == ["201", "201"]
    search = Patient.where({"identifier": number_of(patient)}).include("subject", Observation, reverse=True)
    found = list(search.perform_resources_iter(smart.server))
    assert {one.resource_type for one in found} == {"Patient", "Observation"}
    everything = Bundle.read_from(f"Patient/{found[0].id}/$everything", smart.server)
    assert {entry.resource.resource_type for entry in everything.entry} == {"Patient", "Observation"}


def test_follows_a_reference(smart: FHIRClient, patient: Patient) -> None:
    id = patient.create(smart.server)["id"]
    made = Observation({"status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{id}"}})
    read = Observation.read(made.create(smart.server)["id"], smart.server)
    assert read.subject.resolved(Patient).id == id


def test_is_told_what_is_wrong(smart: FHIRClient, patient: Patient) -> None:
    patient.gender = "x"
    with pytest.raises(HTTPError) as refused:
        patient.create(smart.server)
    assert refused.value.response.json()["issue"][0]["expression"] == ["Patient.gender"]


def test_gets_nothing_without_a_token(server: Server) -> None:
    stranger = FHIRClient({"app_id": "stranger", "api_base": server.settings.fhir_base})
    stranger.prepare()
    with pytest.raises(FHIRUnauthorizedException):
        Patient.read("a", stranger.server)
