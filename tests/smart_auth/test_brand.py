"""https://hl7.org/fhir/smart-app-launch/brands.html"""

import pytest
from flask.testing import FlaskClient

from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.validation import faults
from tests.smart_auth.oauth import FHIR, ORIGIN

BRANDS = "/fhir/.well-known/brands.json"


@pytest.fixture
def practice(repository: Repository) -> None:
    repository.update(
        Access.system("test"),
        {
            "resourceType": "Organization",
            "id": "practice",
            "name": "Harbour Radiology",
            "telecom": [
                {"system": "phone", "value": "+1-555-0100"},
                {"system": "url", "value": "https://h.example.org"},
            ],
            "address": [{"city": "Harbour"}],
        },
    )


def test_names_the_practice_and_its_endpoint(http: FlaskClient, practice: None) -> None:
    bundle = http.get(BRANDS).json
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")
    assert bundle["timestamp"]
    organization, endpoint = (entry["resource"] for entry in bundle["entry"])
    assert organization["name"] == "Harbour Radiology"
    assert organization["telecom"] == [{"system": "url", "value": "https://h.example.org"}]
    assert endpoint["address"] == FHIR
    assert organization["endpoint"] == [{"reference": "Endpoint/fhir"}]


def test_is_valid_fhir(http: FlaskClient, practice: None) -> None:
    assert list(faults(http.get(BRANDS).json)) == []


def test_is_there_before_the_practice_has_said_who_it_is(http: FlaskClient) -> None:
    assert http.get(BRANDS).json["entry"][0]["resource"]["name"] == "Radloop"


def test_is_the_one_that_discovery_names(http: FlaskClient, practice: None) -> None:
    configuration = http.get("/fhir/.well-known/smart-configuration").json
    assert configuration["user_access_brand_bundle"] == f"{ORIGIN}{BRANDS}"
    system, _, value = configuration["user_access_brand_identifier"].partition("|")
    organization = http.get(BRANDS).json["entry"][0]["resource"]
    assert organization["identifier"] == [{"system": system, "value": value}]


def test_is_read_by_any_origin_and_not_twice(http: FlaskClient, practice: None) -> None:
    first = http.get(BRANDS, headers={"Origin": "https://anywhere.example.org"})
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    assert first.headers["ETag"].startswith("W/")
    assert http.get(BRANDS, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    assert http.get(BRANDS, headers={"If-Match": 'W/"1"'}).status_code == 200
