"""From what comes in to a received referral: the Task, the number, the receipt."""

from fhir_server.prepare import Draft
from referral.codes import REFERRAL_NUMBER_SYSTEM
from referral.messages import referral_number
from tests.referral.conftest import HILLCREST, LAKESIDE, STAFF, Loop, a_task, an_order, task_of


def test_a_referral_is_received_and_its_placer_told(loop: Loop) -> None:
    task = loop.refer("LK-7")
    assert loop.state(task) == ("received", "received")
    assert loop.states(task) == ["submitted", "received"]
    assert loop.messages("received") == ["Referral LK-7 has arrived at the practice. Questions: +1-555-0100."]


def test_an_order_alone_gets_its_task(loop: Loop) -> None:
    loop.put(an_order("alone", "LK-8", "Organization/lakeside"), LAKESIDE)
    task = loop.get(task_of(loop, "ServiceRequest/alone"))
    assert task["status"] == "received"
    assert task["identifier"][0]["value"] == "LK-8"
    assert task["requester"] == {"reference": "Organization/lakeside"}
    assert task["owner"] == {"reference": "Organization/practice"}
    assert loop.messages("received") == ["Referral LK-8 has arrived at the practice. Questions: +1-555-0100."]


def test_its_office_sees_the_task_that_we_made(loop: Loop) -> None:
    loop.put(an_order("alone", "LK-8", "Organization/lakeside"), LAKESIDE)
    id = task_of(loop, "ServiceRequest/alone").partition("/")[2]
    assert loop.repository.read(LAKESIDE, "Task", id).resource()["status"] == "received"


def test_an_imaging_order_to_nobody_in_particular_is_ours(loop: Loop) -> None:
    order = an_order("open", "LK-9", "Organization/lakeside")
    del order["performer"]
    loop.put(order, LAKESIDE)
    assert loop.state(task_of(loop, "ServiceRequest/open")) == ("received", "received")


def test_an_order_to_somebody_else_is_not(loop: Loop) -> None:
    elsewhere = [{"reference": "Organization/hillcrest"}]
    loop.put(an_order("other", "LK-9", "Organization/lakeside", performer=elsewhere), LAKESIDE)
    assert loop.find("Task") == []


def test_a_draft_order_waits_until_it_is_active(loop: Loop) -> None:
    loop.put(an_order("later", "LK-9", "Organization/lakeside", status="draft"), LAKESIDE)
    assert loop.find("Task") == []
    loop.put(loop.get("ServiceRequest/later") | {"status": "active"}, LAKESIDE)
    assert loop.state(task_of(loop, "ServiceRequest/later")) == ("received", "received")


def test_a_referral_without_a_number_gets_one_of_ours(loop: Loop) -> None:
    order = an_order("bare", "x", "Organization/lakeside")
    del order["identifier"]
    loop.put(order, LAKESIDE)
    task = loop.get(task_of(loop, "ServiceRequest/bare"))
    assert task["identifier"][0]["system"] == REFERRAL_NUMBER_SYSTEM
    assert referral_number(task) == task["identifier"][0]["value"]


def test_the_placers_own_task_takes_the_place_of_the_one_we_made(loop: Loop) -> None:
    order = an_order("o", "LK-5", "Organization/lakeside")
    loop.put(order, LAKESIDE)
    ours = task_of(loop, "ServiceRequest/o")
    loop.put(a_task("theirs", order, "Organization/lakeside"), LAKESIDE)
    assert loop.state("Task/theirs") == ("received", "received")
    assert loop.get(ours)["status"] == "entered-in-error"
    assert len(loop.messages("received")) == 1


def test_but_not_once_we_work_on_ours(loop: Loop) -> None:
    order = an_order("o", "LK-5", "Organization/lakeside")
    loop.put(order, LAKESIDE)
    ours = task_of(loop, "ServiceRequest/o")
    # Written in one breath: the placer's Task passes admission before the practice accepts.
    loop.repository.update(LAKESIDE, a_task("theirs", order, "Organization/lakeside"))
    loop.repository.update(STAFF, loop.get(ours) | {"status": "accepted"})
    loop.settle()
    assert loop.state(ours) == ("accepted", "awaiting-scheduling")
    assert loop.get("Task/theirs")["status"] == "entered-in-error"


