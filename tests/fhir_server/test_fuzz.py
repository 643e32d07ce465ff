"""Whatever is sent: never a 5xx, and what is refused changes nothing. The same requests each time, by seed."""

import json
import random
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.repository import Repository
from tests.fhir_server.test_rest import PATIENT, send

REQUESTS = 600
SEGMENTS = ["Patient", "Patient", "a", "b", "_history", "1", "$x", "_search", "metadata", "Binary", "Nothing"]
SEGMENTS += ["%00", "%ff", "..", "Bundle", "9999999999", "", "0", "\u00e4", "a" * 70]
ADDRESSES = ["Patient/a", "Patient", "", "Binary/b", "Binary", "Patient/b", "_history", "Basic/a", "Bundle"]
QUERIES = ["_format=xml", "_format=", "_pretty=true", "_count=0", "_count=" + "9" * 20, "_since=2020", "_at=2020-01"]
QUERIES += [
    "_at=0000",
    "_at=9999-12-31",
    "_before=1",
    "identifier=a|b",
    "family=x",
    "%ff=%ff",
    "_since=%ff",
    "\xff=1",
]
QUERIES += ["_elements=name", "_summary=true", "_id=a", "&&&", "="]
HEADERS = {
    "Accept": ["application/fhir+xml", "*/*", ";;", "q=1", "application/fhir+json;q=x", "image/png", "a/b;q=0,*/*"],
    "If-Match": ['W/"1"', '"1"', "*", 'W/"999999999999"', "x"],
    "If-None-Match": ["*", 'W/"1"', '"', "x"],
    "If-Modified-Since": ["x", "Thu, 01 Jan 2099 00:00:00 GMT", "Thu, 99 Jan 2099 00:00:00 GMT", "0"],
    "Prefer": ["return=minimal", "return=OperationOutcome", "handling=strict", ";;=,"],
    "If-None-Exist": ["identifier=a|b", "", "?", "family=x&_count=1", "%ff=1", "_id"],
    "X-Security-Context": ["Patient/a", "x y"],
    "Content-Encoding": ["gzip", ""],
}
MEMBERS = (
    "resourceType id meta name family given _given gender contained extension url valueString valueReference "
    "reference text div status entry request method resource fullUrl type identifier system value parameter "
    "part link other birthDate _birthDate contentType data securityContext path op from versionId lastUpdated "
    "tag coding code"
).split()
VALUES = ["", "a", "male", "Patient/a", "urn:uuid:1", "Patient?family=x", "2020-01-01", 1, -1, 1.5, True, None]
VALUES += ["\x01", "\ud800", '<div xmlns="http://www.w3.org/1999/xhtml">x</div>', 10**30, [], {}]
URLS = ["Patient", "Patient/a", "Patient?family=x", "Patient/a/_history", "_history", "Patient/a/_history/1", "/", ""]
URLS += ["Patient/", "Patient?", "Patient?_id", "?x=1", "_history?_at=2020", "Binary/b", 5]
PATHS = ["Patient.name", "Patient", "Patient.name[0].given", "Patient.gender", "name.where(a=", "`x", "a[" + "9" * 30]
POINTERS = ["/name", "/name/0", "/name/-", "", "/x/y", "/gender", "/id", "~", "/name/0/family", 5]
TAGS = ["Patient", "name", "family", "div", "text", "status", "extension", "x", "contained", "gender", "birthDate"]
ATTRIBUTES = ["", ' value="x"', ' xmlns="http://hl7.org/fhir"', ' xmlns="http://www.w3.org/1999/xhtml"', ' url="x"']
ATTRIBUTES += [' id="1"', ' value=""', ' xmlns:a="u" a:b="c"', ' xml:lang="de"']
TYPES = ["application/fhir+json"] * 5 + ["application/json", "application/fhir+xml", "application/json-patch+json"]
TYPES += ["text/plain", "", "application/x-www-form-urlencoded", "x;charset=utf-16"]


