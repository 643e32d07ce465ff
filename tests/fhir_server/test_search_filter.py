"""https://hl7.org/fhir/R4/search_filter.html"""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.errors import BadRequest
from fhir_server.repository import Repository
from fhir_server.search.filter_grammar import Both, Not, parse
from fhir_server.search.filter_grammar import Test as Tested
from fhir_server.terminology.vocabulary import add_vocabulary
from tests.fhir_server.conftest import ALL
from tests.fhir_server.test_rest import assert_outcome
from tests.fhir_server.test_search import ids, put, search

MG = {"value": 5.4, "system": "http://unitsofmeasure.org", "code": "mg"}


@pytest.fixture(autouse=True)
def stored(client: FlaskClient, repository: Repository) -> None:
    add_vocabulary(repository)
    put(client, "Organization", "o", name="Lakeside")
    for id, family, given, gender, birth in (
        ("a", "Müller", ["Peter", "Paul"], "male", "1950-06-01"),
        ("b", "Mullerson", ["Anna"], "female", "1980-01-31"),
        ("c", "Berg", ["Ann)a"], "female", "1980-02"),
    ):
        name: list[dict[str, Any]] = [{"family": family, "given": given}]
        organization = {"managingOrganization": {"reference": "Organization/o"}} if id == "a" else {}
        put(client, "Patient", id, name=name, gender=gender, birthDate=birth, **organization)
    put(client, "Patient", "none")
    for id, patient, code, period in (
        ("1", "a", "x", {"start": "2024-01-01", "end": "2024-01-31"}),
        ("2", "b", "y", {"start": "2024-02-01"}),
    ):
        coding = [{"system": "urn:s", "code": code}, {"system": "urn:t", "code": "common"}]
        subject = {"reference": f"Patient/{patient}"}
        put(
            client,
            "Observation",
            id,
            status="final" if id == "1" else "corrected",
            code={"coding": coding},
            subject=subject,
            effectivePeriod=period,
            valueQuantity=MG,
        )


def found(client: FlaskClient, type: str, filter: str) -> str:
    return "".join(sorted(ids(search(client, type, ("_filter", filter), Prefer="handling=strict"))))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        # a test, and the kinds of values
        ('family eq "müller"', "a"),
        ("family eq MULLER", "a"),
        ("family eq mull", ""),
        ("family ne berg", "ab"),
        ("given ne peter", "abc"),  # an item of the set: Paul is another one
        ("family co ller", "ab"),
        ("family sw mull", "ab"),
        ("family ew son", "b"),
        ('given eq "ann)a"', "c"),
        ('family co ".*"', ""),
        ("gender eq male", "a"),
        ("gender eq http://hl7.org/fhir/administrative-gender|male", "a"),
        ("gender ne male", "bc"),
        ("birthdate eq 1980", "bc"),
        ("birthdate ne 1980", "a"),
        ("birthdate gt 1980-01-31", "c"),
        ("birthdate ge 1980-01-31", "bc"),
        ("birthdate lt 1980", "a"),
        ("birthdate le 1980-01-31", "ab"),
        ("birthdate sa 1980-01", "c"),
        ("birthdate eb 1980-02", "ab"),
        ("birthdate po 1980-01", "b"),
        ("family pr true", "abc"),
        ("family pr false", "none"),
        ("organization re Organization/o", "a"),
        ("organization eq Organization/o", "a"),
        ("organization pr false", "bcnone"),
        # and, or, not, parentheses: from left to right, neither before the other
        ("gender eq female and birthdate ge 1980-02", "c"),
        ("gender eq male or gender eq female", "abc"),
        ("gender eq male or gender eq female and birthdate ge 1980-02", "c"),
        ("gender eq male or (gender eq female and birthdate ge 1980-02)", "ac"),
        ("not (gender eq male)", "bcnone"),
        ("not gender eq male and family pr true", "bc"),
        ("not (gender eq male or family eq berg)", "bnone"),
        ("not (not (gender eq male))", "a"),
        ("((gender eq male))", "a"),
        # chains, also with filters on the way
        ('organization.name co "side"', "a"),
        ("organization[name sw lake].name co side", "a"),
        ("organization[name sw sea].name co side", ""),
        ("not (organization.name co side)", "bcnone"),
        ("_has:Observation:patient:code eq urn:s|x", "a"),
        ("_has:Observation:patient:patient.family eq mullerson", "b"),
        ("_id eq a or _id eq c", "ac"),
        ("_lastUpdated gt 2020 and gender eq male", "a"),
    ],
)
def test_patients(client: FlaskClient, filter: str, expected: str) -> None:
    assert found(client, "Patient", filter) == expected


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("code eq urn:s|x", "1"),
        ("code eq common", "12"),
        ("code ne common", "12"),
        ("code ne urn:s|", "12"),
        ("code ne urn:s|x", "12"),  # the other coding is another one
        ("subject.family co mull", "12"),
        ("subject:Patient.family eq müller", "1"),
        ("patient.organization.name eq lakeside", "1"),
        ("date po 2024-01-15", "1"),
        ("date po 2025", "2"),
        ("date sa 2024-01", "2"),
        ("value-quantity eq 0.0054|http://unitsofmeasure.org|g", "12"),
        ("value-quantity gt 6", ""),
        ("code-value-quantity eq urn:s|x$gt5", "1"),
        ("status in http://hl7.org/fhir/ValueSet/observation-status", "12"),
        ("status ss amended", "2"),
        ("status sb corrected", "2"),
    ],
)
def test_observations(client: FlaskClient, filter: str, expected: str) -> None:
    assert found(client, "Observation", filter) == expected


