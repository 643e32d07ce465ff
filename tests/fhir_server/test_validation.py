"""What is refused, by which code, and which element is named. https://hl7.org/fhir/R4/validation.html"""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from fhir_server import fhir_json
from fhir_server.errors import InvalidStructure, Unprocessable
from fhir_server.validation import MAX_DEPTH, MAX_ISSUES, check_structure, faults
from fhir_server.validation.primitives import PRIMITIVES

BIRTH_TIME = "http://hl7.org/fhir/StructureDefinition/patient-birthTime"
OWN_PREFIX = "http://hl7.org/fhir/StructureDefinition/humanname-own-prefix"
PREFERENCE = "http://hl7.org/fhir/StructureDefinition/patient-proficiency"


def found(resource: Any) -> list[tuple[str, str | None]]:
    return [(issue.code, issue.expression) for issue in faults(resource)]


def patient(**elements: Any) -> dict:
    return {"resourceType": "Patient", **elements}


def observation(**elements: Any) -> dict:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **elements}


def div(inner: str, attributes: str = "") -> dict:
    text = f'<div xmlns="http://www.w3.org/1999/xhtml"{attributes}>{inner}</div>'
    return patient(text={"status": "generated", "div": text})


class TestShape:
    @pytest.mark.parametrize(
        ("elements", "code", "expression"),
        [
            ({"colour": "blue"}, "structure", "Patient.colour"),
            ({"$where": "1"}, "structure", "Patient.`$where`"),
            ({"a`b": 1}, "structure", "Patient.`a'b`"),
            ({"x" * 1000: 1}, "structure", f"Patient.{'x' * 64}"),
            ({"_unknown": {"id": "1"}}, "structure", "Patient._unknown"),
            ({"name": [{"colour": "blue"}]}, "structure", "Patient.name[0].colour"),
            ({"name": [{"resourceType": "HumanName", "family": "x"}]}, "structure", "Patient.name[0].resourceType"),
            ({"name": "John"}, "structure", "Patient.name"),
            ({"name": {"family": "Ivan"}}, "structure", "Patient.name"),
            ({"name": []}, "structure", "Patient.name"),
            ({"name": [{}]}, "structure", "Patient.name[0]"),
            ({"name": [None]}, "structure", "Patient.name[0]"),
            ({"name": [["x"]]}, "structure", "Patient.name[0]"),
            ({"name": None}, "structure", "Patient.name"),
            ({"name": [{"given": [{"id": "1"}]}]}, "structure", "Patient.name[0].given[0]"),
            ({"name": [{"given": "x"}]}, "structure", "Patient.name[0].given"),
            ({"active": {"id": "1"}}, "structure", "Patient.active"),
            ({"active": "true"}, "value", "Patient.active"),
            ({"active": 1}, "value", "Patient.active"),
            ({"gender": ["male"]}, "structure", "Patient.gender"),
            ({"maritalStatus": {}}, "structure", "Patient.maritalStatus"),
            ({"maritalStatus": None}, "structure", "Patient.maritalStatus"),
            ({"maritalStatus": [{"text": "x"}]}, "structure", "Patient.maritalStatus"),
            ({"birthDate": ""}, "value", "Patient.birthDate"),
            ({"birthDate": None}, "structure", "Patient.birthDate"),
            ({"birthDate": "yesterday"}, "value", "Patient.birthDate"),
            ({"communication": [{"preferred": True}]}, "required", "Patient.communication[0].language"),
            ({"link": [{"type": "seealso"}]}, "required", "Patient.link[0].other"),
            ({"id": "x" * 65}, "value", "Patient.id"),
            ({"id": "a b"}, "value", "Patient.id"),
            ({"name": [{"family": "x" * 1_048_577}]}, "too-long", "Patient.name[0].family"),
            ({"name": [{"family": "a\u0000b"}]}, "value", "Patient.name[0].family"),
            ({"multipleBirthInteger": Decimal("2.5")}, "value", "Patient.multipleBirth"),
        ],
    )
    def test_one_fault_is_named_by_its_element(self, elements: dict, code: str, expression: str) -> None:
        assert found(patient(**elements)) == [(code, expression)]

    def test_all_faults_come_at_once(self) -> None:
        assert found(patient(active="x", gender="m", colour=1, contact=[{"gender": "female"}])) == [
            ("value", "Patient.active"),
            ("code-invalid", "Patient.gender"),
            ("structure", "Patient.colour"),
            ("invariant", "Patient.contact[0]"),
        ]

    def test_but_not_without_end(self) -> None:
        issues = faults(patient(name=[{"family": 1}] * 1000))
        assert len(issues) == MAX_ISSUES + 1
        assert (issues[-1].severity, issues[-1].code) == ("information", "incomplete")

    def test_what_is_missing(self) -> None:
        assert found({"resourceType": "Observation"}) == [
            ("required", "Observation.status"),
            ("required", "Observation.code"),
        ]

    def test_an_element_with_an_extension_in_place_of_a_value_is_there(self) -> None:
        absent = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}]}
        absent["extension"][0]["valueCode"] = "unknown"
        assert found({"resourceType": "Observation", "_status": absent, "code": {"text": "x"}}) == []

    @pytest.mark.parametrize(
        "resource", [None, [], "Patient", 1, {}, {"resourceType": 1}, {"resourceType": ["Patient"]}]
    )
    def test_what_is_no_resource(self, resource: Any) -> None:
        with pytest.raises(InvalidStructure):
            check_structure(resource)

    def test_depth(self) -> None:
        extension: dict = {"url": "http://acme.example/x", "valueBoolean": True}
        for _ in range(MAX_DEPTH):
            extension = {"url": "http://acme.example/x", "extension": [extension]}
        with pytest.raises(Unprocessable):
            check_structure(patient(extension=[extension]))

    def test_no_diagnostics_repeats_the_content(self) -> None:
        secret = "Krankenblatt"
        bad = patient(gender=secret, birthDate=secret, name=[{"family": [secret]}], managingOrganization=secret)
        assert not [issue for issue in faults(bad) if secret in issue.diagnostics]


