"""A small practice with two referring offices, and the subscriptions over an empty store."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from flask import Flask, g
from pymongo.database import Database
from werkzeug.serving import make_server

import conformance
from fhir_server import http, routes, stream
from fhir_server.access import Access, Scope
from fhir_server.audit.event import Event, from_line
from fhir_server.audit.trail import Trail
from fhir_server.operation import Operation, OperationRequest
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.version import Version
from subscriptions import live, profile, store
from subscriptions.account import Account
from subscriptions.admission import SubscriptionAdmission
from subscriptions.courier import RetryPolicy
from subscriptions.live import Sessions, create_live_app
from subscriptions.matching import Matching
from subscriptions.outgoing import Outgoing
from subscriptions.rights import Rights
from subscriptions.service import SubscriptionService, create_service
from tests.subscriptions.hook_listener import Listener

ORIGIN = "http://127.0.0.1:8080"
BASE = f"{ORIGIN}/fhir"
LIVE = "ws://127.0.0.1:8081"
TOPICS = conformance.topics()
PRACTICE = Access.system("test")
ALL = (Scope("system", "*", "cruds"),)
QUICK = RetryPolicy(delays_s=(0.05,), give_up_after_s=0.3)


def topic(name: str) -> str:
    return f"{conformance.CANONICAL}/SubscriptionTopic/{name}"


def an_office(name: str, scopes: tuple[Scope, ...] = ALL) -> Access:
    """A client of a referring organization."""
    audience = frozenset({"@any", f"@Organization/{name}", f"@owner/client:{name}"})
    return Access(f"client:{name}", scopes, audience, client_id=name, organization=f"Organization/{name}")


LAKESIDE, HILLCREST = an_office("lakeside"), an_office("hillcrest")


def a_subscription(
    topic_name: str = "referral-status",
    *filters: str,
    content: str = "id-only",
    extensions: tuple[dict, ...] = (),
    channel: dict | None = None,
    **elements: Any,
) -> dict:
    """A Subscription by rest-hook; `channel` and `elements` replace what differs."""
    subscription: dict = {
        "resourceType": "Subscription",
        "meta": {"profile": [profile.SUBSCRIPTION_PROFILE]},
        "status": "requested",
        "reason": "news of our referrals",
        "criteria": topic(topic_name),
        "channel": {
            "type": "rest-hook",
            "endpoint": "http://127.0.0.1:9/hook",
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": profile.PAYLOAD_CONTENT, "valueCode": content}]},
        }
        | ({"extension": list(extensions)} if extensions else {})
        | (channel or {}),
    }
    if filters:
        extension = [{"url": profile.FILTER_CRITERIA, "valueString": text} for text in filters]
        subscription["_criteria"] = {"extension": extension}
    return subscription | elements


def a_websocket_subscription(topic_name: str = "referral-status", *filters: str, **more: Any) -> dict:
    subscription = a_subscription(topic_name, *filters, **more)
    subscription["channel"]["type"] = "websocket"
    del subscription["channel"]["endpoint"]
    return subscription


def a_plain_subscription(criteria: str = "Task?status=accepted", **channel: Any) -> dict:
    """A Subscription as R4 itself has it; what is None in the channel is left out."""
    usual = {"type": "rest-hook", "endpoint": "http://127.0.0.1:9/hook"}
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "news of our referrals",
        "criteria": criteria,
        "channel": {name: value for name, value in (usual | channel).items() if value is not None},
    }


def a_task(office: str = "lakeside", **elements: Any) -> dict:
    """A Task of a referral, seen by the practice and by this office."""
    requester = {"reference": f"Organization/{office}"}
    return {"resourceType": "Task", "status": "requested", "intent": "order", "requester": requester} | elements


class Clock:
    """The practice's time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class World:
    """Everything over one database. accesses: who has which rights now; remove one to take them away."""

    database: Database
    repository: Repository
    service: SubscriptionService
    clock: Clock
    accesses: dict[str, Access]
    _matching: Matching
    _folder: TemporaryDirectory
    _seen: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def store(self) -> Any:
        return self.service.store

    def create(self, resource: dict, access: Access = PRACTICE) -> str:
        return self.repository.create(access, resource).version.id

    def trail(self, kind: str) -> list[Event]:
        """What was audited of this kind."""
        lines = [line for path in Path(self._folder.name).iterdir() for line in path.read_bytes().splitlines()]
        return [event for line in lines if (event := from_line(line)).kind == kind]

    def subscribe(self, subscription: dict, access: Access = LAKESIDE) -> str:
        return self.create(subscription, access)

    def change(self, reference: str, access: Access = PRACTICE, **elements: Any) -> Version:
        resource_type, id = reference.split("/")
        return self.repository.amend(access, resource_type, id, lambda resource: resource | elements)

    def task(self, office: str = "lakeside", **elements: Any) -> str:
        return f"Task/{self.create(a_task(office, **elements))}"

    def pump(self) -> None:
        """Let the matching see, in order, the versions written since the last time."""
        for version in self.versions()[self._seen :]:
            self._matching(version)
            self._seen += 1

    def versions(self) -> list[Version]:
        """All versions as the stream tells them; here nothing is committed against the order of write numbers."""
        return [replace(version, position=n) for n, version in enumerate(self.repository.store.since(0), 1)]

    def replay(self) -> None:
        """Let a new consumer see everything again from the beginning, as after a crash."""
        self._matching = self.new_matching()
        self._matching.begin()
        self._seen = 0
        self.pump()

    def new_matching(self) -> Matching:
        return Matching(self.store, self.repository, TOPICS, self.rights(), Account(Trail(Path(self._folder.name))))

    def rights(self) -> Rights:
        return Rights(self.accesses.get, self.repository)

    def events(self, subscription: str) -> list[tuple[int, str]]:
        """(number, `Task/1/_history/2`) of the Subscription's events in order."""
        return [
            (event.number, f"{event.focus}/_history/{event.version}") for event in self.store.events(subscription, 1)
        ]

    def start(self) -> None:
        """Run matching and delivery as the worker does, until the test ends."""
        if self._threads:
            return
        for work in (self.service.match, self.service.deliver):
            thread = threading.Thread(target=work, args=(self._stop,))
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._stop = threading.Event()

    def status(self, subscription: str) -> str:
        return self.subscription(subscription)["status"]

    def subscription(self, id: str) -> dict:
        return self.repository.read(PRACTICE, "Subscription", id).resource()

    def operate(self, name: str, access: Access, instance: str | None = None, /, **parameters: Any) -> dict:
        """Call an operation of Subscription; parameters by name, as in a query."""
        operation: Operation = next(one for one in self.service.operations if one.name == name)
        values = [
            {"name": name, "valueString": value}
            for name, given in parameters.items()
            for value in (given if isinstance(given, list) else [given])
        ]
        return operation.handler(OperationRequest(access, "Subscription", instance, values))


