"""Search keys, ranges and sort values. https://hl7.org/fhir/R4/search.html#ptypes"""

import random
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

import conformance
from fhir_server import fhir_json
from fhir_server.errors import TooLarge
from fhir_server.index import REPEATING, Indexer, rules, searchable
from fhir_server.index.path import CHOICES, DATATYPES, Unsupported, compile_path
from fhir_server.index.spans import DAY, EARLIEST, LATEST, date_span, date_spans, number_spans
from fhir_server.index.text import MAX_KEY, fold
from tests.fhir_server.conftest import BASE

INDEXER = Indexer(BASE)


def keys(resource_type: str, parameter: str, **elements: Any) -> set[str]:
    """The keys of one parameter, its name left out."""
    found = INDEXER.index({"resourceType": resource_type, **elements}).keys
    return {key.removeprefix(parameter) for key in found if key.startswith((f"{parameter}=", f"{parameter}:"))}


def test_every_parameter_of_r4_is_indexed() -> None:
    missing = {
        (resource_type, code)
        for resource_type in conformance.resource_types()
        for code in conformance.search_parameters(resource_type)
        if code not in rules(resource_type)
    }
    assert not missing
    assert {parameter.code for parameter in searchable("Task")} == conformance.search_parameters("Task").keys()


CONCEPT = {"coding": [{"system": "urn:s", "code": "a"}, {"code": "b"}, {"system": "urn:t"}], "text": "c"}


