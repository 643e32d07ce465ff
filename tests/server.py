"""A whole server as a user starts it: `radloop serve --demo` on free ports and a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from radloop import mongod
from radloop.demo.oauth import AppToken, BackendToken
from radloop.demo.stage import Caller, wait_for
from radloop.loading import CREDENTIALS
from radloop.settings import Settings
from radloop.supervise import wait_for_health

STOP_S = 60
# What stands in the command line of each process.
MARKS = {"web": "wsgi:app", "live": "wsgi:live", "worker": "radloop\0worker", "mongod": "mongod\0"}


@dataclass(slots=True)
class Server:
    """A running server, and what its users know of it."""

    settings: Settings
    environment: dict[str, str]
    process: subprocess.Popen
    log: Path

    @property
    def credentials(self) -> dict:
        return json.loads((self.settings.data_path / CREDENTIALS).read_text())

    def command(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess:
        """Run `radloop ...` beside the server; stdout and stderr together."""
        return subprocess.run(
            [sys.executable, "-m", "radloop", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def user(self, name: str, scope: str = "user/*.cruds") -> Caller:
        """A program that this user is logged in to."""
        app = self.credentials["clients"]["demo-app"]
        password = self.credentials["users"][name]
        origin = self.settings.origin
        token = AppToken(origin, app["client_id"], app["redirect_uri"], name, password, scope)
        return Caller(self.settings.fhir_base, token)

    def backend(self, client_id: str) -> BackendToken:
        client = self.credentials["clients"][client_id]
        return BackendToken(self.settings.origin, client["client_id"], client["key"], client["scope"])

    def pids(self, name: str) -> list[int]:
        """The processes of that name, the one that the supervisor started first."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            mark = f"RADLOOP_DATA_DIR={self.settings.data_dir}".encode()
            if MARKS[name] in command and (mark in environment or self.settings.data_dir in command):
                found.append(int(folder.name))
        return sorted(found)

    def kill(self, name: str) -> None:
        """kill -9 of the process that the supervisor started under that name, once it is there (again)."""
        pids = wait_for(f"a process {name}", lambda: self.pids(name) or None)
        os.kill(pids[0], signal.SIGKILL)


@contextmanager
def running(folder: Path, demo: bool = True, **settings: object) -> Iterator[Server]:
    """Start a server and stop it as Ctrl-C does. settings: `RADLOOP_*` by lower-case name."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RADLOOP_")}
    given: dict[str, object] = {
        "port": mongod.free_port(),
        "live_port": mongod.free_port(),
        "data_dir": str(folder / "data"),
        "demo": demo,
    } | settings
    environment |= {
        f"RADLOOP_{name.upper()}": str(value).lower() for name, value in given.items() if name != "data_dir"
    }
    environment["RADLOOP_DATA_DIR"] = str(given["data_dir"])
    found = Settings.from_env(environment)
    log = folder / "serve.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "radloop", "serve"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for_health(found, lambda: process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(f"the server did not start:\n{log.read_text()}")
        yield Server(found, environment, process, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S)
