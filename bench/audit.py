"""What the audit trail costs a read: processor time of a request with it and without, in turns, in one process.

`python -m bench.audit`. Processor time, because where other things are done beside, elapsed time means little.
"""

import statistics
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pymongo
from flask import Flask, g

from fhir_server import http, routes
from fhir_server.access import Access
from fhir_server.audit import rest
from fhir_server.audit.service import create_audit
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from radloop import mongod

ROUNDS, READS = 40, 50


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        port = mongod.free_port()
        process = mongod.start(Path(folder) / "mongod", port, cache_gb=0.5)
        try:
            with pymongo.MongoClient(mongod.uri(port), tz_aware=True) as client:
                measure(client, Path(folder) / "audit")
        finally:
            process.terminate()
            process.wait(60)


def measure(client: pymongo.MongoClient, folder: Path) -> None:
    store = VersionStore(client[f"bench_{uuid.uuid4().hex[:8]}"])
    repository = Repository(store, "http://127.0.0.1:8080/fhir", lambda: datetime.now(UTC))
    access = Access.system("bench")
    repository.update(access, {"resourceType": "Patient", "id": "one", "name": [{"family": "Byron"}]})
    audit = create_audit(repository, folder)
    apps = {"without": app(repository, access), "with": app(repository, access)}
    rest.install(apps["with"], audit.trail)
    times: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, one in apps.items():
            asking, begun = one.test_client(), time.process_time()
            for _ in range(READS):
                if asking.get("/fhir/Patient/one").status_code != 200:
                    raise RuntimeError("a read was not answered")
            times[name].append((time.process_time() - begun) / READS * 1e6)
    without, with_it = (statistics.median(times[name]) for name in ("without", "with"))
    print(f"FHIR read: {without:.0f} us of a processor, with the audit trail {with_it:.0f}: {with_it / without:.3f}")
    begun, cpu = time.perf_counter(), time.process_time()
    made = audit.ingester.catch_up()
    took, worked = time.perf_counter() - begun, time.process_time() - cpu
    print(f"stored {made} AuditEvents in {took:.1f} s, with pauses: {worked / made * 1e6:.0f} us of a processor each")


def app(repository: Repository, access: Access) -> Flask:
    made = Flask("bench")
    http.install(made)

    @made.before_request
    def let_in() -> None:
        g.access = access

    made.register_blueprint(routes.create_blueprint(repository, [], dict), url_prefix="/fhir")
    return made


if __name__ == "__main__":
    main()
