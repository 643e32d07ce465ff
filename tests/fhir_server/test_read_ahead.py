"""What is read in one go for a commit is what would be read one by one."""

from typing import Any

import pytest

from fhir_server import read_ahead
from fhir_server.bulk.lines import write_each
from fhir_server.errors import FhirError
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE, an_office

HERE = [("Patient", id) for id in ("a", "gone", "never")] + [("Task", "t")]


@pytest.fixture
def filled(repository: Repository) -> Repository:
    repository.update(PRACTICE, {"resourceType": "Patient", "id": "a"})
    repository.update(PRACTICE, {"resourceType": "Patient", "id": "a", "active": True})
    repository.update(PRACTICE, {"resourceType": "Patient", "id": "gone"})
    repository.delete(PRACTICE, "Patient", "gone")
    return repository


@pytest.mark.parametrize("small", [64 * 1024, 1], ids=["small bodies", "large bodies"])
@pytest.mark.parametrize("asked", [HERE, []], ids=["asked for", "not asked for"])
def test_it_reads_as_the_store_does(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, small: int, asked: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(read_ahead, "SMALL_BYTES", small)
    ahead = filled.reading_ahead(asked)
    for target in HERE:
        assert ahead.store.newest(*target) == filled.store.newest(*target)
    assert ahead.existing(PRACTICE, HERE) == filled.existing(PRACTICE, HERE) == {("Patient", "a")}
    assert ahead.existing(an_office("o1"), HERE) == set()


def test_what_was_read_ahead_is_not_read_again(filled: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = filled.reading_ahead(HERE)

    def find(*_arguments: Any) -> None:
        raise AssertionError("this was read ahead")

    monkeypatch.setattr(ahead.store, "_find", find)
    monkeypatch.setattr(ahead.store, "_versions", find)
    assert ahead.store.newest("Patient", "a") is not None
    assert ahead.store.newest("Patient", "never") is None
    assert ahead.existing(PRACTICE, HERE) == {("Patient", "a")}


def test_who_was_quicker_wins_and_the_others_begin_anew(filled: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes both resources between reading ahead and the commit, and nothing is lost."""
    commit = filled.store.commit
    meddled = False

    def meddle_and_commit(*arguments: Any) -> None:
        nonlocal meddled
        if not meddled:
            meddled = True
            filled.update(PRACTICE, {"resourceType": "Patient", "id": "a", "gender": "male"})
            filled.update(PRACTICE, {"resourceType": "Patient", "id": "never", "gender": "male"})
        commit(*arguments)

    monkeypatch.setattr(filled.store, "commit", meddle_and_commit)
    resources = [{"resourceType": "Patient", "id": id, "gender": "other"} for id in ("a", "never", "gone")]
    results = write_each(filled, PRACTICE, resources)
    assert [result.version.version for result in results if not isinstance(result, FhirError)] == [4, 2, 3]
    for id in ("a", "never", "gone"):
        assert filled.read(PRACTICE, "Patient", id).resource()["gender"] == "other"


def test_what_refers_to_a_refused_one_is_refused_and_the_rest_is_written(filled: Repository) -> None:
    chain = [
        {"resourceType": "Patient", "id": "p0", "gender": 5},
        {"resourceType": "Patient", "id": "p1", "link": [_link("p0")]},
        {"resourceType": "Patient", "id": "p2", "link": [_link("p1")]},
        {"resourceType": "Patient", "id": "p3", "link": [_link("a")]},
    ]
    results = write_each(filled, PRACTICE, chain)
    assert [isinstance(result, FhirError) for result in results] == [True, True, True, False]
    assert filled.existing(PRACTICE, [("Patient", f"p{n}") for n in range(4)]) == {("Patient", "p3")}


def _link(id: str) -> dict:
    return {"other": {"reference": f"Patient/{id}"}, "type": "seealso"}
