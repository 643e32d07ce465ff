"""Questions of many at once, answered in one go: what one round trip to the store can find out takes no hundred."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

MOST = 256  # questions in one go
IDLE_S = 5.0  # then its thread ends; the next question starts another

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """A question is taken up at once while nothing else is asked. Those that come while others are being answered
    wait for that and are answered together: the more there is to do, the less each costs. Thread safe.

    answer: gives one answer for each question, in their order; what it raises is raised to all who asked. One that is
    an exception is raised to who asked for it.
    """

    def __init__(
        self, name: str, answer: Callable[[Sequence[Question]], Sequence[Answer | Exception]], most: int = MOST
    ) -> None:
        self._name = name
        self._answer = answer
        self._most = most
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Question, Future[Answer]]] = deque()
        self._at_work = False

    def ask(self, question: Question) -> "Future[Answer]":
        """The answer to come."""
        future: Future[Answer] = Future()
        with self._changed:
            self._waiting.append((question, future))
            if self._at_work:
                self._changed.notify()
            else:
                self._at_work = True  # the thread is started where it is needed, so after processes were forked
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def _work(self) -> None:
        while asked := self._take():
            try:
                answers = self._answer([question for question, _ in asked])
            except Exception as error:
                answers = [error] * len(asked)
            for (_, future), answer in zip(asked, answers, strict=True):
                if not future.set_running_or_notify_cancel():
                    continue  # who asked has left
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _take(self) -> list[tuple[Question, "Future[Answer]"]]:
        """The next questions; none when there were none for a while, and then this thread's work is over."""
        with self._changed:
            self._at_work = self._changed.wait_for(lambda: bool(self._waiting), IDLE_S)
            return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
