"""Subscriptions lose nothing, whatever is killed: every event, in order, under numbers without a gap.

Orders are written as fast as they are told of, in transactions whose repetition changes nothing, while processes are
killed by kill -9 and the primary of a replica set of three members fails over. Each subscriber keeps what arrives.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pymongo import MongoClient

from fhir_server import stream
from radloop.demo.players import BACKPORT, OFFICE, TOPICS
from radloop.demo.receivers import HookListener, SocketListener
from radloop.demo.stage import Caller, wait_for
from tests.replica_set import ReplicaSet, replica_set
from tests.server import Server, running

log = logging.getLogger(__name__)

PRIORITIES = ("routine", "urgent", "asap", "stat")
WRITERS = 4
MOST_AT_ONCE = 20  # orders in one transaction
MOST_UNDER_WAY = 1000  # orders that are written and not told of yet; then the writers wait
STANDSTILL_S = 120  # so long nothing arrives: something was lost
SYSTEM = "urn:oid:2.999.7.9"


@dataclass(frozen=True, slots=True)
class Order:
    """One write of an order; `serial` counts those of its writer."""

    writer: int
    serial: int
    id: str
    priority: str

    @property
    def resource(self) -> dict:
        return {
            "resourceType": "ServiceRequest",
            "id": self.id,
            "identifier": [{"system": SYSTEM, "value": f"{self.writer}.{self.serial}"}],
            "status": "draft",
            "intent": "order",
            "priority": self.priority,
            "subject": {"reference": f"Patient/guarantee-{self.writer}"},
            "requester": {"reference": OFFICE},
        }


def orders(writer: int, count: int) -> Iterator[list[Order]]:
    """What a writer writes, by transactions; one of each is an update of the first order of the one before."""
    dice, serial, earlier = random.Random(writer), 0, None
    while serial < count:
        batch = []
        for _ in range(min(dice.randint(1, MOST_AT_ONCE), count - serial)):
            if earlier is not None:
                id, priority = earlier.id, earlier.priority
            else:
                id, priority = f"guarantee-{writer}-{serial}", dice.choice(PRIORITIES)
            batch.append(Order(writer, serial, id, priority))
            earlier, serial = None, serial + 1
        yield batch
        earlier = batch[-1]


class Ledger:
    """What one Subscription's listener was sent, in the order of arrival: an `Inbox` that forgives nothing."""

    def __init__(self) -> None:
        self.handshakes: set[str] = set()
        self.arrivals: list[tuple[int, str, str | None]] = []  # number, focus, number of the order that came along
        self.arrived = 0  # numbers

    def take(self, bundle: dict) -> None:
        told = bundle["entry"][0]["resource"]["parameter"]
        status = {one["name"]: one for one in told if one["name"] != "notification-event"}
        if status["type"]["valueCode"] == "handshake":
            self.handshakes.add(status["subscription"]["valueReference"]["reference"].rpartition("/")[2])
        events = [{part["name"]: part for part in one["part"]} for one in told if one["name"] == "notification-event"]
        entries = bundle["entry"][1:]
        assert len(entries) == len(events)
        for event, entry in zip(events, entries, strict=True):
            number = int(event["event-number"]["valueString"])
            focus = event["focus"]["valueReference"]["reference"]
            assert entry["fullUrl"] == focus
            identifier = entry.get("resource", {}).get("identifier", [{}])[0].get("value")
            self.arrivals.append((number, "/".join(focus.split("/")[-2:]), identifier))
            self.arrived = max(self.arrived, number)


@dataclass
class Subscriber:
    """A Subscription with who listens to it."""

    filter: str
    wants: Callable[[Order], bool]
    full: bool
    ledger: Ledger = field(default_factory=Ledger)
    close: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None

    def judge(self, written: list[list[Order]]) -> int:
        """Assert that all was told once, in order, without a gap; returns how often an event came again."""
        first: dict[int, tuple[str, str | None]] = {}
        for number, *what in self.ledger.arrivals:
            if number in first:
                assert first[number] == tuple(what), f"{self.filter}: {number} is another event when it comes again"
            else:
                assert number == len(first) + 1, f"{self.filter}: {number} arrived after {len(first)}"
                first[number] = (what[0], what[1])
        told: dict[int, list[tuple[str, str | None]]] = {writer: [] for writer in range(WRITERS)}
        for focus, identifier in first.values():
            told[int(focus.split("-")[1])].append((focus, identifier))
        for writer, all_orders in enumerate(written):
            wanted = [
                (f"ServiceRequest/{order.id}", f"{order.writer}.{order.serial}" if self.full else None)
                for order in all_orders
                if self.wants(order)
            ]
            assert told[writer] == wanted, f"{self.filter}: orders of writer {writer} are lost or out of order"
        return len(self.ledger.arrivals) - len(first)


