"""`radloop subscribe`, as an integrator runs it against a whole server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from radloop.demo.stage import Caller, wait_for
from tests.server import Server

TASK = {"resourceType": "Task", "status": "requested", "intent": "order"}


@pytest.fixture(scope="module")
def environment(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a program that is registered as a client, and knows nothing else of the server."""
    key = tmp_path_factory.mktemp("client") / "key.json"
    key.write_text(json.dumps(server.credentials["clients"]["demo-ehr"]["key"]))
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RADLOOP_", "FHIR_"))}
    return own | {
        "FHIR_SERVER": server.settings.fhir_base,
        "FHIR_CLIENT_ID": server.credentials["clients"]["demo-ehr"]["client_id"],
        "FHIR_CLIENT_KEY_FILE": str(key),
    }


@pytest.fixture(scope="module")
def ehr(server: Server) -> Caller:
    return Caller(server.settings.fhir_base, server.backend("demo-ehr"))


@contextmanager
def running(environment: dict[str, str], *arguments: str, log: Path) -> Iterator[subprocess.Popen]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "radloop", "subscribe", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(environment: dict[str, str], *arguments: str) -> str:
    """What it says on stderr before it exits with status 1 or 2."""
    done = subprocess.run(
        [sys.executable, "-m", "radloop", "subscribe", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def test_prints_events_and_ends_its_subscription_on_ctrl_c(
    environment: dict[str, str], ehr: Caller, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    arguments = (
        "--topic",
        "referral-status",
        "--filter",
        "Task?status=draft",
        "--payload",
        "full-resource",
        "--json",
    )
    with running(environment, *arguments, log=log) as program:
        line = wait_for("its Subscription", lambda: log.read_text().partition(";")[0] or None)
        id = line.split()[0]
        ehr.create(TASK)
        task = ehr.create(TASK | {"status": "draft"})
        assert program.stdout is not None
        event = json.loads(program.stdout.readline())
        assert (event["number"], event["resource"]["id"]) == (1, task["id"])
        assert event["focus"].endswith(f"/Task/{task['id']}")
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 0
    assert f"ended {id}" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert id.partition("/")[2] not in [one["id"] for one in ehr.find("Subscription")]


@pytest.mark.slow  # starts the program twice; test_following.py has the same beside one process
def test_a_kept_subscription_is_gone_on_with(environment: dict[str, str], ehr: Caller, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(environment, "--topic", "referral-status", "--keep", log=log) as program:
        id = wait_for("its Subscription", lambda: log.read_text().partition(" ")[0].partition("/")[2] or None)
        ehr.create(TASK)
        assert program.stdout is not None
        assert program.stdout.readline().split()[0] == "1"
        program.send_signal(signal.SIGTERM)
        assert program.wait(30) == 0
    ehr.create(TASK)
    with running(environment, "--id", id, "--after", "0", log=log) as program:
        assert program.stdout is not None
        assert [program.stdout.readline().split()[0] for _ in range(2)] == ["1", "2"]
    ehr.update(ehr.get(f"Subscription/{id}") | {"status": "off"})


@pytest.mark.parametrize("arguments, said", [
    (("--topic", "no-such-topic"), "the server has no topic no-such-topic; it has appointment-status, feedback"),
    (("--topic", "referral-status", "--filter", "Task?x=1"), "'x' is no filter here"),
    (("--id", "not-there"), "404"),
    ((), "give one of --topic and --id"),
    (("--topic", "feedback", "--server", "http://127.0.0.1:9/fhir"), "does not answer"),
])  # fmt: skip
def test_refusals_are_told_in_a_line(environment: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(environment, *arguments)


def test_a_bad_token_is_told(environment: dict[str, str]) -> None:
    bare = {name: value for name, value in environment.items() if not name.startswith("FHIR_CLIENT")}
    assert "401" in refused(bare | {"FHIR_TOKEN": "nonsense"}, "--topic", "urn:x:feedback")
