"""https://hl7.org/fhir/R4/search.html#contained"""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.search import contained
from tests.fhir_server.conftest import BASE, an_office
from tests.fhir_server.test_rest import assert_outcome, send
from tests.fhir_server.test_search import ids, link, put, search

SYSTEM = "http://example.org/drugs"


def medication(local: str, code: str, status: str = "active", **more: object) -> dict:
    return {
        "resourceType": "Medication",
        "id": local,
        "code": {"coding": [{"system": SYSTEM, "code": code}]},
        "status": status,
        **more,
    }


def prescribe(client: FlaskClient, id: str, *medications: dict) -> None:
    """A MedicationRequest for the first one; the others are ingredients of it."""
    first, *others = medications
    if others:
        first = first | {"ingredient": [{"itemReference": {"reference": f"#{one['id']}"}} for one in others]}
    put(
        client,
        "MedicationRequest",
        id,
        contained=[first, *others],
        status="active",
        intent="order",
        subject={"display": "x"},
        medicationReference={"reference": f"#{first['id']}"},
    )


@pytest.fixture
def stored(client: FlaskClient) -> FlaskClient:
    put(client, "Medication", "own", code=medication("", "a")["code"], status="active")
    prescribe(client, "one", medication("m1", "a"), medication("m2", "b", "inactive"))
    prescribe(client, "two", medication("m1", "b"))
    return client


def addresses(bundle: dict) -> list[str]:
    return [entry["fullUrl"].removeprefix(f"{BASE}/") for entry in bundle.get("entry", [])]


CODE_A, CODE_B = ("code", f"{SYSTEM}|a"), ("code", f"{SYSTEM}|b")
ALONE = ("_contained", "true")
THEMSELVES = ("_containedType", "contained")


def test_contained_resources_are_not_found_unless_asked_for(stored: FlaskClient) -> None:
    assert ids(search(stored, "Medication", CODE_A)) == ["own"]
    assert ids(search(stored, "Medication", CODE_A, ("_contained", "false"))) == ["own"]
    assert ids(search(stored, "Medication", CODE_B)) == []


def test_what_contains_them_is_returned(stored: FlaskClient) -> None:
    found = search(stored, "Medication", CODE_B, ALONE)
    assert addresses(found) == ["MedicationRequest/two", "MedicationRequest/one"]
    assert found["total"] == 2
    assert [entry["search"]["mode"] for entry in found["entry"]] == ["match", "match"]
    assert ("_contained=true") in str(link(found, "self"))


def test_or_they_are_themselves_by_an_address_within_it(stored: FlaskClient) -> None:
    found = search(stored, "Medication", CODE_B, ALONE, THEMSELVES)
    assert addresses(found) == ["MedicationRequest/two#m1", "MedicationRequest/one#m2"]
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["m1", "m2"]
    assert {entry["resource"]["resourceType"] for entry in found["entry"]} == {"Medication"}


def test_both_kinds_come_together(stored: FlaskClient) -> None:
    found = search(stored, "Medication", CODE_A, ("_contained", "both"), THEMSELVES)
    assert addresses(found) == ["MedicationRequest/one#m1", "Medication/own"]
    assert found["total"] == 2
    count = search(stored, "Medication", ("_contained", "both"), THEMSELVES, ("_summary", "count"))
    assert count["total"] == 4


def test_one_contained_resource_has_to_meet_all_conditions(stored: FlaskClient) -> None:
    assert ids(search(stored, "Medication", CODE_A, ("status", "inactive"), ALONE)) == []
    assert ids(search(stored, "Medication", CODE_B, ("status", "inactive"), ALONE)) == ["one"]
    assert ids(search(stored, "Medication", ("status:not", "active"), ALONE)) == ["one"]
    assert ids(search(stored, "Medication", ("expiration-date:missing", "true"), ALONE)) == ["two", "one"]
    assert ids(search(stored, "Medication", ("_id", "m2"), ALONE)) == ["one"]


