"""`radloop check loop`: what it proves, and that it finds each way in which a referral could go silent."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pymongo.database import Database

import conformance
from conformance import CANONICAL
from fhir_server.access import Access
from fhir_server.audit.trail import Trail
from fhir_server.prepare import Draft
from fhir_server.stream import Failure, failures
from referral import check as check_module
from referral import store
from referral.check import Report, check, settled
from referral.escalation import escalate
from referral.sweeper import sweep
from subscriptions.account import Account
from subscriptions.matching import Matching
from subscriptions.rights import Rights
from subscriptions.store import Failed, Sent, SubscriptionStore
from tests.referral.conftest import HILLCREST, LAKESIDE, Loop, a_task, an_order

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
TOPICS = conformance.topics()


class Watched:
    """The practice with its subscriptions: `settle` lets rules and matching take every new version."""

    def __init__(self, loop: Loop, database: Database, folder: Path) -> None:
        self.loop = loop
        self.store = SubscriptionStore(database)
        self.store.prepare()
        self.failures: list[Failure] = []
        self._done = 0
        rights, account = Rights(self.access_of, loop.repository), Account(Trail(folder))
        self._match = Matching(self.store, loop.repository, TOPICS, rights, account)

    def access_of(self, subject: str) -> Access | None:
        return {"client:lakeside": LAKESIDE, "client:hillcrest": HILLCREST}.get(subject)

    def subscribe(self, channel: str = "rest-hook", office: Access = LAKESIDE, id: str = "hook") -> None:
        """An active Subscription to the status of the office's referrals."""
        content = [{"url": f"{BACKPORT}/backport-payload-content", "valueCode": "id-only"}]
        endpoint = {"endpoint": "https://ehr.example/hook"} if channel == "rest-hook" else {}
        filter = f"Task?requester={office.organization}"
        self.loop.repository.update(
            office,
            {
                "resourceType": "Subscription",
                "id": id,
                "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
                "status": "active",
                "reason": "Test",
                "criteria": f"{CANONICAL}/SubscriptionTopic/referral-status",
                "_criteria": {"extension": [{"url": f"{BACKPORT}/backport-filter-criteria", "valueString": filter}]},
                "channel": {
                    "type": channel,
                    "payload": "application/fhir+json",
                    "_payload": {"extension": content},
                    **endpoint,
                },
            },
        )
        self.settle()

    def settle(self) -> None:
        self.loop.settle()
        for version in self.loop.repository.store.since(self._done):
            self._match(version)
            self._done = version.number

    def deliver(self, id: str = "hook") -> None:
        """The endpoint has taken everything."""
        now = datetime.now(UTC)
        self.store.claim([id], "test", now, 30)
        self.store.note([Sent(id, now, self.store.last_number(id), 0)], "test", now, 30)
        self.store.release("test")

    def fail(self, id: str = "hook") -> None:
        now = datetime.now(UTC)
        self.store.claim([id], "test", now, 30)
        self.store.note([Failed(id, "503", now, now)], "test", now, 30)

    def report(self) -> Report:
        return check(self.loop.practice, self.store, TOPICS, self.access_of, self.failures)

    def faults(self) -> list[str]:
        return [f"{fault.subject} {fault.text}" for fault in self.report().faults]

    def notes(self) -> list[str]:
        return [f"{note.subject} {note.text}" for note in self.report().notes]


