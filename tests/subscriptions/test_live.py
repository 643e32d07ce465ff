"""Notifications by websocket, over a real server and real sockets."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
import simple_websocket
from werkzeug.serving import make_server

from fhir_server.access import Access
from fhir_server.errors import NotAuthenticated
from radloop import mongod
from subscriptions import hub, live, profile, session
from subscriptions.live import Sessions, create_live_app
from tests.subscriptions.conftest import (
    BASE,
    HILLCREST,
    LAKESIDE,
    ORIGIN,
    World,
    a_plain_subscription,
    a_websocket_subscription,
    eventually,
    topic,
)
from tests.subscriptions.hook_listener import events_of, status_of


@pytest.fixture
def server(world: World) -> Iterator[str]:
    """The address of a live process."""

    def subject_of(token: str) -> str:
        if token not in world.accesses:
            raise NotAuthenticated("not a token of ours")
        return token

    sessions = Sessions(world.service._sources, world.service.bindings, lambda: {ORIGIN}, subject_of)
    server = make_server("127.0.0.1", 0, create_live_app(sessions), threaded=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    sessions.close()
    server.shutdown()
    thread.join()
    server.server_close()


class Client:
    """A subscriber's program: keeps what it is sent."""

    def __init__(self, server: str, **headers: str) -> None:
        self.socket = simple_websocket.Client.connect(f"ws://{server}{live.PATH}", headers=headers)
        self.frames: list[Any] = []

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def bind(self, token: str) -> None:
        self.say(type="bind-with-token", payload={"token": token})

    def hear(self, timeout_s: float = 10) -> Any:
        """The next frame."""
        frame = self.socket.receive(timeout=timeout_s)
        assert frame is not None, f"nothing came after {self.frames}"
        self.frames.append(json.loads(frame))
        return self.frames[-1]

    def hear_events(self, count: int) -> list[tuple[int, str]]:
        """The next events, whatever else comes with them."""
        found: list[tuple[int, str]] = []
        while len(found) < count:
            found += events_of(self.hear())
        return found

    def closed(self, timeout_s: float = 10) -> int:
        """The code that the server closes with."""
        deadline = time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline:
                frame = self.socket.receive(timeout=0.5)
                if frame is not None:
                    self.frames.append(json.loads(frame))
        except simple_websocket.ConnectionClosed as end:
            return int(end.reason)
        raise AssertionError("the server does not close")

    def leave(self) -> None:
        try:
            self.socket.close()
        except simple_websocket.ConnectionClosed:
            pass


@pytest.fixture
def connect(server: str) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(**headers: str) -> Client:
        clients.append(Client(server, **headers))
        return clients[-1]

    yield connect
    for client in clients:
        client.leave()


def subscribed(world: World, *filters: str, access: Access = LAKESIDE, **more: Any) -> str:
    """An active Subscription by websocket; the worker is at work."""
    world.start()
    id = world.subscribe(a_websocket_subscription("referral-status", *filters, **more), access)
    eventually(lambda: world.status(id) == "active")
    return id


def token_of(world: World, *ids: str, access: Access = LAKESIDE) -> str:
    answer = world.operate("get-ws-binding-token", access, id=list(ids))
    return next(one["valueString"] for one in answer["parameter"] if one["name"] == "token")


