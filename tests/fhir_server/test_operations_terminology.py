"""https://hl7.org/fhir/R4/terminology-service.html"""

from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient

from conformance import terminology as r4
from fhir_server.access import Access, Scope
from fhir_server.operations import standard
from fhir_server.repository import Repository
from fhir_server.terminology import value_set as composing
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.operations import app_with, json_of, post, values
from tests.fhir_server.test_rest import assert_outcome

GENDER = "http://hl7.org/fhir/administrative-gender"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
EXAMS = "urn:exams"

CODE_SYSTEM: dict = {
    "resourceType": "CodeSystem",
    "id": "exams",
    "url": EXAMS,
    "version": "2",
    "name": "Exams",
    "status": "active",
    "caseSensitive": False,
    "content": "complete",
    "hierarchyMeaning": "is-a",
    "property": [{"code": "minutes", "type": "integer"}, {"code": "notSelectable", "type": "boolean"}],
    "concept": [
        {
            "code": "ct",
            "display": "Computed tomography",
            "property": [{"code": "notSelectable", "valueBoolean": True}],
            "concept": [
                {
                    "code": "ct-head",
                    "display": "CT of the head",
                    "definition": "Of the skull and what is in it.",
                    "designation": [{"language": "de", "value": "CT des Kopfes"}],
                    "property": [{"code": "minutes", "valueInteger": 20}],
                },
                {
                    "code": "ct-old",
                    "display": "CT by the old way",
                    "property": [{"code": "inactive", "valueBoolean": True}],
                },
            ],
        },
        {"code": "us", "display": "Ultrasound", "property": [{"code": "minutes", "valueInteger": 20}]},
    ],
}


def value_set(*include: dict, **more: Any) -> dict:
    compose = {"include": list(include)} | more
    return {"resourceType": "ValueSet", "url": "urn:set", "status": "active", "compose": compose}


ALL = value_set({"system": EXAMS})
MAP: dict = {
    "resourceType": "ConceptMap",
    "id": "map",
    "url": "urn:map",
    "status": "active",
    "sourceUri": "urn:from",
    "targetUri": "urn:to",
    "group": [
        {
            "source": EXAMS,
            "target": "urn:billing",
            "element": [
                {"code": "ct-head", "target": [{"code": "100", "display": "Head", "equivalence": "wider"}]},
                {"code": "us", "target": [{"equivalence": "unmatched"}]},
            ],
            "unmapped": {"mode": "fixed", "code": "999"},
        }
    ],
}


@pytest.fixture
def app(repository: Repository) -> Flask:
    repository.update(PRACTICE, CODE_SYSTEM)
    repository.update(PRACTICE, ALL | {"id": "all"})
    repository.update(PRACTICE, MAP)
    return app_with(repository, standard.operations(repository))


def ask(client: FlaskClient, path: str, **query: Any) -> dict:
    names = {name.replace("_", "-"): value for name, value in query.items()}
    return json_of(client.get(f"/fhir/{path}?{urlencode(names)}"))


def codes(expanded: dict) -> list[str]:
    assert expanded["resourceType"] == "ValueSet"
    return [row["code"] for row in expanded["expansion"].get("contains", [])]


def expanded(client: FlaskClient, of: dict, *entries: dict) -> list[str]:
    return codes(json_of(post(client, "ValueSet/$expand", [{"name": "valueSet", "resource": of}, *entries])))