class TestPrimitiveExtensions:
    """https://hl7.org/fhir/R4/json.html#primitive"""

    @pytest.mark.parametrize(
        "elements",
        [
            {"birthDate": "1974", "_birthDate": {"extension": [{"url": BIRTH_TIME, "valueDateTime": "2020"}]}},
            {"_birthDate": {"extension": [{"url": BIRTH_TIME, "valueDateTime": "2020"}]}},
            {"name": [{"given": ["a"], "_given": [{"id": "x"}]}]},
            {"name": [{"given": ["a"], "_given": [{"id": "x"}, None]}]},
            {"name": [{"given": ["a"], "_given": [None, None]}]},
            {"name": [{"given": [None, "b"], "_given": [{"extension": [{"url": "urn:x", "valueCode": "c"}]}, None]}]},
        ],
    )
    def test_valid(self, elements: dict) -> None:
        assert found(patient(**elements)) == []

    @pytest.mark.parametrize(
        ("elements", "code", "expression"),
        [
            ({"_name": {"id": "1"}}, "structure", "Patient.name"),
            ({"_active": "test"}, "structure", "Patient.active"),
            ({"_active": [{"id": "test"}]}, "structure", "Patient.active"),
            ({"_gender": {}}, "structure", "Patient.gender"),
            ({"_gender": None}, "structure", "Patient.gender"),
            ({"_gender": {"id": "1"}}, "invariant", "Patient.gender"),
            ({"name": [{"given": ["a"], "_given": {"id": "x"}}]}, "structure", "Patient.name[0].given"),
            ({"name": [{"given": ["a"], "_given": [{"foo": "x"}]}]}, "structure", "Patient.name[0].given[0].foo"),
            (
                {"name": [{"given": [None, "b"], "_given": [{"id": "x"}, None]}]},
                "structure",
                "Patient.name[0].given[0]",
            ),
            ({"name": [{"_given": [None]}]}, "structure", "Patient.name[0].given"),
            ({"name": [{"_given": [{"id": "x"}]}]}, "invariant", "Patient.name[0].given[0]"),
        ],
    )
    def test_refused(self, elements: dict, code: str, expression: str) -> None:
        assert found(patient(**elements)) == [(code, expression)]


