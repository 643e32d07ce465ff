"""The same requests through real connections, and requests that are no HTTP: no 5xx, and nobody falls over."""

import json

import pytest
import requests as http
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from radloop.demo.oauth import BackendToken
from tests.fuzz.requests import requests
from tests.fuzz.wire import ask, on_the_wire
from tests.server import Server

# Of a transfer coding or a version of HTTP that the web server has not. https://www.rfc-editor.org/rfc/rfc9112
NO_SUCH_HTTP = (501, 505)


@pytest.mark.parametrize(("count", "start"), [(150, 1), pytest.param(3_000, 2, marks=pytest.mark.slow, id="many")])
def test_no_connection_breaks(server: Server, count: int, start: int) -> None:
    token: BackendToken = server.backend("demo-ehr")
    description = http.get(f"{server.settings.fhir_base}/openapi.json", timeout=30).json()
    operations = [address for address in description["paths"] if "$" in address]
    workers = server.pids("web")
    answered = 0

    @seed(start)
    @settings(
        max_examples=count,
        verbosity=Verbosity.quiet,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(on_the_wire(requests(operations), token()))
    def send(raw: bytes) -> None:
        nonlocal answered
        answer = ask(server.settings.origin, raw)
        assert answer.status is not None, raw
        assert answer.status < 500 or answer.status in NO_SUCH_HTTP, (raw, answer)
        if "fhir" in answer.headers.get("content-type", "") and answer.status >= 400 and answer.body[:1] == b"{":
            assert json.loads(answer.body)["resourceType"] == "OperationOutcome"
            answered += 1

    send()
    assert answered > count / 4
    assert server.pids("web") == workers
    assert http.get(f"{server.settings.origin}/health/ready", timeout=30).status_code == 200
