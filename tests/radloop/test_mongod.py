"""The embedded MongoDB."""

import re
import resource
from pathlib import Path

from pymongo import MongoClient

from radloop import mongod


def test_may_open_more_files_than_the_shell_that_starts_it(tmp_path: Path) -> None:
    """A shell's usual limit is 1024; a database of all resource types needs more, and mongod aborts at the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        process = mongod.start(tmp_path / "db", mongod.free_port(), cache_gb=0.25)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        found = re.search(r"Max open files +(\d+)", limits)
        assert found
        assert int(found[1]) >= min(hard, 4096)
    finally:
        process.terminate()
        process.wait(60)


def test_keeps_a_minute_of_the_past(mongo_client: MongoClient) -> None:
    """Five minutes of it, as by default, hold each file of a dropped collection open: thousands in a run of tests."""
    found = mongo_client.admin.command("getParameter", 1, minSnapshotHistoryWindowInSeconds=1)
    assert found["minSnapshotHistoryWindowInSeconds"] == 60
