"""Many Subscriptions at once cost as many round trips as one."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest
from pymongo.monitoring import CommandListener, CommandStartedEvent

from subscriptions.reading import Case, Reading, Telling, Unreadable, Want
from subscriptions.rights import RightsLost
from tests.subscriptions.conftest import HILLCREST, LAKESIDE, TOPICS, World, a_subscription, make_world


class Counter(CommandListener):
    """The commands that were sent."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, _event: Any) -> None:
        pass

    def failed(self, _event: Any) -> None:
        pass


@pytest.fixture
def counted(database: Any, mongodb_uri: str) -> Iterator[tuple[World, Counter]]:
    """The same database by a client whose commands are counted."""
    counter = Counter()
    with pymongo.MongoClient(mongodb_uri, tz_aware=True, event_listeners=[counter]) as client:
        yield make_world(client[database.name], {LAKESIDE.subject: LAKESIDE, HILLCREST.subject: HILLCREST}), counter


def reading(world: World) -> Reading:
    return Reading(world.store, world.repository, TOPICS, world.rights())


def wants(world: World, *ids: str, first: int = 1, most: int = 20) -> list[Want]:
    cases = reading(world).cases(ids)
    found = [cases[id] for id in ids]
    return [
        Want(case.version.id, case.definition, case.state.owner, first, most, 0)
        for case in found
        if isinstance(case, Case) and case.state is not None
    ]


def numbers(answer: Telling | RightsLost) -> list[int]:
    assert isinstance(answer, Telling)
    return [event.number for event in answer.events]


def test_what_many_are_told_costs_no_more_round_trips_than_what_one_is_told(counted: tuple[World, Counter]) -> None:
    world, counter = counted
    ids = [world.subscribe(a_subscription()) for _ in range(20)]
    for _ in range(3):
        world.task()
    world.pump()
    read, spent = reading(world), {}
    for some in (ids[:1], ids):
        asked = wants(world, *some)
        counter.names.clear()
        read.cases(some)
        answers = read.told(asked)
        spent[len(some)] = counter.names.copy()
        assert [numbers(answer) for answer in answers] == [[1, 2, 3]] * len(some)
        assert [(answer.newest, answer.more) for answer in answers if isinstance(answer, Telling)] == [
            (3, False)
        ] * len(some)
    assert spent[20] == spent[1] == ["find"] * 4  # states, Subscriptions, events, and what they are about


def test_more_than_fit_are_cut_and_said_to_be_more(world: World) -> None:
    id = world.subscribe(a_subscription())
    for _ in range(5):
        world.task()
    world.pump()
    (answer,) = reading(world).told(wants(world, id, most=2))
    assert isinstance(answer, Telling)
    assert (numbers(answer), answer.newest, answer.more) == ([1, 2], 5, True)
    (answer,) = reading(world).told(wants(world, id, first=4, most=2))
    assert isinstance(answer, Telling)
    assert (numbers(answer), answer.newest, answer.more) == ([4, 5], 5, False)


def test_where_the_first_are_kept_no_longer_the_next_that_are_kept_follow(world: World) -> None:
    id = world.subscribe(a_subscription())
    for _ in range(6):
        world.task()
    world.pump()
    world.store.clear(datetime.now(UTC) + timedelta(days=1))  # all but the newest
    (answer,) = reading(world).told(wants(world, id, most=2))
    assert isinstance(answer, Telling)
    assert (numbers(answer), answer.newest, answer.more) == ([6], 6, False)


def test_nothing_new_is_an_answer(world: World) -> None:
    id = world.subscribe(a_subscription())
    world.task()
    world.pump()
    (answer,) = reading(world).told(wants(world, id, first=2))
    assert answer == Telling([], 1, False)


def test_several_readers_of_one_subscription_are_each_told_from_where_they_are(world: World) -> None:
    id = world.subscribe(a_subscription())
    for _ in range(3):
        world.task()
    world.pump()
    (want,) = wants(world, id)
    asked = [want, replace(want, first=3), want, replace(want, subject=HILLCREST.subject, withheld=99)]
    answers = reading(world).told(asked)
    assert [numbers(answer) for answer in answers] == [[1, 2, 3], [3], [1, 2, 3], [1, 2, 3]]
    assert isinstance(answers[3], Telling)
    assert [event.source for event in answers[3].events] == [None] * 3  # Hillcrest sees nothing of Lakeside's


def test_whose_rights_are_lost_keeps_the_others_from_nothing(world: World) -> None:
    mine = world.subscribe(a_subscription())
    theirs = world.subscribe(a_subscription(), HILLCREST)
    world.task("lakeside")
    world.task("hillcrest")
    world.pump()
    asked = wants(world, mine, theirs)
    del world.accesses[HILLCREST.subject]
    answers = reading(world).told(asked)
    assert numbers(answers[0]) == [1]
    assert isinstance(answers[1], RightsLost)


def test_what_was_changed_since_is_told_as_of_the_event(world: World) -> None:
    id = world.subscribe(a_subscription())
    task = world.task()
    world.change(task, status="accepted")
    world.pump()
    (answer,) = reading(world).told(wants(world, id))
    assert isinstance(answer, Telling)
    assert [event.source.resource()["status"] for event in answer.events if event.source] == ["requested", "accepted"]


def test_what_was_deleted_since_is_told_as_of_the_event(world: World) -> None:
    id = world.subscribe(a_subscription())
    task = world.task()
    world.repository.delete(world.rights().access("system:test"), "Task", task.partition("/")[2])
    world.pump()
    (answer,) = reading(world).told(wants(world, id))
    assert isinstance(answer, Telling)
    assert [(event.number, event.source is not None) for event in answer.events] == [(1, True)]


def test_deleted_subscriptions_are_left_out_and_unreadable_ones_say_why(world: World) -> None:
    gone, there = world.subscribe(a_subscription()), world.subscribe(a_subscription())
    world.pump()
    world.repository.delete(LAKESIDE, "Subscription", gone)
    read = reading(world)
    assert list(read.cases([gone, there, "unknown"])) == [there]
    without = Reading(world.store, world.repository, {}, world.rights())
    found = without.cases([there])[there]
    assert isinstance(found, Unreadable)
    assert "topic" in found.why
