"""The audit trail put together: a trail for whoever answers, a job for the worker, and the store behind both."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fhir_server.audit.ingest import Ingester
from fhir_server.audit.resource import Observer
from fhir_server.audit.store import AuditStore
from fhir_server.audit.trail import Trail
from fhir_server.repository import Repository


@dataclass(frozen=True, slots=True)
class Audit:
    trail: Trail
    ingester: Ingester
    store: AuditStore


def create_audit(repository: Repository, folder: Path) -> Audit:
    """folder: of what is not stored yet, on a disk of this machine."""
    site = urlsplit(repository.base_url).netloc
    store = AuditStore(repository.store, repository.parameters, repository.base_url, repository.clock)
    ingester = Ingester(store, folder, Observer(repository.base_url, site), repository.clock)
    return Audit(Trail(folder), ingester, store)