class TestExpand:
    """https://hl7.org/fhir/R4/valueset-operation-expand.html"""

    def test_a_value_set_of_r4(self, client: FlaskClient) -> None:
        answer = ask(client, "ValueSet/$expand", url=GENDERS)
        assert codes(answer) == ["male", "female", "other", "unknown"]
        assert answer["url"] == GENDERS
        assert answer["expansion"]["total"] == 4
        assert {"system": GENDER, "version": "4.0.1", "code": "male", "display": "Male"} in answer["expansion"][
            "contains"
        ]
        assert {"name": "version", "valueUri": f"{GENDER}|4.0.1"} in answer["expansion"]["parameter"]
        assert "compose" not in answer

    def test_one_of_the_store_by_url_and_by_id(self, client: FlaskClient) -> None:
        every = ["ct", "ct-head", "ct-old", "us"]
        assert codes(ask(client, "ValueSet/$expand", url="urn:set")) == every
        assert codes(ask(client, "ValueSet/all/$expand")) == every
        assert expanded(client, ALL) == every
        assert codes(json_of(post(client, "ValueSet/$expand", ALL))) == every

    def test_the_store_goes_before_r4(self, client: FlaskClient, repository: Repository) -> None:
        own = value_set({"system": GENDER, "concept": [{"code": "other"}]}) | {"url": GENDERS}
        repository.create(PRACTICE, own)
        assert codes(ask(client, "ValueSet/$expand", url=GENDERS)) == ["other"]

    def test_count_and_offset_take_a_part(self, client: FlaskClient) -> None:
        answer = ask(client, "ValueSet/$expand", url="urn:set", offset=1, count=2)
        assert codes(answer) == ["ct-head", "ct-old"]
        assert (answer["expansion"]["total"], answer["expansion"]["offset"]) == (4, 1)
        assert codes(ask(client, "ValueSet/$expand", url="urn:set", count=0)) == []

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({"filter": "HEAD tomography"}, []),
            ({"filter": "ct head"}, ["ct-head"]),
            ({"filter": "ultra"}, ["us"]),
            ({"activeOnly": "true"}, ["ct", "ct-head", "us"]),
            ({"excludeNotForUI": "true"}, ["ct-head", "ct-old", "us"]),
            ({"exclude_system": EXAMS}, []),
            ({"exclude_system": f"{EXAMS}|1"}, ["ct", "ct-head", "ct-old", "us"]),
        ],
    )
    def test_parameters_leave_codes_out(self, client: FlaskClient, query: dict, expected: list[str]) -> None:
        assert codes(ask(client, "ValueSet/$expand", url="urn:set", **query)) == expected

    def test_marks_what_is_abstract_or_inactive(self, client: FlaskClient) -> None:
        rows = {row["code"]: row for row in ask(client, "ValueSet/all/$expand")["expansion"]["contains"]}
        assert [code for code, row in rows.items() if row.get("abstract")] == ["ct"]
        assert [code for code, row in rows.items() if row.get("inactive")] == ["ct-old"]

    def test_speaks_a_language(self, client: FlaskClient) -> None:
        answer = ask(client, "ValueSet/all/$expand", displayLanguage="de", filter="head")
        assert answer["expansion"]["contains"][0]["display"] == "CT des Kopfes"

    def test_tells_designations_when_asked(self, client: FlaskClient) -> None:
        def told(**query: str) -> list:
            answer = ask(client, "ValueSet/all/$expand", filter="ct-head", **query)
            return answer["expansion"]["contains"][0].get("designation", [])

        german = [{"language": "de", "value": "CT des Kopfes"}]
        assert told() == []
        assert told(includeDesignations="true") == german
        assert told(designation="urn:ietf:bcp:47|de") == german
        assert told(designation="urn:ietf:bcp:47|fr") == []

    def test_tells_the_definition_when_asked(self, client: FlaskClient) -> None:
        assert ask(client, "ValueSet/all/$expand", includeDefinition="true")["compose"] == ALL["compose"]

    @pytest.mark.parametrize(
        ("filter", "expected"),
        [
            (("concept", "is-a", "ct"), ["ct", "ct-head", "ct-old"]),
            (("concept", "descendent-of", "ct"), ["ct-head", "ct-old"]),
            (("concept", "is-not-a", "ct"), ["us"]),
            (("concept", "generalizes", "ct-head"), ["ct", "ct-head"]),
            (("concept", "in", "us,ct"), ["ct", "us"]),
            (("concept", "not-in", "us,ct"), ["ct-head", "ct-old"]),
            (("minutes", "=", "20"), ["ct-head", "us"]),
            (("minutes", "exists", "false"), ["ct", "ct-old"]),
            (("parent", "=", "ct"), ["ct-head", "ct-old"]),
            (("notSelectable", "=", "true"), ["ct"]),
            (("display", "=", "Ultrasound"), ["us"]),
        ],
    )
    def test_filters(self, client: FlaskClient, filter: tuple[str, str, str], expected: list[str]) -> None:
        named = dict(zip(("property", "op", "value"), filter, strict=True))
        assert expanded(client, value_set({"system": EXAMS, "filter": [named]})) == expected

    def test_includes_are_joined_and_excludes_taken_away(self, client: FlaskClient) -> None:
        exclude = [{"system": EXAMS, "concept": [{"code": "ct-old"}]}]
        first = {"system": EXAMS, "concept": [{"code": "us", "display": "Echo"}]}
        joined = value_set(first, {"system": EXAMS}, exclude=exclude, inactive=False)
        answer = json_of(post(client, "ValueSet/$expand", joined))
        assert codes(answer) == ["us", "ct", "ct-head"]
        assert answer["expansion"]["contains"][0]["display"] == "Echo"

    def test_value_sets_within_one_include_are_met(self, client: FlaskClient) -> None:
        within = {"system": EXAMS, "concept": [{"code": "us"}, {"code": "none"}], "valueSet": ["urn:set"]}
        assert expanded(client, value_set(within) | {"url": "urn:other"}) == ["us"]

    def test_codes_that_are_listed_need_no_code_system(self, client: FlaskClient) -> None:
        listed = {"system": "http://snomed.info/sct", "concept": [{"code": "77477000", "display": "CT"}]}
        assert expanded(client, value_set(listed)) == ["77477000"]

    def test_an_expansion_alone_is_what_it_is(self, client: FlaskClient) -> None:
        contains = [{"system": EXAMS, "code": "a", "contains": [{"system": EXAMS, "code": "b"}]}]
        expansion = {"timestamp": "2026-01-01T00:00:00Z", "contains": contains}
        own = {"resourceType": "ValueSet", "url": "urn:own", "status": "active", "expansion": expansion}
        assert expanded(client, own) == ["a", "b"]

    @pytest.mark.parametrize(
        "include",
        [
            {"system": "http://snomed.info/sct"},
            {"system": "http://unitsofmeasure.org", "filter": [{"property": "a", "op": "=", "value": "b"}]},
            {"valueSet": ["urn:nothing"]},
            {"valueSet": ["urn:itself"]},
            {"system": EXAMS, "filter": [{"property": "display", "op": "regex", "value": "(a+)+$"}]},
        ],
    )
    def test_what_cannot_be_enumerated_is_too_costly(self, client: FlaskClient, include: dict) -> None:
        answer = post(client, "ValueSet/$expand", value_set(include) | {"url": "urn:itself"})
        assert_outcome(answer, 422, "too-costly")

    def test_so_do_value_sets_that_go_in_circles(self, client: FlaskClient, repository: Repository) -> None:
        for name, other in (("a", "b"), ("b", "a")):
            repository.create(PRACTICE, value_set({"valueSet": [f"urn:{other}"]}) | {"url": f"urn:{name}"})
        assert_outcome(client.get("/fhir/ValueSet/$expand?url=urn:a"), 422, "too-costly")

    def test_and_so_is_too_much_of_it(self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(composing, "MAX_CODES", 3)
        assert_outcome(client.get("/fhir/ValueSet/$expand?url=urn:set"), 422, "too-costly")
        monkeypatch.undo()
        many = value_set(*[{"system": EXAMS, "concept": [{"code": "us"}]}] * 4000)
        assert_outcome(post(client, "ValueSet/$expand", many), 422, "too-costly")

    def test_versions_of_code_systems(self, client: FlaskClient) -> None:
        def answer(name: str, version: str) -> int:
            return client.get(f"/fhir/ValueSet/$expand?url=urn:set&{name}={EXAMS}%7C{version}").status_code

        assert [answer("check-system-version", version) for version in "23"] == [200, 422]
        assert [answer("force-system-version", version) for version in "23"] == [200, 422]
        assert [answer("system-version", version) for version in "23"] == [200, 422]
        assert client.get("/fhir/ValueSet/$expand?url=urn:set&system-version=x").status_code == 400

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("", 400),
            ("?url=urn:nothing", 404),
            ("?url=urn:set%7C7", 404),
            ("?url=urn:set&count=-1", 400),
            ("?url=urn:set&offset=x", 400),
            ("?url=urn:set&activeOnly=maybe", 400),
            ("?url=urn:set&context=x", 400),
            ("?url=urn:set&url=urn:set", 400),
            ("?valueSet=x", 400),
        ],
    )
    def test_refuses_what_it_cannot_answer(self, client: FlaskClient, query: str, status: int) -> None:
        assert client.get(f"/fhir/ValueSet/$expand{query}").status_code == status

    def test_a_value_set_sent_along_is_checked(self, client: FlaskClient) -> None:
        broken = {"resourceType": "ValueSet", "status": "active", "compose": {"include": [{"system": 5}]}}
        answer = post(client, "ValueSet/$expand", [{"name": "valueSet", "resource": broken}])
        expression = "Parameters.parameter[0].resource.compose.include[0].system"
        assert_outcome(answer, 400, "value", expression)

    def test_asks_for_the_right_to_read(self, app: Flask, client: FlaskClient) -> None:
        app.config["ACCESS"] = an_office("o1")
        assert client.get("/fhir/ValueSet/$expand?url=urn:set").status_code == 200
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "rs"),), None)
        assert_outcome(client.get("/fhir/ValueSet/$expand?url=urn:set"), 403, "forbidden")

    def test_every_value_set_of_r4_is_expanded_or_said_to_be_too_costly(self, client: FlaskClient) -> None:
        outcomes = {
            definition["url"]: client.get("/fhir/ValueSet/$expand", query_string={"url": definition["url"]})
            for definition in r4.r4_definitions("ValueSet")
        }
        answered = [answer.status_code for answer in outcomes.values()]
        assert set(answered) == {200, 422}
        assert answered.count(200) > 0.9 * len(answered)


