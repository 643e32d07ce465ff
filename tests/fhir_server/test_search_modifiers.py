"""Modifiers of search parameters, and parameters of every type. https://hl7.org/fhir/R4/search.html#modifiers"""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server.access import Access, Scope
from fhir_server.index.text import fold
from fhir_server.repository import Repository
from fhir_server.terminology.vocabulary import add_vocabulary
from tests.fhir_server.conftest import ALL, BASE
from tests.fhir_server.test_rest import assert_outcome
from tests.fhir_server.test_search import ids, link, put, search

KINDS = "http://acme.example/kinds"
CODED = {"status": "final"}


@pytest.fixture(autouse=True)
def vocabulary(repository: Repository) -> None:
    add_vocabulary(repository)


def found(client: FlaskClient, address: str, *parameters: tuple[str, str]) -> set[str]:
    return set(ids(search(client, address, *parameters, Prefer="handling=strict")))


def refused(client: FlaskClient, address: str, code: str = "value", status: int = 400) -> str:
    answer = client.get(f"/fhir/{address}", headers={"Prefer": "handling=strict"})
    assert_outcome(answer, status, code)
    return answer.get_json(force=True)["issue"][0]["diagnostics"]


@pytest.fixture
def kinds(client: FlaskClient) -> None:
    """scan > ct > angio; scan > mr."""
    angio = {"code": "angio", "display": "Angiography"}
    concept = {"code": "scan", "concept": [{"code": "ct", "concept": [angio]}, {"code": "mr"}]}
    put(client, "CodeSystem", "k", url=KINDS, status="active", content="complete", concept=[concept])
    include = {"system": KINDS, "filter": [{"property": "concept", "op": "is-a", "value": "ct"}]}
    put(client, "ValueSet", "v", url="http://acme.example/ct", status="active", compose={"include": [include]})
    for code in ("scan", "ct", "angio", "mr"):
        put(client, "Observation", code, code={"coding": [{"system": KINDS, "code": code}]}, **CODED)
    put(client, "Observation", "other", code={"coding": [{"system": "urn:x", "code": "ct"}]}, **CODED)
    put(client, "Observation", "words", code={"text": "CT of the Chest"}, **CODED)


class TestByMeaning:
    """https://hl7.org/fhir/R4/search.html#token"""

    def test_codes_of_a_value_set(self, client: FlaskClient, kinds: None) -> None:
        assert found(client, "Observation", ("code:in", "http://acme.example/ct")) == {"ct", "angio"}
        assert found(client, "Observation", ("code:in", "ValueSet/v")) == {"ct", "angio"}
        assert found(client, "Observation", ("code:not-in", "http://acme.example/ct")) == {
            "scan",
            "mr",
            "other",
            "words",
        }

    def test_codes_below_and_above(self, client: FlaskClient, kinds: None) -> None:
        assert found(client, "Observation", ("code:below", f"{KINDS}|ct")) == {"ct", "angio"}
        assert found(client, "Observation", ("code:below", f"{KINDS}|angio,{KINDS}|mr")) == {"mr", "angio"}
        assert found(client, "Observation", ("code:above", f"{KINDS}|ct")) == {"scan", "ct"}

    def test_plain_codes_have_the_system_of_their_definition(self, client: FlaskClient) -> None:
        system = "http://hl7.org/fhir/observation-status"
        for status in ("final", "amended", "corrected"):
            put(client, "Observation", status, status=status, code={"text": "x"})
        assert found(client, "Observation", ("status", f"{system}|final")) == {"final"}
        assert found(client, "Observation", ("status:not", f"{system}|final")) == {"amended", "corrected"}
        assert found(client, "Observation", ("status:below", "amended")) == {"amended", "corrected"}
        assert found(client, "Observation", ("status:above", f"{system}|corrected")) == {"amended", "corrected"}
        url = "http://hl7.org/fhir/ValueSet/observation-status"
        assert found(client, "Observation", ("status:in", url)) == {"final", "amended", "corrected"}
        assert found(client, "Observation", ("status:not-in", url)) == set()
        assert system in refused(client, "Observation?status=urn:x|final")

    @pytest.mark.parametrize(
        "query",
        [
            "code:in=http://nowhere.example/set",
            "code:not-in=ValueSet/none",
            "code:below=urn:unknown|ct",
            "code:above=urn:unknown|ct",
            "code:below=ct",
            "code:in=a|b|c",
        ],
    )
    def test_what_is_not_known_is_refused_and_not_taken_for_nothing(self, client: FlaskClient, query: str) -> None:
        assert client.get(f"/fhir/Observation?{query}").status_code == 400

    def test_a_value_set_that_cannot_be_listed_is_too_costly(self, client: FlaskClient) -> None:
        include = [{"system": "http://snomed.info/sct"}]
        put(client, "ValueSet", "open", url="urn:open", status="active", compose={"include": include})
        refused(client, "Observation?code:in=urn:open", "too-costly", 422)


