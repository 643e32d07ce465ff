"""Stored resources indexed anew beside searches and writes: when asked to, after an upgrade, and after a kill -9."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from pymongo.database import Database

from fhir_server.index.active import LAYOUT, BeingIndexed
from fhir_server.prepare import Draft
from fhir_server.reindex.state import IndexState, NewerLayout, TypeState
from fhir_server.reindex.worker import MAX_BATCH, Reindexer, wait_until_done
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_search_parameters import EYES, eyes

LEASE_S = 3.0
WORKER = f"""
import sys, threading, pymongo
from datetime import UTC, datetime, timedelta
from fhir_server.reindex.worker import Reindexer
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
database = pymongo.MongoClient(sys.argv[1], tz_aware=True)[sys.argv[2]]
repository = Repository(VersionStore(database), {BASE!r}, lambda: datetime.now(UTC))
Reindexer(repository.store, repository.parameters, {BASE!r}, timedelta(), {LEASE_S}).run(threading.Event())
"""


def load(repository: Repository, count: int) -> None:
    """So many patients with green and brown eyes by turns."""
    for begin in range(0, count, 500):
        patients = [
            {"resourceType": "Patient", "id": f"p{n}", "active": True, **eyes("brown" if n % 2 else "green")}
            for n in range(begin, min(count, begin + 500))
        ]
        repository.write(PRACTICE, [Draft("update", patient) for patient in patients])


@pytest.fixture
def reindexer(repository: Repository) -> Reindexer:
    return Reindexer(repository.store, repository.parameters, BASE, timedelta(), LEASE_S)


@pytest.fixture
def state(database: Database) -> IndexState:
    return IndexState(database)


@pytest.fixture
def start_worker(mongodb_uri: str, database: Database) -> Iterator[Callable[[], subprocess.Popen]]:
    """Start the worker's part in a process of its own."""
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", WORKER, mongodb_uri, database.name]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def damaged(database: Database) -> None:
    """The patients as an earlier layout could have them: not to be found by what they say."""
    database["versions_Patient"].update_many({"keys": "*"}, {"$set": {"keys": ["*", "@any"], "g": "1"}})


class TestKilled:
    COUNT = 2500

    def test_it_goes_on_where_it_was_and_no_search_is_half_answered(
        self,
        repository: Repository,
        state: IndexState,
        database: Database,
        start_worker: Callable[[], subprocess.Popen],
    ) -> None:
        load(repository, self.COUNT)
        repository.create(PRACTICE, EYES)
        answers: list[int] = []
        faults: list[Exception] = []
        stop = threading.Event()

        def search() -> None:
            mine = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC))
            while not stop.is_set():
                try:
                    found = mine.search(PRACTICE, "Patient", "eye-colour=green&_total=accurate&_count=1", strict=True)
                    answers.append(found.total or 0)
                    if found.total == self.COUNT // 2:
                        stop.set()
                except BeingIndexed:
                    answers.append(-1)
                except Exception as fault:
                    faults.append(fault)
                    stop.set()

        searching = threading.Thread(target=search)
        searching.start()
        try:
            positions = []
            for kill in range(2):
                worker = start_worker()
                wait_for(lambda kill=kill: state.all().get("Patient", TypeState()).done > kill * 3 * MAX_BATCH)  # type: ignore[misc]
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait()
                positions.append(state.all()["Patient"].position)
            start_worker()
            wait_for(lambda: state.all()["Patient"].wanted == "")
        finally:
            wait_for(stop.is_set, 20)
            stop.set()
            searching.join()
        assert faults == []
        assert set(answers) == {-1, self.COUNT // 2}
        assert positions == sorted(positions)
        assert 0 < positions[0] < positions[-1]
        # Each was indexed once; what a killed worker did since its last note was not done again.
        assert self.COUNT - 2 * MAX_BATCH <= state.all()["Patient"].done <= self.COUNT


class TestAsked:
    def test_it_mends_what_is_found(
        self, repository: Repository, state: IndexState, reindexer: Reindexer, database: Database
    ) -> None:
        load(repository, 500)
        damaged(database)
        assert repository.search(PRACTICE, "Patient", "active=true").total == 0
        state.rebuild("Patient")
        shown = [waiting["Patient"].done for waiting in wait_until_done(reindexer, Event())]
        assert shown == sorted(shown)
        assert repository.search(PRACTICE, "Patient", "active=true&_summary=count").total == 500

    def test_searches_and_writes_go_on(self, repository: Repository, state: IndexState, reindexer: Reindexer) -> None:
        load(repository, 1000)
        state.rebuild("Patient")
        totals: set[int | None] = set()
        stop = threading.Event()
        faults: list[Exception] = []

        def work(writer: int) -> None:
            try:
                number = 0
                while not stop.is_set():
                    number += 1
                    patient = {"resourceType": "Patient", "id": f"p{(number * 8 + writer) % 1000}", "active": True}
                    repository.update(PRACTICE, patient | {"multipleBirthInteger": number})
                    totals.add(repository.search(PRACTICE, "Patient", "active=true&_summary=count").total)
            except Exception as fault:
                faults.append(fault)

        writers = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
        for writer in writers:
            writer.start()
        for _ in wait_until_done(reindexer, Event()):
            pass
        stop.set()
        for writer in writers:
            writer.join()
        assert faults == []
        assert totals == {1000}

    def test_what_organizations_were_given_to_see_stays(
        self, repository: Repository, state: IndexState, reindexer: Reindexer, database: Database
    ) -> None:
        load(repository, 3)
        keys = {"keys": "@Organization/o1", "scope": "@Organization/o1"}
        database["versions_Patient"].update_one({"id": "p1"}, {"$addToSet": keys})
        state.rebuild("Patient")
        list(wait_until_done(reindexer, Event()))
        found = repository.search(an_office("o1"), "Patient", "active=true").matches
        assert [one.id for one in found] == ["p1"]


class TestUpgrade:
    @pytest.fixture
    def old(self, repository: Repository, database: Database) -> None:
        load(repository, 300)
        damaged(database)

    def test_types_of_an_older_layout_wait_and_are_made_anew(
        self, repository: Repository, state: IndexState, reindexer: Reindexer, old: None
    ) -> None:
        assert state.open(repository.store.types()) == ["Patient"]
        repository.parameters.forget()
        for query in ("active=true", "_count=0", "_sort=_id"):
            with pytest.raises(BeingIndexed):
                repository.search(PRACTICE, "Patient", query)
        with pytest.raises(BeingIndexed):
            repository.search(PRACTICE, "Basic", "subject:Patient.active=true")
        assert repository.read(PRACTICE, "Patient", "p1").id == "p1"
        list(wait_until_done(reindexer, Event()))
        assert repository.search(PRACTICE, "Patient", "active=true&_summary=count").total == 300
        assert state.open(repository.store.types()) == []

    def test_a_new_store_has_nothing_to_do(self, state: IndexState, reindexer: Reindexer) -> None:
        assert state.open([]) == []
        assert reindexer.waiting() == {}

    def test_a_store_of_a_later_version_is_refused(self, database: Database, state: IndexState) -> None:
        database["index_state"].insert_one({"_id": "*", "layout": str(int(LAYOUT) + 1)})
        with pytest.raises(NewerLayout, match=LAYOUT):
            state.open(["Patient"])