class TestPrimitives:
    """https://hl7.org/fhir/R4/datatypes.html#primitive"""

    @pytest.mark.parametrize(
        ("type", "valid", "invalid"),
        [
            ("boolean", [True, False], ["true", 1, 0, None]),
            ("integer", [12, -300, 2**31 - 1, -(2**31)], ["42", Decimal("3.0"), 2**31, -(2**31) - 1, True]),
            ("unsignedInt", [0, 1, 2**31 - 1], [-1, 2**31, Decimal("9.2")]),
            ("positiveInt", [1, 2**31 - 1], [0, -1]),
            ("decimal", [12, Decimal("3.14"), Decimal("-62E3"), 2**40], ["9.2", True, Decimal("1E999999"), 10**2000]),
            (
                "date",
                ["2018", "1973-06", "1905-08-23", "2000-02-29"],
                ["2018-13", "1900-02-29", "0000", "2018-06-31"],
            ),
            ("dateTime", ["2018", "2015-02-07T13:28:17-05:00", "2017-01-01T00:00:60.123456789Z"], "201 000a 2000-0"),
            ("dateTime", ["2015-02-07T13:28:17+14:00"], "2000a01 2000-00 2000-13 2000-01-1 2000-01-00 2024-02-31"),
            ("dateTime", ["2000-01-02"], "2023-02-29 2015-02-07T25 2015-02-07T15:15 2015-02-07T15:15:15"),
            ("dateTime", ["2000-01"], "2017-01-01T23:59:61Z 2017-01-01T00:60:00Z 2017-01-01T24:00:00Z 2017-01-01Z"),
            (
                "dateTime",
                ["2000"],
                "2017-01-01T00:00:00.0000000000Z 2015-02-07T13:28:17+24:00 2015-02-07T13:28:17+14:01",
            ),
            (
                "instant",
                ["2015-02-07T13:28:17.239+02:00"],
                ["2015-02-07T13:28:17", "2015-02-07", "2024-02-31T00:00:00Z"],
            ),
            ("time", ["12:03:00", "23:59:60.5"], ["23:02", "24:00:00", "2015-02-07T13:28:17"]),
            ("id", ["user-name", "a.b", "A" * 64], ["", "a b", "ä", "A" * 65, "a/b"]),
            ("code", ["text", "text text"], ["", " a", "a ", "a  b"]),
            ("string", ["text", "text \n text", "\u00a0"], ["", "\u0008", 1]),
            ("markdown", ["**x**", "\nx\n"], [""]),
            ("uri", ["mailto:a@b.example", "urn:oid:1.2", "../x"], ["", "a b"]),
            ("url", ["http://x.example:1337/y?z=1"], ["", "a b"]),
            ("canonical", ["http://x.example/y|1.2#z"], ["", "a b"]),
            ("oid", ["urn:oid:1.2.3"], ["", "1.2.3", "urn:oid:3.1", "urn:oid:1.02"]),
            ("uuid", ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"], ["", "c757873d-ec9a-4326-a141-556f43239520"]),
            ("base64Binary", ["TWFu", "SGVsbG8gV29ybGQ=", "TW\nFu"], ["", "TWF", "TWF*", "TW=u", "=", "ä"]),
        ],
    )
    def test_values(self, type: str, valid: Iterable[Any], invalid: Iterable[Any]) -> None:
        refused = invalid.split() if isinstance(invalid, str) else invalid
        assert [value for value in valid if not PRIMITIVES[type](value)] == []
        assert [value for value in refused if PRIMITIVES[type](value)] == []

    @pytest.mark.parametrize("type", sorted(PRIMITIVES.keys() - {"xhtml"}))
    def test_in_parameters_the_type_stands_in_the_expression(self, type: str) -> None:
        name = f"value{type[0].upper()}{type[1:]}"
        parameters = {"resourceType": "Parameters", "parameter": [{"name": "x", name: [1]}]}
        assert found(parameters) == [("structure", f"Parameters.parameter[0].value.ofType({type})")]

    def test_decimals_are_kept_as_they_are_written(self) -> None:
        text = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10}}'
        resource = fhir_json.loads(text)
        assert found(resource) == []
        assert fhir_json.dumps(resource) == text


class TestChoices:
    def test_a_fault_in_a_value_names_the_element(self) -> None:
        assert found(patient(deceasedBoolean="yes")) == [("value", "Patient.deceased")]
        assert found(observation(valueQuantity={"value": "1"})) == [("value", "Observation.value.value")]

    def test_one_type_only(self) -> None:
        assert found(patient(deceasedBoolean=True, deceasedDateTime="2020")) == [("structure", "Patient.deceased")]

    def test_and_one_that_is_defined(self) -> None:
        assert found(patient(deceasedString="x")) == [("structure", "Patient.deceased")]

    def test_and_one_where_it_is_mandatory(self) -> None:
        assert found(
            {"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": {"display": "x"}}
        ) == [("required", "MedicationRequest.medication")]


