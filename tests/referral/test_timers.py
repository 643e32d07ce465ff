"""What goes by the clock alone, as the worker runs it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError

from fhir_server import periodic
from referral import timers
from tests.referral.conftest import Loop

EVERY_S = 0.02


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextmanager
def running(*jobs: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=job, args=(stop,)) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_no_show_and_escalation_come_by_themselves(loop: Loop, database: Database) -> None:
    waiting = loop.refer("LK-2", priority="stat")
    _, appointment = loop.booked("LK-1")
    loop.clock.move(hours=2)
    with running(lambda stop: timers.run(loop.practice, database, stop, EVERY_S)):
        until(lambda: loop.get(appointment)["status"] == "noshow")
        until(lambda: [step["partOf"] for step in loop.steps("escalation")] == [[{"reference": waiting}]])


def test_one_of_two_workers_does_it(database: Database) -> None:
    done: list[str] = []

    def worker(name: str) -> Callable[[threading.Event], None]:
        return lambda stop: periodic.repeat(database, "job", lambda: done.append(name), stop, EVERY_S)

    with running(worker("a"), worker("b")):
        until(lambda: len(done) > 5)
    assert len(set(done)) == 1


def test_the_next_worker_takes_over_at_once_from_one_that_ends(database: Database) -> None:
    done: list[int] = []
    for _ in range(2):
        before = len(done)
        with running(lambda stop: periodic.repeat(database, "job", lambda: done.append(1), stop, EVERY_S)):
            until(lambda before=before: len(done) > before, 5)  # type: ignore[misc]


@pytest.mark.parametrize("fault", [ServerSelectionTimeoutError("Ada Nowak"), RuntimeError("Ada Nowak")])
def test_an_outage_or_a_fault_ends_nothing(
    database: Database, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """And the log says its class, never its text."""
    calls: list[int] = []

    def job() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise fault

    with running(lambda stop: periodic.repeat(database, "job", job, stop, EVERY_S)):
        until(lambda: len(calls) > 2)
    assert type(fault).__name__ in caplog.text
    assert "Nowak" not in caplog.text
