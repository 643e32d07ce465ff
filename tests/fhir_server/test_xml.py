"""https://hl7.org/fhir/R4/xml.html"""

from pathlib import Path

import pytest

import conformance
from fhir_server import fhir_json, fhir_xml
from fhir_server.errors import BadRequest, FhirError, InvalidStructure, NotAcceptable

EVERYTHING = b"""{"resourceType":"Observation","id":"a","meta":{"profile":["http://x.example/p"]},
"text":{"status":"generated",
"div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">a &lt; b<br/>\\n <b id='1'>c</b></div>"},
"contained":[{"resourceType":"Patient","id":"p","active":true,"name":[{"family":"\xc3\x84rger \\"&<>\\t\\n"}]}],
"extension":[{"url":"http://x.example/e","valueDecimal":0.00000010}],
"status":"final","_status":{"id":"s"},"code":{"text":"x"},"subject":{"reference":"#p"},
"_issued":{"extension":[{"url":"http://x.example/why","valueCode":"unknown"}]},"valueQuantity":{"value":1.10,"unit":"mg"},
"component":[{"code":{"text":"y"},"valueInteger":-3},{"code":{"text":"z"},"valueQuantity":{"value":5}}]}"""
GIVEN = b"""{"resourceType":"Patient","name":[{"given":["A",null,"C"],
"_given":[null,{"extension":[{"url":"http://x.example/e","valueBoolean":false}]},{"id":"c"}]},
{"_given":[{"id":"only"}]}]}"""


XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'
ENTITY = '<!DOCTYPE d [<!ENTITY a "b">]><div>&a;</div>'


def in_xml(content: str, attributes: str = "") -> bytes:
    return f'<Patient xmlns="http://hl7.org/fhir"{attributes}>{content}</Patient>'.encode()


@pytest.mark.parametrize("pretty", [False, True])
@pytest.mark.parametrize("text", [EVERYTHING, GIVEN])
def test_json_to_xml_and_back_changes_nothing(text: bytes, pretty: bool) -> None:
    resource = fhir_json.loads(text)
    back = fhir_xml.loads(fhir_xml.dumps(resource, pretty=pretty))
    assert fhir_json.dumps(in_order(back)) == fhir_json.dumps(in_order(resource))


def test_elements_come_in_the_order_of_the_definitions() -> None:
    patient = {"resourceType": "Patient", "gender": "male", "name": [{"given": ["P"], "family": "C"}], "id": "a"}
    assert fhir_xml.dumps(patient) == (
        b'<?xml version="1.0" encoding="UTF-8"?><Patient xmlns="http://hl7.org/fhir"><id value="a"/>'
        b'<name><family value="C"/><given value="P"/></name><gender value="male"/></Patient>'
    )


def test_ids_of_elements_and_urls_of_extensions_are_attributes() -> None:
    extension = {"id": "e", "url": "http://x.example/e", "valueCode": "c"}
    text = fhir_xml.dumps({"resourceType": "Patient", "extension": [extension]})
    assert b'<extension id="e" url="http://x.example/e"><valueCode value="c"/></extension>' in text