class TestBindings:
    """https://hl7.org/fhir/R4/terminologies.html#required"""

    @pytest.mark.parametrize(
        ("resource", "expression"),
        [
            (patient(gender="m"), "Patient.gender"),
            (patient(name=[{"use": "stage"}]), "Patient.name[0].use"),
            (observation(status="nope"), "Observation.status"),
            (observation(valueQuantity={"value": 1, "comparator": "="}), "Observation.value.comparator"),
            (
                patient(text={"status": "x", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}),
                "Patient.text.status",
            ),
        ],
    )
    def test_a_code_is_one_of_its_value_set(self, resource: dict, expression: str) -> None:
        assert found(resource) == [("code-invalid", expression)]

    def test_the_codes_are_told_when_they_are_few(self) -> None:
        assert "female, male, other, unknown" in faults(patient(gender="m"))[0].diagnostics

    def test_one_coding_of_a_concept_is_enough(self) -> None:
        system = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
        allergy = {"resourceType": "AllergyIntolerance", "patient": {"display": "x"}}
        own = {"system": "urn:x", "code": "active"}
        assert found(allergy | {"clinicalStatus": {"coding": [own, {"system": system, "code": "active"}]}}) == []
        for concept in ({"coding": [own]}, {"text": "active"}, {"coding": [{"system": system, "code": "x"}]}):
            assert found(allergy | {"clinicalStatus": concept}) == [
                ("code-invalid", "AllergyIntolerance.clinicalStatus")
            ]

    def test_codes_of_systems_that_are_not_listed_need_their_syntax_only(self) -> None:
        attachment = {"contentType": "application/x-unheard-of", "url": "http://x.example"}
        assert found(patient(photo=[attachment])) == []
        assert found(patient(photo=[attachment | {"contentType": " "}])) == [
            ("value", "Patient.photo[0].contentType")
        ]


class TestReferences:
    @pytest.mark.parametrize(
        "reference",
        ["Patient/1", "http://x.example/fhir/Patient/1", "Patient/1/_history/2", "Patient?identifier=1"],
    )
    def test_lead_to_a_type_that_is_defined(self, reference: str) -> None:
        bad = patient(managingOrganization={"reference": reference})
        assert found(bad) == [("structure", "Patient.managingOrganization.reference")]
        assert found(observation(subject={"reference": reference})) == []

    @pytest.mark.parametrize("reference", ["urn:uuid:x", "http://x.example/people/1", "Organization/1"])
    def test_or_to_what_cannot_be_told(self, reference: str) -> None:
        assert found(patient(managingOrganization={"reference": reference})) == []

    def test_the_type_told_beside_counts_too(self) -> None:
        bad = patient(managingOrganization={"type": "Patient", "display": "x"})
        assert found(bad) == [("structure", "Patient.managingOrganization.type")]

    def test_to_what_is_contained(self) -> None:
        organization = {"resourceType": "Organization", "id": "o", "name": "x"}
        person = {"resourceType": "Patient", "id": "o", "active": True}
        link = {"managingOrganization": {"reference": "#o"}}
        assert found(patient(contained=[organization], **link)) == []
        assert found(patient(contained=[person], **link)) == [("structure", "Patient.managingOrganization.reference")]
        assert found(patient(**link)) == [("invariant", "Patient.managingOrganization.reference")]


class TestExtensions:
    def test_have_a_value_or_extensions(self) -> None:
        for bad in ({}, {"valueString": "x", "extension": [{"url": "y", "valueString": "x"}]}):
            assert found(patient(extension=[{"url": "urn:x", **bad}])) == [("invariant", "Patient.extension[0]")]

    def test_those_of_the_specification_have_the_type_defined(self) -> None:
        given = [{"extension": [{"url": OWN_PREFIX, "valueCode": "code"}]}]
        assert found(patient(name=[{"given": ["a"], "_given": given}])) == [
            ("structure", "Patient.name[0].given[0].extension[0].value")
        ]

    def test_in_their_parts_too(self) -> None:
        proficiency = {"url": PREFERENCE, "extension": [{"url": "level", "valueString": "good"}]}
        assert found(patient(extension=[proficiency])) == [("structure", "Patient.extension[0].extension[0].value")]

    def test_and_a_code_of_their_value_set(self) -> None:
        url = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
        assert found(patient(_gender={"extension": [{"url": url, "valueCode": "dunno"}]})) == [
            ("code-invalid", "Patient.gender.extension[0].value")
        ]


