"""What the fuzz would find, were it there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.errors import BadRequest, FhirError
from tests.fhir_server.conftest import PRACTICE
from tests.fuzz.corpus import PATIENT, corpus
from tests.fuzz.house import Broken, House

READ = {"method": "GET", "path": "/fhir/Patient/a", "headers": {}}
BASIC = {"resourceType": "Basic", "code": {"text": "x"}}


@pytest.fixture
def house(mongodb_uri: str, tmp_path: Path) -> Iterator[House]:
    house = House(mongodb_uri, str(tmp_path))
    yield house
    house.close()


def test_finds_a_refusal_that_stored_something(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = house.parts.repository

    def half(*_: object) -> None:
        repository.create(PRACTICE, dict(BASIC))
        raise BadRequest("too late")

    monkeypatch.setattr(repository, "read", half)
    with pytest.raises(Broken, match="stored something of what it refused"):
        house.ask(READ)


def test_takes_no_transaction_that_was_given_up_for_a_write(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = house.parts.repository
    before = house.watch.state()
    with house.database.client.start_session() as session:
        session.start_transaction()
        house.database["versions_Patient"].update_one({"id": "a"}, {"$set": {"x": 1}}, session=session)
        session.abort_transaction()
    assert house.watch.state() == before
    repository.update(PRACTICE, PATIENT | {"id": "a", "gender": "other"})
    assert house.watch.state() == (before[0] + 1, before[1] + 1)  # the new one, and the keys off the old one


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ZeroDivisionError(), "a fault of the server"),
        (FhirError("x", issues=[]), "a fault of the server"),
        (BadRequest(""), "an outcome that is none"),
    ],
)
def test_finds_a_wrong_answer(house: House, monkeypatch: pytest.MonkeyPatch, error: Exception, found: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(house.parts.repository, "read", fail)
    with pytest.raises(Broken, match=found):
        house.ask(READ)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"v": 3}, "a gap"),
        ({"body": b'{"resourceType": "Patient", "id": "a", "meta": {"versionId": "2"}, "x": 1}'}, "x"),
        ({"body": b'{"resourceType": "Patient", "id": "b", "meta": {"versionId": "2"}}'}, "another id"),
    ],
)
def test_finds_a_version_that_is_not_as_it_should_be(house: House, change: dict, found: str) -> None:
    house.parts.repository.update(PRACTICE, PATIENT | {"id": "a", "gender": "other"})
    assert house.inspect() > 2
    house.database["versions_Patient"].update_one({"id": "a", "v": 2}, {"$set": change})
    with pytest.raises(Broken, match=found):
        house.inspect()


def test_there_is_much_to_begin_from() -> None:
    assert len({resource["resourceType"] for resource in corpus()}) > 5
