"""A QuestionnaireResponse against its Questionnaire. https://hl7.org/fhir/R4/questionnaireresponse.html"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.errors import Unprocessable
from fhir_server.questionnaire import faults, fits_its_questionnaire
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.validation import check_structure
from tests.fhir_server.conftest import BASE, PRACTICE

URL = "http://acme.example/Questionnaire/contrast"
SYSTEM = "http://acme.example/agents"
AGENT = {"system": SYSTEM, "code": "gadolinium"}
LOWEST = {"url": "http://hl7.org/fhir/StructureDefinition/minValue", "valueInteger": 0}
HIGHEST = {"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueInteger": 200}


def question(link: str, type: str, **elements: Any) -> dict:
    return {"linkId": link, "type": type, **elements}


QUESTIONNAIRE = {
    "resourceType": "Questionnaire",
    "id": "contrast",
    "url": URL,
    "version": "1",
    "status": "active",
    "contained": [
        {
            "resourceType": "ValueSet",
            "id": "agents",
            "status": "active",
            "compose": {"include": [{"system": SYSTEM, "concept": [{"code": "gadolinium"}, {"code": "iodine"}]}]},
        }
    ],
    "item": [
        question("intro", "display"),
        question("allergy", "boolean", required=True),
        question("agent", "choice", answerValueSet="#agents", required=True, enableWhen=[
            {"question": "allergy", "operator": "=", "answerBoolean": True}
        ]),
        question("kidney", "group", item=[
            question("gfr", "integer", extension=[LOWEST, HIGHEST]),
            question("why", "string", maxLength=10, enableWhen=[
                {"question": "gfr", "operator": "<", "answerInteger": 30}
            ]),
        ]),
        question("ease", "choice", answerOption=[{"valueInteger": 1}, {"valueInteger": 2}]),
        question("other", "open-choice", answerOption=[{"valueCoding": AGENT}], repeats=True),
        question("office", "string", readOnly=True, initial=[{"valueString": "Lakeside"}]),
        question("scans", "boolean", item=[question("when", "date")]),
    ],
}  # fmt: skip


def item(link: str, *values: Any, **rest: Any) -> dict:
    return {"linkId": link} | ({"answer": list(values)} if values else {}) | rest


NO = item("allergy", {"valueBoolean": False})
YES = item("allergy", {"valueBoolean": True})


def response(*items: dict, status: str = "completed") -> dict:
    content = {"resourceType": "QuestionnaireResponse", "questionnaire": f"{URL}|1", "status": status}
    return content | ({"item": list(items)} if items else {})


def found(*items: dict, status: str = "completed") -> list[tuple[str, str | None]]:
    codes = {"#agents": frozenset({(SYSTEM, "gadolinium"), (SYSTEM, "iodine")})}
    given = response(*items, status=status)
    check_structure(given, invariants=False)
    return [(issue.code, issue.expression) for issue in faults(QUESTIONNAIRE, given, codes=codes)]


def test_the_questionnaire_is_valid() -> None:
    check_structure(QUESTIONNAIRE)


@pytest.mark.parametrize(
    "items",
    [
        (NO,),
        (item("intro"), NO),
        (YES, item("agent", {"valueCoding": AGENT})),
        (NO, item("kidney", item=[item("gfr", {"valueInteger": 20}), item("why", {"valueString": "dialysis"})])),
        (NO, item("ease", {"valueInteger": 2})),
        (NO, item("other", {"valueCoding": AGENT}, {"valueString": "a new one"})),
        (NO, item("office", {"valueString": "Lakeside"})),
        (NO, item("scans", {"valueBoolean": True, "item": [item("when", {"valueDate": "2024-01"})]})),
    ],
)
def test_fits(items: tuple[dict, ...]) -> None:
    assert found(*items) == []


ROOT = "QuestionnaireResponse.item"


@pytest.mark.parametrize(
    ("items", "code", "expression"),
    [
        ((), "required", f"{ROOT}.where(linkId='allergy')"),
        ((item("allergy"),), "required", f"{ROOT}[0].answer"),
        ((YES,), "required", f"{ROOT}.where(linkId='agent')"),
        ((NO, item("agent", {"valueCoding": AGENT})), "business-rule", f"{ROOT}[1]"),
        ((NO, item("nothing")), "structure", f"{ROOT}[1].linkId"),
        ((NO, item("gfr", {"valueInteger": 1})), "structure", f"{ROOT}[1].linkId"),
        ((NO, item("intro")), "structure", f"{ROOT}[1]"),
        ((NO, NO), "structure", f"{ROOT}[1]"),
        ((item("intro", {"valueString": "x"}), NO), "structure", f"{ROOT}[0].answer"),
        ((item("allergy", {"valueString": "no"}),), "value", f"{ROOT}[0].answer[0].value"),
        ((NO, item("ease", {"valueInteger": 3})), "code-invalid", f"{ROOT}[1].answer[0].value"),
        ((NO, item("ease", {"valueString": "1"})), "code-invalid", f"{ROOT}[1].answer[0].value"),
        ((NO, item("other", {"valueCoding": {"code": "x"}})), "code-invalid", f"{ROOT}[1].answer[0].value"),
        ((YES, item("agent", {"valueCoding": {"code": "iodine"}})), "code-invalid", f"{ROOT}[1].answer[0].value"),
        ((YES, item("agent", {"valueString": "iodine"})), "value", f"{ROOT}[1].answer[0].value"),
        ((NO, item("ease", {"valueInteger": 1}, {"valueInteger": 2})), "structure", f"{ROOT}[1].answer[1]"),
        ((NO, item("kidney", {"valueString": "x"})), "structure", f"{ROOT}[1].answer"),
        (
            (NO, item("kidney", item=[item("gfr", {"valueInteger": -1})])),
            "value",
            f"{ROOT}[1].item[0].answer[0].value",
        ),
        (
            (NO, item("kidney", item=[item("gfr", {"valueInteger": 201})])),
            "value",
            f"{ROOT}[1].item[0].answer[0].value",
        ),
        (
            (NO, item("kidney", item=[item("gfr", {"valueInteger": 90}), item("why", {"valueString": "x"})])),
            "business-rule",
            f"{ROOT}[1].item[1]",
        ),
        (
            (NO, item("kidney", item=[item("gfr", {"valueInteger": 9}), item("why", {"valueString": "x" * 11})])),
            "too-long",
            f"{ROOT}[1].item[1].answer[0].value",
        ),
        ((NO, item("office", {"valueString": "Hillcrest"})), "business-rule", f"{ROOT}[1]"),
        ((NO, item("scans", {"valueBoolean": True}, item=[item("when")])), "structure", f"{ROOT}[1].item"),
        (
            (NO, item("scans", {"valueBoolean": True, "item": [item("when", {"valueString": "x"})]})),
            "value",
            f"{ROOT}[1].answer[0].item[0].answer[0].value",
        ),
    ],
)
def test_each_fault_names_its_item(items: tuple[dict, ...], code: str, expression: str) -> None:
    assert found(*items) == [(code, expression)]


def test_items_whose_names_are_missing_are_refused_too() -> None:
    """An extension may stand where linkId is mandatory."""
    absent = {"extension": [{"url": "http://acme.example/none", "valueBoolean": True}]}
    assert found(NO, {"_linkId": absent}) == [("structure", f"{ROOT}[1].linkId")]
    nameless = {"item": [{"_linkId": absent, "_type": absent, "required": True}, question("b", "boolean")]}
    assert [issue.code for issue in faults(nameless, {"status": "completed"})] == ["required"]


def test_all_at_once() -> None:
    assert found(item("allergy", {"valueInteger": 1}), item("ease", {"valueInteger": 3}), item("x")) == [
        ("value", f"{ROOT}[0].answer[0].value"),
        ("code-invalid", f"{ROOT}[1].answer[0].value"),
        ("structure", f"{ROOT}[2].linkId"),
    ]


def test_in_progress_may_lack_answers_and_nothing_else() -> None:
    assert found(status="in-progress") == []
    assert found(item("x"), status="in-progress") == [("structure", f"{ROOT}[0].linkId")]


@pytest.mark.parametrize(
    ("operator", "expected", "given", "enabled"),
    [
        ("exists", True, [1], True), ("exists", True, [], False), ("exists", False, [], True),
        ("=", 1, [1], True), ("=", 1, [2, 1], True), ("=", 1, [], False),
        ("!=", 1, [2], True), ("!=", 1, [1, 2], False), ("!=", 1, [], True),
        (">", 1, [2], True), (">", 1, [1], False), (">=", 1, [1], True), ("<", 1, [0], True), ("<=", 1, [1], True),
        ("<", Decimal("1.5"), [Decimal("1.49")], True),
    ],
)  # fmt: skip
def test_operators(operator: str, expected: Any, given: list, enabled: bool) -> None:
    kind = "Boolean" if operator == "exists" else "Decimal" if isinstance(expected, Decimal) else "Integer"
    condition = {"question": "a", "operator": operator, f"answer{kind}": expected}
    number = "decimal" if kind == "Decimal" else "integer"
    first = question("a", number, repeats=True)
    asked = {"item": [first, question("b", "boolean", enableWhen=[condition])]}
    values = [{f"value{number.capitalize()}": value} for value in given]
    answers = (
        [item("a", *values), item("b", {"valueBoolean": True})] if given else [item("b", {"valueBoolean": True})]
    )
    assert (faults(asked, {"status": "completed", "item": answers}) == []) is enabled


@pytest.mark.parametrize(("behavior", "enabled"), [("any", True), ("all", False)])
def test_several_conditions(behavior: str, enabled: bool) -> None:
    conditions = [{"question": "a", "operator": "=", "answerBoolean": value} for value in (True, False)]
    asked = {
        "item": [question("a", "boolean"), question("b", "boolean", enableWhen=conditions, enableBehavior=behavior)]
    }
    answers = [item("a", {"valueBoolean": True}), item("b", {"valueBoolean": True})]
    assert (faults(asked, {"status": "completed", "item": answers}) == []) is enabled


def test_what_is_below_a_disabled_group_is_disabled_too() -> None:
    condition = [{"question": "a", "operator": "=", "answerBoolean": True}]
    group = question(
        "g", "group", enableWhen=condition, required=True, item=[question("b", "boolean", required=True)]
    )
    asked = {"item": [question("a", "boolean"), group]}
    given = {"status": "completed", "item": [item("a", {"valueBoolean": False})]}
    assert faults(asked, given) == []
    given["item"].append(item("g", item=[item("b", {"valueBoolean": True})]))
    assert [issue.expression for issue in faults(asked, given)] == [f"{ROOT}[1]"]


class TestStored:
    @pytest.fixture
    def asking(self, store: VersionStore) -> Repository:
        rules = {"QuestionnaireResponse": [fits_its_questionnaire]}
        repository = Repository(store, BASE, lambda: datetime.now(UTC), rules)
        repository.update(PRACTICE, QUESTIONNAIRE)
        return repository

    @pytest.mark.parametrize(
        "canonical", [URL, f"{URL}|1", "Questionnaire/contrast", f"{BASE}/Questionnaire/contrast"]
    )
    def test_however_it_is_named(self, asking: Repository, canonical: str) -> None:
        assert asking.create(PRACTICE, response(NO) | {"questionnaire": canonical}).created
        with pytest.raises(Unprocessable) as refusal:
            asking.create(PRACTICE, response() | {"questionnaire": canonical})
        assert refusal.value.outcome()["issue"][0]["code"] == "required"

    @pytest.mark.parametrize(
        "canonical", [f"{URL}|2", "http://acme.example/other", "Questionnaire/no", "urn:a,b$c|d|e"]
    )
    def test_one_that_is_not_known(self, asking: Repository, canonical: str) -> None:
        with pytest.raises(Unprocessable) as refusal:
            asking.create(PRACTICE, response(NO) | {"questionnaire": canonical})
        assert refusal.value.expression == "QuestionnaireResponse.questionnaire"

    def test_a_value_set_that_lists_its_codes(self, asking: Repository) -> None:
        assert asking.create(PRACTICE, response(YES, item("agent", {"valueCoding": AGENT}))).created
        with pytest.raises(Unprocessable):
            asking.create(PRACTICE, response(YES, item("agent", {"valueCoding": AGENT | {"code": "water"}})))

    def test_what_is_read_only_stays_as_it_was(self, asking: Repository) -> None:
        given = response(NO, item("office", {"valueString": "Lakeside"}))
        stored = asking.create(PRACTICE, given).version.resource()
        changed = stored | {"status": "amended", "item": [NO, item("office", {"valueString": "Hillcrest"})]}
        with pytest.raises(Unprocessable):
            asking.update(PRACTICE, changed)
        assert asking.update(PRACTICE, stored | {"status": "amended"}).changed

    def test_entered_in_error_is_not_looked_at(self, asking: Repository) -> None:
        assert asking.create(PRACTICE, response(status="entered-in-error")).created
