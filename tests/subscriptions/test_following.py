"""A subscriber's program that follows one Subscription: `radloop.subscriber`."""

import queue
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from radloop.subscriber import following
from radloop.subscriber.api import Api, Away, Refused, token_source
from radloop.subscriber.events import Event, read
from radloop.subscriber.following import Follower, create
from subscriptions import binding
from subscriptions import session as session_module
from subscriptions.live import Sessions
from tests.subscriptions.conftest import BASE, LAKESIDE, World, eventually, topic


class LocalApi(Api):
    """Knows where the websockets of this test are."""

    sockets = ""

    def call(self, method: str, path: str, *rest: Any, **more: Any) -> dict:
        answer = super().call(method, path, *rest, **more)
        for one in answer.get("parameter", []):
            if one["name"] == "websocket-url":
                one["valueUrl"] = self.sockets
        return answer


@pytest.fixture
def api(web: str, sockets: str) -> Api:
    api = LocalApi(f"http://{web}/fhir", None)
    api.sockets = sockets
    return api


class Program:
    """Follows in a thread; ends when the Subscription does."""

    def __init__(self, follower: Follower) -> None:
        self.heard: queue.Queue[Event | Exception] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(follower,))
        self._thread.start()

    def _run(self, follower: Follower) -> None:
        try:
            for event in follower.events():
                self.heard.put(event)
        except Refused as end:
            self.heard.put(end)

    def numbers(self, count: int) -> list[int]:
        found = [self.heard.get(timeout=15) for _ in range(count)]
        assert all(isinstance(event, Event) for event in found), found
        return [event.number for event in found if isinstance(event, Event)]

    def end(self) -> str:
        """How it ended."""
        end = self.heard.get(timeout=15)
        assert isinstance(end, Refused)
        self._thread.join()
        return str(end)


@pytest.fixture
def follow(world: World, api: Api) -> Iterator[Callable[..., Program]]:
    """Starts a program that follows a Subscription; all are switched off in the end."""
    world.start()
    followed: list[tuple[str, Program]] = []

    def follow(id: str, last: int | None = 0, say: Callable[[str], None] = lambda _: None) -> Program:
        followed.append((id, Program(Follower(api, id, last, say, wait=lambda _seconds: None))))
        return followed[-1][1]

    yield follow
    for id, program in followed:
        if program._thread.is_alive():
            api.call("PUT", f"Subscription/{id}", api.call("GET", f"Subscription/{id}") | {"status": "off"})
            program._thread.join(15)
            assert not program._thread.is_alive()


def a_subscription(api: Api, *filters: str, content: str = "id-only") -> str:
    return create(api, topic("referral-status"), filters, content)


def test_events_come_in_order_with_what_the_content_level_tells(
    world: World, api: Api, follow: Callable[..., Program]
) -> None:
    program = follow(a_subscription(api, "Task?status=accepted", content="full-resource"))
    world.task()
    task = world.task()
    world.change(task, status="accepted")
    event = program.heard.get(timeout=15)
    assert isinstance(event, Event)
    assert (event.number, event.focus) == (1, f"{BASE}/{task}")
    assert event.line().split()[2:] == [task, "accepted"]
    assert '"status":"accepted"' in event.json()


def test_a_lost_connection_is_opened_again_and_nothing_is_missed(
    world: World, api: Api, sessions: Sessions, follow: Callable[..., Program]
) -> None:
    said: queue.Queue[str] = queue.Queue()
    program = follow(a_subscription(api), say=said.put)
    world.task()
    assert program.numbers(1) == [1]
    for session in list(sessions._open):
        session.close(session_module.GOING_AWAY, "the server stops")
    world.task()
    assert program.numbers(1) == [2]
    assert "1001" in said.get(timeout=15)


def test_what_another_connection_was_sent_is_asked_for_from_the_last_number_on(
    world: World, api: Api, follow: Callable[..., Program]
) -> None:
    id = a_subscription(api)
    first = follow(id)
    for _ in range(3):
        world.task()
    assert first.numbers(3) == [1, 2, 3]
    eventually(lambda: world.store.state(id).delivered == 3)
    second = follow(id, last=1)
    assert second.numbers(2) == [2, 3]
    world.task()
    assert (first.numbers(1), second.numbers(1)) == ([4], [4])


def test_what_is_kept_no_longer_is_said_not_passed_over(
    world: World, api: Api, follow: Callable[..., Program]
) -> None:
    id, said = a_subscription(api), []
    first = follow(id)
    for _ in range(3):
        world.task()
    assert first.numbers(3) == [1, 2, 3]
    eventually(lambda: world.store.state(id).delivered == 3)
    world.store._events.delete_many({"sub": id, "number": {"$lt": 3}})
    assert follow(id, last=0, say=said.append).numbers(1) == [3]
    assert said == ["events 1 to 2 are not kept any more"]


def test_a_token_that_ends_is_replaced_on_the_same_connection(
    world: World, api: Api, follow: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RENEW_BEFORE_S", binding.LIFE.total_seconds() - 1)
    asked = []
    call = api.call
    monkeypatch.setattr(api, "call", lambda *given, **more: (asked.append(given[1]), call(*given, **more))[1])
    said: list[str] = []
    id = a_subscription(api)
    program = follow(id, say=said.append)
    eventually(lambda: asked.count(f"Subscription/{id}/$get-ws-binding-token") > 1)
    world.task()
    assert program.numbers(1) == [1]
    assert said == []


def test_it_ends_with_the_subscription_and_says_why(world: World, api: Api, follow: Callable[..., Program]) -> None:
    id = a_subscription(api)
    program = follow(id)
    eventually(lambda: world.status(id) == "active")
    del world.accesses[LAKESIDE.subject]
    world.task()
    assert program.end().startswith(f"Subscription/{id} is error: ")


@pytest.mark.parametrize("name, filters, said", [
    ("referral-state", (), "the server has no topic referral-state; it has none"),
    ("urn:x:no-topic", (), "(Subscription.criteria)"),
    (topic("referral-status"), ("Task?code-of=x",), "(Subscription.criteria.extension[0].value)"),
])  # fmt: skip
def test_a_refusal_names_the_fault(api: Api, name: str, filters: tuple[str, ...], said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        create(api, name, filters, "id-only")


@pytest.mark.parametrize("bundle", [{}, {"entry": []}, {"entry": [{"resource": {"parameter": [{"name": "type"}]}}]}])
def test_what_is_no_notification_is_refused(bundle: dict) -> None:
    with pytest.raises(ValueError, match="no notification"):
        read(bundle)


class TestToken:
    @pytest.mark.parametrize("environ, said", [
        ({"FHIR_TOKEN": "t", "FHIR_CLIENT_ID": "c"}, "not both"),
        ({"FHIR_CLIENT_ID": "c"}, "go together"),
        ({"FHIR_CLIENT_ID": "c", "FHIR_CLIENT_KEY_FILE": "/nowhere"}, "no private key"),
    ])  # fmt: skip
    def test_what_does_not_fit_together_is_refused(self, environ: dict[str, str], said: str) -> None:
        with pytest.raises(Refused, match=said):
            token_source(environ, BASE)

    def test_nobody_there_is_away(self) -> None:
        with pytest.raises(Away, match="does not answer"):
            Api("http://127.0.0.1:9/fhir", None).call("GET", "metadata")
