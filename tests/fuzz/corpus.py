"""Valid resources to begin from: our own definitions and demonstration patients; HL7's examples where they are."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import conformance
from tests.conftest import SHARED

MAX_BYTES = 12_000  # of an example: long ones make slow requests, and no others
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "identifier": [{"system": "urn:oid:2.999.1", "value": "1"}],
    "name": [{"family": "Chalmers", "given": ["Peter", "James"], "_given": [None, {"id": "g"}]}],
    "gender": "male",
    "_birthDate": {"extension": [{"url": "http://example.org/time", "valueTime": "10:00:00"}]},
    "birthDate": "1974-12-25",
    "contained": [{"resourceType": "Organization", "id": "o", "name": "Lakeside"}],
    "managingOrganization": {"reference": "#o"},
}
BINARY = {"resourceType": "Binary", "contentType": "text/plain", "data": "YWJj"}


@cache
def corpus() -> tuple[dict, ...]:
    """Resources as their authors made them."""
    return (PATIENT, BINARY, *_ours(), *_examples())


def free(resource: Any) -> Any:
    """The resource with its references made into displays, so that nothing else has to be stored before it."""
    if isinstance(resource, list):
        return [free(one) for one in resource]
    if isinstance(resource, dict):
        return {
            "display" if name == "reference" and isinstance(value, str) and value[:1] != "#" else name: free(value)
            for name, value in resource.items()
        }
    return resource


def _ours() -> Iterator[dict]:
    for resource in conformance.conformance_resources():
        if len(json.dumps(resource)) < MAX_BYTES:
            yield resource
    lines = (files("radloop") / "data" / "fhir" / "synthea-patients.ndjson").read_text().splitlines()
    yield from map(json.loads, lines)


def _examples() -> Iterator[dict]:
    folder = SHARED / "data" / "fhir" / "hl7-examples"
    for file in sorted(folder.glob("*/*.json")):
        if file.stat().st_size < MAX_BYTES:
            yield json.loads(file.read_text())
