"""What searches cost by the size of the store: `python -m bench.search`.

Loads a radiology practice of each size into a MongoDB of its own and searches through the Repository, without HTTP,
each search with other values. In turns with the searches an empty command goes to MongoDB: its p99 tells what the
machine does to any answer at that time. What does not depend on other jobs stands beside it: keys and documents that
MongoDB looked at and pages of 32 kB that it read into its cache for a search, and the CPU time of both processes.
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
from bench.radiology import BASE, CODES, NOW, ORGANIZATIONS
from fhir_server import totals
from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from fhir_server.store import PREFIX, VersionStore
from radloop import mongod

STAFF = Access.system("bench")
MANY = 500  # searches of a kind whose 99th percentile counts


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of search; `query` makes another one each time. goal: what its figures are held against."""

    name: str
    resource_type: str
    query: Callable[[random.Random], str]
    access: Callable[[random.Random], Access] = lambda _chosen: STAFF
    repeats: int = 200
    goal: "Goal | None" = None


@dataclass(frozen=True, slots=True)
class Goal:
    """p50, p99: ms at most; spread: of the 99th percentile, in medians; growth: of the 99th percentile, from the
    smallest store to the largest."""

    p50: float | None = None
    p99: float | None = None
    spread: float | None = None
    growth: float | None = None


TOKEN = Goal(spread=3, growth=1.3)
CLAUSES = Goal(p50=10)
CHAINED = Goal(p50=25)


@dataclass(frozen=True, slots=True)
class Cost:
    """p50, p99: ms of a search; empty_p99: of an empty command in turns with them. keys, documents, pages: looked at
    or read for one; cpu, mongodb_cpu: ms of this process and of MongoDB for one."""

    p50: float
    p99: float
    empty_p99: float = 0.0
    keys: float = 0.0
    documents: float = 0.0
    pages: float = 0.0
    cpu: float = 0.0
    mongodb_cpu: float = 0.0


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
        Case("token, 65 % of all", "ServiceRequest", statuses("completed"), repeats=MANY, goal=TOKEN),
        Case("token, 33 %", "ServiceRequest", statuses("active"), repeats=MANY, goal=TOKEN),
        Case("token, 1 %", "ServiceRequest", statuses("draft"), repeats=MANY, goal=TOKEN),
        Case("token, 0.1 %", "ServiceRequest", statuses("revoked"), repeats=MANY, goal=TOKEN),
        Case("token of any code", "ServiceRequest", lambda c: f"code={code(c)}&{page}", repeats=MANY, goal=TOKEN),
        Case(
            "token of any organization",
            "ServiceRequest",
            lambda c: f"requester=Organization/o{c.randrange(ORGANIZATIONS)}&{page}",
            repeats=MANY,
            goal=TOKEN,
        ),
        Case("token of one patient", "ServiceRequest", lambda c: f"patient={patient(c)}&{page}", repeats=MANY),
        Case(
            "two clauses: patient, status",
            "ServiceRequest",
            lambda c: f"patient={patient(c)}&status=active&{page}",
            goal=CLAUSES,
        ),
        Case(
            "two clauses: code, status",
            "ServiceRequest",
            lambda c: f"code={code(c)}&status=active&{page}",
            goal=CLAUSES,
        ),
        Case(
            "three clauses: code, priority, status",
            "ServiceRequest",
            lambda c: f"code={code(c)}&priority=urgent&status=active&{page}",
            goal=CLAUSES,
        ),
        Case(
            "worklist sorted, with includes",
            "Task",
            lambda _: (
                "code=http://loinc.org|fulfill&status=accepted,in-progress,requested&_sort=-modified&_count=50"
                "&_include=Task:focus&_include=Task:patient&_include=Task:requester"
            ),
            goal=Goal(p99=60),
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
            goal=CHAINED,
        ),
        Case(
            "chained: patient's family name",
            "ServiceRequest",
            lambda c: f"subject:Patient.family=Family{c.randrange(5000):04}&{page}",
            goal=CHAINED,
        ),
        Case(
            "chained: half of all patients",
            "ServiceRequest",
            lambda c: f"patient.gender={c.choice(('male', 'female'))}&{page}",
            goal=CHAINED,
        ),
        Case(
            "_has: patients with an order of 33 %",
            "Patient",
            lambda _: f"_has:ServiceRequest:patient:status=active&{page}",
            goal=CHAINED,
        ),
        Case(
            "_has: patients with an order of a rare code",
            "Patient",
            lambda c: f"_has:ServiceRequest:patient:code=http://loinc.org|c{c.randrange(100, 150)}&{page}",
            goal=CHAINED,
        ),
        Case(
            "_has: a family with an order of 33 %",
            "Patient",
            lambda c: f"family=Family{c.randrange(5000):04}&_has:ServiceRequest:patient:status=active&{page}",
            goal=CHAINED,
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
        Case(
            "count of a token of 33 %",
            "ServiceRequest",
            lambda _: "status=active&_summary=count",
            repeats=10,
            goal=Goal(p50=100),
        ),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000])
    arguments.add_argument("--folder", type=Path, help="for the database; kept, and used again as it is")
    arguments.add_argument("--cache-gb", type=float, default=1.0)
    arguments.add_argument("--only", default="", help="kinds of searches that have this in their name")
    arguments.add_argument("--svg", type=Path, help="where the picture goes")
    options = arguments.parse_args()
    figures: dict[str, dict[int, Cost]] = {}
    with database_of_its_own(options.folder, options.cache_gb) as (client, process):
        for size in options.sizes:
            for name, cost in measure(client[f"practice_{size}"], size, process, options.only).items():
                figures.setdefault(name, {})[size] = cost
    show_goals(figures)
    if options.svg:
        p50s = {name: {size: cost.p50 for size, cost in costs.items()} for name, costs in figures.items()}
        options.svg.write_text(curves("p50 of searches, ms, by resources in the store", p50s))