class TestNarrative:
    """https://hl7.org/fhir/R4/narrative.html#security"""

    @pytest.mark.parametrize(
        "resource",
        [
            div("<p><b>Anna</b> &amp; co. &#160;<a href='http://x.example/'>x</a></p>"),
            div('<img alt="x" src="#picture"/>'),
            div('<img alt="x" src="data:image/png;base64,iVBORw0KGgo="/>'),
            div('<table class="grid"><tr><td style="color: red">x</td></tr></table>', ' xml:lang="de"'),
        ],
    )
    def test_plain_text_and_pictures_inside(self, resource: dict) -> None:
        assert found(resource) == []

    @pytest.mark.parametrize(
        "resource",
        [
            div("<script>alert(1)</script>"),
            div('<p onclick="x()">x</p>'),
            div('<a href="javascript:alert(1)">x</a>'),
            div('<a href=" JaVaScRiPt:alert(1)">x</a>'),
            div('<a href="&#1;javascript:alert(1)">x</a>'),
            div('<a href="data:text/html;base64,PHNjcmlwdD4=">x</a>'),
            div('<img src="http://tracker.example/x.png"/>'),
            div('<img src="//tracker.example/x.png"/>'),
            div('<img src="data:image/svg+xml;base64,PHN2Zz4="/>'),
            div('<p style="background: url(http://tracker.example)">x</p>'),
            div('<p style="background: u\\72l(http://tracker.example)">x</p>'),
            div("<iframe src='x'/>"),
            div("<form><input/></form>"),
            div("<object data='x'/>"),
            div("<link rel='stylesheet' href='x'/>"),
            div('<svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>'),
            div("<p>x"),
            div("&nbsp;"),
            div(" \n "),
            patient(text={"status": "generated", "div": "<div>no namespace</div>"}),
            patient(text={"status": "generated", "div": '<p xmlns="http://www.w3.org/1999/xhtml">x</p>'}),
            patient(
                text={
                    "status": "generated",
                    "div": '<!DOCTYPE div [<!ENTITY a "x">]><div xmlns="http://www.w3.org/1999/xhtml">&a;</div>',
                }
            ),
            patient(text={"status": "generated", "div": "plain"}),
            div("<b>" * 300 + "x" + "</b>" * 300),
        ],
    )
    def test_nothing_active_and_nothing_from_elsewhere(self, resource: dict) -> None:
        assert found(resource) == [("invariant", "Patient.text.div")]


class TestContained:
    def test_is_checked_where_it_is(self) -> None:
        inner = {"resourceType": "Organization", "id": "o", "name": ["x"]}
        resource = patient(contained=[inner], managingOrganization={"reference": "#o"})
        assert found(resource) == [("structure", "Patient.contained[0].name")]

    def test_of_a_type_that_exists(self) -> None:
        assert ("structure", "Patient.contained[0].resourceType") in found(patient(contained=[{"resourceType": "X"}]))
        assert ("required", "Patient.contained[0].resourceType") in found(patient(contained=[{"id": "x"}]))

    def test_resources_in_bundles_and_parameters_too(self) -> None:
        bad = patient(gender="m")
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": bad}]}
        assert found(bundle) == [("code-invalid", "Bundle.entry[0].resource.gender")]
        parameters = {
            "resourceType": "Parameters",
            "parameter": [{"name": "x", "part": [{"name": "y", "resource": bad}]}],
        }
        assert found(parameters) == [("code-invalid", "Parameters.parameter[0].part[0].resource.gender")]

    def test_their_local_references_stay_inside(self) -> None:
        """A resource in a Bundle does not see what another one contains."""
        organization = {"resourceType": "Organization", "id": "o", "name": "x"}
        link = {"managingOrganization": {"reference": "#o"}}
        entries = [{"resource": patient(contained=[organization], **link)}, {"resource": patient(**link)}]
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        assert found(bundle) == [("invariant", "Bundle.entry[1].resource.managingOrganization.reference")]


def test_only_r4_counts() -> None:
    """Elements and types that R4B brought, and those that it dropped."""
    assert found({"resourceType": "Citation", "status": "active"})[0][0] == "structure"
    plan = {"resourceType": "PlanDefinition", "status": "draft", "subjectCanonical": "http://x.example"}
    assert found(plan) == [("structure", "PlanDefinition.subject")]
    evidence = {"resourceType": "Evidence", "status": "draft", "assertion": "x"}
    assert ("structure", "Evidence.assertion") in found(evidence)
    assert found({"resourceType": "MedicinalProductContraindication", "subject": [{"display": "x"}]}) == []


def test_the_outcome_lists_each_fault() -> None:
    with pytest.raises(InvalidStructure) as refusal:
        check_structure(patient(gender="m", active=1))
    outcome = refusal.value.outcome()
    assert [issue["expression"] for issue in outcome["issue"]] == [["Patient.gender"], ["Patient.active"]]
    assert json.dumps(outcome)
    assert refusal.value.status == 400
