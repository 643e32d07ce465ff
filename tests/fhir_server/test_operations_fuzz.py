"""No parameter of any operation, however wrong, is answered with a 5xx, and what is refused changes nothing."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from fhir_server.operation import Operation
from fhir_server.operations import standard
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE
from tests.fhir_server.operations import app_with, post
from tests.fhir_server.test_operations_terminology import ALL, CODE_SYSTEM, MAP

ROUNDS = 60  # of each operation
TEXTS = (
    "",
    "a",
    "urn:exams",
    "us",
    "Patient/p1",
    "2026-01-01",
    "true",
    "5",
    "-1",
    "9" * 30,
    "$where",
    "a|b",
    "\\",
    ",",
)
TEXTS += (
    "\ud800",
    "\0",
    "x" * 3000,
    "Type.1",
    "2026-01-01T00:00:00Z",
    "٣",
    "{}",
    "http://hl7.org/fhir/ValueSet/mimetypes",
)
TYPES = (
    "String",
    "Code",
    "Uri",
    "Boolean",
    "Integer",
    "Coding",
    "CodeableConcept",
    "Meta",
    "Instant",
    "Date",
    "Period",
    "",
)


def junk(choose: random.Random, depth: int = 0) -> Any:
    """Some JSON."""
    kind = choose.randrange(8 if depth < 3 else 4)
    if kind < 3:
        return choose.choice(TEXTS)
    if kind == 3:
        return choose.choice((None, True, False, 0, 5, -1, 10**30, 1.5))
    if kind < 6:
        names = ("system", "code", "display", "version", "coding", "tag", "profile", "resourceType", "concept", "x")
        return {choose.choice(names): junk(choose, depth + 1) for _ in range(choose.randrange(4))}
    return [junk(choose, depth + 1) for _ in range(choose.randrange(3))]


def broken(choose: random.Random, resource: dict) -> dict:
    """The resource with something in it replaced."""
    copy = json.loads(json.dumps(resource))
    at: Any = copy
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = choose.choice(keys) if keys else None
        if key is None:
            return copy
        if not isinstance(at[key], dict | list) or choose.random() < 0.3:
            at[key] = junk(choose)
            return copy
        at = at[key]


def entry(choose: random.Random, names: list[str]) -> Any:
    kind = choose.randrange(10)
    if kind == 0:
        return junk(choose)
    name = choose.choice(names)
    if kind < 4:
        return {"name": name, "resource": broken(choose, choose.choice((ALL, CODE_SYSTEM, MAP)))}
    return {"name": name, f"value{choose.choice(TYPES)}": junk(choose)}


def names_of(client: FlaskClient, path: str) -> list[str]:
    """The parameters of an operation, as its refusal of another one lists them; else those of a search."""
    answer = post(client, path, [{"name": "x-x", "valueString": "x"}]).get_json(force=True)
    listed = answer["issue"][0]["diagnostics"].partition("there are ")[2]
    return listed.split(", ") if listed else ["patient", "code", "date", "max", "_id", "x"]


def levels(operation: Operation) -> list[str]:
    type = operation.resource_type or "Patient"
    found = [f"{type}/${operation.name}"] if operation.type_level else []
    ids = {"Patient": "p1", "ValueSet": "all", "CodeSystem": "exams", "ConceptMap": "map"}
    return found + ([f"{type}/{ids.get(type, 'x')}/${operation.name}"] if operation.instance else [])


@pytest.mark.parametrize("send", [lambda body: body, lambda body: {"resourceType": "Parameters", "parameter": body}])
def test_nothing_is_answered_with_a_5xx(repository: Repository, send: Callable[[Any], Any]) -> None:
    choose = random.Random(4)
    for resource in (CODE_SYSTEM, ALL | {"id": "all"}, MAP, {"resourceType": "Patient", "id": "p1"}):
        repository.update(PRACTICE, resource)
    operations = [operation for operation in standard.operations(repository) if operation.name != "meta-add"]
    client: FlaskClient = app_with(repository, operations).test_client()
    for operation in operations:
        for path in levels(operation):
            names = names_of(client, path)
            for _ in range(ROUNDS):
                entries = [entry(choose, names) for _ in range(choose.randrange(1, 4))]
                body = send(entries if choose.random() < 0.9 else junk(choose))
                answer = post(client, path, json.dumps(body).encode())
                assert answer.status_code < 500, (path, body, answer.text)
                query = [(choose.choice(names), choose.choice(TEXTS[:14])) for _ in range(choose.randrange(4))]
                answer = client.get(f"/fhir/{path}", query_string=query)
                assert answer.status_code < 500, (path, query, answer.text)
                if answer.status_code >= 400:
                    assert answer.get_json(force=True)["resourceType"] == "OperationOutcome"
    assert repository.read(PRACTICE, "Patient", "p1").version == 1
    assert repository.read(PRACTICE, "CodeSystem", "exams").version == 1