def test_what_codes_identifiers_and_references_are_called(client: FlaskClient, kinds: None) -> None:
    coding = {"system": KINDS, "code": "ct", "display": "Computed  Tomögraphy"}
    subject = {"reference": "Patient/p", "display": "José Müller"}
    put(client, "Patient", "p", identifier=[{"value": "1", "type": {"text": "Chart number"}}])
    put(client, "Observation", "a", code={"coding": [coding]}, subject=subject, **CODED)
    assert found(client, "Observation", ("code:text", "computed tomo")) == {"a"}
    assert found(client, "Observation", ("code:text", "ct of")) == {"words"}
    assert found(client, "Observation", ("code:text", "tomography")) == set()
    assert found(client, "Observation", ("subject:text", "jose m")) == {"a"}
    assert found(client, "Patient", ("identifier:text", "chart")) == {"p"}
    refused(client, "Observation?status:text=final", "invalid")


def test_words_of_a_string_in_any_order(client: FlaskClient) -> None:
    put(client, "Organization", "a", name="Radiology at the Lake")
    put(client, "Organization", "b", name="Lakeside Surgery")
    assert found(client, "Organization", ("name:text", "lake radio")) == {"a"}
    assert found(client, "Organization", ("name:text", "lake")) == {"a", "b"}
    assert found(client, "Organization", ("name:text", "adiology")) == set()
    assert found(client, "Organization", ("name:text", ".*")) == set()


class TestAddresses:
    """https://hl7.org/fhir/R4/search.html#uri and #versions"""

    def test_versions_of_canonicals(self, client: FlaskClient) -> None:
        for id, version in (("a", "|1.0"), ("b", "|1.0.3"), ("c", "|10.0"), ("d", "")):
            put(client, "QuestionnaireResponse", id, status="completed", questionnaire=f"http://q.example/x{version}")
        query = "questionnaire"
        assert found(client, "QuestionnaireResponse", (query, "http://q.example/x")) == {"a", "b", "c", "d"}
        assert found(client, "QuestionnaireResponse", (query, "http://q.example/x|1.0")) == {"a"}
        assert found(client, "QuestionnaireResponse", (f"{query}:below", "http://q.example/x|1")) == {"a", "b"}
        assert found(client, "QuestionnaireResponse", (f"{query}:above", "http://q.example/x|1.0.3.1")) == {"a", "b"}
        assert found(client, "QuestionnaireResponse", (f"{query}:below", "http://q.example")) == {"a", "b", "c", "d"}

    def test_references_to_resources_have_no_above_and_below(self, client: FlaskClient) -> None:
        refused(client, "Observation?subject:below=Patient/1", "invalid")


class TestWords:
    """https://hl7.org/fhir/R4/search.html#content"""

    @pytest.fixture(autouse=True)
    def reports(self, client: FlaskClient) -> None:
        div = '<div xmlns="http://www.w3.org/1999/xhtml"><p>Frac<b>ture</b> of the rib &amp; h&#xE9;matome</p></div>'
        report = {"status": "final", "code": {"text": "Thorax"}}
        put(client, "DiagnosticReport", "a", text={"status": "generated", "div": div}, **report)
        put(client, "DiagnosticReport", "b", conclusion="No fracture. None at all.", **report)

    def test_the_narrative(self, client: FlaskClient) -> None:
        assert found(client, "DiagnosticReport", ("_text", "rib FRACTURE")) == {"a"}
        assert found(client, "DiagnosticReport", ("_text", "hématome,nothing")) == {"a"}
        assert found(client, "DiagnosticReport", ("_text", "frac")) == set()
        assert found(client, "DiagnosticReport", ("_text", "p")) == set()

    def test_the_whole_content(self, client: FlaskClient) -> None:
        assert found(client, "DiagnosticReport", ("_content", "fracture")) == {"a", "b"}
        assert found(client, "DiagnosticReport", ("_content", "thorax fracture"), ("_content", "no")) == {"b"}
        assert found(client, "DiagnosticReport", ("_content", "DiagnosticReport")) == set()

    def test_no_words_are_refused(self, client: FlaskClient) -> None:
        refused(client, "DiagnosticReport?_content=.,!")
        refused(client, "DiagnosticReport?_text=" + "+".join(f"w{n}" for n in range(21)))

    def test_of_what_a_chain_leads_to(self, client: FlaskClient) -> None:
        put(client, "Patient", "p", contact=[{"name": {"text": "Zacharias"}}])
        put(client, "Observation", "o", code={"text": "x"}, subject={"reference": "Patient/p"}, **CODED)
        assert found(client, "Observation", ("patient._content", "zacharias")) == {"o"}


