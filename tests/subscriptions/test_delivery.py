"""From a change to the endpoint: handshake, order, retries, restarts. The endpoint is a real HTTP server.
http://hl7.org/fhir/uv/subscriptions-backport/channels.html#rest-hook
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pymongo.database import Database

from fhir_server.access import Scope
from fhir_server.errors import Gone
from fhir_server.version import Version
from subscriptions import courier, delivery, profile
from subscriptions.courier import RetryPolicy
from subscriptions.definition import FULL_RESOURCE, ID_ONLY
from subscriptions.notification import MAX_CONTENT, Notified, fitting
from subscriptions.store import Sent
from tests.subscriptions.conftest import (
    BASE,
    LAKESIDE,
    PRACTICE,
    World,
    a_subscription,
    eventually,
    make_world,
    topic,
)
from tests.subscriptions.hook_listener import Listener, events_of, ok, status, status_of

STUBBORN = RetryPolicy(delays_s=(0.05,), give_up_after_s=3600)


@pytest.fixture
def running(world: World) -> World:
    """The world with its worker at work; it gives up on an endpoint after 0.3 s."""
    world.start()
    return world


@pytest.fixture
def stubborn(database: Database) -> Iterator[World]:
    """The same with a worker that tries again for an hour, every 50 ms."""
    world = make_world(database, {LAKESIDE.subject: LAKESIDE}, STUBBORN)
    world.start()
    yield world
    world.stop()


def hooked(listener: Listener, *filters: str, **more: Any) -> dict:
    channel = {"endpoint": listener.url} | more.pop("channel", {})
    return a_subscription("referral-status", *filters, channel=channel, **more)


def activated(world: World, listener: Listener, *filters: str, **more: Any) -> str:
    id = world.subscribe(hooked(listener, *filters, **more))
    eventually(lambda: world.status(id) == "active")
    return id


def kinds(listener: Listener) -> list[str]:
    return [status_of(bundle)["type"] for bundle in listener.bundles()]


def numbers(listener: Listener) -> list[int]:
    return [number for number, _ in listener.events()]


def heard(count: int) -> Callable[[Listener], bool]:
    return lambda listener: len(listener.events()) >= count


def failing(times: int, code: int = 500) -> Callable[[BaseHTTPRequestHandler], None]:
    """Refuses events so many times, then takes them; handshakes are taken always."""
    left = [times]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        left[0] -= 1
        (status(code) if left[0] >= 0 else ok)(handler)

    return answer


class TestReplay:
    def test_what_was_delivered_comes_again_from_the_number_on(self, running: World, listener: Listener) -> None:
        world = running
        id = activated(world, listener)
        for _ in range(3):
            world.task()
        listener.wait_for(lambda listener: len(listener.events()) == 3)
        eventually(lambda: world.store.state(id).delivered == 3)
        assert not world.store.rewind(id, 4)  # that far it has not come
        assert world.store.rewind(id, 2)
        listener.wait_for(lambda listener: len(listener.events()) == 5)
        assert [number for number, _ in listener.events()] == [1, 2, 3, 2, 3]

    def test_setting_back_while_a_sending_is_under_way_is_not_undone_by_its_end(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        world.task()
        world.task()
        world.pump()
        now = datetime.now(UTC)
        world.store.claim([id], "worker", now, 10)
        (state,) = world.store.states([id], "worker")
        assert world.store.note([Sent(id, now, 1, state.replays)], "worker", now, 10)
        assert world.store.rewind(id, 1)
        assert not world.store.note([Sent(id, now, 2, state.replays)], "worker", now, 10)
        assert world.store.state(id).delivered == 0


class TestHandshake:
    def test_makes_the_subscription_active(self, running: World, listener: Listener) -> None:
        id = activated(running, listener)
        (bundle,) = listener.bundles()
        assert status_of(bundle) == {
            "subscription": {"reference": f"{BASE}/Subscription/{id}"},
            "topic": topic("referral-status"),
            "status": "requested",
            "type": "handshake",
            "events-since-subscription-start": "0",
        }

    def test_carries_the_headers_of_the_channel(self, running: World, listener: Listener) -> None:
        activated(running, listener, channel={"header": ["Authorization: Bearer abc", "X-Office: 7"]})
        assert listener.headers[0]["Authorization"] == "Bearer abc"
        assert listener.headers[0]["X-Office"] == "7"
        assert listener.headers[0]["Content-Type"] == "application/fhir+json"

    @pytest.mark.parametrize("code", [302, 400, 401, 404, 500, 503])
    def test_refused_sets_error(self, running: World, listener: Listener, code: int) -> None:
        listener.answer = status(code, Location="http://127.0.0.1:9/")
        id = running.subscribe(hooked(listener))
        eventually(lambda: running.status(id) == "error")
        assert str(code) in running.subscription(id)["error"]
        assert len(listener.bodies) == 1

    def test_nobody_there_sets_error(self, running: World, listener: Listener) -> None:
        listener.close()
        id = running.subscribe(hooked(listener))
        eventually(lambda: running.status(id) == "error")
        assert "refused" in running.subscription(id)["error"]

    def test_is_repeated_when_the_client_asks_again(self, running: World, listener: Listener) -> None:
        listener.answer = status(500)
        id = running.subscribe(hooked(listener))
        eventually(lambda: running.status(id) == "error")
        listener.answer = ok
        running.change(f"Subscription/{id}", LAKESIDE, status="active")
        eventually(lambda: running.status(id) == "active")
        assert kinds(listener) == ["handshake", "handshake"]
        assert "error" not in running.subscription(id)


class TestEvents:
    def test_arrive_in_order_with_their_numbers(self, running: World, listener: Listener) -> None:
        activated(running, listener)
        task = running.task()
        for state in ("received", "accepted", "in-progress", "completed"):
            running.change(task, status=state)
        listener.wait_for(heard(5))
        assert listener.events() == [(n, f"{BASE}/{task}") for n in range(1, 6)]

    def test_say_how_many_there_were_in_all(self, running: World, listener: Listener) -> None:
        activated(running, listener)
        running.task()
        listener.wait_for(heard(1))
        assert status_of(listener.bundles()[-1])["events-since-subscription-start"] == "1"
        assert status_of(listener.bundles()[-1])["status"] == "active"

    def test_a_bundle_holds_no_more_than_max_count(self, running: World, listener: Listener) -> None:
        listener.answer = status(500)
        count = ({"url": profile.MAX_COUNT, "valuePositiveInt": 2},)
        id = running.subscribe(hooked(listener, extensions=count))
        eventually(lambda: running.status(id) == "error")
        for _ in range(5):
            running.task()
        eventually(lambda: len(running.events(id)) == 5)
        listener.answer = ok
        running.change(f"Subscription/{id}", LAKESIDE, status="requested")
        listener.wait_for(heard(5))
        assert [len(events_of(bundle)) for bundle in listener.bundles() if events_of(bundle)] == [2, 2, 1]
        assert numbers(listener) == [1, 2, 3, 4, 5]

    def test_empty_tells_numbers_only(self, running: World, listener: Listener) -> None:
        activated(running, listener, content="empty")
        running.task()
        listener.wait_for(heard(1))
        bundle = listener.bundles()[-1]
        assert len(bundle["entry"]) == 1
        assert events_of(bundle) == [(1, "")]
        assert "topic" not in status_of(bundle)

    def test_id_only_has_entries_without_resources(self, running: World, listener: Listener) -> None:
        activated(running, listener, content="id-only")
        task = running.task()
        listener.wait_for(heard(1))
        entry = listener.bundles()[-1]["entry"][1]
        assert entry["fullUrl"] == f"{BASE}/{task}"
        assert entry["request"] == {"method": "POST", "url": "Task"}
        assert entry["response"]["status"] == "201"
        assert "resource" not in entry

    def test_full_resource_is_the_resource_as_of_the_event(self, running: World, listener: Listener) -> None:
        listener.answer = status(500)
        id = running.subscribe(hooked(listener, content="full-resource"))
        eventually(lambda: running.status(id) == "error")
        task = running.task()
        running.change(task, status="accepted")
        eventually(lambda: len(running.events(id)) == 2)
        listener.answer = ok
        running.change(f"Subscription/{id}", LAKESIDE, status="requested")
        listener.wait_for(heard(2))
        entries = listener.bundles()[-1]["entry"][1:]
        assert [entry["resource"]["status"] for entry in entries] == ["requested", "accepted"]
        assert [entry["request"]["method"] for entry in entries] == ["POST", "PUT"]

    def test_every_entry_has_what_a_history_bundle_asks_for(self, running: World, listener: Listener) -> None:
        activated(running, listener, content="full-resource")
        running.task()
        listener.wait_for(heard(1))
        for bundle in listener.bundles():
            assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "history")
            assert datetime.fromisoformat(bundle["timestamp"]).tzinfo is not None
            assert bundle["entry"][0]["fullUrl"].startswith("urn:uuid:")
            assert bundle["entry"][0]["resource"]["meta"]["profile"] == [profile.STATUS_PROFILE]
            for entry in bundle["entry"]:
                assert entry["request"].keys() == {"method", "url"}
                assert "status" in entry["response"]

    def test_a_notification_is_cut_where_it_would_grow_too_large(self) -> None:
        now = datetime.now(UTC)
        large = Version("Task", "1", 1, 1, 1, now, "x", "create", b"x" * (MAX_CONTENT // 2))
        events = [Notified(number, now, large) for number in (1, 2, 3)]
        assert [event.number for event in fitting(events, FULL_RESOURCE)] == [1, 2]
        assert len(fitting(events, ID_ONLY)) == 3
        huge = [Notified(1, now, replace(large, body=b"x" * (2 * MAX_CONTENT)))]
        assert fitting(huge, FULL_RESOURCE) == huge


class TestFailures:
    def test_are_tried_again_in_order(self, stubborn: World, listener: Listener) -> None:
        id = activated(stubborn, listener)
        listener.answer = failing(3)
        for _ in range(3):
            stubborn.task()
        listener.wait_for(lambda it: 3 in numbers(it))
        eventually(lambda: stubborn.store.state(id).delivered == 3)
        seen = numbers(listener)
        assert [number for i, number in enumerate(seen) if number not in seen[:i]] == [1, 2, 3]
        assert stubborn.status(id) == "active"
        assert stubborn.store.state(id).failures == 0

    def test_that_last_too_long_set_error_and_the_client_alone_sets_it_right(
        self, running: World, listener: Listener
    ) -> None:
        id = activated(running, listener)
        listener.answer = status(503)
        running.task()
        eventually(lambda: running.status(id) == "error")
        assert "503" in running.subscription(id)["error"]
        asked = len(listener.bodies)
        running.task()  # counted, not sent
        eventually(lambda: len(running.events(id)) == 2)
        listener.answer = ok
        running.change(f"Subscription/{id}", LAKESIDE, status="requested")
        listener.wait_for(lambda it: [event for bundle in it.bundles()[asked:] for event in events_of(bundle)] != [])
        after = listener.bundles()[asked:]
        assert status_of(after[0])["type"] == "handshake"
        assert status_of(after[0])["events-since-subscription-start"] == "2"
        assert [number for bundle in after for number, _ in events_of(bundle)] == [1, 2]

    def test_410_switches_off(self, running: World, listener: Listener) -> None:
        id = activated(running, listener)
        listener.answer = status(410)
        running.task()
        eventually(lambda: running.status(id) == "off")

    def test_an_endpoint_that_hangs_delays_nobody_else(self, stubborn: World, listener: Listener) -> None:
        enough, other = threading.Event(), Listener()

        def hang(handler: BaseHTTPRequestHandler) -> None:
            enough.wait(20)
            ok(handler)

        try:
            activated(stubborn, listener)
            activated(stubborn, other)
            listener.answer = hang
            for _ in range(3):
                stubborn.task()
            other.wait_for(heard(3))
            listener.wait_for(lambda it: len(kinds(it)) > 1)
            assert kinds(listener) == ["handshake", "event-notification"]
            assert numbers(other) == [1, 2, 3]
        finally:
            enough.set()
            other.close()

    def test_a_hundred_endpoints_that_hang_delay_nobody_else(self, stubborn: World, listener: Listener) -> None:
        enough, other = threading.Event(), Listener()

        def hang(handler: BaseHTTPRequestHandler) -> None:
            enough.wait(30)
            ok(handler)

        try:
            ids = [stubborn.subscribe(hooked(listener)) for _ in range(100)]
            activated(stubborn, other)
            eventually(lambda: all(stubborn.status(id) == "active" for id in ids))
            listener.answer = hang
            stubborn.task()
            listener.wait_for(lambda it: kinds(it).count("event-notification") == 100)
            stubborn.task()
            other.wait_for(heard(2))
            assert numbers(other) == [1, 2]
        finally:
            enough.set()
            other.close()

    def test_one_that_failed_gets_a_single_event_until_it_takes_one(
        self, stubborn: World, listener: Listener
    ) -> None:
        id = activated(stubborn, listener)
        listener.answer = failing(2)
        for _ in range(4):
            stubborn.task()
        listener.wait_for(lambda it: 4 in numbers(it))
        eventually(lambda: stubborn.store.state(id).delivered == 4)
        told = [[number for number, _ in events_of(bundle)] for bundle in listener.bundles()[1:]]
        assert told[1] == [1]  # after the first failure, however much waits
        assert told[-1][-1] == 4

    def test_a_worker_stops_although_an_endpoint_hangs(
        self, database: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(delivery, "GRACE_S", 0.05)
        enough = threading.Event()

        def hang(handler: BaseHTTPRequestHandler) -> None:
            enough.wait(20)

        accesses = {LAKESIDE.subject: LAKESIDE}
        first, second = (make_world(database, accesses, STUBBORN) for _ in range(2))
        first.start()
        try:
            activated(first, listener)
            listener.answer = hang
            task = first.task()
            listener.wait_for(heard(1))
            first.stop()
            assert not enough.is_set()
            listener.answer = ok
            second.start()  # it has the leases of the first at once, and sends the same number
            listener.wait_for(heard(2))
        finally:
            enough.set()
            first.stop()
            second.stop()
        assert listener.events() == [(1, f"{BASE}/{task}")] * 2

    def test_what_happens_while_an_endpoint_takes_its_time_follows_at_once(
        self, database: Database, listener: Listener
    ) -> None:
        asked, enough = threading.Event(), threading.Event()

        def take_time(handler: BaseHTTPRequestHandler) -> None:
            asked.set()
            enough.wait(20)
            ok(handler)

        world = make_world(database, {LAKESIDE.subject: LAKESIDE}, STUBBORN)
        world.service._delivery._look_over_s = 3600  # what wakes it is the event itself
        world.start()
        try:
            activated(world, listener)
            listener.answer = take_time
            world.task()
            assert asked.wait(20)
            world.task()
            enough.set()
            listener.wait_for(heard(2))
        finally:
            enough.set()
            world.stop()
        assert numbers(listener) == [1, 2]


class TestRestart:
    def test_the_next_worker_delivers_what_the_last_one_left(self, database: Database, listener: Listener) -> None:
        accesses = {LAKESIDE.subject: LAKESIDE}
        first = make_world(database, accesses, STUBBORN)
        first.start()
        id = activated(first, listener)
        listener.answer = status(500)
        tasks = [first.task() for _ in range(3)]
        eventually(lambda: first.store.state(id).failures > 0)
        first.stop()
        tasks.append(first.task())  # while no worker runs
        listener.answer = ok
        refused = len(listener.bodies)
        second = make_world(database, accesses, STUBBORN)
        second.start()
        try:
            listener.wait_for(lambda it: 4 in numbers(it))
        finally:
            second.stop()
        after = [event for bundle in listener.bundles()[refused:] for event in events_of(bundle)]
        assert after == [(n, f"{BASE}/{task}") for n, task in enumerate(tasks, 1)]

    def test_a_crash_between_sending_and_noting_it_sends_the_same_number_again(
        self, stubborn: World, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        activated(stubborn, listener)
        note, crashes = stubborn.store.note, [True]

        def crash_once(*arguments: Any) -> bool:
            if crashes.pop() if crashes else False:
                raise RuntimeError("killed")
            return note(*arguments)

        monkeypatch.setattr(stubborn.store, "note", crash_once)
        task = stubborn.task()
        listener.wait_for(heard(2))
        assert listener.events() == [(1, f"{BASE}/{task}")] * 2

    def test_a_worker_that_was_killed_is_replaced_when_its_lease_runs_out(
        self, database: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(courier, "LEASE_S", 1.0)
        world = make_world(database, {LAKESIDE.subject: LAKESIDE}, STUBBORN)
        id = world.subscribe(hooked(listener))
        world.pump()
        world.store.claim([id], "killed", datetime.now(UTC), courier.LEASE_S)
        assert world.store.states([id], "killed")
        world.start()
        try:
            eventually(lambda: world.status(id) == "active")
        finally:
            world.stop()

    def test_a_worker_that_waits_for_an_endpoint_keeps_its_lease(
        self, database: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(courier, "LEASE_S", 0.6)
        monkeypatch.setattr(delivery, "RENEW_EVERY_S", 0.1)
        enough = threading.Event()
        world = make_world(database, {LAKESIDE.subject: LAKESIDE}, STUBBORN)
        world.start()

        def hang(handler: BaseHTTPRequestHandler) -> None:
            enough.wait(20)
            ok(handler)

        try:
            id = activated(world, listener)
            listener.answer = hang
            world.task()
            listener.wait_for(heard(1))
            for _ in range(10):  # longer than the lease
                world.store.claim([id], "other", datetime.now(UTC), 1)
                assert not world.store.states([id], "other")
                enough.wait(0.1)
        finally:
            enough.set()
            world.stop()
        assert numbers(listener) == [1]

    def test_two_workers_send_nothing_twice(self, database: Database, listener: Listener) -> None:
        accesses = {LAKESIDE.subject: LAKESIDE}
        workers = [make_world(database, accesses, STUBBORN) for _ in range(2)]
        for worker in workers:
            worker.start()
        try:
            id = activated(workers[0], listener)
            for _ in range(10):
                workers[1].task()
            listener.wait_for(heard(10))
            eventually(lambda: workers[0].store.state(id).delivered == 10)
        finally:
            for worker in workers:
                worker.stop()
        assert numbers(listener) == list(range(1, 11))
        assert kinds(listener).count("handshake") == 1


class TestRights:
    def test_a_subscriber_who_is_gone_is_sent_nothing_more(self, running: World, listener: Listener) -> None:
        id = activated(running, listener)
        del running.accesses[LAKESIDE.subject]
        running.task()
        eventually(lambda: running.status(id) == "error")
        assert kinds(listener) == ["handshake"]

    def test_a_scope_that_was_taken_away_stops_what_waits_already(self, stubborn: World, listener: Listener) -> None:
        id = activated(stubborn, listener, content="full-resource")
        listener.answer = status(500)
        stubborn.task()
        listener.wait_for(heard(1))
        stubborn.accesses[LAKESIDE.subject] = replace(LAKESIDE, scopes=(Scope("system", "Patient", "rs"),))
        listener.answer = ok
        eventually(lambda: stubborn.status(id) == "error")
        assert "Task" in stubborn.subscription(id)["error"]
        assert stubborn.store.state(id).delivered == 0

    def test_an_audience_that_has_shrunk_stops_what_waits_already(self, stubborn: World, listener: Listener) -> None:
        id = activated(stubborn, listener)
        listener.answer = status(500)
        stubborn.task()
        listener.wait_for(heard(1))
        stubborn.accesses[LAKESIDE.subject] = replace(LAKESIDE, audience=frozenset({"@any"}))
        eventually(lambda: stubborn.status(id) == "error")
        assert "no longer see" in stubborn.subscription(id)["error"]

    def test_after_a_new_handshake_the_numbers_are_there_and_nothing_that_may_not_be_seen(
        self, stubborn: World, listener: Listener
    ) -> None:
        id = activated(stubborn, listener)
        listener.answer = status(500)
        stubborn.task()
        listener.wait_for(heard(1))
        stubborn.accesses[LAKESIDE.subject] = replace(LAKESIDE, audience=frozenset({"@any", "@Organization/new"}))
        eventually(lambda: stubborn.status(id) == "error")
        listener.answer = ok
        sent = len(listener.bodies)
        stubborn.repository.amend(PRACTICE, "Subscription", id, lambda one: one | {"status": "requested"})
        new = stubborn.task("new")
        listener.wait_for(lambda it: 2 in numbers(it))
        assert [event for bundle in listener.bundles()[sent:] for event in events_of(bundle)] == [
            (1, ""),
            (2, f"{BASE}/{new}"),
        ]


class TestEnd:
    def test_a_subscription_past_its_end_is_switched_off(self, database: Database, listener: Listener) -> None:
        world = make_world(database, {LAKESIDE.subject: LAKESIDE})
        world.start()
        try:
            id = activated(world, listener, end=(world.clock() + timedelta(hours=1)).isoformat())
            world.clock.ahead = timedelta(hours=2)
            world.task()
            eventually(lambda: world.status(id) == "off")
            assert numbers(listener) == []
        finally:
            world.stop()

    def test_off_and_deleted_ones_are_sent_nothing(self, running: World, listener: Listener) -> None:
        off, gone, witness = (activated(running, listener) for _ in range(3))
        running.change(f"Subscription/{off}", LAKESIDE, status="off")
        running.repository.delete(LAKESIDE, "Subscription", gone)
        running.task()
        listener.wait_for(heard(1))
        told = {status_of(b)["subscription"]["reference"] for b in listener.bundles() if events_of(b)}
        assert told == {f"{BASE}/Subscription/{witness}"}
        assert running.store.state(gone) is None
        with pytest.raises(Gone):
            running.subscription(gone)

    def test_a_heartbeat_fills_the_silence_and_delays_no_event(self, running: World, listener: Listener) -> None:
        activated(running, listener, extensions=({"url": profile.HEARTBEAT_PERIOD, "valueUnsignedInt": 1},))
        listener.wait_for(lambda it: "heartbeat" in kinds(it))
        running.task()
        listener.wait_for(heard(1), timeout_s=3)
        heartbeat = next(b for b in listener.bundles() if status_of(b)["type"] == "heartbeat")
        assert status_of(heartbeat)["events-since-subscription-start"] == "0"
        assert len(heartbeat["entry"]) == 1
