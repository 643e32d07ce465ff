"""The programs of docs/examples, run as they stand there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.subscriptions.conftest import BASE, World, a_subscription, a_websocket_subscription, eventually
from tests.subscriptions.hook_listener import events_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(world: World, web: str, sockets: str) -> Iterator[Start]:
    """Starts a program with its environment; the worker is at work."""
    world.service.operations[0].handler.__self__._live_url = sockets  # type: ignore[attr-defined]  # a free port
    world.start()
    environment = os.environ | {"FHIR_SERVER": f"http://{web}/fhir", "FHIR_TOKEN": "x", "HOOK_SECRET": "s3cret"}
    programs: list[subprocess.Popen] = []

    def start(*command: str) -> subprocess.Popen:
        programs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def said(program: subprocess.Popen) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def the_subscription(world: World) -> str:
    """The id of the one that the program has made, once it is active."""

    def active() -> list[str]:
        found = [version for version in world.versions() if version.resource_type == "Subscription"]
        return [version.id for version in found if version.resource()["status"] == "active"]

    eventually(lambda: bool(active()), timeout_s=60)
    return active()[0]


def follows(world: World, program: subprocess.Popen) -> None:
    the_subscription(world)
    world.task()
    tasks = [world.task(status="accepted") for _ in range(2)]
    assert [said(program), said(program)] == [f"{n} {BASE}/{task}" for n, task in enumerate(tasks, 1)]


def test_python_by_websocket(world: World, start: Start) -> None:
    follows(world, start(sys.executable, str(EXAMPLES / "follow.py"), "referral-status", "Task?status=accepted"))


def test_javascript_by_websocket(world: World, start: Start) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node 20 is not there")
    flag = "--experimental-websocket"
    follows(world, start(node, flag, str(EXAMPLES / "follow.mjs"), "referral-status", "Task?status=accepted"))


def test_python_by_rest_hook(world: World, start: Start) -> None:
    program = start(sys.executable, str(EXAMPLES / "receive.py"), "0")
    endpoint = said(program).removeprefix("listening at ")
    channel = {"endpoint": endpoint, "header": ["Authorization: Bearer s3cret"]}
    right, wrong = (
        world.subscribe(a_subscription(channel=channel | headers))
        for headers in ({}, {"header": ["Authorization: Bearer another"]})
    )
    eventually(lambda: world.status(right) == "active")
    eventually(lambda: world.status(wrong) == "error")
    task = world.task()
    assert said(program) == f"1 {BASE}/{task}"


def test_curl(world: World, start: Start) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    id = world.subscribe(a_websocket_subscription())
    tasks = [world.task() for _ in range(3)]
    eventually(lambda: world.store.last_number(id) == 3)
    program = start("sh", str(EXAMPLES / "poll.sh"), id, "1")
    output, _ = program.communicate(timeout=60)
    assert program.returncode == 0
    status, events = (json.loads(line) for line in output.splitlines())
    assert status["entry"][0]["resource"]["parameter"][0]["valueReference"]["reference"].endswith(id)
    assert [(number, focus) for number, focus in events_of(events)] == [
        (number, f"{BASE}/{task}") for number, task in enumerate(tasks[1:], 2)
    ]