def test_dates_strings_and_chains_are_compared_as_everywhere(stored: FlaskClient) -> None:
    put(stored, "Organization", "maker", name="Drugs and Sons")
    prescribe(
        stored,
        "three",
        medication(
            "x", "c", batch={"expirationDate": "2027-03-01"}, manufacturer={"reference": "Organization/maker"}
        ),
    )
    assert ids(search(stored, "Medication", ("expiration-date", "ge2027"), ALONE)) == ["three"]
    assert ids(search(stored, "Medication", ("expiration-date", "lt2027"), ALONE)) == []
    assert ids(search(stored, "Medication", ("manufacturer.name", "drugs"), ALONE)) == ["three"]
    assert ids(search(stored, "Medication", ("manufacturer", "Organization/maker"), ALONE)) == ["three"]


def test_what_is_no_longer_there_is_not_found(stored: FlaskClient) -> None:
    prescribe(stored, "two", medication("m1", "c"))
    assert ids(search(stored, "Medication", CODE_B, ALONE)) == ["one"]
    assert stored.delete("/fhir/MedicationRequest/one").status_code == 204
    assert ids(search(stored, "Medication", CODE_B, ALONE)) == []


@pytest.mark.parametrize("sort", ["", "_lastUpdated", "-_lastUpdated"])
@pytest.mark.parametrize("which", ["true", "both"])
def test_pages_have_each_of_them_once(client: FlaskClient, which: str, sort: str) -> None:
    expected = set()
    for number in range(7):
        put(client, "Medication", f"own{number}", status="active")
        prescribe(client, f"r{number}", *(medication(f"m{at}", "a") for at in range(3)))
        expected |= {f"MedicationRequest/r{number}#m{at}" for at in range(3)}
        expected |= {f"Medication/own{number}"} if which == "both" else set()
    asked = [("_contained", which), THEMSELVES, ("_count", "4"), ("_total", "accurate")]
    page = search(client, "Medication", *asked, *([("_sort", sort)] if sort else []))
    found, pages, backward = addresses(page), [addresses(page)], []
    while following := link(page, "next"):
        page = client.get(following).get_json(force=True)
        assert page["total"] == len(expected)
        found += addresses(page)
        pages.append(addresses(page))
    assert len(found) == len(expected) and set(found) == expected
    while before := link(page, "previous"):
        page = client.get(before).get_json(force=True)
        backward.insert(0, addresses(page))
    assert [address for one in backward for address in one] == [address for one in pages[:-1] for address in one]


def test_others_do_not_see_what_is_in_resources_that_they_do_not_see(app: Flask, stored: FlaskClient) -> None:
    app.config["ACCESS"] = an_office("lakeside")
    assert ids(search(stored, "Medication", CODE_B, ALONE)) == []
    prescribe(stored, "own-one", medication("m1", "b"))
    assert ids(search(stored, "Medication", CODE_B, ALONE)) == ["own-one"]
    assert search(stored, "Medication", CODE_B, ALONE)["total"] == 1


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        (("_include", "Medication:manufacturer"), "invalid"),
        (("_sort", "status"), "invalid"),
        (("_has:MedicationRequest:medication:status", "active"), "invalid"),
        (("_list", "42"), "invalid"),
        (("_contained", "perhaps"), "value"),
        (("_containedType", "box"), "value"),
    ],
)
def test_what_cannot_be_asked_of_them_is_refused(stored: FlaskClient, parameter: tuple[str, str], code: str) -> None:
    asked = [parameter] if parameter[0] == "_contained" else [ALONE, parameter]
    query = "&".join(f"{name}={value}" for name, value in asked)
    assert_outcome(stored.get(f"/fhir/Medication?{query}"), 400, code)


def test_one_type_is_searched(stored: FlaskClient) -> None:
    assert_outcome(stored.get("/fhir/?_contained=true&_type=Medication"), 400, "invalid")


def test_more_than_can_be_looked_into_is_refused(stored: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contained, "MAX_CONTAINERS", 1)
    assert_outcome(stored.get("/fhir/Medication?_contained=true"), 400, "too-costly")
    assert ids(search(stored, "Medication", CODE_A, ALONE)) == ["one"]


def test_they_are_no_condition_of_a_write(stored: FlaskClient) -> None:
    answer = send(
        stored,
        "POST",
        "/fhir/Medication",
        {"resourceType": "Medication"},
        If_None_Exist=f"code={SYSTEM}|b&_contained=true",
    )
    assert_outcome(answer, 400, "invalid")