class TestLists:
    """https://hl7.org/fhir/R4/search.html#list"""

    def test_what_a_list_names(self, client: FlaskClient) -> None:
        for id in "abcd":
            put(client, "Patient", id)
        entry = [
            {"item": {"reference": "Patient/a"}},
            {"item": {"reference": f"{BASE}/Patient/b"}},
            {"item": {"reference": "Patient/c"}, "deleted": True},
        ]
        put(client, "List", "l", status="current", mode="changes", entry=entry)
        assert found(client, "Patient", ("_list", "l")) == {"a", "b"}
        assert found(client, "Patient", ("_list", "l"), ("_id", "b,c")) == {"b"}
        assert found(client, "Patient", ("_list", "nothing")) == set()
        assert found(client, "Observation", ("_list", "l")) == set()

    def test_current_lists_are_refused(self, client: FlaskClient) -> None:
        assert "current" in refused(client, "Patient?_list=$current-problems", "not-supported")

    def test_a_list_that_is_not_seen_names_nothing(self, app: Flask, client: FlaskClient) -> None:
        put(client, "Patient", "a")
        put(client, "List", "l", status="current", mode="working", entry=[{"item": {"reference": "Patient/a"}}])
        app.config["ACCESS"] = Access("client:x", ALL, frozenset({"@Patient/a"}))
        assert found(client, "Patient", ("_id", "a")) == {"a"}
        assert found(client, "Patient", ("_list", "l")) == set()
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "rs"),), None)
        assert_outcome(client.get("/fhir/Patient?_list=l"), 403, "forbidden")


class TestNear:
    """https://hl7.org/fhir/R4/location.html#positional"""

    PLACES = (
        ("graz", 47.0707, 15.4395),
        ("vienna", 48.2082, 16.3738),
        ("fiji", -17.8, 179.9),
        ("samoa", -17.8, -179.9),
        ("pole", 89.99, 0),
        ("beyond", 89.99, 180),
    )

    @pytest.fixture(autouse=True)
    def places(self, client: FlaskClient) -> None:
        for id, latitude, longitude in self.PLACES:
            put(client, "Location", id, position={"latitude": latitude, "longitude": longitude})
        put(client, "Location", "nowhere")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("47.07|15.44", {"graz"}),  # 10 km where nothing is said
            ("47.07|15.44|100|km", {"graz"}),
            ("47.07|15.44|146", {"graz", "vienna"}),  # 145 km lie between them
            ("47.07|15.44|144", {"graz"}),
            ("47.07|15.44|89|mi", {"graz"}),
            ("47.07|15.44|91|[mi_i]", {"graz", "vienna"}),
            ("47.07|15.44|145500|m", {"graz", "vienna"}),
            ("48|16|300||", None),
            ("-17.8|180|15|km", {"fiji", "samoa"}),
            ("-17.8|-180|15|km", {"fiji", "samoa"}),
            ("-17.8|179.99|12|km", {"fiji", "samoa"}),
            ("-17.8|179.99|10|km", {"fiji"}),
            ("90|0|5|km", {"pole", "beyond"}),
            ("89.99|0|3|km", {"pole", "beyond"}),
            ("0|0|30000|km", {"graz", "vienna", "fiji", "samoa", "pole", "beyond"}),
            ("47.07|15.44|1|km,48.21|16.37|1|km", {"graz", "vienna"}),
            ("47.0707|15.4395|0|km", {"graz"}),
            ("91|0|1|km", None),
            ("0|181|1|km", None),
            ("0|0|-1|km", None),
            ("0|0|1|kg", None),
            ("0|0|1|parsec-ish", None),
            ("0", None),
            ("x|y", None),
        ],
    )
    def test_places_within_a_distance(self, client: FlaskClient, value: str, expected: set[str] | None) -> None:
        if expected is None:
            refused(client, f"Location?near={value}")
        else:
            assert found(client, "Location", ("near", value)) == expected
            assert search(client, "Location", ("near", value), ("_summary", "count"))["total"] == len(expected)

    def test_places_without_a_position(self, client: FlaskClient) -> None:
        assert found(client, "Location", ("near:missing", "true")) == {"nowhere"}