class TestValidateCodeInValueSet:
    """https://hl7.org/fhir/R4/valueset-operation-validate-code.html"""

    def test_tells_whether_a_code_is_in_it(self, client: FlaskClient) -> None:
        answer = values(ask(client, "ValueSet/$validate-code", url=GENDERS, system=GENDER, code="male"))
        assert answer == {"result": True, "display": "Male"}
        answer = values(ask(client, "ValueSet/$validate-code", url=GENDERS, system=GENDER, code="m"))
        assert answer["result"] is False
        assert "m is not in" in answer["message"]

    @pytest.mark.parametrize(
        ("asked", "result"),
        [
            ({"name": "coding", "valueCoding": {"system": EXAMS, "code": "us", "display": "ultrasound"}}, True),
            ({"name": "coding", "valueCoding": {"system": EXAMS, "code": "us", "display": "X-ray"}}, False),
            (
                {"name": "coding", "valueCoding": {"system": EXAMS, "code": "CT-Head", "display": "CT des Kopfes"}},
                True,
            ),
            ({"name": "coding", "valueCoding": {"system": EXAMS, "code": "us", "version": "1"}}, False),
            ({"name": "coding", "valueCoding": {"system": "urn:else", "code": "us"}}, False),
            ({"name": "coding", "valueCoding": {"code": "us"}}, False),
            ({"name": "coding", "valueCoding": {"system": EXAMS, "code": "ct"}}, False),
            (
                {
                    "name": "codeableConcept",
                    "valueCodeableConcept": {
                        "coding": [{"system": "urn:x", "code": "y"}, {"system": EXAMS, "code": "us"}]
                    },
                },
                True,
            ),
        ],
    )
    def test_codings_and_concepts(self, client: FlaskClient, asked: dict, result: bool) -> None:
        for path, entries in (
            ("ValueSet/all/$validate-code", [asked]),
            ("ValueSet/$validate-code", [asked, {"name": "url", "valueUri": "urn:set"}]),
            ("ValueSet/$validate-code", [asked, {"name": "valueSet", "resource": ALL}]),
        ):
            assert values(json_of(post(client, path, entries)))["result"] is result

    def test_what_groups_others_is_valid_where_that_is_allowed(self, client: FlaskClient) -> None:
        query = {"url": "urn:set", "system": EXAMS, "code": "ct"}
        assert values(ask(client, "ValueSet/$validate-code", **query))["result"] is False
        assert values(ask(client, "ValueSet/$validate-code", **query, abstract="true"))["result"] is True

    def test_finds_it_in_one_part_though_another_is_not_loaded(self, client: FlaskClient) -> None:
        parts = value_set({"system": "http://loinc.org"}, {"system": EXAMS})
        sent = {"name": "valueSet", "resource": parts}
        entries = [sent, {"name": "system", "valueUri": EXAMS}, {"name": "code", "valueCode": "us"}]
        assert values(json_of(post(client, "ValueSet/$validate-code", entries)))["result"] is True
        loinc = [sent, {"name": "system", "valueUri": "http://loinc.org"}, {"name": "code", "valueCode": "1-8"}]
        assert_outcome(post(client, "ValueSet/$validate-code", loinc), 422, "too-costly")

    def test_an_exclusion_counts(self, client: FlaskClient) -> None:
        without = value_set({"system": EXAMS}, exclude=[{"system": EXAMS, "concept": [{"code": "us"}]}])
        entries = [{"name": "valueSet", "resource": without}, {"name": "system", "valueUri": EXAMS}]
        answer = post(client, "ValueSet/$validate-code", [*entries, {"name": "code", "valueCode": "us"}])
        assert values(json_of(answer))["result"] is False

    @pytest.mark.parametrize(
        "query",
        ["", "?url=urn:set", "?url=urn:set&code=us", "?code=us&system=urn:exams", "?url=urn:set&coding=us"],
    )
    def test_refuses_what_says_too_little(self, client: FlaskClient, query: str) -> None:
        assert client.get(f"/fhir/ValueSet/$validate-code{query}").status_code == 400


