"""Whatever is sent: no 5xx, nothing half done, each refusal an OperationOutcome that says what and where."""

import math
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.described import described
from tests.fuzz.house import House
from tests.fuzz.requests import requests

TOGETHER = 20  # requests in one example: hypothesis takes its time over each
DESCRIBED = 10  # of so many requests one is made of the OpenAPI description


def fuzz(mongodb_uri: str, count: int, start: int) -> dict[int, int]:
    """Send so many requests to an app of our own, the same ones for the same start; the answers by status."""
    with tempfile.TemporaryDirectory() as folder:
        house = House(mongodb_uri, folder)
        try:
            send(house, requests(house.operations), count - count // DESCRIBED, start)
            send(house, described(house.description), count // DESCRIBED, start)
            house.inspect()
            return dict(house.statuses)
        finally:
            house.close()


def send(house: House, kind: st.SearchStrategy[dict], count: int, start: int) -> None:
    """Ask so many requests of this kind."""

    @seed(start)
    @settings(
        max_examples=math.ceil(count / TOGETHER),
        verbosity=Verbosity.quiet,  # the one request is enough
        phases=[Phase.generate],  # what fails depends on what was stored before, so it cannot be made smaller
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(kind, min_size=TOGETHER, max_size=TOGETHER))
    def ask(asked: list[dict]) -> None:
        for one in asked:
            house.ask(one)

    ask()


def test_a_thousand_requests(mongodb_uri: str) -> None:
    statuses = fuzz(mongodb_uri, 1_500, start=1)
    assert_varied(statuses, 1_500)


@pytest.mark.slow
def test_a_hundred_thousand_requests(mongodb_uri: str) -> None:
    """In parts, as many at once as there are processors."""
    count, parts = 100_000, 20
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        found = [pool.submit(fuzz, mongodb_uri, count // parts, start) for start in range(100, 100 + parts)]
        for one in found:
            assert_varied(one.result(), count // parts)


def assert_varied(statuses: dict[int, int], count: int) -> None:
    """The requests get past the first door, often enough."""
    assert sum(statuses.values()) >= count
    assert sum(number for status, number in statuses.items() if status < 300) > count / 20
    assert {200, 201, 400, 404, 415, 422} <= statuses.keys()