class TestR4Frames:
    """http://hl7.org/fhir/R4/subscription.html: `bind ID`, answered by `bound ID`, and `ping ID` at each event."""

    def plain(self, world: World, criteria: str = "Task", **channel: Any) -> str:
        world.start()
        id = world.subscribe(a_plain_subscription(criteria, type="websocket", endpoint=None, **channel))
        eventually(lambda: world.status(id) == "active")
        return id

    def test_bind_and_ping(self, world: World, connect: Callable[..., Client]) -> None:
        id = self.plain(world)
        client = connect(Authorization=f"Bearer {LAKESIDE.subject}")
        client.socket.send(f"bind {id}")
        assert client.socket.receive(timeout=10) == f"bound {id}"
        world.task()
        world.task()
        assert [client.socket.receive(timeout=10) for _ in range(2)] == [f"ping {id}"] * 2
        eventually(lambda: world.store.state(id).delivered == 2)

    def test_pings_of_while_it_was_away_come_at_the_next_bind(
        self, world: World, connect: Callable[..., Client]
    ) -> None:
        id = self.plain(world)
        world.task()
        eventually(lambda: world.store.last_number(id) == 1)
        client = connect(Authorization=f"Bearer {LAKESIDE.subject}")
        client.socket.send(f"bind {id}")
        assert [client.socket.receive(timeout=10) for _ in range(2)] == [f"bound {id}", f"ping {id}"]

    @pytest.mark.parametrize("caller", [None, HILLCREST.subject])
    def test_who_is_not_the_owner_by_an_access_token_binds_nothing(
        self, world: World, connect: Callable[..., Client], caller: str | None
    ) -> None:
        id = self.plain(world)
        client = connect(**({"Authorization": f"Bearer {caller}"} if caller else {}))
        client.socket.send(f"bind {id}")
        assert client.closed() == 4401

    def test_a_bad_access_token_is_refused_at_the_door(self, server: str) -> None:
        with pytest.raises(simple_websocket.ConnectionError, match="401"):
            Client(server, Authorization="Bearer nobody")

    @pytest.mark.parametrize("payload, resources", [({}, 0), ({"payload": "application/fhir+json"}, 1)])
    def test_bound_by_a_token_a_subscription_status_heads_the_bundle(
        self, world: World, connect: Callable[..., Client], payload: dict, resources: int
    ) -> None:
        id = self.plain(world, **payload)
        client = connect()
        client.bind(token_of(world, id))
        assert client.hear()["entry"][0]["resource"]["type"] == "handshake"
        task = world.task()
        bundle = client.hear()
        status = bundle["entry"][0]["resource"]
        assert (status["resourceType"], status["type"]) == ("SubscriptionStatus", "event-notification")
        assert status["subscription"] == {"reference": f"Subscription/{id}"}
        assert [(one["eventNumber"], one["focus"]) for one in status["notificationEvent"]] == [
            ("1", {"reference": f"{BASE}/{task}"})
        ]
        assert len([entry for entry in bundle["entry"][1:] if "resource" in entry]) == resources


class TestReplay:
    def test_an_open_websocket_is_sent_again_from_the_number_on(
        self, world: World, connect: Callable[..., Client]
    ) -> None:
        id = subscribed(world)
        client = connect()
        client.bind(token_of(world, id))
        client.hear()
        for _ in range(3):
            world.task()
        assert [number for number, _ in client.hear_events(3)] == [1, 2, 3]
        eventually(lambda: world.store.state(id).delivered == 3)
        assert world.store.rewind(id, 2)
        assert [number for number, _ in client.hear_events(2)] == [2, 3]
        eventually(lambda: world.store.state(id).delivered == 3)


class TestBinding:
    def test_is_answered_by_a_handshake_for_each_subscription(
        self, world: World, connect: Callable[..., Client]
    ) -> None:
        ids = {subscribed(world), subscribed(world, "status=accepted")}
        client = connect()
        client.bind(token_of(world, *ids))
        told = [status_of(client.hear()) for _ in ids]
        assert {one["subscription"]["reference"] for one in told} == {f"{BASE}/Subscription/{id}" for id in ids}
        assert {(one["type"], one["status"], one["topic"]) for one in told} == {
            ("handshake", "active", topic("referral-status"))
        }

    def test_may_come_before_the_subscription_is_active(self, world: World, connect: Callable[..., Client]) -> None:
        world.start()
        id = world.subscribe(a_websocket_subscription())
        client = connect()
        client.bind(token_of(world, id))
        assert status_of(client.hear())["type"] == "handshake"
        eventually(lambda: world.status(id) == "active")
        task = world.task()
        assert client.hear_events(1) == [(1, f"{BASE}/{task}")]

    @pytest.mark.parametrize("token", ["", "x", "x" * 5000, "\ud800", "{}"])
    def test_by_a_bad_token_closes_4401(self, connect: Callable[..., Client], token: str) -> None:
        client = connect()
        client.bind(token)
        assert client.closed() == (1009 if len(token) > live.MAX_MESSAGE else session.NOT_BOUND)

    def test_by_an_old_token_closes_4401(self, world: World, connect: Callable[..., Client]) -> None:
        token = token_of(world, subscribed(world))
        world.service.bindings.now = lambda: datetime.now(UTC) + timedelta(minutes=31)
        client = connect()
        client.bind(token)
        assert client.closed() == session.NOT_BOUND

    def test_ends_with_its_token(self, world: World, connect: Callable[..., Client]) -> None:
        client = connect()
        client.bind(token_of(world, subscribed(world)))
        client.hear()
        world.service.bindings.now = lambda: datetime.now(UTC) + timedelta(minutes=31)
        client.say(type="ping")
        assert client.closed() == session.NOT_BOUND

    def test_must_come_soon(self, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "BIND_WITHIN_S", 0.1)
        assert connect().closed() == session.NOT_BOUND

    def test_ends_when_it_is_taken_back(self, world: World, connect: Callable[..., Client]) -> None:
        first, second = subscribed(world), subscribed(world)
        tokens = [token_of(world, id) for id in (first, second)]
        client = connect()
        for token in tokens:
            client.bind(token)
            client.hear()
        client.say(type="unbind-from-token", payload={"token": tokens[0]})
        client.say(type="ping")
        assert client.hear() == {"type": "pong"}
        world.task()
        assert status_of(client.hear())["subscription"]["reference"] == f"{BASE}/Subscription/{second}"

    def test_one_subscriber_has_so_many_sockets_and_no_more(
        self, world: World, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub, "MAX_OF_SUBJECT", 2)
        token = token_of(world, subscribed(world))
        clients = [connect() for _ in range(3)]
        for client in clients[:2]:
            client.bind(token)
            client.hear()
        clients[2].bind(token)
        assert clients[2].closed() == session.TOO_MANY
        clients[0].leave()
        eventually(lambda: _binds(connect(), token))