@pytest.mark.parametrize(
    "filter",
    [
        "family",
        "family eq",
        "family like x",
        "family eq x and",
        "family eq x or or family eq y",
        "(family eq x",
        "family eq x)",
        "family eq x family eq y",
        'family eq "x',
        'family eq ""',
        "eq x",
        "not",
        "and family eq x",
        "organization[name eq x",
        "organization[name eq x] eq y",
        "organization..name eq x",
        "family pr maybe",
        "gender co ma",
        "gender gt male",
        "family gt x",
        "birthdate eq yesterday",
        "birthdate co 19",
        "family re Patient/1",
        "gender:not eq male",
        "(" * 30 + "family eq x" + ")" * 30,
        "not " * 5000 + "family eq x",
        " and ".join(["family eq x"] * 101),
        "organization.partof.partof.partof.partof.name eq x",
        " or ".join(["organization.name eq x"] * 21),
        "family eq " + "x" * 3000,
        "x" * 9000,
        "gender eq a|b|c",
    ],
)
def test_what_cannot_be_read_or_is_too_much_is_refused(client: FlaskClient, filter: str) -> None:
    answer = client.get("/fhir/Patient", query_string={"_filter": filter})
    assert answer.status_code == 400, answer.text
    assert answer.get_json(force=True)["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("filter", ["colour eq x", "organization.colour eq x", "_has:Task:colour:status eq x"])
def test_unknown_parameters_are_as_unknown_as_elsewhere(client: FlaskClient, filter: str) -> None:
    answer = client.get("/fhir/Patient", query_string={"_filter": filter}, headers={"Prefer": "handling=strict"})
    assert_outcome(answer, 400, "not-supported")
    assert search(client, "Patient", ("_filter", filter))["entry"][-1]["search"]["mode"] == "outcome"


def test_a_fault_is_told_by_its_place(client: FlaskClient) -> None:
    with pytest.raises(BadRequest) as fault:
        parse("family eq x and given")
    assert "character 22" in fault.value.issues[0].diagnostics


def test_neither_and_nor_or_binds_stronger() -> None:
    read = parse("a eq 1 or b eq 2 and not c eq 3")
    assert isinstance(read, Both) and read.is_and and isinstance(read.left, Both) and not read.left.is_and
    assert isinstance(read.right, Not) and read.right.filter == Tested((), "c", "eq", "3", is_string=False)


def test_filters_combine_with_other_parameters_sorts_and_pages(client: FlaskClient) -> None:
    parameters = (("_filter", "family pr true"), ("gender", "female"), ("_sort", "-family"), ("_count", "1"))
    bundle = search(client, "Patient", *parameters, ("_total", "accurate"))
    assert (bundle["total"], ids(bundle)) == (2, ["b"])


def test_a_filter_shows_no_more_than_the_caller_may_see(app: Flask, client: FlaskClient) -> None:
    """Neither by what matches, nor by what a chain leads through, nor by what is not so."""
    app.config["ACCESS"] = Access("client:x", ALL, frozenset({"@Patient/a", "@any"}))
    assert found(client, "Patient", "family pr true or family pr false") == "a"
    assert found(client, "Patient", "not (family eq nobody)") == "a"
    assert found(client, "Observation", "subject.family co mull") == "1"
    assert found(client, "Patient", "_has:Observation:patient:code eq common") == "a"
    assert search(client, "Patient", ("_filter", "not (gender eq x)"), ("_summary", "count"))["total"] == 1
    app.config["ACCESS"] = Access("client:x", (Scope("system", "Observation", "rs"),), None)
    for filter in ("subject:Patient.family eq x", "not (patient.family eq x)", "patient[gender eq male].family eq x"):
        assert_outcome(client.get("/fhir/Observation", query_string={"_filter": filter}), 403, "forbidden")
