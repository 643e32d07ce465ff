"""`radloop serve`: starts, stops, finds its data again, and says why when it cannot."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from radloop import mongod
from tests.server import STOP_S, running


def radloop(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "radloop", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_ctrl_c_stops_everything_and_a_second_start_finds_its_data(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        caller = server.user("frontdesk")
        patient = caller.create({"resourceType": "Patient", "gender": "female"})
        secrets = server.credentials
    assert server.process.returncode == 0, server.log.read_text()
    assert [name for name in ("mongod", "web", "live", "worker") if server.pids(name)] == []
    with running(tmp_path) as server:
        assert server.credentials == secrets
        assert server.user("frontdesk").get(f"Patient/{patient['id']}")["gender"] == "female"


def test_a_plain_start_is_empty_but_for_definitions(tmp_path: Path) -> None:
    with running(tmp_path, demo=False) as server:
        added = server.command(
            "client",
            "add",
            "c",
            "--type",
            "backend",
            "--practice",
            "--scope",
            "system/*.rs",
            "--jwks-file",
            str(_jwks(tmp_path)),
        )
        assert added.returncode == 0, added.stdout
        printed = server.command("token", "--client", "c", "--scope", "system/*.rs")
        headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}

        def total(resource_type: str) -> int:
            address = f"{server.settings.fhir_base}/{resource_type}?_summary=count"
            return requests.get(address, headers=headers, timeout=10).json()["total"]

        assert total("Questionnaire") == 1
        assert {total("Patient"), total("Organization"), total("Slot")} == {0}


def test_the_end_of_the_supervisor_is_the_end_of_all(tmp_path: Path) -> None:
    with running(tmp_path, demo=False) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(STOP_S)
        for name in ("web", "live", "worker", "mongod"):
            for pid in server.pids(name):
                _wait_for_end(pid)


def test_existing_data_of_another_mongodb_is_used(tmp_path: Path, mongodb_uri: str) -> None:
    with running(tmp_path, demo=False, mongodb_uri=mongodb_uri, mongodb_database="test_radloop_serve") as server:
        assert server.pids("mongod") == []
        assert requests.get(f"{server.settings.origin}/health/ready", timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RADLOOP_PORT": "none"}, "RADLOOP_PORT"),
        ({"RADLOOP_COLOUR": "blue"}, "RADLOOP_COLOUR: there is no such setting"),
        ({"RADLOOP_HOST": "0.0.0.0", "RADLOOP_OPEN": "true"}, "RADLOOP_OPEN: is for loopback only"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named(environment: dict[str, str], said: str) -> None:
    ended = radloop("serve", **environment)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        live = str(mongod.free_port())
        ended = radloop("serve", RADLOOP_PORT=port, RADLOOP_LIVE_PORT=live, RADLOOP_DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr


def test_commands_say_when_no_server_runs(tmp_path: Path) -> None:
    ended = radloop("user", "list", RADLOOP_DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert "no server runs on the data folder" in ended.stderr


def test_help_explains_each_command() -> None:
    text = radloop("--help").stdout
    for command in ("serve", "demo", "load", "user", "client", "token", "check", "worker"):
        line = next(line for line in text.splitlines() if line.strip().startswith(command))
        assert len(line.split()) > 3, f"{command} is not explained"


def _jwks(folder: Path) -> Path:
    import json

    from tests.smart_auth.oauth import JWKS

    file = folder / "jwks.json"
    file.write_text(json.dumps(JWKS))
    return file


def _wait_for_end(pid: int) -> None:
    import time

    deadline = time.monotonic() + STOP_S
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, f"process {pid} outlives its supervisor"
        time.sleep(0.1)
