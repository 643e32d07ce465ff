"""The total of a type is exact while others create, delete and expunge."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from pymongo.database import Database

from fhir_server import totals
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE, an_office

WRITERS = 8


@pytest.fixture(autouse=True)
def brought_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noted is brought forward all the time, as close as these writes allow."""
    monkeypatch.setattr(totals, "SLACK", timedelta(seconds=1))
    monkeypatch.setattr(totals, "EVERY", timedelta())


def patient(id: str) -> dict:
    return {"resourceType": "Patient", "id": id}


def total(repository: Repository, query: str = "_total=accurate&_count=0") -> int:
    found = repository.search(PRACTICE, "Patient", query).total
    assert found is not None
    return found


def test_it_is_never_more_than_was_begun_nor_less_than_was_done(repository: Repository) -> None:
    begun, done = [0] * WRITERS, [0] * WRITERS
    faults: list[Exception] = []
    written = threading.Event()

    def write(writer: int) -> None:
        try:
            for number in range(100):
                begun[writer] += 1
                repository.create(PRACTICE, {"resourceType": "Patient"})
                done[writer] += 1
                if number % 10 == 0:  # these come and go within the bounds: before and after, they count for nothing
                    repository.write(PRACTICE, [Draft("update", patient(f"w{writer}-{number}"))])
                    repository.delete(PRACTICE, "Patient", f"w{writer}-{number}")
        except Exception as fault:
            faults.append(fault)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        least = sum(done)
        found = total(repository)
        assert least <= found <= sum(begun) + WRITERS
    written.set()
    assert faults == []
    assert total(repository) == total(repository, "_summary=count") == WRITERS * 100


@pytest.fixture
def noted(repository: Repository, monkeypatch: pytest.MonkeyPatch, database: Database) -> Callable[[], int]:
    """The count, noted up to this moment."""

    def note() -> int:
        monkeypatch.setattr(totals, "SLACK", timedelta())
        found = total(repository)
        monkeypatch.setattr(totals, "SLACK", timedelta(hours=1))
        assert "upto" in (database["totals"].find_one({"_id": "Patient"}) or {})
        return found

    return note


def test_what_is_noted_is_told_with_what_came_since(repository: Repository, noted: Callable[[], int]) -> None:
    for id in ("a", "b", "c"):
        repository.update(PRACTICE, patient(id))
    assert noted() == 3
    repository.delete(PRACTICE, "Patient", "a")
    repository.update(PRACTICE, patient("b") | {"active": True})
    assert total(repository) == 2
    repository.update(PRACTICE, patient("a"))
    repository.update(PRACTICE, patient("d"))
    assert total(repository) == 4
    assert noted() == 4


@pytest.mark.parametrize("early", [True, False])
def test_expunged_versions_do_not_confuse_it(repository: Repository, noted: Callable[[], int], early: bool) -> None:
    for id in ("a", "b"):
        repository.update(PRACTICE, patient(id))
    if early:
        noted()
    repository.update(PRACTICE, patient("b") | {"active": True})
    repository.delete(PRACTICE, "Patient", "a")
    if not early:
        noted()
    repository.store.expunge("Patient", "a", 2, guards=True)
    repository.store.expunge("Patient", "b", 1, guards=False)
    assert [total(repository), noted(), total(repository)] == [1, 1, 1]


def test_who_does_not_see_all_gets_a_count_of_what_they_see(repository: Repository) -> None:
    repository.update(PRACTICE, patient("a"))
    assert repository.search(an_office("o1"), "Patient", "_count=0").total == 0


def test_a_type_without_resources_has_none(repository: Repository) -> None:
    assert total(repository, "_count=0") == 0
