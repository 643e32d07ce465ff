"""What searches cost by the size of the store: `python -m bench.search`.

Loads a radiology practice of each size into a MongoDB of its own and searches through the Repository, without HTTP:
p50 and p99 in ms, each search with other values. Each size is followed by what a bare MongoDB query costs on the same
machine at that time, since machines are shared.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pymongo
from pymongo.database import Database

from bench import radiology
from bench.__main__ import quantile
from bench.picture import curves
from bench.radiology import BASE, CODES, NOW
from fhir_server import totals
from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from fhir_server.store import PREFIX, VersionStore
from radloop import mongod

STAFF = Access.system("bench")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of search; `query` makes another one each time."""

    name: str
    resource_type: str
    query: Callable[[random.Random], str]
    access: Callable[[random.Random], Access] = lambda _chosen: STAFF
    repeats: int = 200


def office(number: int) -> Access:
    audience = frozenset({"@any", f"@Organization/o{number}"})
    return Access("client:office", (Scope("system", "*", "cruds"),), audience)


def day(chosen: random.Random) -> datetime:
    return NOW - timedelta(days=chosen.randrange(3 * 365))


def cases(patients: int) -> list[Case]:
    """patients: how many there are."""

    def patient(chosen: random.Random) -> str:
        return f"Patient/p{chosen.randrange(patients)}"

    def code(chosen: random.Random) -> str:
        return f"http://loinc.org|c{chosen.randrange(CODES // 2)}"

    def statuses(status: str) -> Callable[[random.Random], str]:
        return lambda _chosen: f"status={status}&_count=20"

    page = "_count=20"
    return [
        Case("token, 65 % of all", "ServiceRequest", statuses("completed")),
        Case("token, 33 %", "ServiceRequest", statuses("active")),
        Case("token, 1 %", "ServiceRequest", statuses("draft")),
        Case("token, 0.1 %", "ServiceRequest", statuses("revoked")),
        Case("token of one patient", "ServiceRequest", lambda c: f"patient={patient(c)}&{page}"),
        Case(
            "two clauses: patient, status", "ServiceRequest", lambda c: f"patient={patient(c)}&status=active&{page}"
        ),
        Case("two clauses: code, status", "ServiceRequest", lambda c: f"code={code(c)}&status=active&{page}"),
        Case(
            "three clauses: code, priority, status",
            "ServiceRequest",
            lambda c: f"code={code(c)}&priority=urgent&status=active&{page}",
        ),
        Case(
            "worklist sorted, with includes",
            "Task",
            lambda _: (
                "code=http://loinc.org|fulfill&status=accepted,in-progress,requested&_sort=-modified&_count=50"
                "&_include=Task:focus&_include=Task:patient&_include=Task:requester"
            ),
        ),
        Case(
            "a day's studies, sorted",
            "ImagingStudy",
            lambda c: f"started={day(c).date()}&_sort=started&_include=ImagingStudy:subject&_count=50",
        ),
        Case(
            "studies by birth date, total, includes",
            "ImagingStudy",
            lambda c: (
                f"subject:Patient.birthdate=19{c.randrange(40, 99)}-0{c.randrange(1, 9)}-1{c.randrange(9)}"
                "&_include=ImagingStudy:subject&_total=accurate"
            ),
        ),
        Case(
            "chained: patient's family name",
            "ServiceRequest",
            lambda c: f"subject:Patient.family=Family{c.randrange(5000):04}&{page}",
        ),
        Case(
            "_has: patients with an order of a rare code",
            "Patient",
            lambda c: f"_has:ServiceRequest:patient:code=http://loinc.org|c{c.randrange(100, 150)}&{page}",
        ),
        Case(
            "_has: a family with an order of 33 %",
            "Patient",
            lambda c: f"family=Family{c.randrange(5000):04}&_has:ServiceRequest:patient:status=active&{page}",
        ),
        Case(
            "small office, token of 65 %",
            "ServiceRequest",
            lambda _: f"status=completed&{page}",
            lambda c: office(c.randrange(30, 59)),
        ),
        Case(
            "large office, token of 1 %",
            "ServiceRequest",
            lambda _: f"status=draft&{page}",
            lambda c: office(c.randrange(3)),
        ),
        Case("count of a token of 33 %", "ServiceRequest", lambda _: "status=active&_summary=count", repeats=10),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000])
    arguments.add_argument("--folder", type=Path, help="for the database; kept, and used again as it is")
    arguments.add_argument("--cache-gb", type=float, default=1.0)
    arguments.add_argument("--svg", type=Path, help="where the picture goes")
    options = arguments.parse_args()
    figures: dict[str, dict[int, float]] = {}
    with database_of_its_own(options.folder, options.cache_gb) as client:
        for size in options.sizes:
            for name, (p50, _) in measure(client[f"practice_{size}"], size).items():
                figures.setdefault(name, {})[size] = p50
    if options.svg:
        options.svg.write_text(curves("p50 of searches, ms, by resources in the store", figures))


