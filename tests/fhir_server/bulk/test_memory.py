"""Exports and imports of any size take the same memory: attachments of 1 GB go through a process that stays small."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pymongo.database import Database

from fhir_server import fhir_json
from fhir_server.bulk.importing import UPLOAD
from fhir_server.bulk.jobs import RECEIVING, File, new_job
from fhir_server.bulk.routes import IMPORT_COUNTS
from fhir_server.repository import Repository
from tests.fhir_server.bulk.conftest import Bulk
from tests.fhir_server.conftest import BASE, PRACTICE

ATTACHMENT_BYTES = 4 * 2**20
COUNT = 256
EXPORT_GROWTH_MB = 100  # a reply of MongoDB (16 MB), a few times over while it is taken apart
IMPORT_GROWTH_MB = 150  # a batch (4 MB and the last line) as text, parsed, validated, indexed and sent


def attachments(count: int) -> Iterator[dict]:
    for number in range(count):
        data = base64.b64encode(os.urandom(ATTACHMENT_BYTES * 3 // 4)).decode()
        yield {"resourceType": "Binary", "id": f"b{number}", "contentType": "application/pdf", "data": data}


def grown_by(database: Database, mongodb_uri: str, bulk: Bulk) -> int:
    """MB that a process of its own grew by while it did all jobs."""
    command = [sys.executable, "-m", "tests.fhir_server.bulk.memory", mongodb_uri, database.name, str(bulk.folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
    return int(done.stdout)


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


@pytest.mark.slow
def test_export_of_a_gigabyte(
    bulk: Bulk, repository: Repository, database: Database, mongodb_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for attachment in attachments(COUNT):
        repository.update(PRACTICE, attachment)
    status = bulk.kick_off("$export?_type=Binary")
    grown = grown_by(database, mongodb_uri, bulk)
    manifest = bulk.manifest(status)
    size = sum(path.stat().st_size for path in bulk.folder.rglob("*.ndjson"))
    tell(capsys, f"an export of {size // 2**20} MB made its process grow by {grown} MB")
    assert sum(file["count"] for file in manifest["output"]) == COUNT
    assert size > COUNT * ATTACHMENT_BYTES
    assert len(manifest["output"]) > 1
    assert grown < EXPORT_GROWTH_MB


@pytest.mark.slow
def test_import_of_a_gigabyte(
    bulk: Bulk, database: Database, mongodb_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    grown = []
    for count in (COUNT // 4, COUNT):
        job = new_job("import", f"{BASE}/$import", PRACTICE, datetime.now(UTC), {}, RECEIVING)
        bulk.jobs.add(job, job.begun)
        lines = (fhir_json.dumps(attachment) + b"\n" for attachment in attachments(count))
        size = bulk.files.receive(job.id, UPLOAD, lines, max_bytes=2**31)
        bulk.jobs.received(job, (File("work", UPLOAD, UPLOAD, size=size),))
        grown.append(grown_by(database, mongodb_uri, bulk))
        tell(capsys, f"an import of {size // 2**20} MB made its process grow by {grown[-1]} MB")
        assert bulk.manifest(f"/fhir/bulk/{job.id}")["extension"][IMPORT_COUNTS] == {"stored": count, "refused": 0}
    assert max(grown) < IMPORT_GROWTH_MB
    assert grown[1] - grown[0] < 100  # four times the data: no more than what the allocator keeps
