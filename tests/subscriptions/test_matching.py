"""Which versions become events of which Subscriptions, and under which numbers."""

from dataclasses import replace
from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from fhir_server.version import Version
from subscriptions.matching import Matching, fires
from subscriptions.status import SERVER
from tests.subscriptions.conftest import (
    HILLCREST,
    LAKESIDE,
    PRACTICE,
    TOPICS,
    World,
    a_subscription,
    a_task,
    topic,
)

BOOKED, MOVED = "2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"


class TestTrigger:
    @pytest.mark.parametrize("name, op, before, after, fired", [
        ("referral-order", "create", None, {"status": "active"}, True),
        ("referral-order", "update", {"status": "active"}, {"status": "active"}, True),
        ("referral-status", "create", None, {"status": "requested"}, True),
        ("referral-status", "update", {"status": "requested"}, {"status": "accepted"}, True),
        ("referral-status", "update", {"businessStatus": {"text": "a"}}, {"businessStatus": {"text": "b"}}, True),
        ("referral-status", "update", {"status": "x"}, {"status": "x", "owner": {"reference": "A/1"}}, True),
        ("referral-status", "update", {"status": "x"}, {"status": "x", "description": "new"}, False),
        ("appointment-status", "create", None, {"status": "booked"}, True),
        ("appointment-status", "update", {"status": "booked"}, {"status": "noshow"}, True),
        ("appointment-status", "update", {"start": BOOKED}, {"start": MOVED}, True),
        ("appointment-status", "update", {"start": BOOKED}, {"start": BOOKED, "comment": "x"}, False),
        ("imaging-available", "create", None, {"status": "available"}, True),
        ("imaging-available", "create", None, {"status": "registered"}, False),
        ("imaging-available", "update", {"status": "registered"}, {"status": "available"}, True),
        ("imaging-available", "update", {"status": "available"}, {"status": "available", "note": []}, False),
        ("imaging-available", "update", {"status": "available"}, {"status": "cancelled"}, False),
        ("report-status", "create", None, {"status": "preliminary"}, True),
        ("report-status", "create", None, {"status": "registered"}, False),
        ("report-status", "update", {"status": "preliminary"}, {"status": "final"}, True),
        ("report-status", "update", {"status": "final"}, {"status": "amended"}, True),
        ("report-status", "update", {"status": "final"}, {"status": "corrected"}, True),
        ("report-status", "update", {"status": "final"}, {"status": "appended"}, True),
        ("report-status", "update", {"status": "final"}, {"status": "final", "conclusion": "x"}, False),
        ("report-status", "update", {"status": "final"}, {"status": "entered-in-error"}, True),
        ("imaging-available", "update", {"status": "available"}, {"status": "entered-in-error"}, True),
        ("imaging-available", "update", {"status": "entered-in-error"}, {"status": "entered-in-error"}, False),
        ("referral-message", "create", None, {"status": "completed"}, True),
        ("referral-message", "update", {"status": "preparation"}, {"status": "completed"}, False),
        ("feedback", "create", None, {"status": "completed"}, True),
        ("feedback", "create", None, {"status": "in-progress"}, False),
        ("feedback", "update", {"status": "in-progress"}, {"status": "completed"}, True),
        ("feedback", "update", {"status": "completed"}, {"status": "completed", "item": []}, False),
    ])  # fmt: skip
    def test_each_topic_fires_for_what_it_says(
        self, name: str, op: str, before: dict | None, after: dict, fired: bool
    ) -> None:
        assert fires(TOPICS[topic(name)], op, before, after) is fired


