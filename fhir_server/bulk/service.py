"""Bulk data put together: routes for the web, a job for the worker, claims for the CapabilityStatement."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flask import Blueprint
from pymongo.database import Database

import conformance
from fhir_server.bulk import routes
from fhir_server.bulk.files import Files
from fhir_server.bulk.jobs import JobStore
from fhir_server.bulk.openapi import paths
from fhir_server.bulk.worker import BulkWorker
from fhir_server.capability import Capability
from fhir_server.repository import Repository

_GUIDE = "http://hl7.org/fhir/uv/bulkdata"

CAPABILITY = Capability(
    instantiates=(f"{_GUIDE}/CapabilityStatement/bulk-data",),
    operations={
        "": (
            {"name": "export", "definition": f"{_GUIDE}/OperationDefinition/export"},
            {"name": "import", "definition": f"{conformance.CANONICAL}/OperationDefinition/import"},
        ),
        "Patient": ({"name": "export", "definition": f"{_GUIDE}/OperationDefinition/patient-export"},),
        "Group": ({"name": "export", "definition": f"{_GUIDE}/OperationDefinition/group-export"},),
    },
)


@dataclass(frozen=True, slots=True)
class Bulk:
    """web uses `blueprint`, `capability` and `paths` (for the OpenAPI description), worker `worker.run`."""

    blueprint: Blueprint
    worker: BulkWorker
    capability: Capability = CAPABILITY
    paths: Mapping[str, dict] = field(default_factory=paths)


def create_bulk(database: Database, repository: Repository, folder: Path, max_upload_bytes: int) -> Bulk:
    """folder: where the files of jobs lie, shared by web and worker."""
    jobs = JobStore(database, lambda: datetime.now(UTC))
    files = Files(folder)
    return Bulk(
        blueprint=routes.create_blueprint(repository, jobs, files, max_upload_bytes),
        worker=BulkWorker(repository, jobs, files),
    )
