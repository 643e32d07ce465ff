"""The OpenAPI description is valid and says what the server does: no address less, none more."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from pymongo.database import Database

from radloop.parts import create_parts
from radloop.settings import Settings
from radloop.web import create_app

OF_OTHER_STANDARDS = ("/openapi.json", "/.well-known/")


@pytest.fixture
def app(database: Database, tmp_path: Path) -> Iterator[Flask]:
    parts = create_parts(Settings.from_env({"RADLOOP_DATA_DIR": str(tmp_path)}), database)
    yield create_app(parts)
    parts.imaging.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def description(client: FlaskClient) -> dict:
    return client.get("/fhir/openapi.json").get_json()


def resolved(description: dict, reference: dict) -> dict:
    _, _, kind, name = reference["$ref"].split("/")
    return description["components"][kind][name]


def methods(item: dict) -> set[str]:
    return {method.upper() for method in item if method != "parameters"}


def test_is_valid_openapi_3_1(description: dict) -> None:
    assert description["openapi"].startswith("3.1.")
    validate(description)


def test_is_small_and_smaller_yet_when_packed(client: FlaskClient) -> None:
    plain = client.get("/fhir/openapi.json")
    packed = client.get("/fhir/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert len(plain.data) < 700_000
    assert len(packed.data) < 40_000
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["Content-Encoding"] == "gzip"
    assert all("Accept-Encoding" in answer.headers["Vary"] for answer in (plain, packed))


def test_is_not_sent_to_whoever_has_it(client: FlaskClient) -> None:
    first = client.get("/fhir/openapi.json")
    again = client.get("/fhir/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.data) == (200, 304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    whoever = client.get("/fhir/openapi.json", headers={"If-Match": '"another"', "Range": "bytes=0-1"})
    assert (whoever.status_code, whoever.data) == (200, first.data)


def test_has_the_search_parameters_of_the_capability_statement(client: FlaskClient, description: dict) -> None:
    statement = client.get("/fhir/metadata").get_json(force=True)
    for resource in statement["rest"][0]["resource"]:
        referred = description["paths"][f"/{resource['type']}"]["get"]["parameters"]
        offered = {resolved(description, one)["name"] for one in referred}
        assert offered >= {row["name"] for row in resource["searchParam"]}, resource["type"]


def test_has_the_operations_of_the_capability_statement(client: FlaskClient, description: dict) -> None:
    rest = client.get("/fhir/metadata").get_json(force=True)["rest"][0]
    described = set(description["paths"])
    for row in rest["operation"]:
        assert f"/${row['name']}" in described
    for resource in rest["resource"]:
        for row in resource.get("operation", ()):
            name, type = row["name"], resource["type"]
            places = {f"/{at}{id}/${name}" for at in (type, "{type}") for id in ("", "/{id}")}
            assert places & described, f"{type} ${name}"


def test_every_address_of_the_server_is_described(app: Flask, description: dict) -> None:
    described: dict[str, set[str]] = {}
    for address, item in description["paths"].items():
        described.setdefault(shape(address), set()).update(methods(item))
    for rule in app.url_map.iter_rules():
        address = rule.rule.removeprefix("/fhir")
        if not rule.rule.startswith("/fhir/") or address.startswith(OF_OTHER_STANDARDS):
            continue
        asked = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        found = described.get(shape(address), set())
        if not found and "$" in address:  # the rule for all operations
            found = {method for at, item in description["paths"].items() if "$" in at for method in methods(item)}
        if not found and address.startswith("/<resource_type>"):
            found = described[shape(address.replace("<resource_type>", "Patient"))]
        assert asked <= found, rule.rule


def test_every_address_described_is_one_of_the_server(app: Flask, description: dict) -> None:
    urls = app.url_map.bind("127.0.0.1")
    for address, item in description["paths"].items():
        path = f"/fhir{address}".replace("{type}", "Patient").replace("{version}", "1")
        for method in methods(item):
            urls.match(re.sub(r"{\w+}", "a", path), method)  # raises for what is not there


def test_each_call_has_a_name_of_its_own_and_tells_of_errors(description: dict) -> None:
    names = []
    for item in description["paths"].values():
        for method in methods(item):
            call = item[method.lower()]
            names.append(call["operationId"])
            assert call["responses"]["default"] == {"$ref": "#/components/responses/Refused"}
    assert len(names) == len(set(names)) > 146 * 6


def test_tells_where_tokens_come_from(description: dict) -> None:
    flows = description["components"]["securitySchemes"]["smart"]["flows"]
    assert flows["clientCredentials"]["tokenUrl"] == "http://127.0.0.1:8080/auth/token"
    assert flows["authorizationCode"]["authorizationUrl"] == "http://127.0.0.1:8080/auth/authorize"
    assert description["paths"]["/metadata"]["get"]["security"] == []
    assert description["security"] == [{"smart": []}]


def shape(address: str) -> str:
    """The address with its variables alike: `/*/*/_history`."""
    return re.sub(r"{\w+}|<[^>]*>", "*", address)