def subscribers() -> list[Subscriber]:
    """By rest-hook and by websocket, with filters that split the orders and one that takes them all."""
    return [
        Subscriber(f"requester={OFFICE}", lambda order: True, full=True),
        Subscriber("priority=routine", lambda order: order.priority == "routine", full=False),
        Subscriber("priority=urgent,stat", lambda order: order.priority in ("urgent", "stat"), full=False),
        Subscriber("priority:not=asap", lambda order: order.priority != "asap", full=True),
        Subscriber("patient=Patient/guarantee-2", lambda order: order.writer == 2, full=False),
    ]


@dataclass
class Proof:
    """A run: the server over three members, its subscribers and writers."""

    server: Server
    members: ReplicaSet
    everyone: list[Subscriber]
    written: list[list[Order]] = field(default_factory=lambda: [[] for _ in range(WRITERS)])
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def told(self) -> int:
        """Orders that the subscriber to all has been told of."""
        return self.everyone[0].ledger.arrived

    def caller(self) -> Caller:
        return Caller(self.server.settings.fhir_base, self.server.backend("demo-ehr"))

    def subscribe(self) -> None:
        caller = self.caller()
        for number, subscriber in enumerate(self.everyone):
            channel: dict = {
                "type": "rest-hook" if number % 2 == 0 else "websocket",
                "payload": "application/fhir+json",
                "_payload": _extension(
                    "payload-content", valueCode="full-resource" if subscriber.full else "id-only"
                ),
            }
            if channel["type"] == "rest-hook":
                hook = HookListener()
                hook.inbox, subscriber.close = subscriber.ledger, hook.close  # type: ignore[assignment]
                channel |= {"endpoint": hook.endpoint, "header": [f"Authorization: Bearer {hook.secret}"]}
            subscription = {
                "resourceType": "Subscription",
                "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
                "status": "requested",
                "reason": "Nothing is lost",
                "criteria": f"{TOPICS}/referral-order",
                "_criteria": _extension("filter-criteria", valueString=subscriber.filter),
                "channel": channel,
            }
            id = caller.create(subscription)["id"]
            if channel["type"] == "websocket":
                socket = SocketListener(lambda id=id: _binding(caller, id))  # type: ignore[misc]
                socket.inbox, subscriber.close = subscriber.ledger, socket.close  # type: ignore[assignment]
                subscriber.check = socket.check
            wait_for("the Subscription is active", lambda id=id: _is_active(caller, id))  # type: ignore[misc]
            wait_for("the handshake", lambda s=subscriber, id=id: id in s.ledger.handshakes)  # type: ignore[misc]

    def write(self, writer: int, count: int) -> None:
        """Write orders one transaction after the other; one whose answer was lost is sent again."""
        caller = self.caller()
        for batch in orders(writer, count):
            while sum(map(len, self.written)) - self.told > MOST_UNDER_WAY:
                if self._stop.wait(0.02):
                    return
            entries = [
                {"resource": order.resource, "request": {"method": "PUT", "url": f"ServiceRequest/{order.id}"}}
                for order in batch
            ]
            caller.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
            self.written[writer] += batch

    def run(self, count: int, disturb: Callable[["Proof", Callable[[], bool]], None]) -> None:
        """Write `count` orders while `disturb` kills; return once all of them are told to all."""
        caller = self.caller()
        for writer in range(WRITERS):
            patient = {"resourceType": "Patient", "id": f"guarantee-{writer}"}
            entry = {"resource": patient, "request": {"method": "PUT", "url": f"Patient/guarantee-{writer}"}}
            caller.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        self.subscribe()
        with ThreadPoolExecutor(WRITERS) as pool:
            writing = [pool.submit(self.write, writer, count // WRITERS) for writer in range(WRITERS)]
            try:
                # In this thread: a child of another one would be ended with it.
                disturb(self, lambda: all(one.done() for one in writing) or any(map(_has_failed, writing)))
                self._wait(writing)
            finally:
                self._stop.set()

    def _wait(self, writing: list[Future]) -> None:
        """Until everything is written and told. Fails when nothing arrives any more."""
        seen, since = -1, time.monotonic()
        while True:
            for one in writing:
                if one.done():
                    one.result()
            for subscriber in self.everyone:
                subscriber.check()
            arrived = sum(subscriber.ledger.arrived for subscriber in self.everyone)
            if arrived != seen:
                seen, since = arrived, time.monotonic()
            if all(one.done() for one in writing) and arrived >= self.expected():
                return
            assert time.monotonic() - since < STANDSTILL_S, f"{arrived} of {self.expected()} events arrived"
            time.sleep(0.05)

    def expected(self) -> int:
        return sum(s.wants(order) for s in self.everyone for written in self.written for order in written)

    def judge(self) -> str:
        """Assert what is promised; returns the figures."""
        again = [subscriber.judge(self.written) for subscriber in self.everyone]
        with MongoClient(self.members.uri, tz_aware=True) as client:
            assert stream.failures(client[self.server.settings.mongodb_database]) == []
        return f"{sum(map(len, self.written))} orders, {self.expected()} events, {sum(again)} of them came again"


@contextmanager
def a_proof(folder: Path) -> Iterator[Proof]:
    with replica_set(folder / "set") as members, running(folder, mongodb_uri=members.uri) as server:
        proof = Proof(server, members, subscribers())
        try:
            yield proof
        finally:
            for subscriber in proof.everyone:
                subscriber.close()


def one_worker_and_one_primary(proof: Proof, over: Callable[[], bool]) -> None:
    """Each once, in the middle of the run."""
    wait_for("some orders are told", lambda: proof.told > 200)
    proof.server.kill("worker")
    wait_for("some more are told", lambda: proof.told > 600)
    primary = proof.members.primary()
    primary.kill()
    proof.members.primary()
    primary.start()


class Disturbance:
    """Kills at random until the writers are done; `deaths` counts by name."""

    def __init__(self, seed: int) -> None:
        self.deaths: dict[str, int] = {}
        self._dice = random.Random(seed)

    def __call__(self, proof: Proof, over: Callable[[], bool]) -> None:
        acts: dict[str, Callable[[Proof], None]] = {
            "worker": lambda proof: proof.server.kill("worker"),
            "web": lambda proof: proof.server.kill("web"),
            "live": lambda proof: proof.server.kill("live"),
            "primary": lambda proof: self._kill(proof, lambda m: m is proof.members.primary()),
            "secondary": lambda proof: self._kill(proof, lambda m: m is not proof.members.primary()),
            "all members": lambda proof: self._kill(proof, lambda m: True, at_most=3),
            "step down": lambda proof: proof.members.step_down(),
        }
        while not over():
            name = self._dice.choice(list(acts))
            acts[name](proof)
            self.deaths[name] = self.deaths.get(name, 0) + 1
            time.sleep(self._dice.uniform(0.5, 12))

    def _kill(self, proof: Proof, which: Callable[..., bool], at_most: int = 1) -> None:
        members = [member for member in proof.members.members if which(member)][:at_most]
        for member in members:
            member.kill()
        time.sleep(self._dice.uniform(0, 6))
        for member in members:
            member.start()
        proof.members.primary()


def test_nothing_is_lost_when_a_worker_and_the_primary_are_killed(tmp_path: Path) -> None:
    with a_proof(tmp_path) as proof:
        proof.run(1200, one_worker_and_one_primary)
        proof.judge()


@pytest.mark.slow
def test_nothing_is_lost_whatever_is_killed(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """`--guarantee-events 100000 --guarantee-seed 1`; `-o log_cli=true` shows the figures."""
    count, seed = (int(pytestconfig.getoption(f"--guarantee-{name}")) for name in ("events", "seed"))
    disturbance = Disturbance(seed)
    with a_proof(tmp_path) as proof:
        proof.run(count, disturbance)
        log.warning("seed %d: %s; killed: %s", seed, proof.judge(), disturbance.deaths)


def _extension(name: str, **value: str) -> dict:
    return {"extension": [{"url": f"{BACKPORT}/backport-{name}", **value}]}


def _binding(caller: Caller, id: str) -> tuple[str, str]:
    answer = caller.get(f"Subscription/{id}/$get-ws-binding-token")
    values = {parameter["name"]: parameter for parameter in answer["parameter"]}
    return values["websocket-url"]["valueUrl"], values["token"]["valueString"]


def _has_failed(work: Future) -> bool:
    return work.done() and work.exception() is not None


def _is_active(caller: Caller, id: str) -> bool:
    return caller.get(f"Subscription/{id}")["status"] == "active"
