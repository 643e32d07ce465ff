"""https://github.com/beda-software/fhir-py"""

import uuid

import pytest
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound

from radloop.demo.oauth import BackendToken
from tests.server import Server

NUMBERS = "urn:oid:2.999.7"


@pytest.fixture
def client(server: Server, ehr: BackendToken) -> SyncFHIRClient:
    return SyncFHIRClient(server.settings.fhir_base, authorization=f"Bearer {ehr()}")


@pytest.fixture
def number() -> str:
    return uuid.uuid4().hex


def patient(client: SyncFHIRClient, number: str, **members: object):
    return client.resource(
        "Patient",
        identifier=[{"system": NUMBERS, "value": number}],
        name=[{"family": "Chalmers", "given": ["Peter"]}],
        **members,
    )


def test_creates_reads_updates_patches_and_deletes(client: SyncFHIRClient, number: str) -> None:
    made = patient(client, number, gender="male").save()
    assert (made["meta"]["versionId"], made["name"][0]["family"]) == ("1", "Chalmers")
    read = client.reference("Patient", made.id).to_resource()
    assert read.serialize() == made.serialize()
    read["gender"] = "other"
    assert read.save()["meta"]["versionId"] == "2"
    assert read.patch(gender="female", active=True)["meta"]["versionId"] == "3"
    assert client.get("Patient", made.id)["gender"] == "female"
    assert made.refresh()["meta"]["versionId"] == "3"
    assert made.refresh()["active"] is True  # which is told that it has the newest version
    first = client.execute(f"Patient/{made.id}/_history/1", method="get")
    assert first["gender"] == "male"
    made.delete()
    with pytest.raises(ResourceNotFound):
        client.reference("Patient", made.id).to_resource()
    history = client.execute(f"Patient/{made.id}/_history", method="get")
    assert [entry["request"]["method"] for entry in history["entry"]] == ["DELETE", "PUT", "PUT", "POST"]


def test_finds_and_goes_through_pages(client: SyncFHIRClient, number: str) -> None:
    made = [patient(client, number, birthDate=f"19{year}-01-01").save().id for year in range(70, 77)]
    found = client.resources("Patient").search(identifier=f"{NUMBERS}|{number}")
    assert found.count() == 7
    assert {one.id for one in found.limit(2)} == set(made)
    assert [one.id for one in found.sort("birthdate").limit(3).fetch()] == made[:3]
    assert found.search(birthdate__lt="1972-01-01").sort("-birthdate").first().id == made[1]
    with pytest.raises(MultipleResourcesFound):
        found.get()
    assert set(found.elements("birthDate").first().keys()) >= {"birthDate", "id"}


def test_creates_updates_and_deletes_by_conditions(client: SyncFHIRClient, number: str) -> None:
    found = client.resources("Patient").search(identifier=f"{NUMBERS}|{number}")
    first, made = found.get_or_create(patient(client, number))
    again, made_again = found.get_or_create(patient(client, number))
    assert (made, made_again, again.id) == (True, False, first.id)
    updated, made = found.update(patient(client, number, gender="male"))
    assert (made, updated.id, updated["gender"]) == (False, first.id, "male")
    assert found.patch(gender="female")["gender"] == "female"
    found.delete()
    assert found.first() is None


def test_commits_a_transaction(client: SyncFHIRClient, number: str) -> None:
    full_url = f"urn:uuid:{uuid.uuid4()}"
    observation = client.resource(
        "Observation", status="final", code={"text": "weight"}, subject={"reference": full_url}
    )
    bundle = client.resource("Bundle", type="transaction")
    bundle["entry"] = [
        {
            "fullUrl": full_url,
            "resource": patient(client, number).serialize(),
            "request": {"method": "POST", "url": "Patient"},
        },
        {"resource": observation.serialize(), "request": {"method": "POST", "url": "Observation"}},
    ]
    answer = bundle.save()
    assert [entry["response"]["status"][:3] for entry in answer["entry"]] == ["201", "201"]
    made = client.resources("Patient").search(identifier=f"{NUMBERS}|{number}").get()
    found = client.resources("Observation").search(subject=made.to_reference()).include("Observation", "subject")
    page = found.fetch_raw()["entry"]
    assert {entry["search"]["mode"]: entry["resource"]["resourceType"] for entry in page} == {
        "match": "Observation",
        "include": "Patient",
    }
    assert found.first()["subject"]["reference"] == f"Patient/{made.id}"
    everything = made.execute("$everything", method="get")
    assert {entry["resource"]["resourceType"] for entry in everything["entry"]} == {"Patient", "Observation"}


def test_is_told_what_is_wrong(client: SyncFHIRClient, number: str) -> None:
    wrong = patient(client, number, gender="x")
    assert wrong.is_valid() is False
    assert patient(client, number, gender="male").is_valid()
    with pytest.raises(OperationOutcome) as refused:
        wrong.save()
    assert refused.value.resource["issue"][0]["expression"] == ["Patient.gender"]


def test_calls_operations(client: SyncFHIRClient, number: str) -> None:
    made = patient(client, number).save()
    meta = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}]}
    made.execute("$meta-add", data=meta)
    assert client.get("Patient", made.id)["meta"]["tag"] == [{"code": "x"}]
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    expanded = client.resources("ValueSet").execute("$expand", method="get", params={"url": url})
    assert {"male", "female"} <= {code["code"] for code in expanded["expansion"]["contains"]}


def test_reads_what_the_server_does(client: SyncFHIRClient) -> None:
    assert client.execute("metadata", method="get")["fhirVersion"] == "4.0.1"
