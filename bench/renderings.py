"""What many renderings at once leave to the FHIR API: `python -m bench.renderings`.

On a demonstration server of its own a few clients read, one request after the other, while as many others as asked
for render, each picture with another window, so that none was made before; who is refused comes again after a moment.
Rounds alone and beside the renderings take turns, so that what else the machine does tells on both.
"""

import argparse
import http.client
import itertools
import multiprocessing
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event

from bench.demo import a_study, app_headers, reads
from bench.load import Figures
from bench.logins import ratios, show
from radloop.commands.demo import server_of_its_own
from radloop.settings import Settings

READERS = 4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=8.0, help="for each round")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--clients", type=int, default=32, help="that render")
    options = arguments.parse_args()
    with server_of_its_own() as settings:
        measure(settings, options.seconds, options.rounds, options.clients)


def measure(settings: Settings, seconds: float, rounds: int, clients: int) -> None:
    """Print the times of reads alone and beside renderings, and what became of the renderings."""
    headers = app_headers(settings, "user/*.rs")
    picture = a_picture(settings)
    answers: Counter[int] = Counter()
    quiet: list[Figures] = []
    busy: list[Figures] = []
    for _ in range(rounds):
        for found, beside in (
            (quiet, nullcontext()),
            (busy, rendering(settings, picture, headers, clients, answers)),
        ):
            with beside:
                found.append(reads(settings, headers, seconds, READERS))
    alone = show("reads alone", quiet)
    print(f"  p99 beside / alone: {ratios(show(f'reads beside {clients} that render', busy), alone)}")
    told = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
    print(f"renderings answered in {rounds} rounds of {seconds * 1.2:g} s: {told}")


def a_picture(settings: Settings) -> str:
    """Store a CT study; the path of one of its slices, rendered."""
    study, slices = a_study(settings)
    one = slices[0]
    return f"/dicomweb/studies/{study}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}/rendered"


@contextmanager
def rendering(
    settings: Settings, path: str, headers: dict[str, str], clients: int, answers: Counter[int]
) -> Iterator[None]:
    """So many clients, each with one connection and one rendering at a time, until the end.

    In a process of their own: those that are measured do not wait for them on the side of the clients.
    """
    spawn = multiprocessing.get_context("spawn")
    stop, told = spawn.Event(), spawn.SimpleQueue()
    where, first = (settings.host, settings.port, path), sum(answers.values()) + 1
    process = spawn.Process(
        target=_render, args=(where, headers | {"Accept": "image/jpeg"}, clients, first, stop, told)
    )
    process.start()
    told.get()  # it has begun
    try:
        yield
    finally:
        stop.set()
        answers.update(told.get())
        process.join()


def _render(
    where: tuple[str, int, str], headers: dict[str, str], clients: int, first: int, stop: Event, told: SimpleQueue
) -> None:
    """first: the width of the first window; each picture has another."""
    host, port, path = where
    answers: Counter[int] = Counter()
    windows, counting = itertools.count(first), threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        while not stop.is_set():
            connection.request("GET", f"{path}?window=40,{next(windows) + 1},linear", headers=headers)
            answer = connection.getresponse()
            answer.read()
            with counting:
                answers[answer.status] += 1
            if answer.status == 503:
                stop.wait(float(answer.headers["Retry-After"]))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    told.put(None)
    for thread in threads:
        thread.join()
    told.put(answers)


if __name__ == "__main__":
    main()