class TestUnits:
    """https://hl7.org/fhir/R4/search.html#quantity"""

    @pytest.fixture(autouse=True)
    def observations(self, client: FlaskClient) -> None:
        ucum = "http://unitsofmeasure.org"
        for id, value, system, code in (
            ("mg", 5.4, ucum, "mg"),
            ("g", 0.0054, ucum, "g"),
            ("kg", 1, ucum, "kg"),
            ("ml", 5.4, ucum, "mL"),
            ("warm", 37, ucum, "Cel"),
            ("hot", 104, ucum, "[degF]"),
            ("units", 5, ucum, "[iU]/L"),
            ("count", 5000, ucum, "/m3"),
            ("acid", 7, ucum, "[pH]"),
            ("own", 5.4, "urn:own", "mg"),
        ):
            quantity = {"value": value, "system": system, "code": code}
            put(client, "Observation", id, code={"coding": [{"code": "q"}]}, valueQuantity=quantity, **CODED)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("5.4|http://unitsofmeasure.org|mg", {"mg", "g"}),
            ("5400|http://unitsofmeasure.org|ug", {"mg", "g"}),
            ("gt0.005|http://unitsofmeasure.org|g", {"mg", "g", "kg"}),
            ("ne5.4|http://unitsofmeasure.org|mg", {"kg"}),
            ("5.4||mg", {"mg", "own"}),  # no system: the code as it is written
            ("5.4", {"mg", "ml", "own"}),
            ("310.15|http://unitsofmeasure.org|K", {"warm"}),
            ("98.6|http://unitsofmeasure.org|[degF]", {"warm"}),
            ("gt37|http://unitsofmeasure.org|Cel", {"hot"}),
            ("5000|http://unitsofmeasure.org|[iU]/m3", {"units"}),  # an arbitrary unit is none of another kind
            ("5|http://unitsofmeasure.org|/L", {"count"}),
            ("7|http://unitsofmeasure.org|[pH]", {"acid"}),
            ("5.4|urn:own|mg", {"own"}),
        ],
    )
    def test_quantities_in_other_units(self, client: FlaskClient, value: str, expected: set[str]) -> None:
        assert found(client, "Observation", ("value-quantity", value)) == expected
        assert found(client, "Observation", ("code-value-quantity", f"q${value}")) == expected


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("José", "JOSE"),
        ("Jose\u0301", "José"),
        ("Straße", "STRASSE"),
        ("IŞIK", "ışık"),
        ("İstanbul", "istanbul"),
        ("Søren Ærø", "soren aero"),
        ("Łukasz Đorđe", "lukasz dorde"),
        ("ﬁrst", "First"),
        ("ΑΘΗΝΑΣ", "αθηνας"),
        ("van  der\u00a0Berg", "van der berg"),
    ],
)
def test_text_is_folded_per_unicode(stored: str, asked: str) -> None:
    """https://hl7.org/fhir/R4/search.html#string: without case, accents and other diacritical marks."""
    assert fold(stored) == fold(asked)


def test_an_outcome_says_what_was_left_out_and_the_self_link_what_was_done(client: FlaskClient) -> None:
    put(client, "Patient", "a", active=True)
    bundle = search(client, "Patient", ("active", "true"), ("_query", "x"), ("colour", "red"))
    assert link(bundle, "self") == f"{BASE}/Patient?active=true"
    outcome = next(one["resource"] for one in bundle["entry"] if one["search"]["mode"] == "outcome")
    assert [issue["code"] for issue in outcome["issue"]] == ["not-supported", "not-supported"]
    bundle = search(client, "Patient", ("_contained", "false"), Prefer="handling=strict")
    assert link(bundle, "self") == f"{BASE}/Patient?_contained=false"
    assert "_filter" in refused(client, "Patient?colour=x", "not-supported")
