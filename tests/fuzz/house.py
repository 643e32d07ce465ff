"""The whole app in this process over a database of its own, and what must be true of each of its answers."""

import json
from collections import Counter
from typing import Any

from bson import ObjectId
from flask import Flask
from pymongo import MongoClient, monitoring
from werkzeug.test import TestResponse

from fhir_server import fhir_json, fhir_xml
from fhir_server.openapi.routes import PATH
from fhir_server.validation import faults
from radloop import loading
from radloop.parts import create_parts
from radloop.settings import Settings
from radloop.web import create_app
from tests.fhir_server.conftest import PRACTICE
from tests.fuzz.corpus import PATIENT

# Faults of content, which always is at some element.
OF_ELEMENTS = {"structure", "required", "value", "invariant", "code-invalid"}
STORED = ("insert", "update", "delete", "findAndModify")


class Watch(monitoring.CommandListener):
    """Counts what is stored: documents inserted less documents deleted, and documents changed."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._open: dict[int, Any] = {}  # request -> its transaction, or None
        self._within: dict[Any, Counter[str]] = {}  # transaction -> what it would store

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in STORED:
            within = event.command.get("autocommit") is False
            self._open[event.request_id] = _session(event.command) if within else None
        elif event.command_name in ("commitTransaction", "abortTransaction"):
            self._open[event.request_id] = _session(event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.request_id not in self._open:
            return
        session = self._open.pop(event.request_id)
        if event.command_name == "commitTransaction":
            self.count.update(self._within.pop(session, Counter()))
        elif event.command_name == "abortTransaction":
            self._within.pop(session, None)
        else:
            into = self.count if session is None else self._within.setdefault(session, Counter())
            into.update(_stored(event.command_name, event.reply))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._open.pop(event.request_id, None)

    def state(self) -> tuple[int, int]:
        return self.count["there"], self.count["changed"]


def _session(command: Any) -> Any:
    return bytes(command["lsid"]["id"])


def _stored(name: str, reply: Any) -> dict[str, int]:
    if name == "insert":
        return {"there": reply["n"]}
    if name == "delete":
        return {"there": -reply["n"]}
    if name == "update":
        return {"there": len(reply.get("upserted", ())), "changed": reply.get("nModified", 0)}
    return {"changed": 1 if reply.get("value") else 0}


class Broken(AssertionError):
    """A property that does not hold, with the request that shows it."""


class House:
    """An app, open to everybody as a system of the practice. `ask` a request, `inspect` all that is stored."""

    def __init__(self, mongodb_uri: str, folder: str) -> None:
        self.watch = Watch()
        self._mongo: MongoClient = MongoClient(mongodb_uri, tz_aware=True, event_listeners=[self.watch])
        self.database = self._mongo[f"fuzz_{ObjectId()}"]
        settings = Settings.from_env({"RADLOOP_DATA_DIR": folder, "RADLOOP_OPEN": "true"})
        self.parts = create_parts(settings, self.database)
        loading.load_definitions(self.parts.repository)
        self.parts.repository.update(PRACTICE, PATIENT | {"id": "a"})
        self.app: Flask = create_app(self.parts)
        self.client = self.app.test_client()
        self.description: dict = self.client.get(f"/fhir{PATH}").get_json()
        self.operations = sorted(address for address in self.description["paths"] if "$" in address)
        self.statuses: Counter[int] = Counter()

    def close(self) -> None:
        self._mongo.drop_database(self.database.name)
        self.parts.imaging.close()
        self._mongo.close()

    def ask(self, request: dict) -> TestResponse:
        """The answer. Raises Broken when something is wrong with it, or with what was stored meanwhile."""
        before = self.watch.state()
        answer = self.client.open(**request)
        self.statuses[answer.status_code] += 1
        try:
            check(answer, request)
            if answer.status_code >= 400:
                assert self.watch.state() == before, "stored something of what it refused"
            elif request["method"] in ("PUT", "POST") and answer.status_code in (200, 201):
                self._read_again(answer)
        except AssertionError as error:
            raise Broken(f"{error}\n{request}\n{answer.status} {answer.headers}\n{answer.text[:2000]}") from None
        return answer

    def _read_again(self, answer: TestResponse) -> None:
        location = answer.headers.get("Location")
        if location is None:
            return
        stored = self.client.get(location, headers={"Accept": "application/fhir+json"})
        assert stored.status_code == 200, f"{location}: {stored.status}"
        assert stored.headers["ETag"] == answer.headers["ETag"]

    def inspect(self) -> int:
        """How many versions there are. Raises Broken for one that is not whole, not valid or not in its place."""
        count = 0
        store = self.parts.repository.store
        for resource_type in store.types():
            documents = self.database[f"versions_{resource_type}"].find({}).sort([("id", 1), ("v", 1)])
            previous: dict = {"id": None}
            for document in documents:
                count += 1
                name = f"{resource_type}/{document['id']}/_history/{document['v']}"
                if document["id"] == previous["id"]:
                    _require(document["v"] == previous["v"] + 1, f"{name}: a gap")
                    _require("keys" not in previous, f"{name}: the version before has search keys")
                self._inspect_version(resource_type, document, name)
                previous = document
        return count

    def _inspect_version(self, resource_type: str, document: dict, name: str) -> None:
        answer = self.client.get(f"/fhir/{name}", headers={"Accept": "application/fhir+json"})
        if document["op"] == "delete":
            _require(answer.status_code == 410, f"{name}: {answer.status}")
            return
        resource = fhir_json.loads(document["body"])
        _require(answer.status_code in (200, 404), f"{name}: {answer.status}")  # 404: deleted since
        _require(isinstance(resource, dict) and resource["id"] == document["id"], f"{name}: another id")
        _require(resource["meta"]["versionId"] == str(document["v"]), f"{name}: another version")
        found = faults(resource)
        _require(found == [], f"{name}: {found}")


def check(answer: TestResponse, request: dict) -> None:
    """What is true of every answer."""
    assert answer.status_code < 500, "a fault of the server"
    assert answer.headers["X-Request-Id"]
    if answer.status_code < 400 or request["method"] == "HEAD":
        if answer.data and answer.mimetype == "application/fhir+json":
            json.loads(answer.data)
        elif answer.data and answer.mimetype == "application/fhir+xml":
            fhir_xml.loads(answer.data)
        return
    outcome: Any = (
        fhir_xml.loads(answer.data) if answer.mimetype == "application/fhir+xml" else json.loads(answer.data)
    )
    assert isinstance(outcome, dict) and outcome.get("resourceType") == "OperationOutcome", "no OperationOutcome"
    assert faults(outcome) == [], f"an outcome that is none: {faults(outcome)}"
    for issue in outcome["issue"]:
        assert issue["severity"] in ("error", "fatal") or answer.status_code < 400
        assert issue["diagnostics"]
        if issue["code"] in OF_ELEMENTS and about_content(request):
            assert issue.get("expression"), f"no element is named: {issue}"


def about_content(request: dict) -> bool:
    """Whether a fault can only be in the content: there are no search parameters, which are no elements."""
    searches = request.get("query_string") or "If-None-Exist" in request["headers"] or "_search" in request["path"]
    return bool(request.get("data")) and not searches


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise Broken(text)
