"""Each prefix, on each precision, of each kind of date: truths written by hand from the table of
https://hl7.org/fhir/R4/search.html#prefix and the rules of https://hl7.org/fhir/R4/search.html#date

A row is what is asked for; under it, for each prefix, the letters of the elements that meet it.
"""

import pytest
from flask.testing import FlaskClient

from tests.fhir_server.test_search import ids, put, search

PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
ELEMENTS: dict[str, dict] = {
    "y": {"occurrenceDateTime": "2024"},
    "m": {"occurrenceDateTime": "2024-03"},
    "d": {"occurrenceDateTime": "2024-03-10"},
    "s": {"occurrenceDateTime": "2024-03-10T10:00:00Z"},
    "i": {"occurrenceDateTime": "2024-03-10T10:00:00.500Z"},
    "z": {"occurrenceDateTime": "2024-03-10T23:30:00-02:00"},  # 01:30 of the next day, UTC
    "p": {"occurrencePeriod": {"start": "2024-03-09", "end": "2024-03-11"}},
    "a": {"occurrencePeriod": {"start": "2024-03-10T10:00:00Z"}},  # goes on for ever
    "b": {"occurrencePeriod": {"end": "2024-03-10"}},  # has been for ever
    "t": {"occurrenceTiming": {"event": ["2024-03-10T08:00:00Z", "2024-03-10T12:00:00Z"]}},
    "r": {
        "occurrenceTiming": {"repeat": {"boundsPeriod": {"start": "2024-03-10", "end": "2024-03-20"}, "frequency": 1}}
    },
}
ALL = "ymdsizpabtr"

# asked for -> prefix -> elements
TRUTHS: dict[str, dict[str, str]] = {
    "2024": {
        "eq": "ymdsizptr",
        "ne": "ab",
        "gt": "a",
        "lt": "b",
        "ge": "ymdsizptra",
        "le": "ymdsizptrb",
        "sa": "",
        "eb": "",
    },
    "2024-03": {
        "eq": "mdsizptr",
        "ne": "yab",
        "gt": "ya",
        "lt": "yb",
        "ge": "ymdsizptra",
        "le": "ymdsizptrb",
        "sa": "",
        "eb": "",
    },
    "2024-03-10": {
        "eq": "dsit",
        "ne": "ymzpabr",
        "gt": "ymzpar",
        "lt": "ympb",
        "ge": "ymdsizpatr",
        "le": "ymdsipbt",
        "sa": "z",
        "eb": "",
    },
    "2024-03-11": {
        "eq": "z",
        "ne": "ymdsipabtr",
        "gt": "ymar",
        "lt": "ymdsipabtr",
        "ge": "yamzr",
        "le": "ymdsizpabtr",
        "sa": "",
        "eb": "dsibt",
    },
    "2024-03-10T10:00Z": {  # a minute
        "eq": "si",
        "ne": "ymdzpabtr",
        "gt": "ymdzpabtr",
        "lt": "ymdpbtr",
        "ge": "ymdsizpabtr",
        "le": "ymdsipbtr",
        "sa": "z",
        "eb": "",
    },
    "2024-03-10T10:00:00Z": {  # a second
        "eq": "si",
        "ne": "ymdzpabtr",
        "gt": "ymdzpabtr",
        "lt": "ymdpbtr",
        "ge": "ymdsizpabtr",
        "le": "ymdsipbtr",
        "sa": "z",
        "eb": "",
    },
    "2024-03-10T10:00:00.500Z": {  # a millisecond
        "eq": "i",
        "ne": "ymdszpabtr",
        "gt": "ymdszpabtr",
        "lt": "ymdspabtr",
        "ge": "ymdsizpabtr",
        "le": "ymdsipabtr",
        "sa": "z",
        "eb": "",
    },
    "2024-03-11T01:30:00Z": {
        "eq": "z",
        "ne": "ymdsipabtr",
        "gt": "ympar",
        "lt": "ymdsipabtr",
        "ge": "ympazr",
        "le": "ymdsizpabtr",
        "sa": "",
        "eb": "dsibt",
    },
    "2024-03-10T23:30:00-02:00": {  # the same instant in another zone
        "eq": "z",
        "ne": "ymdsipabtr",
        "gt": "ympar",
        "lt": "ymdsipabtr",
        "ge": "ympazr",
        "le": "ymdsizpabtr",
        "sa": "",
        "eb": "dsibt",
    },
    "2023": {
        "eq": "",
        "ne": ALL,
        "gt": ALL,
        "lt": "b",
        "ge": ALL,
        "le": "b",
        "sa": "ymdsizpatr",
        "eb": "",
    },
    "2025": {
        "eq": "",
        "ne": ALL,
        "gt": "a",
        "lt": ALL,
        "ge": "a",
        "le": ALL,
        "sa": "",
        "eb": "ymdsizpbtr",
    },
}


@pytest.fixture
def elements(client: FlaskClient) -> None:
    order = {"status": "active", "intent": "order", "subject": {"display": "x"}}
    for id, element in ELEMENTS.items():
        put(client, "ServiceRequest", id, **element, **order)
    put(client, "ServiceRequest", "never", **order)


def test_every_prefix_on_every_precision_of_every_kind_of_date(client: FlaskClient, elements: None) -> None:
    wrong = []
    for asked, rows in TRUTHS.items():
        assert rows.keys() == set(PREFIXES)
        for prefix, expected in rows.items():
            found = ids(search(client, "ServiceRequest", ("occurrence", prefix + asked)))
            if set(found) != set(expected):
                wrong.append(f"{prefix}{asked}: {''.join(sorted(found))}, not {''.join(sorted(expected))}")
        assert set(ids(search(client, "ServiceRequest", ("occurrence", asked)))) == set(rows["eq"]), asked
    assert not wrong, "\n".join(wrong)


def test_approximately_is_a_tenth_of_the_time_between_now_and_then(client: FlaskClient) -> None:
    for id, born in (("a", "1950-06-01"), ("b", "1930-06-01")):
        put(client, "Patient", id, birthDate=born)
    for asked, expected in (("ap1950", {"a"}), ("ap1955", {"a"}), ("ap1938", {"b"}), ("ap2000", set())):
        assert set(ids(search(client, "Patient", ("birthdate", asked)))) == expected, asked


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("eq", "b"),
        ("ne", "acd"),
        ("gt", "cd"),
        ("lt", "a"),
        ("ge", "bcd"),
        ("le", "ab"),
        ("sa", "cd"),
        ("eb", "a"),
    ],
)
def test_every_prefix_on_instants(client: FlaskClient, prefix: str, expected: str) -> None:
    for id, instant in (
        ("a", "2024-03-10T09:59:59.999Z"),
        ("b", "2024-03-10T10:00:00.000Z"),
        ("c", "2024-03-10T10:01:00.000Z"),
        ("d", "2034-03-10T10:00:00.000Z"),
    ):
        ending = {"end": "2034-03-10T10:30:00Z"}
        put(client, "Slot", id, status="free", schedule={"display": "x"}, start=instant, **ending)
    found = ids(search(client, "Slot", ("start", f"{prefix}2024-03-10T10:00Z")))
    assert "".join(sorted(found)) == expected
