"""Closed-loop load: so many threads, each its own connection, for so many seconds."""

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Figures:
    """What a run gave: operations a second, and the time of each in ms."""

    rate: float = 0.0
    times_ms: list[float] = field(default_factory=list)


class Connection:
    """One kept-alive HTTP connection; an answer of 400 or more is an error of the benchmark."""

    def __init__(self, host: str, port: int, timeout_s: float = 30) -> None:
        self._http = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        self._http.request(method, path, body, headers or {})
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data


def run(work: Callable[[T, int], None], connect: Callable[[], T], seconds: float, clients: int) -> Figures:
    """Call `work(connection, number)` from `clients` threads; a fifth of the time before it is warm-up."""
    started = time.perf_counter()
    begin, end = started + seconds / 5, started + seconds * 6 / 5
    times: list[list[float]] = [[] for _ in range(clients)]
    faults: list[Exception] = []

    def client(index: int) -> None:
        try:
            connection, number = connect(), index
            while (before := time.perf_counter()) < end:
                work(connection, number)
                number += clients
                if before >= begin:
                    times[index].append((time.perf_counter() - before) * 1000)
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    all_times = [ms for one in times for ms in one]
    return Figures(len(all_times) / seconds, all_times)
