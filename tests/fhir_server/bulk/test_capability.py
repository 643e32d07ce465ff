"""What the CapabilityStatement says of bulk data is what there is, and the other way round."""

from datetime import UTC, datetime

import conformance
from fhir_server.bulk.service import CAPABILITY
from fhir_server.capability import capability_statement
from fhir_server.validation import check_structure
from tests.fhir_server.bulk.conftest import ASYNC, Bulk
from tests.fhir_server.conftest import BASE


def test_each_level_is_claimed_and_has_its_route(bulk: Bulk) -> None:
    statement = capability_statement(
        BASE, datetime.now(UTC), "0", [], {"token": f"{BASE}/token"}, lambda _type: (), [CAPABILITY]
    )
    check_structure(statement)
    (rest,) = statement["rest"]
    operations = {("", operation["name"]): operation["definition"] for operation in rest["operation"]}
    for resource in rest["resource"]:
        for operation in resource.get("operation", ()):
            operations[resource["type"], operation["name"]] = operation["definition"]
    guide = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"
    assert operations == {
        ("", "export"): f"{guide}/export",
        ("", "import"): f"{conformance.CANONICAL}/OperationDefinition/import",
        ("Patient", "export"): f"{guide}/patient-export",
        ("Group", "export"): f"{guide}/group-export",
    }
    assert "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data" in statement["instantiates"]
    for path in ("$export", "Patient/$export"):
        assert bulk.client.get(f"/fhir/{path}", headers=ASYNC).status_code == 202


def test_our_definition_is_among_the_resources_that_are_loaded() -> None:
    urls = {resource["url"] for resource in conformance.conformance_resources()}
    assert f"{conformance.CANONICAL}/OperationDefinition/import" in urls
