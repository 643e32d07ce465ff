import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest

from subscriptions import together
from subscriptions.together import Together


class Slow:
    """Doubles numbers once it is let; keeps what it was asked at a time."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.asked.append(list(numbers))
        self.begun.set()
        assert self.go_on.wait(20)
        return [ValueError("odd") if number % 2 else 2 * number for number in numbers]


def test_what_is_asked_meanwhile_is_answered_together() -> None:
    slow = Slow()
    asked = Together("test", slow)
    first = asked.ask(0)
    assert slow.begun.wait(20)  # at once, with nobody else
    others = [asked.ask(number) for number in (2, 4, 6)]
    slow.go_on.set()
    assert [future.result(20) for future in (first, *others)] == [0, 4, 8, 12]
    assert slow.asked == [[0], [2, 4, 6]]


def test_no_more_at_a_time_than_it_may() -> None:
    slow = Slow()
    asked = Together("test", slow, most=2)
    futures = [asked.ask(0)]
    assert slow.begun.wait(20)
    futures += [asked.ask(number) for number in (2, 4, 6)]
    slow.go_on.set()
    assert [future.result(20) for future in futures] == [0, 4, 8, 12]
    assert slow.asked == [[0], [2, 4], [6]]


def test_an_answer_that_is_an_exception_is_raised_to_who_asked_for_it() -> None:
    slow = Slow()
    asked = Together("test", slow)
    futures = [asked.ask(0)]
    assert slow.begun.wait(20)
    futures += [asked.ask(1), asked.ask(2)]
    slow.go_on.set()
    with pytest.raises(ValueError, match="odd"):
        futures[1].result(20)
    assert futures[2].result(20) == 4


def test_what_goes_wrong_is_raised_to_all_and_the_next_question_is_answered() -> None:
    faults = [OSError("gone")]

    def answer(numbers: Sequence[int]) -> Sequence[int]:
        if faults:
            raise faults.pop()
        return numbers

    asked = Together("test", answer)
    with pytest.raises(OSError, match="gone"):
        asked.ask(1).result(20)
    assert asked.ask(1).result(20) == 1


def test_who_has_left_is_not_waited_for() -> None:
    slow = Slow()
    asked = Together("test", slow)
    first = asked.ask(0)
    assert slow.begun.wait(20)
    second, third = asked.ask(2), asked.ask(4)
    assert second.cancel()
    slow.go_on.set()
    assert (first.result(20), third.result(20)) == (0, 8)
    with pytest.raises(CancelledError):
        second.result(20)


def test_its_thread_ends_when_nothing_is_asked_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "IDLE_S", 0.01)
    threads: list[threading.Thread] = []

    def answer(numbers: Sequence[int]) -> Sequence[int]:
        threads.append(threading.current_thread())
        return numbers

    asked = Together("test", answer)
    for number in (1, 2):
        assert asked.ask(number).result(20) == number
        threads[-1].join(20)
        assert not threads[-1].is_alive()
    assert threads[0] is not threads[1]