@pytest.mark.parametrize(
    ("resource_type", "code", "elements", "expected"),
    [
        # token: https://hl7.org/fhir/R4/search.html#token
        ("Task", "status", {"status": "draft"}, {"=draft"}),
        ("Patient", "active", {"active": True}, {"=true"}),
        ("Task", "code", {"code": CONCEPT}, {"=a", "=urn:s|a", "=urn:s|", "=b", "=|b", "=urn:t|", ":text=c"}),
        ("Task", "_tag", {"meta": {"tag": [{"system": "urn:s", "code": "a"}]}}, {"=a", "=urn:s|a", "=urn:s|"}),
        (
            "Patient",
            "identifier",
            {
                "identifier": [
                    {"system": "urn:m", "value": "1", "type": {"coding": [{"system": "urn:v2", "code": "MR"}]}}
                ]
            },
            {"=1", "=urn:m|1", "=urn:m|", ":of-type=urn:v2|MR|1"},
        ),
        ("Patient", "identifier", {"identifier": [{"value": "a|b\\c"}]}, {"=a\\|b\\\\c", "=|a\\|b\\\\c"}),
        (
            "Patient",
            "phone",
            {"telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "e"}]},
            {"=1"},
        ),
        (
            "Patient",
            "telecom",
            {"telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "e"}]},
            {"=1", "=e"},
        ),
        ("Patient", "deceased", {}, {"=false"}),
        ("Patient", "deceased", {"deceasedBoolean": False}, {"=false"}),
        ("Patient", "deceased", {"deceasedBoolean": True}, {"=true"}),
        ("Patient", "deceased", {"deceasedDateTime": "2020"}, {"=true"}),
        (
            "ImagingStudy",
            "modality",
            {"series": [{"modality": {"code": "CT"}}, {"modality": {"code": "MR"}}]},
            {"=CT", "=|CT", "=MR", "=|MR"},
        ),
        ("Observation", "value-concept", {"valueCodeableConcept": {"coding": [{"code": "a"}]}}, {"=a", "=|a"}),
        ("Observation", "value-concept", {"valueString": "a"}, set()),
        ("Task", "_id", {"id": "t1"}, {"=t1"}),
        # reference
        ("Task", "focus", {"focus": {"reference": "ServiceRequest/1"}}, {"=ServiceRequest/1"}),
        ("Task", "focus", {"focus": {"reference": f"{BASE}/ServiceRequest/1"}}, {"=ServiceRequest/1"}),
        ("Task", "focus", {"focus": {"reference": "ServiceRequest/1/_history/2"}}, {"=ServiceRequest/1"}),
        (
            "Task",
            "focus",
            {"focus": {"reference": "http://far.example/fhir/ServiceRequest/1/_history/2"}},
            {"=http://far.example/fhir/ServiceRequest/1"},
        ),
        ("Task", "focus", {"focus": {"reference": "#a"}}, set()),
        (
            "Task",
            "focus",
            {"focus": {"identifier": {"system": "urn:s", "value": "1"}}},
            {":identifier=1", ":identifier=urn:s|1", ":identifier=urn:s|"},
        ),
        ("Task", "patient", {"for": {"reference": "Patient/1"}}, {"=Patient/1"}),
        (
            "Task",
            "patient",
            {"for": {"reference": "http://far.example/Patient/1"}},
            {"=http://far.example/Patient/1"},
        ),
        ("Task", "patient", {"for": {"reference": "Group/1"}}, set()),
        (
            "Appointment",
            "patient",
            {"participant": [{"actor": {"reference": "Patient/1"}}, {"actor": {"reference": "Location/2"}}]},
            {"=Patient/1"},
        ),
        (
            "QuestionnaireResponse",
            "questionnaire",
            {"questionnaire": "http://a.example/q|2"},
            {"=http://a.example/q|2", "=http://a.example/q"},
        ),
        (
            "Bundle",
            "composition",
            {
                "entry": [
                    {"resource": {"resourceType": "Composition", "id": "c"}},
                    {"resource": {"resourceType": "Patient", "id": "p"}},
                ]
            },
            {"=Composition/c"},
        ),
        (
            "Library",
            "depends-on",
            {
                "relatedArtifact": [
                    {"type": "depends-on", "resource": "http://a"},
                    {"type": "predecessor", "resource": "http://b"},
                ]
            },
            {"=http://a"},
        ),
        # string
        ("Patient", "family", {"name": [{"family": "Ångström  Ohm"}]}, {"=angstrom ohm", ":exact=Ångström  Ohm"}),
        (
            "Patient",
            "name",
            {"name": [{"family": "A", "given": ["B"], "prefix": ["Dr"], "text": "T", "use": "usual"}]},
            {"=a", ":exact=A", "=b", ":exact=B", "=dr", ":exact=Dr", "=t", ":exact=T"},
        ),
        (
            "Patient",
            "address",
            {"address": [{"line": ["L"], "city": "C", "use": "home"}]},
            {"=l", ":exact=L", "=c", ":exact=C"},
        ),
        ("InsurancePlan", "name", {"name": "N", "alias": ["M"]}, {"=n", ":exact=N", "=m", ":exact=M"}),
        ("Observation", "value-string", {"valueCodeableConcept": {"text": "T"}}, {"=t", ":exact=T"}),
        (
            "Observation",
            "amino-acid-change",
            {
                "extension": [
                    {
                        "url": "http://hl7.org/fhir/StructureDefinition/observation-geneticsAminoAcidChangeName",
                        "valueString": "T",
                    },
                    {"url": "urn:other", "valueString": "U"},
                ]
            },
            {"=t", ":exact=T"},
        ),
        # uri
        (
            "Task",
            "_profile",
            {"meta": {"profile": ["http://a.example/p|1"]}},
            {"=http://a.example/p|1", "=http://a.example/p"},
        ),
        ("Questionnaire", "url", {"url": "http://a.example/q"}, {"=http://a.example/q"}),
    ],
)
def test_keys(resource_type: str, code: str, elements: dict, expected: set[str]) -> None:
    assert keys(resource_type, code, **elements) == expected


def test_a_contained_resource_tells_the_type_that_a_reference_leads_to() -> None:
    task = {"contained": [{"resourceType": "Patient", "id": "p"}], "for": {"reference": "#p"}}
    assert "+patient" in INDEXER.index({"resourceType": "Task", **task}).keys
    task["contained"] = [{"resourceType": "Group", "id": "p"}]
    assert "+patient" not in INDEXER.index({"resourceType": "Task", **task}).keys


def test_what_is_there_has_a_marker() -> None:
    found = INDEXER.index({"resourceType": "Patient", "birthDate": "2000", "name": [{"text": "x"}]}).keys
    assert {"+birthdate", "+name"} <= set(found)
    assert not {"+family", "+gender"} & set(found)


def test_long_values_are_bounded_and_stay_apart() -> None:
    one, other = (keys("Patient", "identifier", identifier=[{"value": "x" * 5000 + end}]) for end in "ab")
    assert max(map(len, one)) < MAX_KEY + 50
    assert not one & other


def test_no_content_makes_a_key_that_looks_like_a_scope() -> None:
    patient = {"identifier": [{"value": "@any"}], "name": [{"family": "@any", "text": "*"}], "gender": "*"}
    found = INDEXER.index({"resourceType": "Patient", "id": "@any", **patient}).keys
    assert not [key for key in found if key.startswith(("@", "*"))]


def test_more_than_can_be_stored_is_refused() -> None:
    codes = [{"code": f"code-{number}"} for number in range(150_000)]
    with pytest.raises(TooLarge):
        INDEXER.index({"resourceType": "CodeSystem", "concept": codes})


def us(text: str) -> int:
    span = date_span(text)
    assert span
    return span[0]


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("2024", "2024-01-01", "2025-01-01"),
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2024-12", "2024-12-01", "2025-01-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2024-03-01T10:00Z", "2024-03-01T10:00:00Z", "2024-03-01T10:01:00Z"),
        ("2024-03-01T10:00:00", "2024-03-01T10:00:00Z", "2024-03-01T10:00:01Z"),
        ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00Z", "2024-02-29T23:30:01Z"),
        ("2024-03-01T10:00:00.5-02:00", "2024-03-01T12:00:00.5Z", "2024-03-01T12:00:00.6Z"),
        ("2024-03-01T10:00:00.123Z", "2024-03-01T10:00:00.123Z", "2024-03-01T10:00:00.124Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", "2017-01-01T00:00:01Z"),
        ({"start": "2024-02", "end": "2024-03"}, "2024-02-01", "2024-04-01"),
        ({"event": ["2024-03-01", "2024-02-01T10:00:00Z"]}, "2024-02-01T10:00:00Z", "2024-03-02"),
        ({"repeat": {"boundsPeriod": {"start": "2024", "end": "2024"}}}, "2024-01-01", "2025-01-01"),
    ],
)
def test_a_date_covers_its_written_precision(value: Any, start: str, end: str) -> None:
    assert list(date_spans(value)) == [(us(start), us(end))]


