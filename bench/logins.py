"""What a storm of log-ins leaves to the FHIR API: `python -m bench.logins`.

On a demonstration server of its own clients read, one request after the other, while log-ins of many names from many
addresses, one in ten with the right password, come at a fixed rate, whether or not the ones before were answered.
Rounds alone, beside as many empty requests, and beside the log-ins take turns, so that what else the machine does
tells on all of them.
"""

import argparse
import http.client
import itertools
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

from bench.__main__ import quantile
from bench.demo import app_headers, reads
from bench.load import Figures
from bench.memory import processes
from radloop.commands.demo import server_of_its_own
from radloop.demo.play import load_credentials
from radloop.settings import Settings

READERS = 4
SENDERS = 64
COOKIE = "b" * 43  # the log-in form's token, which a browser sends as cookie and field


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=8.0, help="for each round")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--rate", type=float, default=100.0, help="log-ins a second")
    options = arguments.parse_args()
    with server_of_its_own() as settings:
        measure(settings, options.seconds, options.rounds, options.rate)


def measure(settings: Settings, seconds: float, rounds: int, rate: float) -> None:
    """Print the times of reads alone and beside log-ins, and what became of the log-ins."""
    password = load_credentials(settings.data_path)["users"]["frontdesk"]
    headers = app_headers(settings, "user/*.rs")
    kinds: dict[str, Callable[[int], None] | None] = {
        "alone": None,
        f"beside {rate:g} empty requests a second": lambda number: send(settings, number, "GET", "/health/live"),
        f"beside {rate:g} log-ins a second": lambda number: log_in(settings, number, password, answers),
    }
    answers: Counter[int] = Counter()
    found: dict[str, list[Figures]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, work in kinds.items():
            with storm(work, rate) if work else nullcontext():
                found[name].append(reads(settings, headers, seconds, READERS))
    quiet, empty, stormy = (show(f"reads {name}", figures) for name, figures in found.items())
    print(f"  p99 beside log-ins / alone: {ratios(stormy, quiet)}; / beside empty requests: {ratios(stormy, empty)}")
    told = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
    print(f"log-ins answered in {rounds} rounds of {seconds * 1.2:g} s: {told}")
    for name, resident, proportional in processes(settings):
        if name.startswith("web"):
            print(f"  {name}: {resident:.0f} MiB resident, {proportional:.0f} proportional")


def ratios(above: list[float], below: list[float]) -> str:
    return ", ".join(f"{a / b:.1f}" for a, b in zip(above, below, strict=True))


def show(name: str, rounds: list[Figures]) -> list[float]:
    """Print the times over all rounds; the p99 of each."""
    times = [ms for one in rounds for ms in one.times_ms]
    p50, p95, p99 = (quantile(times, q) for q in (50, 95, 99))
    rate = sum(one.rate for one in rounds) / len(rounds)
    print(f"{name}: {rate:.0f} a second; ms p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, max {max(times):.1f}")
    return [quantile(one.times_ms, 99) for one in rounds]


@contextmanager
def storm(work: Callable[[int], None], rate: float) -> Iterator[None]:
    """Call `work(number)` at this rate until the end."""
    stop = threading.Event()

    def keep_sending() -> None:
        begun = time.monotonic()
        with ThreadPoolExecutor(SENDERS) as senders:
            for number in itertools.count():
                if stop.wait(max(0.0, begun + number / rate - time.monotonic())):
                    return
                senders.submit(work, number)

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def log_in(settings: Settings, number: int, password: str, answers: Counter[int]) -> None:
    name, tried = (f"somebody{number}", "not the password") if number % 10 else ("frontdesk", password)
    form = {"name": name, "password": tried, "login_token": COOKIE, "next": "/"}
    answers[send(settings, number, "POST", "/auth/login", form)] += 1


def send(settings: Settings, number: int, method: str, path: str, form: dict[str, str] | None = None) -> int:
    """One request over a connection of its own, from another address of this machine each time; its status."""
    source = f"127.0.{number // 250 % 250}.{number % 250 + 1}"
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=60, source_address=(source, 0))
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"radloop-login={COOKIE}"}
    try:
        connection.request(method, path, urllib.parse.urlencode(form) if form else None, headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


if __name__ == "__main__":
    main()