def _binds(client: Client, token: str) -> bool:
    client.bind(token)
    try:
        client.hear()
    except simple_websocket.ConnectionClosed:
        return False
    return True


class TestEvents:
    def test_come_as_they_happen_in_order(self, world: World, connect: Callable[..., Client]) -> None:
        client = connect()
        client.bind(token_of(world, subscribed(world)))
        client.hear()
        task = world.task()
        for state in ("received", "accepted", "in-progress"):
            world.change(task, status=state)
        assert client.hear_events(4) == [(n, f"{BASE}/{task}") for n in (1, 2, 3, 4)]
        assert status_of(client.frames[-1])["events-since-subscription-start"] == "4"

    def test_that_happened_while_nobody_listened_come_first(
        self, world: World, connect: Callable[..., Client]
    ) -> None:
        id = subscribed(world)
        tasks = [world.task() for _ in range(25)]  # more than go into one bundle
        eventually(lambda: len(world.events(id)) == 25)
        client = connect()
        client.bind(token_of(world, id))
        assert status_of(client.hear())["events-since-subscription-start"] == "25"
        assert client.hear_events(25) == [(n, f"{BASE}/{task}") for n, task in enumerate(tasks, 1)]

    def test_go_on_after_the_last_that_arrived(self, world: World, connect: Callable[..., Client]) -> None:
        id = subscribed(world)
        first = connect()
        first.bind(token_of(world, id))
        world.task()
        first.hear_events(1)
        eventually(lambda: world.store.state(id).delivered == 1)
        first.leave()
        world.task()
        second = connect()
        second.bind(token_of(world, id))
        assert [number for number, _ in second.hear_events(1)] == [2]

    def test_that_were_sent_but_did_not_arrive_come_again(
        self, world: World, connect: Callable[..., Client], server: str
    ) -> None:
        id = subscribed(world)
        with _Deaf(server) as deaf:  # its socket takes all, its program reads nothing and gives no pong
            deaf.bind(token_of(world, id))
            world.task()
            deaf.wait_for(b'"event-number"')
        assert world.store.state(id).delivered == 0
        client = connect()
        client.bind(token_of(world, id))
        assert [number for number, _ in client.hear_events(1)] == [1]

    def test_a_client_that_takes_nothing_is_closed_and_delays_nobody(
        self, world: World, connect: Callable[..., Client], server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session, "PONG_WITHIN_S", 0.5)
        id = subscribed(world)
        token = token_of(world, id)
        with _Deaf(server) as deaf:
            deaf.bind(token)
            client = connect()
            client.bind(token)
            client.hear()
            for _ in range(20):
                world.task()
            assert len(client.hear_events(20)) == 20
            deaf.wait_for((4408).to_bytes(2, "big"))
            assert deaf.taken.count(b'"event-notification"') <= session.MAX_UNPROVEN

    def test_tell_each_reader_what_they_may_see(self, world: World, connect: Callable[..., Client]) -> None:
        clients = {}
        for access in (LAKESIDE, HILLCREST):
            clients[access.subject] = client = connect()
            client.bind(token_of(world, subscribed(world, access=access), access=access))
            client.hear()
        mine, theirs = world.task("lakeside"), world.task("hillcrest")
        assert clients[LAKESIDE.subject].hear_events(1) == [(1, f"{BASE}/{mine}")]
        assert clients[HILLCREST.subject].hear_events(1) == [(1, f"{BASE}/{theirs}")]

    def test_end_when_the_right_is_lost(self, world: World, connect: Callable[..., Client]) -> None:
        id = subscribed(world)
        client = connect()
        client.bind(token_of(world, id))
        client.hear()
        world.accesses[LAKESIDE.subject] = replace(LAKESIDE, scopes=())
        world.task()
        told = client.hear()
        assert (status_of(told)["type"], status_of(told)["status"]) == ("heartbeat", "error")
        assert events_of(told) == []
        assert world.status(id) == "error"

    @pytest.mark.parametrize("end", ["off", "deleted"])
    def test_end_with_the_subscription(self, world: World, connect: Callable[..., Client], end: str) -> None:
        id, other = subscribed(world), subscribed(world)
        client = connect()
        client.bind(token_of(world, id, other))
        client.hear()
        client.hear()
        if end == "off":
            world.change(f"Subscription/{id}", LAKESIDE, status="off")
            assert status_of(client.hear())["status"] == "off"
        else:
            world.repository.delete(LAKESIDE, "Subscription", id)
        world.task()
        told = status_of(client.hear())
        assert told["subscription"]["reference"] == f"{BASE}/Subscription/{other}"

    def test_a_heartbeat_fills_the_silence(self, world: World, connect: Callable[..., Client]) -> None:
        id = subscribed(world, extensions=({"url": profile.HEARTBEAT_PERIOD, "valueUnsignedInt": 1},))
        client = connect()
        client.bind(token_of(world, id))
        client.hear()
        assert status_of(client.hear(timeout_s=5))["type"] == "heartbeat"

    def test_of_a_page_of_the_portal_begin_with_its_token(self, world: World, connect: Callable[..., Client]) -> None:
        """A part of this server keeps one Subscription for its pages; each reader sees what is theirs."""
        id = subscribed(world, access=Access.system("portal"), content="full-resource")
        world.task("lakeside")
        eventually(lambda: len(world.events(id)) == 1)
        token, until = world.service.bindings.bind(LAKESIDE.subject, [id])
        assert until > datetime.now(UTC)
        world.task("hillcrest")
        mine = world.task("lakeside")
        client = connect(Origin=ORIGIN)
        client.bind(token)
        assert client.hear_events(1) == [(3, f"{BASE}/{mine}")]
        assert len(client.frames[-1]["entry"]) == 2
        assert world.store.state(id).delivered == 0


