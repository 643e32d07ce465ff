"""Fixtures that every package's tests share: a real MongoDB of our own, and a database a test."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
from pymongo.database import Database

from fhir_server.access import AUDIT_TRAIL
from fhir_server.audit.service import Audit, create_audit
from fhir_server.repository import Repository
from radloop import mongod
from tests.auditor import AUDITOR, Audited
from tests.server import Server, running

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A one-member replica set for this run, or the one that RADLOOP_TEST_MONGODB_URI names."""
    given = os.environ.get("RADLOOP_TEST_MONGODB_URI")
    if given:
        yield given
        return
    port = mongod.free_port()
    process = mongod.start(tmp_path_factory.mktemp("mongod"), port, cache_gb=0.5)
    yield mongod.uri(port)
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(scope="session")
def mongo_client(mongodb_uri: str) -> Iterator[pymongo.MongoClient]:
    with pymongo.MongoClient(mongodb_uri, tz_aware=True) as client:
        yield client


@pytest.fixture
def database(mongo_client: pymongo.MongoClient) -> Iterator[Database]:
    """An empty database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture
def audit(repository: Repository, tmp_path: Path) -> Iterator[Audit]:
    """The audit trail of the package's repository."""
    audit = create_audit(repository, tmp_path / "audit")
    yield audit
    audit.trail.close()


@pytest.fixture
def audited(audit: Audit, repository: Repository) -> Audited:
    """Gives the AuditEvents that a search finds, oldest first; each is valid, as far as its profile is known here."""

    def search(query: str = "") -> list[dict]:
        audit.ingester.catch_up()
        matches = repository.search(AUDITOR, AUDIT_TRAIL, f"{query}&_count=1000").matches
        found = [version.resource() for version in reversed(matches)]
        for event in found:
            faults, said = repository.judge(event)
            assert not faults
            assert {one.expression for one in said} <= {"AuditEvent.meta.profile" if "meta" in event else ""}, said
        return found

    return search


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The large corpora, where they are; skips with the reason where they are not."""
    data = SHARED / "data"
    if not data.exists():
        pytest.skip("the large corpora (../shared/data) are not on this machine")
    return data


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A whole demonstration server, shared by the tests that only add to it."""
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guarantee-events", default="100000", help="orders written while processes are killed")
    parser.addoption("--guarantee-seed", default="1", help="of which process is killed when")