def make_world(
    database: Database,
    accesses: dict[str, Access],
    policy: RetryPolicy = QUICK,
    topics: Any = TOPICS,
    outgoing: Outgoing | None = None,
    **senders: Any,
) -> World:
    clock, folder = Clock(), TemporaryDirectory()
    outgoing = outgoing or Outgoing(["127.0.0.1"])
    trail = Trail(Path(folder.name))
    admission = SubscriptionAdmission(topics, outgoing, clock)
    versions = VersionStore(database)
    repository = Repository(versions, BASE, clock, {"Subscription": [admission]}, check_references=False)
    service = create_service(
        database,
        repository,
        topics,
        accesses.get,
        outgoing,
        public_url=ORIGIN,
        live_url=LIVE,
        referral_number=lambda task: next((i["value"] for i in task.get("identifier", [])), None),
        clock=clock,
        trail=trail,
        **senders,
        policy=policy,
    )
    matching = Matching(service.store, repository, topics, Rights(accesses.get, repository), Account(trail))
    return World(database, repository, service, clock, accesses, matching, folder)


@pytest.fixture(autouse=True)
def stop_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers end within 50 ms, not half a second."""
    monkeypatch.setattr(stream, "AWAIT_MS", 50)
    monkeypatch.setattr(store, "AWAIT_MS", 50)


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    world = make_world(database, {access.subject: access for access in (LAKESIDE, HILLCREST)})
    yield world
    world.stop()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def served(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web(world: World) -> Iterator[str]:
    """The address of the FHIR API, which takes everybody for Lakeside's program."""
    app = Flask("test")
    http.install(app)

    @app.before_request
    def let_in() -> None:
        g.access = LAKESIDE

    app.register_blueprint(
        routes.create_blueprint(world.repository, world.service.operations, dict), url_prefix="/fhir"
    )
    yield from served(app)


@pytest.fixture
def sessions(world: World) -> Sessions:
    """The websockets of the live process."""
    return Sessions(world.service._sources, world.service.bindings, lambda: {ORIGIN})


@pytest.fixture
def sockets(sessions: Sessions) -> Iterator[str]:
    """The address of the websockets."""
    for address in served(create_live_app(sessions)):
        yield f"ws://{address}{live.PATH}"
        sessions.close()


def eventually(check: Callable[[], bool], timeout_s: float = 15) -> None:
    """Wait until it holds; for what has no event to wait for."""
    pause, ticks = threading.Event(), int(timeout_s / 0.02)
    assert any(check() or pause.wait(0.02) for _ in range(ticks)), "it did not happen in time"
