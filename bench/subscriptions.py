"""What Subscriptions cost: `python -m bench.subscriptions`.

On a demonstration server of its own, from the moment when a write is committed until its event is received on the
same machine, by rest-hook and by websocket, while 1,000 Subscriptions are active; what endpoints that hang cost the
others; what matching adds to a write; the memory of open websockets. Writers and receivers share the cores with the
server.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.__main__ import quantile
from bench.memory import processes
from bench.subscribers import Subscribers, raise_file_limit, subscribers
from fhir_server.access import Access
from fhir_server.prepare import Draft
from radloop.commands.demo import server_of_its_own
from radloop.demo.players import BACKPORT, TOPICS
from radloop.demo.stage import wait_for
from radloop.parts import Parts, create_parts
from radloop.settings import Settings
from smart_auth.access import access_of_client
from smart_auth.models import Client

STAFF = Access.system("bench")
SYSTEM = "urn:oid:2.999.7.11"
OWNERS = 100
WRITERS = 8
CHUNK = 50  # Subscriptions in one commit, of one owner; so many websockets may one have
ARRIVE_S = 120
ACTIVE_S = 600
PATIENT = {"resourceType": "Patient", "id": "bench"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=20, help="for each figure")
    arguments.add_argument("--subscriptions", type=int, default=1000, help="half by rest-hook, half by websocket")
    arguments.add_argument("--sockets", type=int, default=5000)
    arguments.add_argument("--matching", type=int, nargs="*", default=[0, 1000, 10000], help="Subscriptions")
    arguments.add_argument("--only", nargs="*", choices=sorted(FIGURES), default=list(FIGURES))
    options = arguments.parse_args()
    raise_file_limit()
    for name in options.only:
        with server_of_its_own() as settings, subscribers() as receivers:
            bench = Bench(settings, receivers)
            print(f"\n{name} (load {os.getloadavg()[0]:.1f} before)")
            try:
                FIGURES[name](bench, options)
            finally:
                bench.close()


class Bench:
    """A server with owners of Subscriptions, and a Repository beside it to write by."""

    def __init__(self, settings: Settings, receivers: Subscribers) -> None:
        self.settings, self.receivers = settings, receivers
        self.parts: Parts = create_parts(settings)
        self.owners = [self._owner(number) for number in range(OWNERS)]
        self.parts.repository.update(STAFF, PATIENT)
        self.serial = itertools.count()
        self._turn = itertools.count()
        self.late_s = 0.0  # the writers of the last figures
        self._before: dict[str, float] = {}

    def close(self) -> None:
        self.parts.close()

    def subscribe(self, keys: Iterable[str], channel: Callable[[int], dict]) -> list[tuple[Access, str]]:
        """An active Subscription to the orders that carry each key; its owner and id."""
        found = []
        keys = list(keys)
        for begin in range(0, len(keys), CHUNK):
            owner = self.owners[next(self._turn) % OWNERS]
            drafts = [
                Draft("create", _subscription(key, channel(begin + index)))
                for index, key in enumerate(keys[begin : begin + CHUNK])
            ]
            found += [(owner, written.version.id) for written in self.parts.repository.write(owner, drafts)]
        ids = {id for _, id in found}
        deadline = time.monotonic() + ACTIVE_S
        while self._active(ids) < len(ids):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(ids)} Subscriptions are not active within {ACTIVE_S} s")
            time.sleep(1)  # a look costs the server more than a moment when there are many
        return found

    def bind(self, subscribed: Sequence[tuple[Access, str]]) -> None:
        """Open a websocket for each."""
        bindings = self.parts.subscriptions.bindings
        tokens = [bindings.bind(owner.subject, [id])[0] for owner, id in subscribed]
        self.receivers.bind(f"{self.settings.live_url}/ws/subscriptions", tokens)

    def write(self, keys: Sequence[str], rate: float, seconds: float) -> dict[str, float]:
        """Write orders with these keys in turns, so many a second; when each was committed, by its id."""
        together = max(1, round(rate / 100))  # in one commit, so that the writers leave the cores to the server
        committed: dict[str, float] = {}
        count = int(rate * seconds / together)
        self._before = self._spent()
        begin = time.monotonic() + 0.2

        def commit(turn: int) -> None:
            time.sleep(max(0.0, begin + turn * together / rate - time.monotonic()))
            orders = [_order(keys[(turn * together + n) % len(keys)], next(self.serial)) for n in range(together)]
            self.parts.repository.write(STAFF, [Draft("update", order) for order in orders])
            now = time.monotonic()
            committed.update({order["id"]: now for order in orders})

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(commit, range(count)))
        self.late_s = time.monotonic() - begin - seconds
        return committed

    def latencies(self, committed: dict[str, float]) -> list[float]:
        """Milliseconds from each commit to its receipt, once all have arrived."""
        arrived = wait_for("all events arrive", lambda: self._arrived(committed), timeout_s=ARRIVE_S)
        return [max(0.0, (arrived[id] - at) * 1000) for id, at in committed.items()]

    def costs(self, events: int) -> str:
        """What each event of the last figures took of a core, by process."""
        now = self._spent()
        told = (f"{name} {(now[name] - self._before[name]) * 1000 / events:.2f}" for name in now)
        return "ms of a core for each: " + ", ".join(told)

    def _spent(self) -> dict[str, float]:
        server = {name: _cpu_s(self.settings, name) for name in ("worker", "live", "mongod")}
        return server | {"writers": time.process_time(), "receivers": self.receivers.cpu_s()}

    def _arrived(self, committed: dict[str, float]) -> dict[str, float] | None:
        at = self.receivers.arrivals().at
        return at if committed.keys() <= at.keys() else None

    def _active(self, ids: set[str]) -> int:
        states = self.parts.subscriptions.store.states()
        return sum(state.id in ids and state.status == "active" for state in states)

    def _owner(self, number: int) -> Access:
        client = Client(f"bench-{number}", "backend", "bench", "system/*.cruds", practice=True)
        self.parts.auth.store.add_client(client)
        return access_of_client(client)


def receipt(bench: Bench, options: argparse.Namespace) -> None:
    """From commit to receipt, at two rates, by each channel."""
    half = options.subscriptions // 2
    hooks = [f"hook-{n}" for n in range(half)]
    sockets = [f"socket-{n}" for n in range(half)]
    bench.subscribe(hooks, lambda n: _rest_hook(bench.receivers.hook(n)))
    bench.bind(bench.subscribe(sockets, lambda _n: {"type": "websocket"}))
    print(f"{2 * half} active Subscriptions, each event for one of them; ms from commit to receipt")
    bench.latencies(bench.write([*hooks, *sockets], 50, 5))  # warm-up
    for rate in (100, 500):
        for name, keys in (("rest-hook", hooks), ("websocket", sockets)):
            times = bench.latencies(bench.write(keys, rate, options.seconds))
            show(f"{name}, {rate} events/s", times, f"writers {max(0.0, bench.late_s):.1f} s late")
            print(f"    {bench.costs(len(times))}")


def hanging(bench: Bench, options: argparse.Namespace) -> None:
    """What the others get while 30 % of the endpoints hang."""
    count = options.subscriptions
    well = [f"well-{n}" for n in range(count * 7 // 10)]
    ill = [f"ill-{n}" for n in range(count - len(well))]
    bench.subscribe(well, lambda n: _rest_hook(bench.receivers.hook(n)))
    bench.subscribe(ill, lambda n: _rest_hook(bench.receivers.hanging(n)))
    mixed = [key for group in itertools.zip_longest(well, ill) for key in group if key]
    print(f"{count} endpoints, 100 events/s to all of them in turns; ms from commit to receipt of those in health")
    bench.latencies(bench.write(mixed, 50, 5))
    figures = []
    for name in ("all in health", "30 % hang", "30 % hang, later on"):
        bench.receivers.hang("hang" in name)
        committed = bench.write(mixed, 100, options.seconds)
        told = {key: at for key, at in committed.items() if name == "all in health" or not key.startswith("ill")}
        times = bench.latencies(told)
        figures.append(quantile(times, 99))
        show(name, times, f"p99 {figures[-1] / figures[0]:.2f} of that in health")
        print(f"    {bench.costs(len(committed))}")
    print(f"  {bench.receivers.arrivals().hung} calls hung")


def matching(bench: Bench, options: argparse.Namespace) -> None:
    """What a write that concerns one Subscription of so many costs its writer, and the worker."""
    there, events = 0, 0
    first: tuple[float, float] | None = None
    for wanted in options.matching:
        bench.subscribe([f"match-{n}" for n in range(there, wanted)], lambda _n: {"type": "websocket"})
        there = wanted
        keys = [f"match-{n}" for n in range(max(1, wanted))]
        spent_s, times = _cpu_s(bench.settings), []
        began = time.monotonic()
        while time.monotonic() - began < options.seconds:
            before = time.perf_counter()
            bench.parts.repository.update(STAFF, _order(keys[len(times) % len(keys)], next(bench.serial)))
            times.append((time.perf_counter() - before) * 1000)
        events += len(times) if wanted else 0
        _until_matched(bench, events)
        spent = (_cpu_s(bench.settings) - spent_s) * 1000 / len(times)
        now = (statistics.median(times), spent)
        first = first or now
        print(
            f"  {wanted:>6} Subscriptions: a write takes {now[0]:5.2f} ms ({now[0] - first[0]:+.2f}), "
            f"the worker {now[1]:5.2f} ms of a core for it ({now[1] - first[1]:+.2f})"
            f"  (load {os.getloadavg()[0]:.1f})",
            flush=True,
        )


def sockets(bench: Bench, options: argparse.Namespace) -> None:
    """Open websockets, and the memory of the process that holds them."""
    before = _live_mib(bench.settings)
    keys = [f"open-{n}" for n in range(options.sockets)]
    subscribed = bench.subscribe(keys, lambda _n: {"type": "websocket"})
    began = time.monotonic()
    bench.bind(subscribed)
    opened_s = time.monotonic() - began
    after = _live_mib(bench.settings)
    per_kib = (after - before) * 1024 / len(keys)
    print(
        f"  {len(keys)} websockets open after {opened_s:.0f} s: live process {after:.0f} MiB, {before:.0f} before; "
        f"{per_kib:.0f} KiB for each"
    )
    cpu_s = _cpu_s(bench.settings, "live")
    time.sleep(options.seconds)
    print(f"  in silence it takes {(_cpu_s(bench.settings, 'live') - cpu_s) / options.seconds:.0%} of a core")
    times = bench.latencies(bench.write(keys, 100, options.seconds))
    show("100 events/s", times)
    print(f"    {bench.costs(len(times))}")


FIGURES = {"receipt": receipt, "hanging": hanging, "matching": matching, "sockets": sockets}


def show(name: str, times: Sequence[float], more: str = "") -> None:
    p50, p99 = quantile(times, 50), quantile(times, 99)
    told = f"  {name:<26} p50 {p50:7.1f}  p99 {p99:7.1f}  max {max(times):7.1f}"
    print(f"{told}  {more}  (load {os.getloadavg()[0]:.1f})", flush=True)


def _subscription(key: str, channel: dict) -> dict:
    return {
        "resourceType": "Subscription",
        "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
        "status": "requested",
        "reason": "Benchmark",
        "criteria": f"{TOPICS}/referral-order",
        "_criteria": _extension("filter-criteria", valueString=f"identifier={SYSTEM}|{key}"),
        "channel": {
            "payload": "application/fhir+json",
            "_payload": _extension("payload-content", valueCode="id-only"),
        }
        | channel,
    }


def _rest_hook(endpoint: str) -> dict:
    return {"type": "rest-hook", "endpoint": endpoint}


def _extension(name: str, **value: str) -> dict:
    return {"extension": [{"url": f"{BACKPORT}/backport-{name}", **value}]}


def _order(key: str, serial: int) -> dict:
    return {
        "resourceType": "ServiceRequest",
        "id": f"{key.partition('-')[0]}-{serial}",
        "identifier": [{"system": SYSTEM, "value": key}],
        "status": "draft",
        "intent": "order",
        "subject": {"reference": "Patient/bench"},
    }


def _until_matched(bench: Bench, number: int) -> None:
    """Wait until the worker has matched so many events in all."""
    store = bench.parts.subscriptions.store
    wait_for("all is matched", lambda: sum(store.last_numbers().values()) >= number or None, timeout_s=ARRIVE_S)


def _processes(settings: Settings, name: str) -> list[int]:
    found = (told.removesuffix(")").split(" (") for told, *_ in processes(settings))
    return [int(pid) for process, pid in found if process == name]


def _cpu_s(settings: Settings, name: str = "worker") -> float:
    """Seconds of a core that the processes of this name have had."""
    ticks = 0
    for pid in _processes(settings, name):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _live_mib(settings: Settings) -> float:
    """Resident memory of the process that holds the websockets; the other one of the name only starts it."""
    return max(resident for told, resident, _ in processes(settings) if told.startswith("live"))


if __name__ == "__main__":
    main()
