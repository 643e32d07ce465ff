"""FHIR reads and creates beside Flask and pymongo alone, in turns: `python -m bench.ratios`.

`make bench` has the same in one run with all else, by a client whose threads take a part of the machine that counts
at such rates; here one asynchronous client asks, and each round asks both servers. Creates are of a Patient that
refers to nothing, and of one that refers to an organization, which holds that against its deletion by a transaction.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable

import aiohttp

from bench import bare
from bench.__main__ import load_patients, patient
from bench.demo import app_headers
from radloop import mongod
from radloop.commands.demo import server_of_its_own
from radloop.settings import Settings

Make = Callable[[int], tuple[str, str, bytes | None]]
SETTLE_S = 10  # until the worker has done what the load left it


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each server in a round")
    arguments.add_argument("--rounds", type=int, default=4)
    arguments.add_argument("--clients", type=int, nargs="*", default=[8, 32])
    options = arguments.parse_args()
    with server_of_its_own() as settings:
        measure(settings, options.seconds, options.rounds, options.clients)


def measure(settings: Settings, seconds: float, rounds: int, clients: list[int]) -> None:
    """Print the rates of both and their ratio, round by round."""
    headers = app_headers(settings, "user/*.cruds")
    ids = load_patients(settings, headers)
    uri = mongod.uri(mongod.last_port(settings.data_path / "mongod") or 0)
    referring = {"managingOrganization": {"reference": settings.practice_organization}}
    kinds: dict[str, tuple[Make, Make]] = {
        "read": (
            lambda n: ("GET", f"/read/{ids[n % len(ids)]}", None),
            lambda n: ("GET", f"/fhir/Patient/{ids[n % len(ids)]}", None),
        ),
        "create": (lambda n: ("POST", "/write", patient(n)), lambda n: ("POST", "/fhir/Patient", patient(n))),
        "create with a reference": (
            lambda n: ("POST", "/write", patient(n, **referring)),
            lambda n: ("POST", "/fhir/Patient", patient(n, **referring)),
        ),
    }
    time.sleep(SETTLE_S)
    with bare.served(settings, uri) as port:
        alone, ours = f"http://{settings.host}:{port}", f"http://{settings.host}:{settings.port}"
        for count in clients:
            for name, (by_hand, fhir) in kinds.items():
                told = []
                for _ in range(rounds):
                    base = asyncio.run(_rate(alone, by_hand, {}, count, seconds))
                    rate = asyncio.run(_rate(ours, fhir, headers, count, seconds))
                    told.append(f"{rate:.0f} of {base:.0f} ({rate / base:.2f})")
                print(f"{name}, {count} clients: {', '.join(told)}  (load {os.getloadavg()[0]:.1f})", flush=True)


async def _rate(base: str, make: Make, headers: dict[str, str], clients: int, seconds: float) -> float:
    """Requests a second, by so many connections that are kept open."""
    done, end = 0, time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            method, path, body = make(number)
            async with session.request(method, base + path, headers=headers, data=body) as answer:
                data = await answer.read()
                if answer.status >= 400:
                    raise RuntimeError(f"{method} {path}: {answer.status} {json.dumps(data[:300].decode())}")
            done, number = done + 1, number + clients

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(number) for number in range(clients)))
    return done / seconds


if __name__ == "__main__":
    main()
