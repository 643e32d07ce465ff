"""What tokens cost: `python -m bench.tokens`.

On a demonstration server of its own. In this process, one after the other: a FHIR read through the whole app, and of
it the verification of its token, when the process knows the token and when it sees it for the first time. Over HTTP,
by several clients: tokens a second by client credentials (a signed assertion each) and by refresh tokens.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlencode

from bench.__main__ import quantile, show
from bench.load import Connection, run
from radloop.commands.demo import server_of_its_own
from radloop.demo.oauth import BackendToken
from radloop.demo.play import load_credentials
from radloop.parts import create_parts
from radloop.settings import Settings
from radloop.web import create_app
from smart_auth.answer import token_answer
from smart_auth.models import Grant
from smart_auth.service import AuthService
from smart_auth.tokens import new_id

TIMES = 3000
FIRST_TIMES = 200
ASSERTIONS_A_SECOND = 1500  # more than are used
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SCOPE = "user/*.rs offline_access"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each figure over HTTP")
    arguments.add_argument("--clients", type=int, default=8)
    options = arguments.parse_args()
    with server_of_its_own() as settings:
        in_process(settings)
        over_http(settings, options.seconds, options.clients)


def in_process(settings: Settings) -> None:
    """Print what of a read its token costs."""
    parts = create_parts(settings)
    try:
        browser = create_app(parts).test_client(use_cookies=False)
        tokens = [a_grant(parts.auth)["access_token"] for _ in range(FIRST_TIMES)]
        headers = {"Authorization": f"Bearer {tokens[0]}"}

        def read() -> None:
            answer = browser.get(f"/fhir/{settings.practice_organization}", headers=headers)
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status}: {answer.text[:200]}")

        print(f"in one process; ms\n{'':<50}{'p50':>9}{'p99':>9}")
        whole = each("FHIR read through the app, without network", read, TIMES)
        known = each("its token verified, known to the process", lambda: parts.auth.verifier.access(tokens[0]), TIMES)
        waiting = iter(tokens[1:])
        each(
            "a token verified that the process sees first",
            lambda: parts.auth.verifier.access(next(waiting)),
            FIRST_TIMES - 1,
        )
        print(f"  a known token is {statistics.mean(known) / statistics.mean(whole):.2%} of such a read")
    finally:
        parts.close()


def over_http(settings: Settings, seconds: float, clients: int) -> None:
    """Print how many tokens are issued a second. Assertions are signed before, as that is the clients' work."""
    client = load_credentials(settings.data_path)["clients"]["demo-modality"]
    backend = BackendToken(settings.origin, client["client_id"], client["key"], client["scope"])
    signed: SimpleQueue[bytes] = SimpleQueue()
    for _ in range(int(ASSERTIONS_A_SECOND * seconds)):
        signed.put(urlencode(backend.form()).encode())
    parts = create_parts(settings)
    refresh: SimpleQueue[str] = SimpleQueue()
    for _ in range(clients):
        refresh.put(a_grant(parts.auth)["refresh_token"])
    parts.close()
    print(f"\n{clients} clients, {seconds:g} s a figure; ms\n{'':<34}{'per s':>8}{'p50':>8}{'p95':>8}{'p99':>8}")

    def by_assertion(connection: Connection, _number: int) -> None:
        connection.request("POST", "/auth/token", signed.get_nowait(), FORM)

    def by_refresh(app: App, _number: int) -> None:
        form = {"grant_type": "refresh_token", "refresh_token": app.refresh}
        app.refresh = json.loads(app.connection.request("POST", "/auth/token", urlencode(form).encode(), FORM))[
            "refresh_token"
        ]

    connect = partial(Connection, settings.host, settings.port)
    show("tokens by client credentials", run(by_assertion, connect, seconds, clients))
    show("tokens by refresh tokens", run(by_refresh, lambda: App(connect(), refresh.get_nowait()), seconds, clients))


@dataclass(slots=True)
class App:
    connection: Connection
    refresh: str


def a_grant(auth: AuthService) -> dict[str, Any]:
    """The token endpoint's answer to an app that the front desk let in."""
    now = auth.clock().replace(microsecond=0)
    grant = Grant(new_id(), "user:frontdesk", "demo-app", SCOPE, now, now + timedelta(hours=1), auth_time=now)
    auth.store.add_grant(grant)
    return token_answer(auth, grant, SCOPE)


def each(name: str, work: Callable[[], object], times: int) -> list[float]:
    """Print what one call takes; all times in ms."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    print(f"{name:<50}{quantile(found, 50):>9.4f}{quantile(found, 99):>9.4f}", flush=True)
    return found


if __name__ == "__main__":
    main()
