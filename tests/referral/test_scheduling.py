"""`Appointment/$find`, `$hold` and `$book`: https://profiles.ihe.net/ITI/Scheduling/"""

import threading
from typing import Any

import pytest
from flask import Flask, g

from fhir_server import http, routes
from fhir_server.access import Access
from fhir_server.errors import BadRequest, FhirError, Forbidden, NotFound, TooManyRequests, Unprocessable
from referral.codes import HELD_UNTIL, extension
from referral.scheduling.operations import operations
from referral.scheduling.proposals import ProposalId
from tests.referral.conftest import (
    BASE,
    HILLCREST,
    LAKESIDE,
    MONDAY,
    PLACER,
    STAFF,
    Loop,
    a_slot,
    an_office,
    an_order,
    entry,
)

NUMBER = {"system": PLACER, "value": "LK-1"}
ORDER = {"reference": "ServiceRequest/order-lk-1"}
SPAN = [entry("start", "2026-03-02"), entry("end", "2026-03-03")]


def issue_of(refusal: "pytest.ExceptionInfo[FhirError]") -> dict:
    return refusal.value.outcome()["issue"][0]


def assert_gone(call: Any, *arguments: Any, **named: Any) -> None:
    """IHE Scheduling's answer for a time that can no longer be had."""
    with pytest.raises(NotFound) as refusal:
        call(*arguments, **named)
    assert (issue_of(refusal)["severity"], issue_of(refusal)["code"]) == ("fatal", "not-found")


def ref(appointment: dict) -> dict:
    return {"reference": f"Appointment/{appointment['id']}"}


def held(loop: Loop, access: Access = STAFF, **parameters: Any) -> dict:
    """The first CT time that is offered, held."""
    first = loop.proposals(access, **({"visit-type": "77477000"} | parameters))[0]
    answer = loop.call(access, "hold", **{"appointment-reference": ref(first)})
    return answer["entry"][0]["resource"]


