"""A Questionnaire as a form, and back. https://hl7.org/fhir/R4/questionnaire.html"""

import copy
from decimal import Decimal

import pytest

from conformance import CANONICAL, conformance_resources
from fhir_server.errors import Unprocessable
from portal.survey import asked, fill, form_of

FEEDBACK = next(r for r in conformance_resources() if r["id"] == "referral-feedback")
ANSWERED = {"q1": "4", "q2": "5", "q3": "3"}


def a_questionnaire(*items: dict) -> dict:
    return {"url": "http://example.org/q", "version": "1", "item": list(items)}


def an_item(type: str, **more: object) -> dict:
    return {"linkId": "a", "text": "A?", "type": type, **more}


class TestForm:
    def test_asks_what_the_questionnaire_asks(self) -> None:
        form = form_of(FEEDBACK)
        assert form.canonical == f"{CANONICAL}/Questionnaire/referral-feedback|1.0.0"
        assert [q.link_id for q in form.questions] == ["ease", "speed", "usefulness", "again", "else"]
        assert [o.text for o in form.questions[0].options] == ["1", "2", "3", "4", "5"]
        assert [q.required for q in form.questions] == [True, True, True, False, False]

    def test_leaves_out_what_a_page_cannot_ask(self) -> None:
        form = form_of(a_questionnaire(an_item("attachment"), an_item("string", linkId="b")))
        assert [q.link_id for q in form.questions] == ["b"]

    @pytest.mark.parametrize(
        "item",
        [
            an_item("attachment", required=True),
            an_item("choice", required=True, answerValueSet="http://example.org/vs"),
            an_item("string", required=True, repeats=True),
            an_item("string", required=True, enableWhen=[{"question": "b", "operator": "exists"}]),
        ],
    )
    def test_refuses_a_questionnaire_that_cannot_be_completed_here(self, item: dict) -> None:
        with pytest.raises(Unprocessable):
            form_of(a_questionnaire(item))


class TestFill:
    def test_gives_the_items_of_a_response_in_their_order(self) -> None:
        filled = fill(form_of(FEEDBACK), ANSWERED | {"q4": "1", "q5": " Two\r\nlines "})
        assert filled.faults == {}
        assert [(item["linkId"], item["answer"]) for item in filled.items] == [
            ("ease", [{"valueInteger": 4}]),
            ("speed", [{"valueInteger": 5}]),
            ("usefulness", [{"valueInteger": 3}]),
            ("again", [{"valueString": "yes"}]),
            ("else", [{"valueString": "Two\nlines"}]),
        ]

    def test_leaves_out_unanswered_optional_questions(self) -> None:
        filled = fill(form_of(FEEDBACK), ANSWERED | {"q4": "", "q5": "  "})
        assert [item["linkId"] for item in filled.items] == ["ease", "speed", "usefulness"]

    @pytest.mark.parametrize(
        "field, value",
        [("q1", ""), ("q1", "6"), ("q1", "0"), ("q1", "four"), ("q4", "maybe"), ("q5", "x" * 4001), ("q5", "a\0b")],
    )
    def test_names_the_field_at_fault(self, field: str, value: str) -> None:
        assert list(fill(form_of(FEEDBACK), ANSWERED | {field: value}).faults) == [field]

    def test_names_every_fault_at_once(self) -> None:
        assert list(fill(form_of(FEEDBACK), {}).faults) == ["q1", "q2", "q3"]

    @pytest.mark.parametrize(
        "type, text, answer",
        [
            ("boolean", "yes", {"valueBoolean": True}),
            ("boolean", "no", {"valueBoolean": False}),
            ("integer", "-12", {"valueInteger": -12}),
            ("decimal", "1.10", {"valueDecimal": Decimal("1.10")}),
            ("date", "2026-03-31", {"valueDate": "2026-03-31"}),
            ("string", "x", {"valueString": "x"}),
        ],
    )
    def test_reads_each_type(self, type: str, text: str, answer: dict) -> None:
        filled = fill(form_of(a_questionnaire(an_item(type))), {"q1": text})
        assert filled.items[0]["answer"] == [answer]

    @pytest.mark.parametrize(
        "type, text",
        [
            ("boolean", "true"),
            ("integer", "1.5"),
            ("integer", "99999999999"),
            ("integer", "١"),
            ("decimal", "1e5"),
            ("date", "2026-02-30"),
        ],
    )
    def test_refuses_what_is_not_of_the_type(self, type: str, text: str) -> None:
        assert list(fill(form_of(a_questionnaire(an_item(type))), {"q1": text}).faults) == ["q1"]

    def test_keeps_groups_nested_and_asks_no_display(self) -> None:
        inner = [an_item("display", linkId="d"), an_item("string", linkId="b")]
        form = form_of(a_questionnaire(an_item("group", item=inner)))
        assert [question.link_id for question in asked(form.questions)] == ["b"]
        filled = fill(form, {"q1-2": "x"})
        assert filled.items[0]["linkId"] == "a"
        assert filled.items[0]["item"] == [{"linkId": "b", "text": "A?", "answer": [{"valueString": "x"}]}]

    def test_takes_a_coded_option_whole(self) -> None:
        coding = {"system": "http://example.org/cs", "code": "c", "display": "See"}
        questionnaire = a_questionnaire(an_item("choice", answerOption=[{"valueCoding": coding}]))
        form = form_of(copy.deepcopy(questionnaire))
        assert form.questions[0].options[0].text == "See"
        assert fill(form, {"q1": "1"}).items[0]["answer"] == [{"valueCoding": coding}]