def test_a_bundle_carries_resources_of_every_type() -> None:
    entries = [
        {"resource": {"resourceType": "Patient", "active": True}},
        {"resource": {"resourceType": "Binary", "contentType": "text/plain", "data": "YQ=="}},
        {"response": {"status": "404", "outcome": {"resourceType": "OperationOutcome", "issue": []}}},
    ]
    del entries[2]["response"]["outcome"]["issue"]
    entries[2]["response"]["outcome"]["id"] = "o"
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    assert fhir_xml.loads(fhir_xml.dumps(bundle)) == bundle


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ('<colour value="blue"/>', "Patient.colour"),
        ('<name><family value="A"/></name><name><colour value="b"/></name>', "Patient.name[1].colour"),
        ('<active value="yes"/>', "Patient.active"),
        ('<multipleBirthInteger value="1.5"/>', "Patient.multipleBirth"),
        ('<gender value="male"/><gender value="female"/>', "Patient.gender"),
        ('<gender value="male" colour="blue"/>', "Patient.gender"),
        ("<name/>", "Patient.name[0]"),
        ("<gender/>", "Patient.gender"),
        ('<x:gender xmlns:x="urn:x" value="male"/>', "Patient.gender"),
        ("<contained><Nothing/></contained>", "Patient.contained[0]"),
        ("<contained/>", "Patient.contained[0]"),
        ('<text><status value="generated"/><div>x</div></text>', "Patient.text.div"),
        (
            '<text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml"><x xmlns="u"/></div></text>',
            "Patient.text.div",
        ),
        ("text", "Patient"),
        ("<name>text</name>", "Patient.name"),
        ("<extension>" * 200, "Patient" + ".extension" * 119),
    ],
)
def test_what_is_no_fhir_is_refused_with_its_path(content: str, path: str) -> None:
    with pytest.raises(InvalidStructure) as refused:
        fhir_xml.loads(in_xml(content))
    assert path in [issue["expression"][0] for issue in refused.value.outcome()["issue"]]


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidStructure) as refused:
        fhir_xml.loads(in_xml('<colour value="b"/><active value="1"/>'))
    assert [issue.expression for issue in refused.value.issues] == ["Patient.colour", "Patient.active"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<Patient",
        b"\xff\xfe<Patient/>",
        b'<?xml version="1.0" encoding="ISO-8859-1"?><Patient xmlns="http://hl7.org/fhir"/>',
        b'<!DOCTYPE Patient><Patient xmlns="http://hl7.org/fhir"><active value="true"/></Patient>',
        b'<!DOCTYPE P [<!ENTITY a SYSTEM "file:///etc/passwd">]><Patient xmlns="http://hl7.org/fhir">&a;</Patient>',
        b'<Patient xmlns="http://hl7.org/fhir">' + b"<extension>" * 50_000,
        in_xml("&nbsp;"),
        in_xml('<name><family value="&#0;"/></name>'),
    ],
)
def test_what_is_no_xml_for_us_is_refused(text: bytes) -> None:
    with pytest.raises((BadRequest, InvalidStructure)):
        fhir_xml.loads(text)


def test_schema_locations_are_passed_over() -> None:
    location = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://hl7.org/fhir a.xsd"'
    assert fhir_xml.loads(in_xml('<active value="true"/>', location)) == {"resourceType": "Patient", "active": True}


def test_prefixes_are_only_spelling() -> None:
    text = (
        b'<f:Patient xmlns:f="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"><f:text>'
        b'<f:status value="generated"/><h:div><h:a href="a&amp;b">x &lt; y</h:a></h:div></f:text></f:Patient>'
    )
    div = '<div xmlns="http://www.w3.org/1999/xhtml"><a href="a&amp;b">x &lt; y</a></div>'
    assert fhir_xml.loads(text)["text"] == {"status": "generated", "div": div}


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ({"resourceType": "Patient", "name": [{"family": "a\x01"}]}, "Patient.name[0].family"),
        ({"resourceType": "Patient", "colour": "blue"}, "Patient.colour"),
        ({"resourceType": "Patient", "text": {"div": "<div>"}}, "Patient.text.div"),
        (
            {"resourceType": "Patient", "text": {"div": ENTITY}},
            "Patient.text.div",
        ),
    ],
)
def test_what_xml_cannot_carry_is_not_acceptable_and_named(resource: dict, path: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        fhir_xml.dumps(resource)
    assert refused.value.expression == path


def test_entities_of_html_become_characters() -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml">a&nbsp;b &amp; c</div>'
    text = fhir_xml.dumps({"resourceType": "Patient", "text": {"status": "generated", "div": div}})
    assert "a\N{NO-BREAK SPACE}b &amp; c" in text.decode()


@pytest.mark.shared_data
def test_the_examples_of_the_specification_survive(shared_data: Path) -> None:
    failed = []
    for file in sorted((shared_data / "fhir" / "hl7-examples").rglob("*.json")):
        resource = fhir_json.loads(file.read_bytes())
        try:
            back = fhir_xml.loads(fhir_xml.dumps(resource))
        except FhirError as error:
            failed.append(f"{file.name}: {error}")
            continue
        if fhir_json.dumps(in_order(back)) != fhir_json.dumps(in_order(resource)):
            failed.append(file.name)
    assert failed == []


def test_every_type_has_a_layout() -> None:
    assert [name for name in conformance.resource_types() if not conformance.layout(name)] == []
    assert list(conformance.layout("Period")) == ["id", "extension", "start", "end"]
    assert conformance.layout("string") == {}


def in_order(value: object) -> object:
    """Objects with their names in order; compared as JSON, since 1.10 and 1.1 are equal Decimals."""
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    return [in_order(child) for child in value] if isinstance(value, list) else value