def test_handling_everything_again_changes_nothing(loop: Loop) -> None:
    task = loop.refer()
    before = (loop.version(task), len(loop.find("Communication")))
    loop.settle_again()
    assert (loop.version(task), len(loop.find("Communication"))) == before


def test_a_change_of_priority_is_followed(loop: Loop) -> None:
    task = loop.refer()
    loop.put(loop.get("ServiceRequest/order-lk-1") | {"priority": "stat"}, LAKESIDE)
    assert loop.get(task)["priority"] == "stat"


def test_a_revoked_order_ends_its_task(loop: Loop) -> None:
    task = loop.accepted()
    loop.put(loop.get("ServiceRequest/order-lk-1") | {"status": "revoked"}, LAKESIDE)
    assert loop.state(task) == ("cancelled", "cancelled")
    assert loop.get(task)["statusReason"] == {"text": "The order was revoked"}


def test_a_changed_order_replaces_the_old_one_and_its_task(loop: Loop) -> None:
    old = loop.refer("LK-1")
    order = an_order("new", "LK-2", "Organization/lakeside", replaces=[{"reference": "ServiceRequest/order-lk-1"}])
    revoked = loop.get("ServiceRequest/order-lk-1") | {"status": "revoked"}
    loop.repository.write(LAKESIDE, [Draft("update", order), Draft("update", revoked)])
    loop.settle()
    assert loop.state(old) == ("cancelled", "cancelled")
    assert loop.state(task_of(loop, "ServiceRequest/new")) == ("received", "received")


def test_offices_see_their_own_referrals_alone(loop: Loop) -> None:
    mine, theirs = loop.refer("LK-1"), loop.refer("HC-1", HILLCREST)
    seen = loop.repository.search(LAKESIDE, "Task", [], strict=True).matches
    assert [version.reference for version in seen] == [mine]
    assert theirs not in [version.reference for version in seen]


class TestInformation:
    """Something is missing: a step for the office, and back on the desk when it is done."""

    def test_the_office_is_asked_and_answers(self, loop: Loop) -> None:
        task = loop.refer()
        self.ask(loop, task, "Which side?")
        assert loop.state(task) == ("received", "awaiting-information")
        step = loop.steps("complete-information")[0]
        assert step["description"] == "Which side?"
        assert step["owner"] == {"reference": "Organization/lakeside"}
        assert step["partOf"] == [{"reference": task}]
        expected = "Referral LK-1 needs something more from your office. Questions: +1-555-0100."
        assert loop.messages("awaiting-information") == [expected]

        loop.set_status(f"Task/{step['id']}", "completed", LAKESIDE)
        assert loop.state(task) == ("received", "received")
        assert loop.states(task) == ["submitted", "received", "awaiting-information", "received"]

    def test_an_accepted_referral_returns_to_scheduling(self, loop: Loop) -> None:
        task = loop.accepted()
        self.ask(loop, task, "Renal function?")
        assert loop.state(task) == ("accepted", "awaiting-information")
        loop.set_status(f"Task/{loop.steps('complete-information')[0]['id']}", "completed", LAKESIDE)
        assert loop.state(task) == ("accepted", "awaiting-scheduling")

    def test_a_referral_that_moves_on_leaves_no_question_behind(self, loop: Loop) -> None:
        task = loop.refer()
        self.ask(loop, task, "Which side?")
        loop.set_status(task, "accepted")
        assert loop.steps("complete-information") == []
        assert len(loop.steps("complete-information", status="completed")) == 1

    def ask(self, loop: Loop, task: str, what: str) -> None:
        system = "https://radloop.example/fhir/CodeSystem/referral-business-status"
        status = {"coding": [{"system": system, "code": "awaiting-information"}]}
        loop.put(loop.get(task) | {"businessStatus": status, "statusReason": {"text": what}})


def test_a_declined_referral_says_why(loop: Loop) -> None:
    task = loop.refer()
    loop.set_status(task, "rejected", statusReason={"text": "We have no PET"})
    assert loop.state(task) == ("rejected", "declined")
    assert loop.get(task)["statusReason"] == {"text": "We have no PET"}