@contextmanager
def database_of_its_own(folder: Path | None, cache_gb: float) -> Iterator[pymongo.MongoClient]:
    with tempfile.TemporaryDirectory() as temporary:
        port = mongod.free_port()
        process = mongod.start(folder or Path(temporary), port, cache_gb)
        try:
            with pymongo.MongoClient(mongod.uri(port), tz_aware=True) as client:
                yield client
        finally:
            process.terminate()
            process.wait()


def measure(database: Database, size: int) -> dict[str, tuple[float, float]]:
    """Print and return p50 and p99 in ms by the name of the case."""
    loaded = time.monotonic()
    if f"{PREFIX}DiagnosticReport" not in database.list_collection_names():
        radiology.load(database, size)
        print(f"\n{size:,} resources loaded in {time.monotonic() - loaded:.0f} s", flush=True)
    store = VersionStore(database, radiology.SORTED)
    repository = Repository(store, BASE, lambda: datetime.now(UTC))
    chosen = random.Random(2)
    found = {}
    print(f"{size:,} resources; load of the machine {os.getloadavg()[0]:.1f}\n{'':<46}{'p50':>8}{'p99':>8}  ms")
    bare = timed(lambda: list(database[f"{PREFIX}Patient"].find({"id": f"p{chosen.randrange(100)}"})), 300)
    print(f"{'MongoDB: find one by id':<46}{bare[0]:>8.2f}{bare[1]:>8.2f}")
    for case in cases(int(size * radiology.SHARES["Patient"])):

        def search(case: Case = case) -> None:
            query = parse_qsl(case.query(chosen), keep_blank_values=True)
            repository.search(case.access(chosen), case.resource_type, query, strict=True)

        found[case.name] = timed(search, case.repeats)
        show(case.name, found[case.name])
    for name, times in totals_of(repository, database).items():
        found[name] = times
        show(name, times)
    return found


def totals_of(repository: Repository, database: Database) -> dict[str, tuple[float, float]]:
    """The total of a type just loaded, the same once it is noted, and what counting its keys takes."""

    def total() -> object:
        return repository.search(STAFF, "ServiceRequest", "_summary=count").total

    found = {"total of a type, all of it just loaded": timed(total, 10)}
    slack, totals.SLACK = totals.SLACK, timedelta()
    database["totals"].delete_many({})
    total()
    totals.SLACK = slack
    found["total of a type, noted"] = timed(total, 100)
    keys = database[f"{PREFIX}ServiceRequest"]
    found["MongoDB: count of the type by its keys"] = timed(lambda: keys.count_documents({"keys": "*"}, hint="k"), 10)
    return found


def show(name: str, times: tuple[float, float]) -> None:
    print(f"{name:<46}{times[0]:>8.1f}{times[1]:>8.1f}", flush=True)


def timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """p50 and p99 in ms, after a tenth for warming up."""
    times = []
    for number in range(repeats + repeats // 10 + 1):
        began = time.perf_counter()
        work()
        if number > repeats // 10:
            times.append((time.perf_counter() - began) * 1000)
    return quantile(times, 50), quantile(times, 99)


if __name__ == "__main__":
    main()
