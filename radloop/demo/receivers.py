"""Where notifications arrive: the EHR's listener for rest-hooks and the SMART app's websocket.

Both keep what came, by subscription and event number: delivery is at least once, so doubles are dropped and
gaps are faults.
"""

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import simple_websocket

from radloop.demo.stage import StepFailed

MAX_BODY = 4 * 1024 * 1024


@dataclass(slots=True)
class Inbox:
    """Events received: subscription id -> event number -> (focus, the resource when it came along)."""

    events: dict[str, dict[int, tuple[str, dict | None]]] = field(default_factory=dict)
    handshakes: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, bundle: dict) -> None:
        """Keep the events of a notification Bundle."""
        status = {
            p["name"]: p for p in bundle["entry"][0]["resource"]["parameter"] if p["name"] != "notification-event"
        }
        subscription = status["subscription"]["valueReference"]["reference"].rpartition("/")[2]
        resources = {entry.get("fullUrl"): entry.get("resource") for entry in bundle["entry"][1:]}
        with self._lock:
            if status["type"]["valueCode"] == "handshake":
                self.handshakes.add(subscription)
            for parameter in bundle["entry"][0]["resource"]["parameter"]:
                if parameter["name"] != "notification-event":
                    continue
                parts = {part["name"]: part for part in parameter["part"]}
                number = int(parts["event-number"]["valueString"])
                focus = parts.get("focus", {}).get("valueReference", {}).get("reference", "")
                known = self.events.setdefault(subscription, {})
                known.setdefault(number, (focus, resources.get(focus)))

    def foci(self, subscription: str) -> list[tuple[str, dict | None]]:
        """Focus and resource of each event, in order of number."""
        with self._lock:
            return [event for _, event in sorted(self.events.get(subscription, {}).items())]

    def check_complete(self) -> None:
        """Raise StepFailed unless the numbers of each subscription are 1, 2, 3 ... without a gap."""
        with self._lock:
            for subscription, events in self.events.items():
                if sorted(events) != list(range(1, len(events) + 1)):
                    raise StepFailed(f"Subscription/{subscription}: numbers {sorted(events)} have a gap")

    def count(self) -> int:
        with self._lock:
            return sum(map(len, self.events.values()))


class HookListener:
    """An EHR's HTTP listener on a free port of loopback; takes only what carries its secret."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.secret = secrets.token_urlsafe(24)
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(min(length, MAX_BODY))
                if self.headers.get("Authorization") != f"Bearer {listener.secret}":
                    self.send_error(401)
                    return
                listener.inbox.take(json.loads(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the time line tells what arrives."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class SocketListener:
    """A SMART app's websocket; binds again with a new token when the connection is lost."""

    def __init__(self, binding: Callable[[], tuple[str, str]]) -> None:
        """binding: a fresh (websocket address, token)."""
        self.inbox = Inbox()
        self._binding = binding
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def check(self) -> None:
        """Raise what ended the listening, if something did."""
        if self._failure is not None:
            raise StepFailed(f"the app's websocket: {self._failure}")

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                url, token = self._binding()
                with_socket = simple_websocket.Client.connect(url, max_message_size=MAX_BODY)
            except (OSError, simple_websocket.ConnectionError):
                self._stop.wait(0.5)
                continue
            except Exception as error:
                self._failure = error
                return
            try:
                with_socket.send(json.dumps({"type": "bind-with-token", "payload": {"token": token}}))
                self._take_frames(with_socket)
            except simple_websocket.ConnectionClosed:
                self._stop.wait(0.2)
            finally:
                _close(with_socket)

    def _take_frames(self, connection: simple_websocket.Client) -> None:
        while not self._stop.is_set():
            frame = connection.receive(timeout=0.2)
            if frame is None:
                continue
            message = json.loads(frame)
            if message.get("resourceType") == "Bundle":
                self.inbox.take(message)


def _close(connection: simple_websocket.Client) -> None:
    try:
        connection.close()
    except simple_websocket.ConnectionClosed:
        pass  # the server was quicker