class TestCodeSystem:
    """https://hl7.org/fhir/R4/codesystem-operations.html"""

    def test_lookup_tells_what_is_known_of_a_code(self, client: FlaskClient) -> None:
        answer = ask(client, "CodeSystem/$lookup", system=EXAMS, code="ct-head")
        told = values(answer)
        assert (told["name"], told["version"], told["display"]) == ("Exams", "2", "CT of the head")
        assert told["designation"] == [
            {"name": "language", "valueCode": "de"},
            {"name": "value", "valueString": "CT des Kopfes"},
        ]
        properties = [
            (entry["part"][0]["valueCode"], next(v for k, v in entry["part"][1].items() if k != "name"))
            for entry in answer["parameter"]
            if entry["name"] == "property"
        ]
        assert properties == [
            ("definition", "Of the skull and what is in it."),
            ("inactive", False),
            ("parent", "ct"),
            ("minutes", 20),
        ]

    def test_lookup_tells_the_properties_asked_for(self, client: FlaskClient) -> None:
        coding = {"name": "coding", "valueCoding": {"system": EXAMS, "code": "ct"}}
        answer = json_of(post(client, "CodeSystem/$lookup", [coding, {"name": "property", "valueCode": "child"}]))
        told = [entry["part"][1]["valueCode"] for entry in answer["parameter"] if entry["name"] == "property"]
        assert told == ["ct-head", "ct-old"]

    def test_lookup_knows_the_terms_of_dicom(self, client: FlaskClient) -> None:
        assert values(ask(client, "CodeSystem/$lookup", system=DCM, code="CT"))["display"] == "Computed Tomography"

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("system=urn:exams&code=none", 404),
            ("system=urn:none&code=us", 404),
            ("system=urn:exams&version=1&code=us", 404),
            ("code=us", 400),
            ("system=urn:exams", 400),
            ("system=urn:exams&code=us&date=2026", 400),
        ],
    )
    def test_lookup_refuses(self, client: FlaskClient, query: str, status: int) -> None:
        assert client.get(f"/fhir/CodeSystem/$lookup?{query}").status_code == status

    @pytest.mark.parametrize(("code", "result"), [("us", True), ("US", True), ("none", False), ("ct", False)])
    def test_validate_code(self, client: FlaskClient, code: str, result: bool) -> None:
        assert values(ask(client, "CodeSystem/$validate-code", url=EXAMS, code=code))["result"] is result
        assert values(ask(client, "CodeSystem/exams/$validate-code", code=code))["result"] is result
        entries = [{"name": "coding", "valueCoding": {"system": EXAMS, "code": code}}]
        sent = {
            "name": "codeSystem",
            "resource": {name: value for name, value in CODE_SYSTEM.items() if name != "id"},
        }
        for more in ([], [sent]):
            assert values(json_of(post(client, "CodeSystem/$validate-code", entries + more)))["result"] is result

    def test_validate_code_cannot_judge_by_a_part(self, client: FlaskClient) -> None:
        fragment = CODE_SYSTEM | {"content": "fragment"}
        entries = [{"name": "codeSystem", "resource": fragment}, {"name": "code", "valueCode": "none"}]
        assert_outcome(post(client, "CodeSystem/$validate-code", entries), 422, "not-supported")

    @pytest.mark.parametrize(
        ("one", "other", "outcome"),
        [
            ("ct", "ct-head", "subsumes"),
            ("ct-head", "ct", "subsumed-by"),
            ("ct", "CT", "equivalent"),
            ("us", "ct-head", "not-subsumed"),
        ],
    )
    def test_subsumes(self, client: FlaskClient, one: str, other: str, outcome: str) -> None:
        asked = {"codeA": one, "codeB": other}
        assert values(ask(client, "CodeSystem/$subsumes", system=EXAMS, **asked)) == {"outcome": outcome}
        assert values(ask(client, "CodeSystem/exams/$subsumes", **asked)) == {"outcome": outcome}
        codings = [
            {"name": f"coding{letter}", "valueCoding": {"system": EXAMS, "code": code}}
            for letter, code in (("A", one), ("B", other))
        ]
        assert values(json_of(post(client, "CodeSystem/$subsumes", codings))) == {"outcome": outcome}

    @pytest.mark.parametrize(
        ("query", "status"),
        [("codeA=us&codeB=ct", 400), ("system=urn:exams&codeA=us", 400), ("system=urn:exams&codeA=us&codeB=x", 404)],
    )
    def test_subsumes_refuses(self, client: FlaskClient, query: str, status: int) -> None:
        assert client.get(f"/fhir/CodeSystem/$subsumes?{query}").status_code == status

    def test_a_new_version_is_used_at_once(self, client: FlaskClient, repository: Repository) -> None:
        assert values(ask(client, "CodeSystem/$validate-code", url=EXAMS, code="mr"))["result"] is False
        more = [*CODE_SYSTEM["concept"], {"code": "mr"}]
        repository.update(PRACTICE, CODE_SYSTEM | {"concept": more})
        assert values(ask(client, "CodeSystem/$validate-code", url=EXAMS, code="mr"))["result"] is True


