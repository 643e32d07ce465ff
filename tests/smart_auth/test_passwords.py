"""Hashing has its own thread and few places: however many people log in, or guess, the rest of the server goes on."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

from smart_auth import passwords
from smart_auth.passwords import Busy, Passwords
from smart_auth.service import AuthService
from tests.smart_auth.oauth import PASSWORD, Clock, client_credentials, log_in


@pytest.fixture
def crowded(service: AuthService) -> Iterator[ExitStack]:
    """As many people log in as there are places; closing it lets them go."""
    with ExitStack() as taken:
        for _ in range(4):
            taken.enter_context(service.passwords.place())
        yield taken


class TestCrowd:
    def test_is_told_to_come_again_soon(self, browser: FlaskClient, crowded: ExitStack) -> None:
        response = log_in(browser, "frida")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
        assert 'role="alert"' in response.text
        assert "Too many people" in response.text
        assert 'value="frida"' in response.text, "the name need not be typed again"
        crowded.close()
        assert log_in(browser, "frida").status_code == 303

    def test_costs_no_write_and_counts_against_nobody(
        self, browser: FlaskClient, crowded: ExitStack, database: Database
    ) -> None:
        for _ in range(20):
            assert log_in(browser, "frida", "wrong").status_code == 503
        assert database["auth_attempts"].count_documents({}) == 0

    def test_is_nothing_to_programs(self, browser: FlaskClient, crowded: ExitStack, assertion: object) -> None:
        assert browser.get("/fhir/metadata").status_code == 200
        assert client_credentials(browser, assertion(), "system/*.rs").status_code == 200  # type: ignore[operator]


def test_a_pause_costs_no_hash(
    browser: FlaskClient, service: AuthService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        log_in(browser, "frida", "wrong")
    monkeypatch.setattr(service.passwords, "verify", lambda *_: pytest.fail("hashed"))
    assert log_in(browser, "frida").status_code == 401
    monkeypatch.undo()
    clock.forward(seconds=2)
    assert log_in(browser, "frida").status_code == 303


class TestPool:
    def test_hashes_one_password_at_a_time_in_a_thread_that_yields(self) -> None:
        hasher = Passwords(memory_cost=64, time_cost=1)
        seen: list[tuple[int, int]] = []

        def work() -> str:
            seen.append((threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
            return "done"

        with ThreadPoolExecutor(8) as callers:
            assert set(callers.map(lambda _: hasher._in_turn(work), range(16))) == {"done"}
        assert len({thread for thread, _ in seen}) == 1
        if sys.platform == "linux":
            mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            assert seen[0][1] == min(19, mine + 5)

    def test_lets_nobody_wait_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(passwords, "_PATIENCE_S", 0.01)
        hasher, stuck = Passwords(memory_cost=64, time_cost=1), threading.Event()
        first = hasher._pool.submit(stuck.wait, 30)
        ran: list[bool] = []
        with pytest.raises(Busy):
            hasher._in_turn(lambda: ran.append(True))
        monkeypatch.undo()
        stuck.set()
        assert first.result()
        assert hasher.verify(hasher.hash(PASSWORD), PASSWORD)
        assert ran == [], "who was refused is not worked for later"

    def test_gives_a_place_back_after_a_fault(self) -> None:
        hasher = Passwords(memory_cost=64, time_cost=1, places=1)
        with pytest.raises(ValueError, match="8 to 256"), hasher.place():
            hasher.hash("short")
        with hasher.place(), pytest.raises(Busy), hasher.place():
            pass
        with hasher.place():
            assert not hasher.verify(None, PASSWORD)
