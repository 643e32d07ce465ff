"""Does one bulk job in a process of its own, and prints by how many MB that process grew: `python -m ... job`.

Reads the database's URI and name and the folder of files from its arguments.
"""

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pymongo

from fhir_server.access import Access
from fhir_server.bulk.files import Files
from fhir_server.bulk.jobs import JobStore
from fhir_server.bulk.worker import BulkWorker
from fhir_server.repository import Repository
from fhir_server.store import VersionStore


def peak_mb() -> float:
    # Not getrusage: its peak begins with that of the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(uri: str, name: str, folder: str) -> None:
    database = pymongo.MongoClient(uri, tz_aware=True)[name]

    def now() -> datetime:
        return datetime.now(UTC)

    repository = Repository(VersionStore(database), "http://127.0.0.1:8080/fhir", now)
    # What every process has before its first job: the driver, and the class that checks the type.
    repository.create(Access.system("test"), {"resourceType": "Binary", "contentType": "text/plain", "data": "eA=="})
    before = peak_mb()
    worker = BulkWorker(repository, JobStore(database, now), Files(Path(folder)))
    while worker.run_next(threading.Event()):
        pass
    sys.stdout.write(f"{peak_mb() - before:.0f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