class TestTranslate:
    """https://hl7.org/fhir/R4/conceptmap-operation-translate.html"""

    def matches(self, answer: dict) -> list[tuple[str, str | None]]:
        found = [entry["part"] for entry in answer["parameter"] if entry["name"] == "match"]
        parts = [{part["name"]: next(v for k, v in part.items() if k != "name") for part in match} for match in found]
        return [(match["equivalence"], match.get("concept", {}).get("code")) for match in parts]

    def test_by_any_map_by_url_by_id_and_sent_along(self, client: FlaskClient) -> None:
        asked = {"system": EXAMS, "code": "ct-head"}
        coding = [{"name": "coding", "valueCoding": asked}]
        answers = [
            ask(client, "ConceptMap/$translate", **asked),
            ask(client, "ConceptMap/$translate", **asked, url="urn:map"),
            ask(client, "ConceptMap/map/$translate", **asked),
            json_of(post(client, "ConceptMap/$translate", [*coding, {"name": "conceptMap", "resource": MAP}])),
        ]
        for answer in answers:
            assert values(answer)["result"] is True
            assert self.matches(answer) == [("wider", "100")]

    def test_what_has_no_match_is_false(self, client: FlaskClient) -> None:
        answer = ask(client, "ConceptMap/$translate", system=EXAMS, code="us")
        assert values(answer)["result"] is False
        assert self.matches(answer) == [("unmatched", None)]

    def test_what_is_not_mapped_has_the_fixed_code(self, client: FlaskClient) -> None:
        assert self.matches(ask(client, "ConceptMap/map/$translate", system=EXAMS, code="mr")) == [("inexact", "999")]

    def test_backwards(self, client: FlaskClient) -> None:
        answer = ask(client, "ConceptMap/$translate", system="urn:billing", code="100", reverse="true")
        assert self.matches(answer) == [("narrower", "ct-head")]

    def test_value_sets_and_target_narrow_it(self, client: FlaskClient) -> None:
        asked = {"system": EXAMS, "code": "ct-head"}
        for name, right in (("source", "urn:from"), ("target", "urn:to"), ("targetsystem", "urn:billing")):
            assert self.matches(ask(client, "ConceptMap/$translate", **asked, **{name: right}))
            assert not self.matches(ask(client, "ConceptMap/$translate", **asked, **{name: "urn:else"}))

    def test_with_the_maps_of_r4(self, client: FlaskClient) -> None:
        answer = ask(client, "ConceptMap/$translate", system=GENDER, code="male")
        assert ("equal", "M") in self.matches(answer) or ("equivalent", "M") in self.matches(answer)

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("code=us", 400),
            ("system=urn:exams", 400),
            ("system=urn:exams&code=us&url=urn:none", 404),
            ("system=urn:exams&code=us&reverse=maybe", 400),
            ("system=urn:exams&code=us&dependency=x", 400),
        ],
    )
    def test_refuses(self, client: FlaskClient, query: str, status: int) -> None:
        assert client.get(f"/fhir/ConceptMap/$translate?{query}").status_code == status