@contextmanager
def database_of_its_own(folder: Path | None, cache_gb: float) -> Iterator[tuple[pymongo.MongoClient, int]]:
    """A client, and the number of MongoDB's process."""
    with tempfile.TemporaryDirectory() as temporary:
        port = mongod.free_port()
        process = mongod.start(folder or Path(temporary), port, cache_gb)
        try:
            with pymongo.MongoClient(mongod.uri(port), tz_aware=True) as client:
                yield client, process.pid
        finally:
            process.terminate()
            process.wait()


def measure(database: Database, size: int, process: int, only: str) -> dict[str, Cost]:
    """Print and return what searches cost, by the name of the case. only: what these names have in them."""
    loaded = time.monotonic()
    if f"{PREFIX}DiagnosticReport" not in database.list_collection_names():
        radiology.load(database, size)
        print(f"\n{size:,} resources loaded in {time.monotonic() - loaded:.0f} s", flush=True)
    store = VersionStore(database, radiology.SORTED)
    repository = Repository(store, BASE, lambda: datetime.now(UTC))
    chosen = random.Random(2)
    found = {}
    heads = ("p50", "p99", "empty p99", "keys", "documents", "pages", "CPU", "of MongoDB")
    print(f"{size:,} resources; load of the machine {os.getloadavg()[0]:.1f}; times in ms")
    print(f"{'':<44}" + "".join(f"{head:>11}" for head in heads))
    by_id = timed(lambda: list(database[f"{PREFIX}Patient"].find({"id": f"p{chosen.randrange(100)}"})), 300)
    show("MongoDB: find one by id", by_id)
    for case in [one for one in cases(int(size * radiology.SHARES["Patient"])) if only in one.name]:

        def search(case: Case = case) -> None:
            query = parse_qsl(case.query(chosen), keep_blank_values=True)
            repository.search(case.access(chosen), case.resource_type, query, strict=True)

        found[case.name] = costed(search, case.repeats, database, process)
        show(case.name, found[case.name])
    for name, cost in ({} if only else totals_of(repository, database)).items():
        found[name] = cost
        show(name, cost)
    return found


def totals_of(repository: Repository, database: Database) -> dict[str, Cost]:
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


def show(name: str, cost: Cost) -> None:
    beside = "" if not cost.empty_p99 else f"{cost.empty_p99:>11.1f}{cost.keys:>11.0f}{cost.documents:>11.0f}"
    beside += "" if not beside else f"{cost.pages:>11.1f}{cost.cpu:>11.2f}{cost.mongodb_cpu:>11.2f}"
    print(f"{name:<44}{cost.p50:>11.2f}{cost.p99:>11.2f}{beside}", flush=True)


def show_goals(figures: dict[str, dict[int, Cost]]) -> None:
    """What there is a goal for, of the largest store: `figure/goal`, and ! where it is missed."""
    print(f"\n{'goals, figure/goal':<44}" + "".join(f"{head:>13}" for head in ("p50", "p99", "p99/p50", "growth")))
    for case in cases(1):
        if case.goal is None or case.name not in figures:
            continue
        costs = figures[case.name]
        first, last = costs[min(costs)], costs[max(costs)]
        reached = (last.p50, last.p99, last.p99 / last.p50, last.p99 / first.p99)
        wanted = (case.goal.p50, case.goal.p99, case.goal.spread, case.goal.growth)
        told = [
            "" if most is None else f"{'! ' if value > most else ''}{value:.1f}/{most:g}"
            for value, most in zip(reached, wanted, strict=True)
        ]
        print(f"{case.name:<44}" + "".join(f"{one:>13}" for one in told))


def costed(search: Callable[[], None], repeats: int, database: Database, process: int) -> Cost:
    """What a search costs, after a tenth for warming up."""
    for _ in range(repeats // 10 + 1):
        search()
    times: list[float] = []
    empty: list[float] = []
    before = _counters(database, process)
    for _ in range(repeats):
        for work, taken in ((search, times), (lambda: database.command("ping"), empty)):
            began = time.perf_counter()
            work()
            taken.append((time.perf_counter() - began) * 1000)
    each = [(after - earlier) / repeats for earlier, after in zip(before, _counters(database, process), strict=True)]
    return Cost(quantile(times, 50), quantile(times, 99), quantile(empty, 99), *each)


def _counters(database: Database, process: int) -> tuple[float, ...]:
    """Keys, documents and pages so far, and the CPU time of both processes in ms."""
    status = database.client.admin.command("serverStatus")
    executor = status["metrics"]["queryExecutor"]
    pages = status["wiredTiger"]["cache"]["pages read into cache"]
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    used = (int(user) + int(system)) * 1000 / os.sysconf("SC_CLK_TCK")
    return executor["scanned"], executor["scannedObjects"], pages, time.process_time() * 1000, used


def timed(work: Callable[[], object], repeats: int) -> Cost:
    """p50 and p99, after a tenth for warming up."""
    times = []
    for number in range(repeats + repeats // 10 + 1):
        began = time.perf_counter()
        work()
        if number > repeats // 10:
            times.append((time.perf_counter() - began) * 1000)
    return Cost(quantile(times, 50), quantile(times, 99))


if __name__ == "__main__":
    main()
