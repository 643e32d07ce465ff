"""A referral that waits longer than its priority allows is never forgotten."""

import pytest

from referral.escalation import escalate
from tests.referral.conftest import LAKESIDE, Loop


def passes(loop: Loop, count: int = 1) -> list[int]:
    done = []
    for _ in range(count):
        done.append(escalate(loop.practice))
        loop.settle()
    return done


def test_within_its_limit_nothing_happens(loop: Loop) -> None:
    loop.refer(priority="urgent")
    loop.clock.move(hours=3, minutes=59)
    assert passes(loop) == [0]


@pytest.mark.parametrize("priority, minutes", [("stat", 15), ("asap", 60), ("urgent", 240), ("routine", 1440)])
def test_each_priority_has_its_limit(loop: Loop, priority: str, minutes: int) -> None:
    loop.refer(priority=priority)
    loop.clock.move(minutes=minutes - 1)
    assert passes(loop) == [0]
    loop.clock.move(minutes=1)
    assert passes(loop, 2) == [1, 0]


def test_the_practice_gets_a_step_that_says_what_waits(loop: Loop) -> None:
    task = loop.refer(priority="urgent")
    loop.clock.move(hours=4)
    passes(loop)
    step = loop.steps("escalation")[0]
    assert step["description"] == "Received: for more than 4 hours (level 1)"
    assert (step["owner"], step["partOf"]) == ({"reference": "Organization/practice"}, [{"reference": task}])
    assert step["priority"] == "urgent"


def test_each_multiple_is_a_level_that_takes_the_place_of_the_one_below(loop: Loop) -> None:
    loop.refer(priority="urgent")
    for level in (1, 2, 3):
        loop.clock.move(hours=4)
        assert passes(loop, 2) == [1, 0]
        assert [step["description"][-9:] for step in loop.steps("escalation")] == [f"(level {level})"]
    loop.clock.move(hours=40)
    assert passes(loop) == [0]


def test_a_worker_that_was_away_goes_to_the_level_that_is_due(loop: Loop) -> None:
    loop.refer(priority="urgent")
    loop.clock.move(hours=9)
    assert passes(loop, 2) == [1, 0]
    assert loop.steps("escalation")[0]["description"] == "Received: for more than 8 hours (level 2)"


def test_a_step_that_was_ended_without_an_end_of_the_wait_comes_again(loop: Loop) -> None:
    loop.refer(priority="urgent")
    loop.clock.move(hours=12)
    passes(loop)
    loop.set_status(f"Task/{loop.steps('escalation')[0]['id']}", "completed")
    assert passes(loop) == [0]
    loop.clock.move(hours=4)
    assert passes(loop, 2) == [1, 0]
    assert len(loop.steps("escalation")) == 1


def test_a_referral_that_moves_on_leaves_its_escalation_behind(loop: Loop) -> None:
    task = loop.refer(priority="urgent")
    loop.clock.move(hours=4)
    passes(loop)
    loop.set_status(task, "accepted")
    assert loop.steps("escalation") == []


def test_every_stay_in_a_state_counts_anew(loop: Loop) -> None:
    task, appointment = loop.booked("LK-1", "ct-0900")
    loop.clock.move(hours=2)
    loop.set_status(appointment, "noshow")
    loop.clock.move(days=7)
    assert passes(loop) == [1]
    from tests.referral.conftest import MONDAY, a_slot

    slot = a_slot("ct", MONDAY.replace(day=10))
    loop.put(slot)
    second = loop.book_more(task, slot["id"])
    assert loop.steps("escalation") == []
    loop.clock.move(days=1)
    loop.set_status(second, "noshow")
    assert passes(loop) == [0]
    loop.clock.move(days=7)
    assert passes(loop) == [1]


def test_booked_visits_and_ended_referrals_may_wait(loop: Loop) -> None:
    loop.booked("LK-1")
    loop.set_status(loop.refer("LK-2"), "rejected", statusReason={"text": "no"})
    loop.clock.move(days=60)
    assert passes(loop) == [0]


def test_a_change_of_priority_shortens_the_wait(loop: Loop) -> None:
    loop.refer(priority="routine")
    loop.clock.move(hours=1)
    assert passes(loop) == [0]
    loop.put(loop.get("ServiceRequest/order-lk-1") | {"priority": "stat"}, LAKESIDE)
    assert passes(loop) == [1]