@pytest.fixture
def watched(loop: Loop, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    # Commits are in the order of their numbers here, so that the versions of this moment can be asked for.
    monkeypatch.setattr(check_module, "SKEW", 0)
    return Watched(loop, database, tmp_path)


def test_an_empty_store_keeps_the_promise(watched: Watched) -> None:
    report = watched.report()
    assert (report.referrals, report.orders, report.faults, report.notes) == (0, 0, (), ())


def test_a_loop_that_runs_is_proved(watched: Watched) -> None:
    watched.subscribe()
    watched.loop.booked()
    watched.settle()
    watched.deliver()
    report = watched.report()
    assert (report.faults, report.notes) == ((), ())
    assert (report.referrals, report.orders, dict(report.states)) == (1, 1, {"appointment-booked": 1})
    assert report.events == report.delivered == 4
    assert report.subscriptions == 1


class TestReferrals:
    def test_one_that_nobody_received(self, watched: Watched) -> None:
        task = watched.loop.refer(settle=False)
        assert watched.faults() == [f"{task} was sent and is not received yet"]

    def test_one_without_its_receipt(self, watched: Watched) -> None:
        task = watched.loop.refer()
        message = watched.loop.find("Communication")[0]["id"]
        watched.loop.repository.delete(store.RULES, "Communication", message)
        assert watched.faults() == [f"{task} was received, but its placer has no receipt"]

    def test_one_that_the_practice_began_itself_has_none(self, watched: Watched) -> None:
        order = an_order("o", "P-1", "Organization/lakeside", subject={"reference": "Patient/p1"})
        task = a_task("t", order, "Organization/lakeside", status="accepted")
        watched.loop.repository.write(store.RULES, [Draft("update", order), Draft("update", task)])
        watched.loop.settle()
        assert watched.faults() == []

    def test_an_order_that_no_task_follows(self, watched: Watched) -> None:
        watched.loop.repository.update(LAKESIDE, an_order("alone", "LK-1", "Organization/lakeside"))
        assert watched.faults() == [
            "ServiceRequest/alone is an active order for the practice, and no Task follows it"
        ]
        watched.settle()
        assert watched.faults() == []

    def test_a_state_that_is_none(self, watched: Watched) -> None:
        task = watched.loop.refer()
        self._break(watched, task, {"status": "in-progress"})
        assert watched.faults() == [f"{task} is in-progress, which does not go with received"]
        self._break(watched, task, {"businessStatus": {"text": "gone fishing"}})
        assert watched.faults() == [f"{task} is in-progress, in no state that is known"]

    def _break(self, watched: Watched, task: str, change: dict) -> None:
        """Write past the rules, as a faulty release might have done."""
        repository = watched.loop.repository
        kept, repository.admissions = repository.admissions, {}
        repository.update(store.RULES, watched.loop.get(task) | change)
        repository.admissions = kept


class TestClock:
    def test_a_visit_that_nobody_followed_up(self, watched: Watched) -> None:
        _, appointment = watched.loop.booked()
        watched.loop.clock.move(hours=2)
        assert watched.faults() == [
            f"{appointment} its time has passed, and nobody has said whether the patient came"
        ]
        for _ in range(2):
            sweep(watched.loop.practice)
            watched.settle()
        assert watched.faults() == []

    def test_a_missed_visit_without_its_message(self, watched: Watched) -> None:
        _, appointment = watched.loop.booked()
        watched.loop.clock.move(hours=2)
        appointment_ = watched.loop.get(appointment) | {"status": "noshow"}
        watched.loop.repository.update(store.RULES, appointment_)
        assert watched.faults() == [f"{appointment} was missed, and the placer has no message about it"]
        watched.settle()
        assert watched.faults() == []

    def test_a_referral_that_waits_in_silence(self, watched: Watched) -> None:
        task = watched.loop.refer(priority="stat")
        watched.loop.clock.move(minutes=20)
        silent = f"{task} received since 2026-03-02 08:00 UTC, longer than allowed, and nobody was told"
        assert watched.faults() == [silent]
        escalate(watched.loop.practice)
        assert watched.faults() == []
        assert any(note.startswith(f"{task} received since") and "escalated" in note for note in watched.notes())


class TestEvents:
    def test_what_waits_without_a_reason(self, watched: Watched) -> None:
        watched.subscribe()
        watched.loop.refer()
        watched.settle()
        assert watched.faults() == ["Subscription/hook 2 events are not delivered yet"]
        watched.deliver()
        assert watched.faults() == []

    def test_an_endpoint_that_does_not_answer_is_a_reason(self, watched: Watched) -> None:
        watched.subscribe()
        watched.loop.refer()
        watched.settle()
        watched.fail()
        assert watched.faults() == []
        assert watched.notes() == ["Subscription/hook 2 events wait: 503"]

    def test_so_is_a_client_that_is_not_connected(self, watched: Watched) -> None:
        watched.subscribe("websocket")
        watched.loop.refer()
        watched.settle()
        assert watched.faults() == []
        assert watched.notes() == ["Subscription/hook 2 events wait: its client is not connected"]

    def test_and_a_subscription_that_was_switched_off(self, watched: Watched) -> None:
        watched.subscribe()
        watched.loop.refer()
        watched.settle()
        subscription = watched.loop.get("Subscription/hook") | {"status": "off"}
        watched.loop.repository.update(LAKESIDE, subscription)
        watched.settle()
        assert watched.faults() == []
        assert watched.notes() == [
            "Subscription/hook 2 events wait: it is off",
            "Organization/lakeside no Subscription that is on tells of 1 of its referrals",
        ]

    def test_a_version_that_nobody_was_told_of(self, watched: Watched) -> None:
        watched.subscribe()
        task = watched.loop.refer()  # the matching has not come to it
        assert watched.faults() == [
            f"Subscription/hook has no event of {task}/_history/{version}" for version in (1, 2)
        ]
        watched.settle()
        watched.deliver()
        assert watched.faults() == []

    def test_a_number_that_is_left_out(self, watched: Watched, database: Database) -> None:
        watched.subscribe()
        watched.loop.booked()
        watched.settle()
        watched.deliver()
        database["subscription_events"].delete_one({"number": 2})
        assert watched.faults()[0] == "Subscription/hook has 3 events numbered 1 to 4"

    def test_another_offices_referrals_are_not_missed(self, watched: Watched) -> None:
        watched.subscribe()
        watched.loop.refer("HC-1", HILLCREST)
        assert watched.faults() == []
        assert watched.notes() == ["Organization/hillcrest no Subscription that is on tells of 1 of its referrals"]

    def test_what_a_consumer_passed_over_is_listed_by_class(self, watched: Watched, database: Database) -> None:
        at = datetime.now(UTC)
        failure = {"consumer": "referral", "version": "Task/1/_history/2", "error": "KeyError: Ada Nowak", "at": at}
        database["consumer_failures"].insert_one({"_id": "referral:Task/1/_history/2", **failure})
        watched.failures = failures(database)
        assert watched.notes() == ["Task/1/_history/2 the consumer referral could not take it: KeyError"]


class TestSettled:
    """What is on its way is no fault yet."""

    def test_looks_again_until_nothing_is_left(self) -> None:
        looks = self._looks(2, 1, 0)
        paused: list[float] = []
        assert settled(looks, 60, paused.append).faults == ()
        assert len(paused) == 2

    def test_believes_what_stays(self) -> None:
        assert len(settled(self._looks(1, 1, 1), 0, lambda _: None).faults) == 1

    def _looks(self, *faults: int) -> Callable[[], Report]:
        finding = check_module.Finding("Task/1", "waits")
        reports = iter([Report(0, {}, 0, 0, 0, (finding,) * count, ()) for count in faults])
        return lambda: next(reports)