class TestFrames:
    def test_a_ping_is_answered_by_a_pong(self, connect: Callable[..., Client]) -> None:
        client = connect()
        client.say(type="ping")
        assert client.hear() == {"type": "pong"}

    @pytest.mark.parametrize("text", [
        "", "no json", "[]", "null", "1", '"ping"', "{}", '{"type":"hello"}', '{"type":"bind-with-token"}',
        '{"type":"bind-with-token","payload":{"token":1}}', '{"type":"bind-with-token","payload":"x"}',
        '{"type":["ping"]}', "[" * 2000,
    ])  # fmt: skip
    def test_what_is_not_understood_closes_4400(self, connect: Callable[..., Client], text: str) -> None:
        client = connect()
        client.socket.send(text)
        assert client.closed() == session.NOT_UNDERSTOOD

    def test_bytes_close_1003(self, connect: Callable[..., Client]) -> None:
        client = connect()
        client.socket.send(b"\x00\x01")
        assert client.closed() == 1003

    def test_a_long_message_closes_1009(self, connect: Callable[..., Client]) -> None:
        client = connect()
        client.socket.send("x" * (live.MAX_MESSAGE + 1))
        assert client.closed() == 1009

    def test_what_is_no_frame_closes_1002(self, server: str) -> None:
        with _Deaf(server) as client:
            client.socket.sendall(b"\xf3\x80\x00\x00\x00\x00")  # reserved bits
            client.wait_for((1002).to_bytes(2, "big"))

    def test_a_flood_closes_1008(self, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "MAX_REQUESTS", 0)
        client = connect()
        client.say(type="ping")
        assert client.closed() == session.POLICY


