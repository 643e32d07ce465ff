"""`radloop serve`: starts the processes of one machine, starts again what dies, and stops all in order."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from radloop import mongod
from radloop.children import as_child
from radloop.settings import Settings

STOP_TIMEOUT_S = 20
READY_TIMEOUT_S = 90
PORT_TIMEOUT_S = 5
RESTART_PAUSES_S = (0.2, 0.5, 1, 2, 5)  # before the 1st, 2nd ... restart of a process that dies again soon
STEADY_S = 30  # a process that lived this long starts its pauses anew


class CannotStart(RuntimeError):
    """The server cannot start here; the message says why and what to do."""


@dataclass(slots=True)
class Child:
    """One supervised process."""

    name: str
    start: Callable[[], subprocess.Popen]
    process: subprocess.Popen | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = field(default=0.0)

    def run(self) -> None:
        self.process = self.start()
        self.started = time.monotonic()

    def has_died(self) -> bool:
        return self.process is not None and self.process.poll() is not None


class Supervisor:
    """mongod (unless another MongoDB is named), web, live and worker, in this order."""

    def __init__(self, settings: Settings, say: Callable[[str], None] = print) -> None:
        self._settings = settings
        self._say = say
        self._stopping = threading.Event()
        self._children: list[Child] = []
        self.mongodb_uri = settings.mongodb_uri

    def start_store(self) -> None:
        """Start the embedded mongod, if it is ours to start. Raises CannotStart."""
        if self.mongodb_uri:
            return
        folder = self._settings.data_path / "mongod"
        port = mongod.chosen_port(folder, self._settings.mongodb_port)
        self._say(f"starting MongoDB on 127.0.0.1:{port}, files in {folder}")
        child = Child("mongod", lambda: mongod.start(folder, port, self._settings.mongodb_cache_gb))
        try:
            child.run()
        except mongod.MongodUnavailable as error:
            raise CannotStart(str(error)) from None
        self._children.append(child)
        self.mongodb_uri = mongod.uri(port)

    def start_processes(self) -> None:
        """Start web, live and worker. Raises CannotStart when a port is taken."""
        for port in (self._settings.port, self._settings.live_port):
            _require_free(self._settings.host, port)
        for name, command in commands(self._settings).items():
            child = Child(name, lambda command=command: self._popen(command))  # type: ignore[misc]
            child.run()
            self._children.append(child)

    def wait_until_ready(self) -> bool:
        """Return once the server accepts writes and holds websockets; False when it was asked to stop meanwhile.

        Raises CannotStart after 90 s.
        """
        wait_for_health(self._settings, self._stopping.is_set)
        return not self._stopping.is_set()

    def run(self) -> None:
        """Watch the processes until a signal asks to stop; then stop them, mongod last."""
        while not self._stopping.wait(0.1):
            for child in self._children:
                self._mend(child)

    def stop_on_signals(self) -> None:
        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._stopping.set()

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)

    def stop(self) -> None:
        """Stop all processes: those that use the store first, the store last."""
        users, store = self._children[1:], self._children[:1]
        if self._settings.mongodb_uri:
            users, store = self._children, []
        for group in (users, store):
            for child in group:
                if child.process and child.process.poll() is None:
                    child.process.terminate()
            for child in group:
                _end(child)
        self._say("stopped")

    def _mend(self, child: Child) -> None:
        if child.due:
            if time.monotonic() >= child.due:
                child.due = 0.0
                self._restart(child)
        elif child.has_died():
            lived = time.monotonic() - child.started
            child.deaths = 0 if lived > STEADY_S else child.deaths + 1
            pause = RESTART_PAUSES_S[min(child.deaths, len(RESTART_PAUSES_S) - 1)]
            status = child.process.returncode if child.process else None
            self._say(f"{child.name} ended with status {status}; starting it again in {pause} s")
            child.due = time.monotonic() + pause

    def _restart(self, child: Child) -> None:
        try:
            child.run()
        except mongod.MongodUnavailable as error:
            self._say(f"{child.name}: {error}")
            child.due = time.monotonic() + RESTART_PAUSES_S[-1]

    def _popen(self, command: list[str]) -> subprocess.Popen:
        environment = {**os.environ, **self._settings.to_env(), "RADLOOP_MONGODB_URI": self.mongodb_uri}
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone
            preexec_fn=as_child,
        )


def commands(settings: Settings) -> dict[str, list[str]]:
    """The command line of each process that uses the store."""
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:radloop.gunicorn"]
    web = [*gunicorn, "--bind", f"{settings.host}:{settings.port}", "--worker-class", "gthread"]
    web += ["--workers", str(settings.web_workers), "--threads", str(settings.web_threads)]
    live = [*gunicorn, "--bind", f"{settings.host}:{settings.live_port}", "--worker-class", "gevent"]
    # Websockets never end by themselves, and their clients come again: no use in waiting for them.
    live += ["--workers", "1", "--worker-connections", "10000", "--graceful-timeout", "2"]
    return {
        "web": [*web, "wsgi:app"],
        "live": [*live, "wsgi:live"],
        "worker": [sys.executable, "-m", "radloop", "worker"],
    }


def _end(child: Child) -> None:
    if child.process is None:
        return
    try:
        child.process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()


def wait_for_health(settings: Settings, stopped: Callable[[], bool]) -> None:
    """Return once web and live answer, or when `stopped` says that they never will. Raises CannotStart."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    for port, path in ((settings.port, "/health/ready"), (settings.live_port, "/health/live")):
        _wait_for(f"http://{host}:{port}{path}", stopped)


def _require_free(host: str, port: int) -> None:
    """Raise CannotStart unless the port can be had; processes of a server that was killed may keep it a moment."""
    deadline = time.monotonic() + PORT_TIMEOUT_S
    while True:
        reason = _why_taken(host, port)
        if reason is None:
            return
        if time.monotonic() > deadline:
            raise CannotStart(f"{host}:{port}: {reason}; choose others by RADLOOP_PORT and RADLOOP_LIVE_PORT")
        time.sleep(0.2)


def _why_taken(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return error.strerror or "not available"
    return None


def _wait_for(url: str, stopped: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stopped():
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise CannotStart(f"{url} did not answer within {READY_TIMEOUT_S} s") from None
        time.sleep(0.1)