def test_a_period_without_an_end_is_open() -> None:
    assert list(date_spans({"start": "2024"})) == [(us("2024"), LATEST)]
    assert list(date_spans({"end": "2024"})) == [(EARLIEST, us("2025"))]
    assert list(date_spans({"extension": []})) == []


def test_the_calendar_ends_with_year_9999() -> None:
    span = date_span("9999-12-31")
    assert span
    assert span[1] - span[0] == DAY
    assert date_span("9999") == (us("9999-01-01"), span[1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000",
        "24",
        "2024-13",
        "2024-00",
        "2023-02-29",
        "2024-2-1",
        "2024-01-01T24:00:00Z",
        "2024-01-01T10",
        "2024-01-01T10:60Z",
        "2024-01-01T10:00+15:00",
        "2024-01-01 10:00",
        "yesterday",
        "٢٠٢٤",
        "2024-01-01T10:00z",
    ],
)
def test_what_is_no_date_covers_nothing(text: str) -> None:
    assert date_span(text) is None


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (5, 5.0, 5.0),
        (Decimal("5.40"), 5.4, 5.4),
        ({"value": Decimal("5.4"), "unit": "mg"}, 5.4, 5.4),
        ({"value": 5, "comparator": "<"}, float("-inf"), 5.0),
        ({"value": 5, "comparator": ">="}, 5.0, float("inf")),
        ({"low": {"value": 1}, "high": {"value": 2}}, 1.0, 2.0),
        ({"low": {"value": 1}}, 1.0, float("inf")),
        ({"origin": {"value": 10}, "factor": 2, "data": "1 E -3 5"}, 4.0, 20.0),
    ],
)
def test_numbers_and_quantities(value: Any, low: float, high: float) -> None:
    assert list(number_spans(value)) == [(low, high)]


def test_folding() -> None:
    assert fold(" José  MÜLLER ") == "jose muller"
    assert fold("Straße") == "strasse"
    assert fold("李") == "李"