class TestHandshake:
    def test_a_plain_request_is_told_to_upgrade(self, server: str) -> None:
        answer = requests.get(f"http://{server}{live.PATH}", timeout=10)
        assert answer.status_code == 426
        assert answer.headers["Upgrade"] == "websocket"
        assert answer.json()["resourceType"] == "OperationOutcome"

    @pytest.mark.parametrize("origin, welcome", [
        (ORIGIN, True), ("https://evil.example", False), ("null", False), ("", False), (f"{ORIGIN}.evil.org", False),
    ])  # fmt: skip
    def test_pages_of_other_origins_stay_outside(self, server: str, origin: str, welcome: bool) -> None:
        headers = {
            "Origin": origin, "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        lines = [
            f"GET {live.PATH} HTTP/1.1",
            f"Host: {server}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        with socket.create_connection(server.split(":"), timeout=10) as client:
            client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            assert client.recv(100).split()[1] == (b"101" if welcome else b"403")

    @pytest.mark.parametrize("name, value, code", [
        ("Sec-WebSocket-Version", "12", 426), ("Sec-WebSocket-Key", "short", 400), ("Sec-WebSocket-Key", "", 400),
        ("Connection", "close", 426),
    ])  # fmt: skip
    def test_a_faulty_handshake_is_refused(self, server: str, name: str, value: str, code: int) -> None:
        headers = {
            "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        answer = requests.get(f"http://{server}{live.PATH}", headers=headers | {name: value}, timeout=10)
        assert answer.status_code == code

    def test_a_full_server_says_so(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "MAX_SESSIONS", 0)
        answer = requests.get(f"http://{server}{live.PATH}", timeout=10)
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers

    def test_the_process_says_that_it_lives(self, server: str) -> None:
        assert requests.get(f"http://{server}/health/live", timeout=10).json() == {"status": "live"}


class TestGevent:
    """The same under gunicorn's gevent worker, as it is served."""

    @pytest.fixture
    def gunicorn(self, world: World, mongodb_uri: str) -> Iterator[str]:
        address = f"127.0.0.1:{mongod.free_port()}"
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--bind", address]
        command += [
            "--worker-class",
            "gevent",
            "--log-level",
            "warning",
            "--graceful-timeout",
            "1",
            "tests.subscriptions.live_server:app",
        ]
        environment = {**os.environ, "TEST_MONGODB_URI": mongodb_uri, "TEST_DATABASE": world.database.name}
        process = subprocess.Popen(command, env=environment)
        try:
            eventually(lambda: _lives(address), timeout_s=60)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)

    def test_events_large_and_small_come_to_many_clients_in_order(self, world: World, gunicorn: str) -> None:
        id = subscribed(world, content="full-resource")
        token = token_of(world, id)
        clients = [Client(gunicorn) for _ in range(10)]
        with _Deaf(gunicorn) as deaf:
            deaf.bind(token)
            for client in clients:
                client.bind(token)
                client.hear()
            large = {"note": [{"text": "x" * 750_000}] * 2}  # more than the buffers of a socket hold
            tasks = [world.task(**(large if n % 3 == 0 else {})) for n in range(1, 10)]
            for client in clients:
                assert client.hear_events(9) == [(n, f"{BASE}/{task}") for n, task in enumerate(tasks, 1)]
                client.say(type="ping")
                assert client.hear() == {"type": "pong"}
                client.leave()
        assert requests.get(f"http://{gunicorn}/health/live", timeout=10).status_code == 200
        eventually(lambda: world.store.state(id).delivered == 9)


def _lives(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/health/live", timeout=1).status_code == 200
    except requests.RequestException:  # not up yet, or still loading
        return False


class _Deaf:
    """A client whose program never reads: a socket and a handshake by hand."""

    def __init__(self, server: str) -> None:
        host, port = server.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=15)
        lines = (
            f"GET {live.PATH} HTTP/1.1", f"Host: {server}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )  # fmt: skip
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.taken = b""
        self.wait_for(b"\r\n\r\n")

    def __enter__(self) -> "_Deaf":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def bind(self, token: str) -> None:
        text = json.dumps({"type": "bind-with-token", "payload": {"token": token}}).encode()
        assert len(text) < 126
        self.socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)  # a mask of zeros changes nothing

    def wait_for(self, part: bytes) -> None:
        while part not in self.taken:
            taken = self.socket.recv(65536)
            assert taken, f"the server closed before {part!r}"
            self.taken += taken