class TestFind:
    """ITI-115"""

    def test_finds_free_times_the_earliest_first(self, loop: Loop) -> None:
        found = loop.call(STAFF, "find", start="2026-03-02", end="2026-03-02", **{"visit-type": "77477000"})
        assert (found["resourceType"], found["type"], found["total"]) == ("Bundle", "searchset", 2)
        appointments = [one["resource"] for one in found["entry"]]
        assert [a["start"] for a in appointments] == ["2026-03-02T09:00:00+00:00", "2026-03-02T09:30:00+00:00"]
        assert {a["status"] for a in appointments} == {"proposed"}
        assert appointments[0]["requestedPeriod"] == [
            {"start": "2026-03-02T09:00:00+00:00", "end": "2026-03-02T09:30:00+00:00"}
        ]
        assert appointments[0]["minutesDuration"] == 30
        assert appointments[0]["slot"] == [{"reference": "Slot/ct-0900"}]
        assert {p["actor"]["reference"] for p in appointments[0]["participant"]} == {
            "HealthcareService/ct",
            "Location/room-ct",
            "Device/device-ct",
        }
        assert {p["status"] for p in appointments[0]["participant"]} == {"needs-action"}

    def test_a_date_covers_its_day_in_the_practices_zone(self, loop: Loop) -> None:
        late = a_slot("ct", MONDAY.replace(hour=23))  # midnight in Warsaw
        loop.put(late)
        starts = [a["slot"][0]["reference"] for a in loop.proposals(start="2026-03-02", end="2026-03-02")]
        assert "Slot/ct-2300" not in starts
        starts = [a["slot"][0]["reference"] for a in loop.proposals(start="2026-03-03", end="2026-03-03")]
        assert "Slot/ct-2300" in starts

    @pytest.mark.parametrize("name", [
        "Computerized axial tomography", "computerized AXIAL tomography", "77477000",
        "http://snomed.info/sct|77477000", "Computed tomography",
    ])  # fmt: skip
    def test_a_visit_type_is_a_display_a_code_or_the_name_of_a_service(self, loop: Loop, name: str) -> None:
        found = loop.proposals(**{"visit-type": name})
        assert {a["slot"][0]["reference"][:7] for a in found} == {"Slot/ct"}
        assert len(found) == 3

    def test_several_visit_types_are_alternatives(self, loop: Loop) -> None:
        assert len(loop.proposals(**{"visit-type": ["77477000", "113091000"]})) == 6

    def test_nothing_is_found_for_a_visit_type_that_is_not_there(self, loop: Loop) -> None:
        found = loop.call(STAFF, "find", start="2026-03-02", end="2026-03-03", **{"visit-type": "PET"})
        assert (found["total"], "entry" in found) == (0, False)

    @pytest.mark.parametrize("parameter, value, count", [
        ("location-reference", {"reference": "Location/room-mr"}, 3),
        ("location-reference", {"reference": f"{BASE}/Location/site"}, 6),
        ("location-reference", {"reference": "Location/elsewhere"}, 0),
        ("location-string", "mr room", 3),
        ("location-string", "pier street", 6),
        ("organization", {"reference": "Organization/practice"}, 6),
        ("organization", {"reference": "Organization/lakeside"}, 0),
        ("practitioner", {"reference": "Practitioner/nobody"}, 0),
        ("specialty", "Neuroradiology", 0),
        ("patient-reference", {"reference": "Patient/p1"}, 6),
        ("reason", "Pain", 6),
    ])  # fmt: skip
    def test_narrows_by_place_and_people(self, loop: Loop, parameter: str, value: Any, count: int) -> None:
        assert len(loop.proposals(**{parameter: value})) == count

    def test_a_timing_narrows_to_days_of_the_week(self, loop: Loop) -> None:
        timing = {"name": "timing", "valueTiming": {"repeat": {"dayOfWeek": ["tue"]}}}
        span = [entry("start", "2026-03-02"), entry("end", "2026-03-08")]
        assert loop.call_raw(STAFF, "find", [*span, timing])["total"] == 2

    def test_what_a_timing_asks_besides_is_refused_not_ignored(self, loop: Loop) -> None:
        timing = {"name": "timing", "valueTiming": {"repeat": {"dayOfWeek": ["tue"], "when": ["MORN"]}}}
        with pytest.raises(BadRequest) as refusal:
            loop.call_raw(STAFF, "find", [*SPAN, timing])
        assert issue_of(refusal)["code"] == "not-supported"
        assert issue_of(refusal)["expression"] == ["Parameters.parameter[2].value.ofType(Timing)"]

    def test_count_limits_the_answer_and_not_the_total(self, loop: Loop) -> None:
        found = loop.call(STAFF, "find", start="2026-03-02", end="2026-03-03", _count=2)
        assert (len(found["entry"]), found["total"]) == (2, 6)

    def test_times_that_have_begun_are_left_out(self, loop: Loop) -> None:
        loop.clock.move(minutes=61)
        assert "Slot/ct-0900" not in [a["slot"][0]["reference"] for a in loop.proposals()]

    def test_held_and_booked_times_are_left_out_until_the_hold_is_over(self, loop: Loop) -> None:
        loop.booked(slot="ct-0900")
        second = held(loop)
        assert second["slot"] == [{"reference": "Slot/ct-0930"}]
        offered = [a["slot"][0]["reference"] for a in loop.proposals(**{"visit-type": "77477000"})]
        assert offered == ["Slot/ct-03-0900"]
        loop.clock.move(minutes=11)
        offered = [a["slot"][0]["reference"] for a in loop.proposals(**{"visit-type": "77477000"})]
        assert offered == ["Slot/ct-0930", "Slot/ct-03-0900"]

    def test_times_kept_for_emergencies_are_offered_to_urgent_orders_alone(self, loop: Loop) -> None:
        kept = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "EMERGENCY"}]}
        loop.put(a_slot("ct", MONDAY.replace(hour=8, minute=30), appointmentType=kept))
        loop.accepted("LK-1")
        loop.accepted("LK-2", priority="stat")
        routine = loop.proposals(**{"referral-identifier": NUMBER})
        urgent = loop.proposals(**{"referral-identifier": NUMBER | {"value": "LK-2"}})
        assert routine[0]["start"] == "2026-03-02T09:00:00+00:00"
        assert (urgent[0]["start"], urgent[0]["priority"]) == ("2026-03-02T08:30:00+00:00", 1)

    def test_a_proposal_for_an_order_has_its_patient_and_priority(self, loop: Loop) -> None:
        loop.accepted(priority="urgent", patientInstruction="Bring your prior images.")
        proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
        assert proposal["basedOn"] == [ORDER]
        assert proposal["participant"][0]["actor"] == {"reference": "Patient/p1"}
        assert proposal["priority"] == 3
        assert proposal["patientInstruction"] == "Bring your prior images."

    def test_otherwise_the_service_says_how_to_prepare(self, loop: Loop) -> None:
        assert loop.proposals()[0]["patientInstruction"] == "Nothing to eat for four hours before."

    def test_a_closed_schedule_offers_nothing(self, loop: Loop) -> None:
        loop.put(loop.get("Schedule/ct") | {"active": False})
        assert {a["slot"][0]["reference"][:7] for a in loop.proposals()} == {"Slot/mr"}

    @pytest.mark.parametrize("entries, element", [
        ([], "Parameters.parameter"),
        ([entry("start", "2026-03-02")], "Parameters.parameter"),
        ([entry("start", "soon"), entry("end", "2026-03-03")], "Parameters.parameter[0].value.ofType(dateTime)"),
        ([entry("start", "2026-02-30"), SPAN[1]], "Parameters.parameter[0].value.ofType(dateTime)"),
        # A time without its offset is nobody's time.
        ([entry("start", "2026-03-02"), entry("end", "2026-03-03T10:00:00")],
         "Parameters.parameter[1].value.ofType(dateTime)"),
        ([entry("start", "2026-03-03"), entry("end", "2026-03-02")], "Parameters.parameter"),
        ([entry("start", "2026-03-02"), entry("end", "2027-03-02")], "Parameters.parameter"),
        ([*SPAN, entry("start", "2026-03-02")], "Parameters.parameter[2]"),
        ([*SPAN, {"name": "shoe-size", "valueInteger": 44}], "Parameters.parameter[2].name"),
        ([*SPAN, {"valueInteger": 44}], "Parameters.parameter[2].name"),
        ([*SPAN, {"name": "visit-type", "valueInteger": 44}], "Parameters.parameter[2].value.ofType(string)"),
        ([*SPAN, entry("visit-type", " ")], "Parameters.parameter[2].value.ofType(string)"),
        ([*SPAN, entry("visit-type", "x" * 1001)], "Parameters.parameter[2].value.ofType(string)"),
        ([*SPAN, {"name": "practitioner", "valueString": "x"}], "Parameters.parameter[2].value.ofType(Reference)"),
        ([*SPAN, {"name": "practitioner", "valueReference": {"display": "x"}}],
         "Parameters.parameter[2].value.ofType(Reference).reference"),
        ([*SPAN, {"name": "referral-identifier", "valueIdentifier": {"value": 7}}],
         "Parameters.parameter[2].value.ofType(Identifier).value"),
        ([*SPAN, {"name": "_count", "valueInteger": -1}], "Parameters.parameter[2].value.ofType(integer)"),
        ([*SPAN, {"name": "_count", "valueInteger": True}], "Parameters.parameter[2].value.ofType(integer)"),
        ([*SPAN, {"name": "patient-resource", "resource": {"resourceType": "Device"}}],
         "Parameters.parameter[2].resource"),
    ])  # fmt: skip
    def test_a_bad_parameter_is_400_and_named(self, loop: Loop, entries: list[dict], element: str) -> None:
        with pytest.raises(BadRequest) as refusal:
            loop.call_raw(STAFF, "find", entries)
        assert issue_of(refusal)["expression"] == [element]

    def test_a_number_that_is_not_known_is_named(self, loop: Loop) -> None:
        with pytest.raises(Unprocessable) as refusal:
            loop.proposals(**{"referral-identifier": NUMBER})
        assert issue_of(refusal)["code"] == "not-found"
        assert issue_of(refusal)["expression"] == ["Parameters.parameter[2].value.ofType(Identifier)"]

    def test_nor_is_it_known_to_another_office(self, loop: Loop) -> None:
        loop.accepted()
        with pytest.raises(Unprocessable, match="no referral with this number"):
            loop.proposals(HILLCREST, **{"referral-identifier": NUMBER})

    def test_needs_the_scope(self, loop: Loop) -> None:
        nobody = Access("user:nobody", (), frozenset({"@any"}))
        with pytest.raises(Forbidden):
            loop.proposals(nobody)