class TestPaths:
    """https://hl7.org/fhirpath/N1/"""

    def test_what_lies_outside_the_subset_is_refused(self) -> None:
        for expression in (
            "Task.x.first()",
            "Task.x + 1",
            "Task.",
            "Task.x.where(",
            "Task.x as",
            "(Task.x",
            "Task.x`",
        ):
            with pytest.raises(Unsupported):
                compile_path(expression, "Task")

    def test_needed_elements_are_told(self) -> None:
        compiled = compile_path("Task.status | Task.code.coding", "Task")
        assert compiled.tops is not None
        assert {"status", "code"} <= compiled.tops
        assert "owner" not in compiled.tops


def model_fields(model: Any, name: str) -> list[tuple[str, Any]]:
    """(element, field) for the name of an element or of a choice."""
    found = []
    for field_name, field in model.model_fields.items():
        alias = field.alias or field_name
        if alias == name or (alias.startswith(name) and alias[len(name) :] in DATATYPES):
            found.append((alias, field))
    return found


def repeats(model: Any, steps: list[str]) -> bool:
    """Whether a path of elements can lead to several values."""
    for _, field in model_fields(model, steps[0]):
        if "List[" in str(field.annotation):
            return True
        nested = re.search(r"\.(\w+)Type\b", str(field.annotation))
        if steps[1:] and nested and repeats(get_fhir_model_class(nested[1]), steps[1:]):
            return True
    return False


def r4_models() -> Iterator[tuple[str, Any]]:
    for resource_type in sorted(conformance.resource_types()):
        try:
            yield resource_type, get_fhir_model_class(resource_type)
        except ValueError:
            continue  # in R4, and dropped by R4B


def element_paths(expression: str) -> list[list[str]]:
    plain = re.sub(r"\.(?:where|as|exists)\([^()]*(?:\(\)[^()]*)?\)|\s+as\s+\w+|[()]", "", expression)
    return [part.strip().split(".")[1:] for part in plain.split("|")]


def test_the_dates_that_can_repeat_are_listed() -> None:
    found = set()
    for resource_type, model in r4_models():
        for code, rule in rules(resource_type).items():
            if rule.parameter.type == "date" and code != "_lastUpdated":
                paths = element_paths(rule.parameter.expression)
                if len({tuple(path) for path in paths}) > 1 or repeats(model, paths[0]):
                    found.add((resource_type, code))
    assert found == REPEATING


def choices(model: Any, steps: list[str]) -> Iterator[str]:
    """The steps of a path that are choice elements."""
    for element, field in model_fields(model, steps[0]):
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("one_of_many") == steps[0]:
            yield steps[0]
        elif element != steps[0]:
            continue
        nested = re.search(r"\.(\w+)Type\b", str(field.annotation))
        if steps[1:] and nested:
            yield from choices(get_fhir_model_class(nested[1]), steps[1:])


def test_the_choices_that_are_searched_without_a_type_are_listed() -> None:
    found = {
        name
        for resource_type, model in r4_models()
        for rule in rules(resource_type).values()
        for steps in element_paths(rule.parameter.expression)
        for name in (choices(model, steps) if steps else ())
    }
    assert found == CHOICES


def test_another_element_that_begins_alike_is_no_choice() -> None:
    assert keys("Coverage", "subscriber", subscriberId="1") == set()


JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    Decimal("1e400"),
    "",
    "x",
    "#",
    "|",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"value": {}},
    "\ud800",
)


def scrambled(value: Any, maker: random.Random) -> Any:
    """The same with some of it replaced by what should not be there."""
    if maker.random() < 0.08:
        return maker.choice(JUNK)
    if isinstance(value, dict):
        return {name: scrambled(child, maker) for name, child in value.items()}
    return [scrambled(child, maker) for child in value] if isinstance(value, list) else value


@pytest.mark.shared_data
def test_no_content_is_too_strange(shared_data: Path) -> None:
    """All examples of the specification; then each of them with its values mixed up."""
    maker = random.Random(7)
    files = sorted((shared_data / "fhir" / "hl7-examples").glob("*/*.json"))
    assert len(files) > 300
    for file in files:
        resource = fhir_json.loads(file.read_bytes())
        assert INDEXER.index(resource).keys, file
        for _ in range(10):
            strange = scrambled({name: child for name, child in resource.items() if name != "resourceType"}, maker)
            if isinstance(strange, dict):
                INDEXER.index({"resourceType": resource["resourceType"], **strange})
