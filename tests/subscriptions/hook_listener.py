"""A rest-hook endpoint of the outside world: a real HTTP server in a thread that keeps what it was sent."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fhir_server import fhir_json


class Listener:
    """Keeps notifications in the order of arrival. `answer(handler)` may be replaced to misbehave."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.calls: list[str] = []  # `POST /hook`
        self.arrived = threading.Condition()
        self.answer: Callable[[BaseHTTPRequestHandler], None] = ok
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.arrived:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.calls.append(f"{self.command} {self.path}")
                    outer.arrived.notify_all()
                outer.answer(self)

            do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02), daemon=True)
        self.thread.start()

    def bundles(self) -> list[dict]:
        with self.arrived:
            return [fhir_json.loads(body) for body in self.bodies]

    def events(self) -> list[tuple[int, str]]:
        """(number, focus) of each event received, in order of arrival."""
        return [event for bundle in self.bundles() for event in events_of(bundle)]

    def wait_for(self, enough: "Callable[[Listener], bool]", timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while not enough(self):
            with self.arrived:
                left = deadline - time.monotonic()
                assert left > 0, f"gave up after {len(self.bodies)} notifications: {self.events()}"
                self.arrived.wait(min(left, 0.2))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def ok(handler: BaseHTTPRequestHandler) -> None:
    status(200)(handler)


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def status_of(bundle: dict) -> dict[str, str]:
    """The single values of a notification's status Parameters, by name."""
    return {
        entry["name"]: next(value for key, value in entry.items() if key.startswith("value"))
        for entry in bundle["entry"][0]["resource"]["parameter"]
        if entry["name"] != "notification-event"
    }


def events_of(bundle: dict) -> list[tuple[int, str]]:
    found = []
    for entry in bundle["entry"][0]["resource"]["parameter"]:
        if entry["name"] == "notification-event":
            parts = {part["name"]: part for part in entry["part"]}
            focus = parts.get("focus", {}).get("valueReference", {}).get("reference", "")
            found.append((int(parts["event-number"]["valueString"]), focus))
    return found