class TestEvents:
    def test_a_create_and_each_change_of_what_is_watched_is_an_event(self, world: World) -> None:
        subscription = world.subscribe(a_subscription())
        task = world.task()
        world.change(task, status="accepted")
        world.change(task, description="of no interest")
        world.change(task, status="in-progress")
        world.pump()
        assert world.events(subscription) == [
            (1, f"{task}/_history/1"),
            (2, f"{task}/_history/2"),
            (3, f"{task}/_history/4"),
        ]

    def test_a_deletion_is_no_event_and_coming_back_is_a_create(self, world: World) -> None:
        subscription = world.subscribe(a_subscription())
        task = world.task()
        world.repository.delete(PRACTICE, *task.split("/"))
        world.repository.update(PRACTICE, a_task(id=task.split("/")[1]))
        world.pump()
        assert world.events(subscription) == [(1, f"{task}/_history/1"), (2, f"{task}/_history/3")]

    def test_only_versions_after_the_subscription_count(self, world: World) -> None:
        before = world.task()
        subscription = world.subscribe(a_subscription())
        after = world.task()
        world.change(before, status="accepted")
        world.pump()
        assert world.events(subscription) == [(1, f"{after}/_history/1"), (2, f"{before}/_history/2")]

    @pytest.mark.parametrize("filters, matched", [
        (("status=accepted",), ["accepted"]),
        (("Task?status=accepted,rejected",), ["accepted", "rejected"]),
        (("status:not=accepted",), ["requested", "rejected"]),
        (("status=accepted", "owner=Organization/practice"), []),
        (("requester=Organization/lakeside&status=requested",), ["requested"]),
        (("owner:missing=true",), ["requested", "accepted", "rejected"]),
    ])  # fmt: skip
    def test_filters_decide_by_the_search_keys_of_that_version(
        self, world: World, filters: tuple[str, ...], matched: list[str]
    ) -> None:
        subscription = world.subscribe(a_subscription("referral-status", *filters))
        for status in ("requested", "accepted", "rejected"):
            world.task(status=status)
        world.pump()
        numbers = [reference.split("/_history/")[0] for _, reference in world.events(subscription)]
        statuses = [world.repository.read(PRACTICE, *one.split("/")).resource()["status"] for one in numbers]
        assert statuses == matched

    def test_a_version_that_was_superseded_before_it_was_read_is_matched_by_what_it_was(self, world: World) -> None:
        subscription = world.subscribe(a_subscription("referral-status", "status=requested"))
        task = world.task()
        world.change(task, status="accepted")  # takes the search keys off the first version
        world.pump()
        assert world.events(subscription) == [(1, f"{task}/_history/1")]

    def test_nobody_hears_of_what_they_may_not_see(self, world: World) -> None:
        lakeside, hillcrest = (world.subscribe(a_subscription(), access) for access in (LAKESIDE, HILLCREST))
        everything = world.subscribe(a_subscription(), PRACTICE)
        mine, theirs = world.task("lakeside"), world.task("hillcrest")
        world.pump()
        assert world.events(lakeside) == [(1, f"{mine}/_history/1")]
        assert world.events(hillcrest) == [(1, f"{theirs}/_history/1")]
        assert world.events(everything) == [(1, f"{mine}/_history/1"), (2, f"{theirs}/_history/1")]

    def test_each_subscription_has_its_own_numbers(self, world: World) -> None:
        accepted = world.subscribe(a_subscription("referral-status", "status=accepted"))
        world.task()
        everything = world.subscribe(a_subscription())
        tasks = [world.task(status=status) for status in ("requested", "accepted", "accepted")]
        world.pump()
        assert world.events(accepted) == [(1, f"{tasks[1]}/_history/1"), (2, f"{tasks[2]}/_history/1")]
        assert world.events(everything) == [(n, f"{task}/_history/1") for n, task in enumerate(tasks, 1)]

    def test_numbers_go_on_in_error_and_stop_while_it_is_off(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        told = [world.task()]
        world.repository.amend(SERVER, "Subscription", id, lambda one: one | {"status": "error", "error": "x"})
        told.append(world.task())
        world.change(f"Subscription/{id}", LAKESIDE, status="off")
        world.task()
        world.change(f"Subscription/{id}", LAKESIDE, status="requested")
        told.append(world.task())
        world.pump()
        assert world.events(id) == [(n, f"{task}/_history/1") for n, task in enumerate(told, 1)]

    def test_another_filter_counts_from_then_on(self, world: World) -> None:
        id = world.subscribe(a_subscription("referral-status", "status=accepted"))
        first = world.task(status="accepted")
        world.repository.update(LAKESIDE, a_subscription("referral-status", "status=rejected", id=id))
        world.task(status="accepted")
        second = world.task(status="rejected")
        world.pump()
        assert world.events(id) == [(1, f"{first}/_history/1"), (2, f"{second}/_history/1")]

    def test_a_deleted_subscription_leaves_nothing_and_begins_at_one_when_it_is_made_anew(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        world.task()
        world.pump()
        world.repository.delete(LAKESIDE, "Subscription", id)
        world.task()
        world.pump()
        assert world.events(id) == []
        assert world.store.state(id) is None
        world.repository.update(LAKESIDE, a_subscription(id=id))
        task = world.task()
        world.pump()
        assert world.events(id) == [(1, f"{task}/_history/1")]

    def test_an_owner_without_rights_is_told_nothing_and_the_subscription_says_so(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        world.repository.amend(SERVER, "Subscription", id, lambda one: one | {"status": "active"})
        del world.accesses[LAKESIDE.subject]
        world.task()
        world.pump()
        assert world.events(id) == []
        assert world.status(id) == "error"
        assert "no access" in world.subscription(id)["error"]


def a_version_of(world: World) -> Version:
    return world.repository.store.newest(*world.task().split("/")) or pytest.fail("not stored")


class TestReplay:
    def history(self, world: World) -> list[str]:
        """Subscriptions that came, changed, went and came back among versions of Tasks."""
        first = world.subscribe(a_subscription())
        task = world.task()
        second = world.subscribe(a_subscription("referral-status", "status=accepted"))
        world.change(task, status="accepted")
        world.change(f"Subscription/{first}", LAKESIDE, status="off")
        world.change(task, status="in-progress")
        world.change(f"Subscription/{first}", LAKESIDE, status="requested")
        gone = world.subscribe(a_subscription())
        world.change(task, status="on-hold")
        world.repository.delete(LAKESIDE, "Subscription", gone)
        world.task(status="accepted")
        return [first, second, gone]

    def test_versions_that_come_again_add_nothing(self, world: World) -> None:
        ids = self.history(world)
        world.pump()
        seen = {id: world.events(id) for id in ids}
        assert [len(seen[id]) for id in ids] == [4, 2, 0]
        world.replay()
        assert {id: world.events(id) for id in ids} == seen

    def test_a_consumer_killed_anywhere_is_finished_by_the_next_one(self, world: World) -> None:
        ids = self.history(world)
        versions = world.versions()
        for stopped in range(1, len(versions)):
            matching = world.new_matching()
            matching.begin()
            for version in versions[max(0, stopped - 3) : stopped]:  # some of them for the second time
                matching(version)
        world.replay()
        assert [len(world.events(id)) for id in ids] == [4, 2, 0]
        for id in ids:
            assert [number for number, _ in world.events(id)] == list(range(1, len(world.events(id)) + 1))

    def test_a_version_committed_against_the_order_of_numbers_is_not_lost_in_a_crash(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        world.pump()
        slow = replace(
            a_version_of(world), number=1, position=99
        )  # its number was taken before, its commit came after
        matching = world.new_matching()
        matching.begin()
        matching(slow)
        assert len(world.events(id)) == 1

    def test_two_consumers_at_once_leave_no_gap_and_no_double(self, world: World) -> None:
        """As when the lease of a worker that hangs runs out."""
        id = world.subscribe(a_subscription())
        for _ in range(5):
            world.task()
        one, other = world.new_matching(), world.new_matching()
        for version in world.versions():
            one(version)
            other(version)
        assert [number for number, _ in world.events(id)] == [1, 2, 3, 4, 5]
        assert len({source for _, source in world.events(id)}) == 5

    def test_versions_taken_together_are_counted_as_they_come_one_by_one(self, world: World) -> None:
        ids = self.history(world)
        world.pump()
        seen = {id: world.events(id) for id in ids}
        for _ in range(2):  # the second time all of them are there
            world.database["subscription_events"].delete_many({"number": {"$gt": 2}})
            matching = world.new_matching()
            matching.begin()
            matching.together(world.versions())
            assert {id: world.events(id) for id in ids} == seen

    def test_what_a_majority_did_not_confirm_is_not_taken_for_told(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A primary that steps down may take back what it wrote; then the next number would leave a gap."""
        id = world.subscribe(a_subscription())
        world.pump()
        unconfirmed = {"writeErrors": [], "writeConcernErrors": [{"code": 189, "errmsg": "primary stepped down"}]}

        def insert(*_: Any, **__: Any) -> None:
            raise BulkWriteError(unconfirmed)

        world.task()
        with monkeypatch.context() as patch:
            patch.setattr(world.store._events, "insert_many", insert)
            with pytest.raises(BulkWriteError):
                world.pump()
        world.task()
        world.pump()
        assert [number for number, _ in world.events(id)] == [1, 2]

    def test_a_worker_that_takes_over_counts_on_from_what_others_have_counted(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        one, other = world.new_matching(), world.new_matching()
        seen: list[Version] = []

        def hand_over(matching: Matching) -> None:
            matching.begin()
            for version in world.versions()[len(seen) :]:
                seen.append(version)
                matching(version)

        world.task()
        hand_over(one)
        world.repository.delete(LAKESIDE, "Subscription", id)
        world.repository.update(LAKESIDE, a_subscription(id=id))
        hand_over(other)
        world.task()
        hand_over(one)
        assert [number for number, _ in world.events(id)] == [1]

    def test_what_is_recorded_of_many_subscriptions_at_once_goes_back_for_none_of_them(self, world: World) -> None:
        ids = [world.subscribe(a_subscription()) for _ in range(3)]
        world.pump()
        known = [world.store.state(id) for id in ids]
        newer = [replace(state, version=state.version + 1, status="active") for state in known]
        world.store.record([newer[1]])
        world.store.record([newer[0], known[1], known[2], newer[2]])
        assert [world.store.state(id) for id in ids] == newer

    def test_old_events_go_and_the_counting_goes_on(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        for _ in range(3):
            world.task()
        world.pump()
        world.store.clear(world.clock())
        assert [number for number, _ in world.events(id)] == [3]
        world.task()
        matching = world.new_matching()  # which has counted none of them itself
        matching.begin()
        matching(world.versions()[-1])
        assert [number for number, _ in world.events(id)] == [3, 4]
