"""Subscribers that others wrote, as they are: `@medplum/core` of npm, `websockets` of PyPI."""

import asyncio
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import requests
import websockets

from tests.subscriptions.conftest import BASE, World, a_websocket_subscription, eventually
from tests.subscriptions.hook_listener import events_of, status_of

FOREIGN = Path(__file__).parent / "foreign"


def test_medplums_subscription_manager(world: World, web: str, sockets: str) -> None:
    node = shutil.which("node")
    if node is None or not (FOREIGN / "node_modules" / "@medplum" / "core").is_dir():
        pytest.skip("@medplum/core is not there: install Node 20, then `make node`")
    world.start()
    criteria = "Task?requester=Organization/lakeside&status=accepted"
    command = [node, str(FOREIGN / "medplum.cjs"), f"http://{web}/", sockets, criteria]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
        watchdog = threading.Timer(60, client.kill)
        watchdog.start()
        try:
            assert client.stdout
            connected = json.loads(client.stdout.readline())
            assert connected["type"] == "connect"
            id = connected["payload"]["subscriptionId"]
            eventually(lambda: world.status(id) == "active")
            task = world.task()
            world.change(task, status="accepted")
            message = json.loads(client.stdout.readline())
        finally:
            watchdog.cancel()
            client.kill()
    assert message["type"] == "message"
    (told,) = message["payload"]["entry"][0]["resource"]["notificationEvent"]
    assert (told["eventNumber"], told["focus"]["reference"]) == ("1", f"{BASE}/{task}")


def test_the_websockets_of_pypi(world: World, web: str, sockets: str) -> None:
    world.start()
    api = f"http://{web}/fhir/Subscription"
    id = requests.post(api, json=a_websocket_subscription(), timeout=30).json()["id"]
    eventually(lambda: world.status(id) == "active")

    async def hear() -> list[dict]:
        answer = await asyncio.to_thread(requests.get, f"{api}/{id}/$get-ws-binding-token", timeout=30)
        token = next(one["valueString"] for one in answer.json()["parameter"] if one["name"] == "token")
        async with websockets.connect(sockets) as socket:
            await socket.send(json.dumps({"type": "bind-with-token", "payload": {"token": token}}))
            handshake = json.loads(await socket.recv())
            await asyncio.to_thread(world.task)
            return [handshake, json.loads(await socket.recv())]

    handshake, event = asyncio.run(asyncio.wait_for(hear(), 30))
    assert status_of(handshake)["type"] == "handshake"
    assert [number for number, _ in events_of(event)] == [1]
