"""A replica set of three members on this machine, each a process that can be killed and started again."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pymongo
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from radloop import mongod
from radloop.children import as_child

ELECTION_MS = 2000  # without a word from the primary; MongoDB's own default is 10 s
READY_S = 60

T = TypeVar("T")


class Member:
    """One mongod of the set."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            mongod.command(self._folder, self.port, 0.25),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_child,
        )

    def kill(self) -> None:
        """kill -9"""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def hello(self) -> dict:
        """What it says of itself. Raises PyMongoError while it does not answer."""
        with self.client() as client:
            return client.admin.command("hello")

    def client(self) -> pymongo.MongoClient:
        return pymongo.MongoClient("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=500)


class ReplicaSet:
    """Three members. At most one of them is down at a time, unless all are."""

    def __init__(self, folder: Path) -> None:
        self.members = [Member(folder / f"member{number}", mongod.free_port()) for number in range(3)]

    @property
    def uri(self) -> str:
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={mongod.REPLICA_SET}"

    def start(self) -> None:
        for member in self.members:
            member.start()
        hosts = [{"_id": number, "host": f"127.0.0.1:{member.port}"} for number, member in enumerate(self.members)]
        settings = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 500}
        config = {"_id": mongod.REPLICA_SET, "members": hosts, "settings": settings}
        _until("the members answer", lambda: [member.hello() for member in self.members])
        with self.members[0].client() as client:
            client.admin.command("replSetInitiate", config)
        self.primary()

    def primary(self) -> Member:
        """The member that takes writes, once there is one."""
        return _until("there is a primary", lambda: next(m for m in self.members if _is_primary(m)))

    def step_down(self) -> None:
        """The primary gives up its place for ten seconds, so another one is elected."""
        with self.primary().client() as client:
            try:
                client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5, force=True)
            except (AutoReconnect, OperationFailure):
                pass  # it cuts connections while it steps down, or was no primary any more

    def stop(self) -> None:
        """Not gently: a member that is asked waits for others to take over, and its files are thrown away."""
        for member in self.members:
            member.kill()


@contextmanager
def replica_set(folder: Path) -> Iterator[ReplicaSet]:
    """A set that is ready for writes, stopped at the end."""
    found = ReplicaSet(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def _is_primary(member: Member) -> bool:
    try:
        return bool(member.hello().get("isWritablePrimary"))
    except PyMongoError:
        return False


def _until(what: str, look: Callable[[], T]) -> T:
    """The result of `look` once it raises neither PyMongoError nor StopIteration."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            return look()
        except (PyMongoError, StopIteration):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {READY_S} s") from None
        time.sleep(0.05)
