"""The stream of committed versions: complete, in order, from where a consumer stopped."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from pymongo.database import Database

from fhir_server import at_hand, stream
from fhir_server.repository import Repository
from fhir_server.version import Version
from tests.fhir_server.conftest import PRACTICE


def follow_until(
    database: Database,
    handle: Callable[[Version], None],
    done: threading.Event,
    together: stream.HandleTogether | None = None,
    types: Sequence[str] | None = None,
) -> None:
    """Run a consumer until `done`, at most 20 s."""
    stop = threading.Event()
    worker = threading.Thread(
        target=stream.follow, args=(database, "test", handle, stop), kwargs={"together": together, "types": types}
    )
    worker.start()
    assert done.wait(20), "the consumer did not see what it should"
    stop.set()
    worker.join()


def write(repository: Repository, ids: list[str]) -> None:
    for id in ids:
        repository.update(PRACTICE, {"resourceType": "Patient", "id": id, "birthDate": f"2000-01-{int(id):02}"})


def collector(expected: int) -> tuple[list[str], Callable[[Version], None], threading.Event]:
    seen: list[str] = []
    done = threading.Event()

    def handle(version: Version) -> None:
        if version.versioned_reference not in seen:
            seen.append(version.versioned_reference)
        if len(seen) >= expected:
            done.set()

    return seen, handle, done


def test_begins_with_what_was_there_and_goes_on_with_what_comes(database: Database, repository: Repository) -> None:
    write(repository, ["1", "2"])
    seen, handle, done = collector(4)

    def handle_and_write(version: Version) -> None:
        handle(version)
        if len(seen) == 2 and repository.store.newest("Patient", "4") is None:
            write(repository, ["3", "4"])

    follow_until(database, handle_and_write, done)
    assert seen == [f"Patient/{id}/_history/1" for id in "1234"]


def test_goes_on_where_it_stopped(database: Database, repository: Repository) -> None:
    write(repository, ["1"])
    _, handle, done = collector(1)
    follow_until(database, handle, done)
    write(repository, ["2", "3"])  # while no consumer runs
    seen, handle, done = collector(2)
    follow_until(database, handle, done)
    assert seen[-2:] == ["Patient/2/_history/1", "Patient/3/_history/1"]


def test_brings_the_types_that_are_asked_for_alone(database: Database, repository: Repository) -> None:
    """Those that were there, and those that come."""

    def come(id: str) -> None:
        repository.update(PRACTICE, {"resourceType": "Basic", "id": id, "code": {"text": "x"}})
        write(repository, [id])

    come("1")
    seen, handle, done = collector(2)

    def handle_and_write(version: Version) -> None:
        handle(version)
        if len(seen) == 1:
            come("2")

    follow_until(database, handle_and_write, done, types=["Patient", "Slot"])
    assert seen == ["Patient/1/_history/1", "Patient/2/_history/1"]


def test_versions_carry_their_keys_and_scope(database: Database, repository: Repository) -> None:
    write(repository, ["1"])
    found: list[Version] = []
    done = threading.Event()

    def handle(version: Version) -> None:
        found.append(version)
        done.set()

    follow_until(database, handle, done)
    assert "@Patient/1" in found[0].scope
    assert "*" in found[0].keys


def test_passes_a_version_that_its_handler_cannot_take_and_keeps_it_on_record(
    database: Database, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAUSE_S", 0.01)
    write(repository, ["1", "2"])
    seen, handle, done = collector(1)

    def fussy(version: Version) -> None:
        if version.id == "1":
            raise ValueError("cannot take this")
        handle(version)

    follow_until(database, fussy, done)
    assert seen == ["Patient/2/_history/1"]
    failure = database["consumer_failures"].find_one()
    assert failure is not None
    assert failure["version"] == "Patient/1/_history/1"
    assert failure["at"] <= datetime.now(UTC)


def test_what_is_at_hand_is_taken_together_in_order(database: Database, repository: Repository) -> None:
    write(repository, ["1"])
    _, handle, done = collector(1)
    follow_until(database, handle, done)
    ids = [str(n) for n in range(2, 29)]
    write(repository, ids)  # while no consumer runs
    seen: list[list[str]] = []
    done = threading.Event()

    def together(versions: Sequence[Version]) -> None:
        seen.append([version.id for version in versions])
        if seen[-1][-1] == ids[-1]:
            done.set()

    follow_until(database, lambda version: together([version]), done, together)
    told = [id for one in seen for id in one if id != "1"]
    assert told == ids
    assert max(map(len, seen)) > 1


def test_of_versions_taken_together_the_one_that_cannot_be_taken_is_passed_alone(
    database: Database, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAUSE_S", 0.01)
    write(repository, ["1"])
    _, handle, done = collector(1)
    follow_until(database, handle, done)
    write(repository, ["2", "3", "4"])
    seen, handle, done = collector(2)

    def fussy(version: Version) -> None:
        if version.id == "3":
            raise ValueError("cannot take this")
        if version.id != "1":
            handle(version)

    def together(versions: Sequence[Version]) -> None:
        for version in versions:
            fussy(version)

    follow_until(database, fussy, done, together)
    assert seen == ["Patient/2/_history/1", "Patient/4/_history/1"]
    assert [failure.version for failure in stream.failures(database)] == ["Patient/3/_history/1"]


def test_large_versions_are_read_ahead_one_by_one(
    database: Database, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_hand, "MOST_BYTES", 10)
    write(repository, ["1"])
    _, handle, done = collector(1)
    follow_until(database, handle, done)
    write(repository, ["2", "3", "4"])
    seen, handle, done = collector(3)
    sizes: list[int] = []

    def together(versions: Sequence[Version]) -> None:
        sizes.append(len(versions))

    follow_until(database, lambda version: handle(version) if version.id != "1" else None, done, together)
    assert seen == [f"Patient/{id}/_history/1" for id in "234"]
    assert sizes == []


def test_a_second_worker_waits_while_the_first_holds_the_lease(database: Database) -> None:
    first, second = stream.Lease(database, "job"), stream.Lease(database, "job")
    assert first.hold()
    assert not second.hold()
    first.release()
    assert second.hold()


def test_a_lease_is_free_once_it_has_run_out(database: Database) -> None:
    first, second = stream.Lease(database, "job", duration_s=0.0), stream.Lease(database, "job")
    assert first.hold()
    assert second.hold()


def test_consumers_that_begin_amid_writes_miss_none_of_them(database: Database, repository: Repository) -> None:
    ids = [str(n) for n in range(1, 29)]
    seen: dict[str, set[str]] = {}
    stop = threading.Event()

    def collect(name: str) -> Callable[[Version], None]:
        found = seen.setdefault(name, set())
        return lambda version: found.add(version.id)

    followers = []
    write(repository, ["28"])
    for id in ids:  # a consumer begins with each write
        name = f"follower-{id}"
        follower = threading.Thread(target=stream.follow, args=(database, name, collect(name), stop))
        follower.start()
        followers.append(follower)
        write(repository, [id])
    deadline = time.monotonic() + 10
    while any(len(found) < len(ids) for found in seen.values()) and time.monotonic() < deadline:
        stop.wait(0.05)
    stop.set()
    for follower in followers:
        follower.join()
    assert {name: set(ids) - found for name, found in seen.items() if len(found) < len(ids)} == {}


def test_a_consumer_stopped_while_it_catches_up_begins_anew(database: Database, repository: Repository) -> None:
    write(repository, ["1", "2", "3"])
    stop = threading.Event()
    stream.follow(database, "test", lambda _version: stop.set(), stop)
    seen, handle, done = collector(3)
    follow_until(database, handle, done)
    assert seen == [f"Patient/{id}/_history/1" for id in "123"]
