"""Bulk data over HTTP with a worker of the test's own."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database
from werkzeug.test import TestResponse

from fhir_server.bulk import routes
from fhir_server.bulk.files import Files
from fhir_server.bulk.jobs import JobStore
from fhir_server.bulk.worker import BulkWorker
from fhir_server.repository import Repository
from tests.fhir_server.conftest import BASE

MAX_UPLOAD = 8 * 2**20
ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json"}


@dataclass
class Bulk:
    """The service and how a client uses it."""

    client: FlaskClient
    repository: Repository
    jobs: JobStore
    files: Files
    folder: Path
    moved: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        """The time of leases and of expiry, which a test can move."""
        return datetime.now(UTC) + self.moved

    def worker(self, slice_s: float = 60) -> BulkWorker:
        return BulkWorker(self.repository, self.jobs, self.files, slice_s)

    def kick_off(self, address: str = "$export", **headers: str) -> str:
        """The address of the job's status, as a path."""
        answer = self.client.get(f"/fhir/{address}", headers=ASYNC | headers)
        assert answer.status_code == 202, answer.text
        return answer.headers["Content-Location"].removeprefix(BASE.removesuffix("/fhir"))

    def send(self, body: bytes, content_type: str = "application/fhir+ndjson", **headers: str) -> TestResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/fhir/$import", data=body, content_type=content_type, headers=ASYNC | names)

    def work(self) -> None:
        """Do all that is to be done."""
        stop = threading.Event()
        while self.worker().run_next(stop):
            pass

    def manifest(self, status: str) -> dict:
        answer = self.client.get(status)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def lines(self, manifest: dict, kind: str = "output", type: str | None = None) -> list[dict]:
        """The resources of the files, which must be as many as the manifest says."""
        found: list[dict] = []
        for file in manifest[kind]:
            if type in (None, file["type"]):
                answer = self.client.get(file["url"].removeprefix(BASE.removesuffix("/fhir")))
                assert answer.status_code == 200, answer.text
                resources = [json.loads(line) for line in answer.data.splitlines()]
                assert len(resources) == file["count"]
                assert {resource["resourceType"] for resource in resources} == {file["type"]}
                found += resources
        return found

    def export(self, address: str = "$export", **headers: str) -> dict:
        """The manifest of an export from kick-off to end."""
        status = self.kick_off(address, **headers)
        self.work()
        return self.manifest(status)

    def import_(self, *resources: dict) -> dict:
        """The manifest of an import of these."""
        answer = self.send(b"\n".join(json.dumps(resource).encode() for resource in resources))
        assert answer.status_code == 202, answer.text
        self.work()
        return self.manifest(answer.headers["Content-Location"].removeprefix(BASE.removesuffix("/fhir")))


@pytest.fixture
def bulk(app: Flask, repository: Repository, database: Database, tmp_path: Path) -> Iterator[Bulk]:
    jobs = JobStore(database, lambda: service.now())
    files = Files(tmp_path / "bulk")
    app.register_blueprint(
        routes.create_blueprint(repository, jobs, files, MAX_UPLOAD, settle=timedelta()), url_prefix="/fhir"
    )
    service = Bulk(app.test_client(), repository, jobs, files, tmp_path / "bulk")
    yield service
