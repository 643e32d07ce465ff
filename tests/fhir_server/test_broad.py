"""How many match, asked to find out which index is worth using."""

from collections.abc import Iterator

import pytest
from pymongo.errors import AutoReconnect, ExecutionTimeout

from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import PRACTICE

ACTIVE = {"keys": "active=true"}


@pytest.fixture
def store(repository: Repository) -> VersionStore:
    for _ in range(3):
        repository.create(PRACTICE, {"resourceType": "Patient", "active": True})
    return repository.store


@pytest.fixture
def commands(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict]]:
    """What is sent as a command of its own."""
    sent: list[dict] = []
    command = store.database.command

    def sending(name: str, *arguments: object, **named: object) -> dict:
        sent.append({name: arguments[0], **named})
        return command(name, *arguments, **named)

    monkeypatch.setattr(store.database, "command", sending)
    yield sent


def test_it_stops_at_the_limit(store: VersionStore) -> None:
    assert [store.count_up_to("Patient", ACTIVE, limit, "k") for limit in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert store.count_up_to("Patient", {"keys": "active=false"}, 10, "k") == 0


def test_it_is_read_where_all_else_is_read(store: VersionStore, commands: list[dict]) -> None:
    store.count_up_to("Patient", ACTIVE, 10, "k")
    (sent,) = commands
    assert sent["read_preference"] == store.database.read_preference
    assert sent["hint"] == "k"


def test_a_filter_that_so_many_meet_is_not_counted_again(store: VersionStore, commands: list[dict]) -> None:
    assert [store.count_up_to("Patient", ACTIVE, limit, "k") for limit in (3, 3, 2)] == [3, 3, 2]
    assert len(commands) == 1
    assert store.count_up_to("Patient", ACTIVE, 4, "k") == 3
    assert store.count_up_to("Patient", ACTIVE, 4, "k") == 3
    assert len(commands) == 3  # what few meet is


def test_a_primary_that_steps_down_is_asked_again(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: object, **_named: object) -> dict:
        raise AutoReconnect("not primary")

    monkeypatch.setattr(store.database, "command", gone)
    assert store.count_up_to("Patient", ACTIVE, 10, "k") == 3


def test_what_takes_too_long_tells_nothing_for_later(
    store: VersionStore, commands: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_arguments: object, **_named: object) -> dict:
        raise ExecutionTimeout("operation exceeded time limit")

    with monkeypatch.context() as patched:
        patched.setattr(store.database, "command", slow)
        assert store.count_up_to("Patient", ACTIVE, 10, "k") == 10
    assert store.count_up_to("Patient", ACTIVE, 10, "k") == 3
    assert len(commands) == 1
