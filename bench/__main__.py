"""What reads, writes, searches, frames and events cost on this machine: `make bench`.

All in one run against one demonstration server, each beside what the layers below can do at most (an empty answer
over HTTP, a bare MongoDB command, Flask with nothing but that command), so that the ratios mean something on a
shared machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pymongo

from bench import bare
from bench.demo import a_study, app_headers
from bench.events import event_latencies
from bench.load import Connection, Figures, run
from bench.memory import processes
from radloop import mongod
from radloop.commands.demo import server_of_its_own
from radloop.demo.play import load_credentials
from radloop.settings import Settings

PATIENTS = 2000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    arguments.add_argument("--clients", type=int, default=8)
    options = arguments.parse_args()
    began = time.monotonic()
    with server_of_its_own() as settings:
        print(f"start of a server from nothing, demonstration loaded: {time.monotonic() - began:.1f} s")
        measure(settings, options.seconds, options.clients)


def measure(settings: Settings, seconds: float, clients: int) -> None:
    """Print all figures."""
    credentials = load_credentials(settings.data_path)
    headers = app_headers(settings, "user/*.cruds")

    def http(make: Callable[[int], tuple[str, str, bytes | None]], accept: str = "application/fhir+json") -> Figures:
        def work(connection: Connection, number: int) -> None:
            connection.request(*make(number), {**headers, "Accept": accept})

        return run(work, lambda: Connection(settings.host, settings.port), seconds, clients)

    ids = load_patients(settings, headers)
    port = mongod.last_port(settings.data_path / "mongod")
    uri = mongod.uri(port or 0)
    database = pymongo.MongoClient(uri)[settings.mongodb_database]
    versions, scratch = database["versions_Patient"], database["bench_scratch"]

    def on_mongodb(work: Callable[[int], object]) -> Figures:
        return run(lambda _nothing, number: work(number), lambda: None, seconds, clients)

    print(
        f"\n{clients} clients, {seconds:g} s a figure; ms\n{'':<34}{'per s':>8}{'p50':>8}{'p95':>8}{'p99':>8}  ratio"
    )
    empty = show("empty answer over HTTP", http(lambda n: ("GET", "/health/live", None)))
    show("MongoDB: find one", on_mongodb(lambda n: versions.find_one({"id": ids[n % len(ids)]})))
    show("MongoDB: insert, journaled", on_mongodb(lambda n: scratch.insert_one({"body": b"x" * 1000})))
    with bare.served(settings, uri) as bare_port:

        def on_bare(make: Callable[[int], tuple[str, str, bytes | None]]) -> Figures:
            connect = partial(Connection, settings.host, bare_port)
            return run(lambda connection, n: connection.request(*make(n)), connect, seconds, clients)

        bare_read = show("Flask alone: find one", on_bare(lambda n: ("GET", f"/read/{ids[n % len(ids)]}", None)))
        bare_write = show("Flask alone: insert, journaled", on_bare(lambda n: ("POST", "/write", patient(n))))
    read = http(lambda n: ("GET", f"/fhir/Patient/{ids[n % len(ids)]}", None))
    show("FHIR read", read, bare_read, "of Flask alone")
    page = http(lambda n: ("GET", f"/fhir/Patient?family=Bench{n % 200:03}&_count=20", None))
    show("FHIR search, page of 10 of 2,000", page, empty, "of an empty answer")
    show("FHIR create", http(lambda n: ("POST", "/fhir/Patient", patient(n))), bare_write, "of Flask alone")
    show("FHIR update", http(lambda n: updated(ids, n)), bare_write, "of Flask alone")

    study, slices = a_study(settings)
    series, instance = slices[0].SeriesInstanceUID, slices[0].SOPInstanceUID
    base = f"/dicomweb/studies/{study}/series/{series}"
    octets = 'multipart/related; type="application/octet-stream"'
    frames = http(lambda n: ("GET", f"{base}/instances/{instance}/frames/1", None), octets)
    show(f"WADO-RS frame, {len(slices[0].PixelData):,} bytes", frames, empty, "of an empty answer")
    metadata = http(lambda n: ("GET", f"{base}/metadata", None), "application/dicom+json")
    show("WADO-RS series metadata", metadata, empty, "of an empty answer")
    rendered = http(lambda n: ("GET", f"{base}/instances/{instance}/rendered", None), "image/jpeg")
    show("WADO-RS rendered", rendered, empty, "of an empty answer")

    latencies = event_latencies(settings, credentials, count=100)
    print("\nfrom the answer to a write until its event arrives by rest-hook, one at a time; ms")
    print(f"  p50 {statistics.median(latencies):.0f}, p95 {quantile(latencies, 95):.0f}, max {max(latencies):.0f}")
    print("\nmemory, MiB (resident, proportional)")
    for name, resident, proportional in processes(settings):
        print(f"  {name:<28} {resident:>6.0f} {proportional:>6.0f}")


def show(name: str, figures: Figures, base: Figures | None = None, of: str = "") -> Figures:
    ratio = f"  {figures.rate / base.rate:.2f} {of}" if base else ""
    p50, p95, p99 = (quantile(figures.times_ms, q) for q in (50, 95, 99))
    print(f"{name:<34}{figures.rate:>8.0f}{p50:>8.1f}{p95:>8.1f}{p99:>8.1f}{ratio}", flush=True)
    return figures


def quantile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def load_patients(settings: Settings, headers: dict[str, str]) -> list[str]:
    """Patients by transactions of 100; their ids."""
    connection, ids = Connection(settings.host, settings.port), []
    for begin in range(0, PATIENTS, 100):
        entries = [
            {"resource": json.loads(patient(n)), "request": {"method": "POST", "url": "Patient"}}
            for n in range(begin, begin + 100)
        ]
        bundle = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()
        answer = json.loads(connection.request("POST", "/fhir", bundle, headers))
        ids += [entry["response"]["location"].split("/")[-3] for entry in answer["entry"]]
    return ids


def patient(number: int, **more: object) -> bytes:
    resource = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:bench", "value": f"{number}"}],
        "name": [{"family": f"Bench{number % 200:03}", "given": ["Ada"]}],
        "gender": "female",
        "birthDate": f"19{number % 90 + 10}-0{number % 9 + 1}-11",
        "telecom": [{"system": "phone", "value": f"+1-555-{number:04}"}],
        "address": [{"line": [f"{number} Pier Street"], "city": "Harbor", "postalCode": "01234"}],
    }
    return json.dumps(resource | more).encode()


def updated(ids: list[str], number: int) -> tuple[str, str, bytes]:
    id = ids[number % len(ids)]
    stamp = datetime.now(UTC).isoformat()
    return "PUT", f"/fhir/Patient/{id}", patient(number, id=id, language=f"en-{stamp[-9:-6]}")


if __name__ == "__main__":
    main()