class Fuzz:
    """Makes requests that are nearly right."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def odds(self, chance: float) -> bool:
        return self.random.random() < chance

    def value(self, depth: int = 0) -> Any:
        if depth > 4 or self.odds(0.35):
            return self.pick(VALUES)
        if self.odds(0.3):
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return {self.pick(MEMBERS): self.value(depth + 1) for _ in range(self.random.randint(0, 5))}

    def resource(self) -> dict:
        made = self.value()
        made = dict(made) if isinstance(made, dict) else {}
        made["resourceType"] = self.pick(["Patient", "Bundle", "Binary", "Parameters", "Observation", "Basic", "X"])
        if self.odds(0.5):
            made["id"] = self.pick(["a", "b", "", 5])
        if made["resourceType"] == "Bundle":
            made["type"] = self.pick(["transaction", "batch", "batch", "x"])
            made["entry"] = [self.entry() for _ in range(self.random.randint(0, 4))]
        if made["resourceType"] == "Parameters":
            made["parameter"] = [self.operation() for _ in range(self.random.randint(0, 3))]
        return made

    def entry(self) -> dict:
        request = {
            "method": self.pick(["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "X", 5]),
            "url": self.pick(URLS),
            "ifMatch": self.pick([None, 'W/"1"', 5]),
            "ifNoneExist": self.pick([None, "family=x", 5, "?"]),
            "ifNoneMatch": self.pick([None, "*", 5, 'W/"1"']),
            "ifModifiedSince": self.pick([None, "x", "2020-01-01T00:00:00Z", "Thu", 5, "20"]),
        }
        entry = {"request": {name: value for name, value in request.items() if value is not None}}
        entry["fullUrl"] = self.pick(["urn:uuid:1", "urn:uuid:2", "http://x/Patient/1", 5, ""])
        return entry | ({"resource": self.pick([self.resource, self.value])()} if self.odds(0.8) else {})

    def operation(self) -> dict:
        kind = self.pick(["valueString", "valueHumanName", "part", "resource", "value", "valueX"])
        parts = [
            {"name": "type", "valueCode": self.pick(["add", "delete", "insert", "replace", "move"])},
            {"name": "path", "valueString": self.pick(PATHS)},
            {"name": "name", "valueString": self.pick(["gender", "name", "id", "x", "extension"])},
            {"name": "value", kind: self.value(2)},
            {"name": "index", "valueInteger": self.pick([0, 1, -1, True, 10**30])},
            {"name": "source", "valueInteger": 0},
            {"name": "destination", "valueInteger": self.pick([0, 5])},
        ]
        return {"name": "operation", "part": parts}

    def json_patch(self) -> list:
        names = ["add", "remove", "replace", "move", "copy", "test", "x"]
        return [
            {"op": self.pick(names), "path": self.pick(POINTERS), "from": self.pick(POINTERS), "value": self.value()}
            for _ in range(self.random.randint(0, 4))
        ]

    def xml(self, depth: int = 0) -> str:
        tag, attribute = self.pick(TAGS), self.pick(ATTRIBUTES)
        if depth > 4 or self.odds(0.3):
            return f"<{tag}{attribute}/>"
        others = ["t", "&amp;", "<!--c-->", "<?p?>", "<![CDATA[x]]>"]
        inner = [
            self.xml(depth + 1) if self.odds(0.5) else self.pick(others) for _ in range(self.random.randint(0, 3))
        ]
        return f"<{tag}{attribute}>{''.join(inner)}</{tag}>"

    def content(self, type: str) -> bytes:
        if type == "application/fhir+xml":
            text = f'<Patient xmlns="http://hl7.org/fhir">{self.xml()}{self.xml()}</Patient>'
            made = text.encode()
        elif type == "application/json-patch+json":
            made = json.dumps(self.json_patch()).encode()
        else:
            made = json.dumps(self.pick([self.resource, self.resource, self.value])()).encode()
        return made[:-3] if self.odds(0.05) else made

    def request(self) -> dict:
        path = "/".join(self.pick(SEGMENTS) for _ in range(self.random.randint(0, 4)))
        if self.odds(0.5):
            path = self.pick(ADDRESSES)
        query = "&".join(self.pick(QUERIES) for _ in range(self.random.randint(1, 3))) if self.odds(0.4) else ""
        method = self.pick(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"])
        type = self.pick(TYPES)
        return {
            "path": f"/fhir/{path}",
            "query_string": query,
            "method": method,
            "headers": {name: self.pick(values) for name, values in HEADERS.items() if self.odds(0.12)},
            "content_type": type or None,
            "data": self.content(type) if method in ("POST", "PUT", "PATCH", "DELETE") else None,
        }


@pytest.mark.parametrize(
    ("seed", "count"), [(1, REQUESTS), pytest.param(2, 20_000, marks=pytest.mark.slow, id="many")]
)
def test_nothing_sent_is_answered_by_a_5xx_or_half_done(
    app: Flask, client: FlaskClient, repository: Repository, seed: int, count: int
) -> None:
    send(client, "PUT", "/fhir/Patient/a", {**PATIENT, "id": "a"})
    fuzz = Fuzz(seed)
    before = written(repository)
    for _ in range(count):
        asked = fuzz.request()
        answer = client.open(**asked)
        assert answer.status_code < 500, (answer.text[:500], asked)
        after = written(repository)
        if answer.status_code >= 400:
            assert after == before, asked
        before = after


def written(repository: Repository) -> int:
    """How many versions there are."""
    return sum(repository.store.count(resource_type, {}) for resource_type in repository.store.types())