class TestHold:
    """ITI-116"""

    def test_holds_a_proposal_for_the_policys_minutes(self, loop: Loop) -> None:
        appointment = held(loop)
        assert appointment["status"] == "pending"
        assert extension(appointment, HELD_UNTIL) == {"url": HELD_UNTIL, "valueDateTime": "2026-03-02T08:10:00+00:00"}
        slot = loop.get("Slot/ct-0900")
        assert slot["status"] == "busy-tentative"
        assert extension(slot, HELD_UNTIL) == extension(appointment, HELD_UNTIL)

    def test_who_is_later_gets_a_clean_refusal(self, loop: Loop) -> None:
        proposal = loop.proposals()[0]
        loop.call(STAFF, "hold", **{"appointment-reference": ref(proposal)})
        assert_gone(loop.call, STAFF, "hold", **{"appointment-reference": ref(proposal)})
        assert len(loop.find("Appointment")) == 1

    def test_a_hold_ends_by_the_clock_and_the_next_takes_over(self, loop: Loop) -> None:
        first = held(loop)
        loop.clock.move(minutes=10)
        second = held(loop)
        assert second["slot"] == first["slot"]
        assert loop.get(f"Appointment/{first['id']}")["status"] == "proposed"
        assert_gone(
            loop.call, STAFF, "book", **{"appointment-reference": ref(first), "order-reference": _order(loop)}
        )

    def test_asking_again_after_a_lost_answer_gives_the_same_hold(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
        first = loop.call(LAKESIDE, "hold", **{"appointment-reference": ref(proposal)})
        again = loop.call(LAKESIDE, "hold", **{"appointment-reference": ref(proposal)})
        assert again == first

    def test_an_office_holds_for_its_accepted_referral(self, loop: Loop) -> None:
        loop.accepted()
        appointment = held(loop, LAKESIDE, **{"referral-identifier": NUMBER})
        assert appointment["basedOn"] == [ORDER]
        assert loop.repository.read(LAKESIDE, "Appointment", appointment["id"]).by == "client:lakeside"

    def test_but_not_without_naming_it(self, loop: Loop) -> None:
        with pytest.raises(BadRequest) as refusal:
            held(loop, LAKESIDE)
        assert issue_of(refusal)["expression"] == ["Parameters.parameter"]

    def test_nor_before_it_is_accepted(self, loop: Loop) -> None:
        loop.refer()
        with pytest.raises(Unprocessable, match="not accepted"):
            held(loop, LAKESIDE, **{"referral-identifier": NUMBER})

    def test_nor_for_another_offices(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
        assert_gone(loop.call, HILLCREST, "hold", **{"appointment-reference": ref(proposal)})

    def test_nor_more_than_the_policy_allows(self, loop: Loop) -> None:
        for n in range(6):
            loop.put(a_slot("mr", MONDAY.replace(hour=12 + n)))
            loop.accepted(f"LK-{n}")
        numbers = [NUMBER | {"value": f"LK-{n}"} for n in range(6)]
        for identifier in numbers[:5]:
            held(loop, LAKESIDE, **{"referral-identifier": identifier, "visit-type": "113091000"})
        with pytest.raises(TooManyRequests):
            held(loop, LAKESIDE, **{"referral-identifier": numbers[5], "visit-type": "113091000"})

    @pytest.mark.parametrize("reference", ["Patient/p1", "https://elsewhere.example/Appointment/1", "proposal-1"])
    def test_a_reference_to_something_else_is_400(self, loop: Loop, reference: str) -> None:
        with pytest.raises(BadRequest) as refusal:
            loop.call(STAFF, "hold", **{"appointment-reference": {"reference": reference}})
        assert issue_of(refusal)["expression"] == ["Parameters.parameter[0].value.ofType(Reference)"]

    @pytest.mark.parametrize("id", ["nobody", "proposal-1", f"proposal-{2**63:x}", "proposal-ffffffffffffffff-1"])
    def test_an_appointment_that_is_not_there_is_gone(self, loop: Loop, id: str) -> None:
        assert_gone(loop.call, STAFF, "hold", **{"appointment-reference": {"reference": f"Appointment/{id}"}})


class TestBook:
    """ITI-117"""

    def test_books_what_is_held(self, loop: Loop) -> None:
        task = loop.accepted()
        appointment = held(loop)
        told = {"appointment-reference": ref(appointment), "order-reference": ORDER, "comment": "wheelchair"}
        answer = loop.call(STAFF, "book", **told)
        assert [one["resource"]["resourceType"] for one in answer["entry"]] == ["Appointment"]
        booked = answer["entry"][0]["resource"]
        assert (booked["id"], booked["status"], booked["basedOn"]) == (appointment["id"], "booked", [ORDER])
        assert booked["participant"][0] == {"actor": {"reference": "Patient/p1"}, "status": "accepted"}
        assert {p["status"] for p in booked["participant"]} == {"accepted"}
        assert booked["comment"] == "wheelchair"
        assert extension(booked, HELD_UNTIL) is None
        slot = loop.get("Slot/ct-0900")
        assert (slot["status"], extension(slot, HELD_UNTIL)) == ("busy", None)
        loop.settle()
        assert loop.state(task) == ("in-progress", "appointment-booked")

    def test_books_a_proposal_directly(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
        booked = loop.call(LAKESIDE, "book", **{"appointment-reference": ref(proposal)})["entry"][0]["resource"]
        assert booked["status"] == "booked"
        assert loop.repository.read(LAKESIDE, "Appointment", booked["id"]).resource()["status"] == "booked"

    def test_books_the_proposal_sent_back_as_a_resource(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
        booked = loop.call(LAKESIDE, "book", **{"appointment-resource": proposal | {"comment": "by taxi"}})
        assert booked["entry"][0]["resource"]["status"] == "booked"
        assert booked["entry"][0]["resource"]["comment"] == "by taxi"

    def test_booking_again_after_a_lost_answer_changes_nothing(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
        first = loop.call(LAKESIDE, "book", **{"appointment-reference": ref(proposal)})
        assert loop.call(LAKESIDE, "book", **{"appointment-reference": ref(proposal)}) == first
        stored = {"reference": f"{BASE}/Appointment/{first['entry'][0]['resource']['id']}"}
        assert loop.call(LAKESIDE, "book", **{"appointment-reference": stored}) == first

    def test_a_time_that_somebody_else_has_is_gone(self, loop: Loop) -> None:
        loop.accepted("LK-1")
        loop.accepted("LK-2")
        proposals = [loop.proposals(**{"referral-identifier": NUMBER | {"value": n}})[0] for n in ("LK-1", "LK-2")]
        loop.call(STAFF, "book", **{"appointment-reference": ref(proposals[0])})
        assert_gone(loop.call, STAFF, "book", **{"appointment-reference": ref(proposals[1])})

    def test_so_is_one_that_is_over(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(**{"referral-identifier": NUMBER})[0]
        loop.clock.move(hours=2)
        assert_gone(loop.call, STAFF, "book", **{"appointment-reference": ref(proposal)})

    def test_a_slot_that_an_appointment_has_is_taken_even_while_it_still_says_free(self, loop: Loop) -> None:
        """Staff wrote the Appointment by hand, and the rules have not come round to its Slot yet."""
        loop.accepted()
        by_hand = {
            "resourceType": "Appointment",
            "id": "by-hand",
            "status": "booked",
            "start": "2026-03-02T09:00:00Z",
            "end": "2026-03-02T09:30:00Z",
            "slot": [{"reference": "Slot/ct-0900"}],
            "participant": [{"actor": {"reference": "Patient/p2"}, "status": "accepted"}],
        }
        proposal = loop.proposals(**{"referral-identifier": NUMBER, "visit-type": "77477000"})[0]
        loop.repository.update(STAFF, by_hand)
        assert loop.get("Slot/ct-0900")["status"] == "free"
        assert_gone(loop.call, STAFF, "book", **{"appointment-reference": ref(proposal)})
        loop.settle()
        assert loop.get("Slot/ct-0900")["status"] == "busy"

    def test_needs_to_know_the_order(self, loop: Loop) -> None:
        appointment = held(loop)
        with pytest.raises(BadRequest) as refusal:
            loop.call(STAFF, "book", **{"appointment-reference": ref(appointment)})
        assert issue_of(refusal)["expression"] == ["Parameters.parameter"]

    def test_a_time_kept_for_one_order_is_not_booked_for_another(self, loop: Loop) -> None:
        loop.accepted("LK-1")
        loop.accepted("LK-2")
        appointment = held(loop, **{"referral-identifier": NUMBER})
        other = {"reference": "ServiceRequest/order-lk-2"}
        with pytest.raises(Unprocessable, match="another order"):
            loop.call(STAFF, "book", **{"appointment-reference": ref(appointment), "order-reference": other})

    def test_the_patient_is_the_one_of_the_order(self, loop: Loop) -> None:
        loop.accepted()
        proposal = loop.proposals(**{"referral-identifier": NUMBER})[0]
        other = {"reference": "Patient/p2"}
        with pytest.raises(Unprocessable, match="patient is not the one"):
            loop.call(STAFF, "book", **{"appointment-reference": ref(proposal), "patient-reference": other})
        same = {"reference": f"{BASE}/Patient/p1"}
        booked = loop.call(STAFF, "book", **{"appointment-reference": ref(proposal), "patient-reference": same})
        assert booked["total"] == 1

    def test_an_ended_referral_is_not_booked(self, loop: Loop) -> None:
        task = loop.accepted()
        proposal = loop.proposals(**{"referral-identifier": NUMBER})[0]
        loop.set_status(task, "rejected", statusReason={"text": "no"})
        with pytest.raises(Unprocessable, match="has ended: it is rejected"):
            loop.call(STAFF, "book", **{"appointment-reference": ref(proposal)})
        assert loop.find("Appointment") == []

    def test_an_order_that_nobody_follows_is_not_booked(self, loop: Loop) -> None:
        order = an_order("other", "X-1", "Organization/lakeside", performer=[{"reference": "Organization/hillcrest"}])
        loop.put(order, LAKESIDE)
        appointment = held(loop)
        with pytest.raises(Unprocessable, match="not a referral to this practice"):
            reference = {"reference": "ServiceRequest/other"}
            loop.call(STAFF, "book", **{"appointment-reference": ref(appointment), "order-reference": reference})

    def test_a_reader_of_the_order_does_not_book_it(self, loop: Loop) -> None:
        loop.accepted()
        reader = Access("user:curious", LAKESIDE.scopes, LAKESIDE.audience, organization="Organization/hillcrest")
        with pytest.raises(Forbidden):
            held(loop, reader, **{"referral-identifier": NUMBER})

    def test_staff_books_before_accepting_and_thereby_accepts(self, loop: Loop) -> None:
        task = loop.refer()
        loop.book_more(task, "ct-0900")
        assert loop.states(task) == ["submitted", "received", "awaiting-scheduling", "appointment-booked"]

    def test_a_visit_may_take_slots_that_adjoin(self, loop: Loop) -> None:
        loop.accepted()
        booked = _book(loop, ["ct-0930", "ct-0900"])
        assert (booked["start"], booked["end"]) == ("2026-03-02T09:00:00+00:00", "2026-03-02T10:00:00+00:00")
        assert booked["minutesDuration"] == 60
        assert [loop.get(f"Slot/ct-{at}")["status"] for at in ("0900", "0930")] == ["busy", "busy"]

    @pytest.mark.parametrize("slots", [["ct-0900", "ct-03-0900"], ["ct-0900", "mr-0930"], [], ["ct-0900"] * 2])
    def test_but_no_others(self, loop: Loop, slots: list[str]) -> None:
        loop.accepted()
        with pytest.raises(Unprocessable):
            _book(loop, slots)
        assert loop.get("Slot/ct-0900")["status"] == "free"

    @pytest.mark.parametrize("change, element", [
        ({"status": "nope"}, "Parameters.parameter[0].resource.status"),
        ({"status": "arrived"}, "Parameters.parameter[0].resource.status"),
        ({"start": "tomorrow"}, "Parameters.parameter[0].resource.start"),
    ])  # fmt: skip
    def test_a_broken_appointment_is_named(self, loop: Loop, change: dict, element: str) -> None:
        loop.accepted()
        proposal = loop.proposals(**{"referral-identifier": NUMBER})[0]
        with pytest.raises(FhirError) as refusal:
            loop.call(STAFF, "book", **{"appointment-resource": proposal | change})
        assert 400 <= refusal.value.status < 500
        assert issue_of(refusal)["expression"] == [element]

    def test_reference_or_resource_but_not_both(self, loop: Loop) -> None:
        proposal = loop.proposals()[0]
        for parameters in ({}, {"appointment-reference": ref(proposal), "appointment-resource": proposal}):
            with pytest.raises(BadRequest):
                loop.call(STAFF, "book", **parameters)


class TestOverbook:
    """Policy: staff may squeeze in what is stat or asap."""

    def test_staff_books_a_taken_time_for_an_urgent_order(self, loop: Loop) -> None:
        loop.booked("LK-1", "ct-0900")
        loop.accepted("LK-2", priority="stat")
        booked = _book(loop, ["ct-0900"], "ServiceRequest/order-lk-2")
        assert (booked["status"], booked["priority"]) == ("booked", 1)
        loop.settle()
        assert len(loop.find("Appointment", slot="Slot/ct-0900", status="booked")) == 2

    def test_but_not_for_a_routine_one_and_no_office_does(self, loop: Loop) -> None:
        loop.booked("LK-1", "ct-0900")
        loop.accepted("LK-2", priority="urgent")
        assert_gone(_book, loop, ["ct-0900"], "ServiceRequest/order-lk-2")
        loop.accepted("LK-3", priority="stat")
        resource = {
            "resourceType": "Appointment",
            "status": "booked",
            "slot": [{"reference": "Slot/ct-0900"}],
            "basedOn": [{"reference": "ServiceRequest/order-lk-3"}],
            "participant": [{"type": [{"text": "patient"}], "status": "needs-action"}],
        }
        assert_gone(loop.call, LAKESIDE, "book", **{"appointment-resource": resource})


class TestMove:
    """$book with an Appointment that has another time."""

    def test_the_new_time_is_taken_and_the_old_one_free(self, loop: Loop) -> None:
        task, appointment = loop.booked(slot="ct-0900")
        changed = loop.get(appointment) | {"slot": [{"reference": "Slot/ct-03-0900"}]}
        moved = loop.call(LAKESIDE, "book", **{"appointment-resource": changed})["entry"][0]["resource"]
        assert (moved["id"], moved["start"]) == (appointment.partition("/")[2], "2026-03-03T09:00:00+00:00")
        assert [loop.get(f"Slot/{id}")["status"] for id in ("ct-0900", "ct-03-0900")] == ["free", "busy"]
        loop.settle()
        assert loop.state(task) == ("in-progress", "appointment-rescheduled")

    def test_when_the_new_time_is_taken_the_old_one_stays(self, loop: Loop) -> None:
        _, appointment = loop.booked("LK-1", "ct-0900")
        loop.booked("LK-2", "ct-0930")
        changed = loop.get(appointment) | {"slot": [{"reference": "Slot/ct-0930"}]}
        assert_gone(loop.call, STAFF, "book", **{"appointment-resource": changed})
        assert loop.get(appointment)["slot"] == [{"reference": "Slot/ct-0900"}]
        assert loop.get("Slot/ct-0900")["status"] == "busy"

    def test_another_office_does_not_move_it(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        changed = loop.get(appointment) | {"slot": [{"reference": "Slot/ct-0930"}]}
        with pytest.raises(Unprocessable, match="no such order is known here"):
            loop.call(HILLCREST, "book", **{"appointment-resource": changed})
        del changed["basedOn"]
        assert_gone(loop.call, HILLCREST, "book", **{"appointment-resource": changed})
        assert loop.get(appointment)["slot"] == [{"reference": "Slot/ct-0900"}]


class TestCancel:
    """$book with an Appointment in status cancelled."""

    def test_the_time_is_free_again_and_the_referral_knows(self, loop: Loop) -> None:
        task, appointment = loop.booked()
        reason = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason",
                              "code": "pat"}]}  # fmt: skip
        wanted = loop.get(appointment) | {"status": "cancelled", "cancelationReason": reason}
        answer = loop.call(LAKESIDE, "book", **{"appointment-resource": wanted})
        assert answer["entry"][0]["resource"]["cancelationReason"] == reason
        assert loop.get("Slot/ct-0900")["status"] == "free"
        loop.settle()
        assert loop.state(task) == ("in-progress", "appointment-cancelled")

    def test_a_hold_is_given_back_without_a_word_to_anybody(self, loop: Loop) -> None:
        task = loop.accepted()
        appointment = held(loop, LAKESIDE, **{"referral-identifier": NUMBER})
        loop.call(LAKESIDE, "book", **{"appointment-resource": appointment | {"status": "cancelled"}})
        loop.settle()
        assert loop.get("Slot/ct-0900")["status"] == "free"
        assert loop.state(task) == ("accepted", "awaiting-scheduling")

    def test_cancelling_again_changes_nothing(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        wanted = loop.get(appointment) | {"status": "cancelled"}
        first = loop.call(STAFF, "book", **{"appointment-resource": wanted})
        assert loop.call(STAFF, "book", **{"appointment-resource": wanted}) == first

    def test_an_office_does_not_cancel_a_visit_that_has_begun(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        loop.set_status(appointment, "arrived")
        wanted = loop.get(appointment) | {"status": "cancelled"}
        with pytest.raises(Unprocessable, match="arrived"):
            loop.call(LAKESIDE, "book", **{"appointment-resource": wanted})

    def test_nor_anybody_one_that_is_over(self, loop: Loop) -> None:
        _, appointment = loop.booked()
        loop.set_status(appointment, "fulfilled")
        wanted = loop.get(appointment) | {"status": "cancelled"}
        with pytest.raises(Unprocessable, match="from fulfilled to cancelled"):
            loop.call(STAFF, "book", **{"appointment-resource": wanted})


class TestRaces:
    """No time is given twice, however many ask at once."""

    def test_of_parallel_holds_one_wins_and_the_others_are_told(self, loop: Loop) -> None:
        for n in range(8):
            loop.accepted(f"LK-{n}")
        proposals = [
            loop.proposals(**{"referral-identifier": NUMBER | {"value": f"LK-{n}"}, "visit-type": "77477000"})[0]
            for n in range(8)
        ]
        outcomes = _all_at_once(
            [lambda p=p: loop.call(STAFF, "hold", **{"appointment-reference": ref(p)}) for p in proposals]
        )
        _assert_one_winner(outcomes)
        assert len(loop.find("Appointment", status="pending")) == 1

    def test_of_parallel_bookings_one_wins_too(self, loop: Loop) -> None:
        for n in range(8):
            loop.accepted(f"LK-{n}")
        outcomes = _all_at_once(
            [lambda n=n: _book(loop, ["ct-0900"], f"ServiceRequest/order-lk-{n}") for n in range(8)]
        )
        _assert_one_winner(outcomes)
        assert len(loop.find("Appointment", status="booked")) == 1

    def test_and_of_those_who_move_to_the_same_time(self, loop: Loop) -> None:
        visits = []
        for n in range(4):
            loop.put(a_slot("ct", MONDAY.replace(hour=12 + n)))
            visits.append(loop.booked(f"LK-{n}", f"ct-{12 + n}00")[1])
        target = [{"reference": "Slot/ct-0900"}]
        outcomes = _all_at_once([
            lambda v=v: loop.call(STAFF, "book", **{"appointment-resource": loop.get(v) | {"slot": target}})
            for v in visits
        ])  # fmt: skip
        _assert_one_winner(outcomes)
        starts = [one["start"] for one in loop.find("Appointment", status="booked")]
        assert len(starts) == len(set(starts)) == 4

    def test_a_hold_that_runs_out_is_taken_over_by_one(self, loop: Loop) -> None:
        held(loop)
        loop.clock.move(minutes=10)
        for n in range(6):
            loop.accepted(f"LK-{n}")
        outcomes = _all_at_once(
            [lambda n=n: _book(loop, ["ct-0900"], f"ServiceRequest/order-lk-{n}") for n in range(6)]
        )
        _assert_one_winner(outcomes)


class TestOverHttp:
    """As clients call it: type-level POST with a Parameters resource."""

    def test_parameters_go_in_and_a_bundle_comes_out(self, loop: Loop) -> None:
        client = _api(loop, STAFF)
        body = {"resourceType": "Parameters", "parameter": SPAN}
        answer = client.post("/fhir/Appointment/$find?_count=1", json=body, content_type="application/fhir+json")
        assert answer.status_code == 200
        assert (answer.json["total"], len(answer.json["entry"])) == (6, 1)

    def test_a_loser_gets_404_and_an_operation_outcome(self, loop: Loop) -> None:
        client = _api(loop, STAFF)
        entries = [entry("appointment-reference", ref(loop.proposals()[0]))]
        body = {"resourceType": "Parameters", "parameter": entries}
        statuses = [client.post("/fhir/Appointment/$hold", json=body).status_code for _ in range(2)]
        assert statuses == [200, 404]

    def test_the_place_of_a_bad_parameter_is_its_place_in_the_body(self, loop: Loop) -> None:
        client = _api(loop, STAFF)
        body = {"resourceType": "Parameters", "parameter": [entry("start", "never")]}
        answer = client.post("/fhir/Appointment/$find?_count=1", json=body)
        assert answer.status_code == 400
        assert answer.json["issue"][0]["expression"] == ["Parameters.parameter[0].value.ofType(dateTime)"]

    def test_hold_and_book_take_post_alone(self, loop: Loop) -> None:
        client = _api(loop, STAFF)
        assert client.get("/fhir/Appointment/$hold").status_code == 405
        assert client.get("/fhir/Appointment/$book").status_code == 405


@pytest.mark.parametrize("id", [ProposalId(1, None), ProposalId(2**63 - 1, 2**63 - 1)])
def test_the_id_of_a_proposal_is_a_fhir_id_and_says_what_it_is_of(id: ProposalId) -> None:
    assert len(str(id)) <= 64
    assert ProposalId.parse(str(id)) == id


def test_the_catalogue_is_open_but_not_the_offices_orders(loop: Loop) -> None:
    """A proposal's id says an order's number of creation; it opens nothing to those who do not see the order."""
    loop.accepted()
    proposal = loop.proposals(LAKESIDE, **{"referral-identifier": NUMBER})[0]
    stranger = an_office("stranger")
    assert_gone(loop.call, stranger, "book", **{"appointment-reference": ref(proposal)})


def _order(loop: Loop, number: str = "LK-1") -> dict:
    loop.accepted(number)
    return {"reference": f"ServiceRequest/order-{number.lower()}"}


def _book(loop: Loop, slots: list[str], order: str = "ServiceRequest/order-lk-1") -> dict:
    resource = {
        "resourceType": "Appointment",
        "status": "booked",
        "slot": [{"reference": f"Slot/{slot}"} for slot in slots],
        "participant": [{"type": [{"text": "patient"}], "status": "needs-action"}],
    }
    if not slots:
        del resource["slot"]
    answer = loop.call(STAFF, "book", **{"appointment-resource": resource, "order-reference": {"reference": order}})
    return answer["entry"][0]["resource"]


def _all_at_once(calls: list[Any]) -> list[Any]:
    """What each call returned or raised, all of them begun together."""
    outcomes: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(index: int) -> None:
        barrier.wait()
        try:
            outcomes[index] = calls[index]()
        except Exception as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _assert_one_winner(outcomes: list[Any]) -> None:
    losers = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(losers) == len(outcomes) - 1
    for loser in losers:
        assert isinstance(loser, NotFound), loser
        assert loser.outcome()["issue"][0]["severity"] == "fatal"


def _api(loop: Loop, access: Access) -> Any:
    app = Flask("test")
    http.install(app)

    @app.before_request
    def let_in() -> None:
        g.access = access

    blueprint = routes.create_blueprint(loop.repository, operations(loop.practice), dict)
    app.register_blueprint(blueprint, url_prefix="/fhir")
    return app.test_client()
