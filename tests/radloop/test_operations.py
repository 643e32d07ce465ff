"""What the CapabilityStatement says of operations is true, and their definitions can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server.access import Access
from fhir_server.operation import Operation
from fhir_server.operations import standard
from fhir_server.repository import Repository
from radloop import loading
from radloop.parts import Parts, create_parts
from radloop.settings import Settings
from radloop.web import create_app
from referral.scheduling import operations as scheduling

READER = Access.system("test")


@pytest.fixture
def parts(database: Database, tmp_path: Path) -> Iterator[Parts]:
    parts = create_parts(Settings.from_env({"RADLOOP_DATA_DIR": str(tmp_path)}), database)
    loading.load_definitions(parts.repository)
    yield parts
    parts.imaging.close()


@pytest.fixture
def client(parts: Parts) -> FlaskClient:
    return create_app(parts).test_client()


def definition_of(repository: Repository, url: str) -> dict:
    """The OperationDefinition with the URL, or ours that has it as its base."""
    for parameter in ("url", "base"):
        found = repository.search(READER, "OperationDefinition", [(parameter, url)], strict=True).matches
        if found:
            assert len(found) == 1
            return found[0].resource()
    raise AssertionError(f"{url} cannot be read")


def declared(parts: Parts) -> list[Operation]:
    return [
        *standard.operations(parts.repository),
        *parts.subscriptions.operations,
        *scheduling.operations(parts.practice),
    ]


def test_each_operation_has_its_definition(parts: Parts) -> None:
    for operation in declared(parts):
        definition = definition_of(parts.repository, operation.definition)
        assert definition["code"] == operation.name
        assert operation.resource_type in (None, *definition["resource"]) or definition["resource"] == ["Resource"]
        if definition["url"].startswith("http://hl7.org/fhir/"):
            offered = (operation.system, operation.type_level, operation.instance)
            allowed = (definition["system"], definition["type"], definition["instance"])
            assert all(may or not does for does, may in zip(offered, allowed, strict=True)), definition["url"]
        else:  # ours say exactly what is offered
            assert definition["affectsState"] == operation.affects_state
            assert (definition["type"], definition["instance"]) == (operation.type_level, operation.instance)


def test_the_capability_statement_names_each_where_it_can_be_called(parts: Parts, client: FlaskClient) -> None:
    rest = client.get("/fhir/metadata").get_json(force=True)["rest"][0]
    told = {(row["type"], one["definition"]) for row in rest["resource"] for one in row.get("operation", [])}
    for operation in declared(parts):
        types = [operation.resource_type] if operation.resource_type else ["Basic", "Patient", "Task"]
        assert {(type, operation.definition) for type in types} <= told
    for _, url in told:
        assert definition_of(parts.repository, url)


def test_loading_again_makes_no_version(parts: Parts) -> None:
    assert loading.load_definitions(parts.repository) == 0
