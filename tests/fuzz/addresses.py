"""What stands before the content: parts of addresses, queries and headers."""

from hypothesis import strategies as st

import conformance
from tests.fuzz.mutations import WORDS, Draw

JSON, XML, PATCH, NDJSON = (
    "application/fhir+json",
    "application/fhir+xml",
    "application/json-patch+json",
    "application/fhir+ndjson",
)
TYPES = sorted(conformance.resource_types())
IDS = st.sampled_from(["a", "a", "b", "c", "1", "A-1.b", "a" * 64, "a" * 65, "", "_", "%00", "%ff", "é", ".", "$x"])
USUAL = st.sampled_from(
    ["Patient", "Patient", "Patient", "Basic", "Binary", "Observation", "Bundle", "ServiceRequest"]
)
ANY_TYPE = USUAL | st.sampled_from([*TYPES, "Nothing", "patient", "Resource", "DomainResource"])
SEGMENTS = st.sampled_from(
    "Patient a _history 1 0 999999999 9999999999 $everything $x $ _search metadata Binary %00 %ff .. . %2F %2e%2e "
    "bulk openapi.json é \\ $export // "
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".split()
)
ETAGS = ['W/"1"', '"1"', 'W/"2"', "*", 'W/"999999999999"', "x", "", 'W/"-1"', 'W/"1", W/"2"', 'W/"٣"']
DATES = [
    "x",
    "Thu, 01 Jan 2099 00:00:00 GMT",
    "Thu, 99 Jan 2099 00:00:00 GMT",
    "0",
    "Mon, 01 Jan 0001 00:00:00 +2359",
]
ACCEPTS = [XML, JSON, "*/*", ";;", "q=1", f"{JSON};q=x", "image/png", "a/b;q=0,*/*", f"{JSON};fhirVersion=5.0", ","]
ACCEPTS += [f"{XML};q=0.1, {JSON};q=nan", "text/html", "*/*;q=0", f"{JSON};q=inf"]
CRITERIA = [
    "identifier=urn:oid:2.999.1|1",
    "family=x",
    "",
    "?",
    "family=x&_count=1",
    "%ff=1",
    "_id",
    "_id=a",
    "_sort=x",
]
CRITERIA += ["Patient?family=x", "a" * 3000, "organization.name=x", "_has:x:y:z=1", "_include=*"]
PREFERS = ["return=minimal", "return=representation", "return=OperationOutcome", "handling=strict", "respond-async"]
PREFERS += [";;=,", "return=x", "handling=lenient, return=minimal", "respond-async, handling=lenient"]
HEADERS: dict[str, list[str]] = {
    "Accept": ACCEPTS,
    "If-Match": ETAGS,
    "If-None-Match": ETAGS,
    "If-Modified-Since": DATES,
    "If-None-Exist": CRITERIA,
    "Prefer": PREFERS,
    "X-Security-Context": ["Patient/a", "x y", "#", "http://x/Patient/a", "é"],
    "X-Request-Id": ["x", "a" * 65, "é", "\t"],
    "Content-Encoding": ["gzip", "deflate", "br", "identity", "", "gzip, gzip", "x"],
    "X-HTTP-Method-Override": ["DELETE"],
    "Origin": ["http://x", "null", "é"],
    "Range": ["bytes=0-1", "bytes=-", "x"],
}
CONTENT_TYPES = [JSON, JSON, "application/json", XML, PATCH, "text/plain", "", "application/x-www-form-urlencoded"]
CONTENT_TYPES += [
    f"{JSON};charset=utf-16",
    f"{JSON}; fhirVersion=3.0",
    NDJSON,
    "multipart/form-data",
    "é/x",
    ";",
    "/",
]
MODIFIERS = ["", "", "", ":exact", ":contains", ":missing", ":not", ":text", ":in", ":above", ":below", ":of-type"]
MODIFIERS += [
    ":identifier",
    ":Patient",
    ":x",
    ":",
    ":exact:exact",
    ".name",
    ":Patient.name",
    ".a.b.c.d.e.f",
    ":iterate",
]
SHAPES = [
    "_count",
    "_sort",
    "_total",
    "_summary",
    "_elements",
    "_include",
    "_revinclude",
    "_include:iterate",
    "_after",
]
SHAPES += ["_format", "_pretty", "_since", "_at", "_before", "_has:Observation:patient:code", "_type", "_contained"]
SHAPES += [
    "_id",
    "_lastUpdated",
    "_tag",
    "_profile",
    "_security",
    "_source",
    "_filter",
    "_query",
    "_text",
    "_content",
    "",
]
VALUES = [word for word in WORDS[:30] if word != "\ud800"]
VALUES += ["%ED%A0%80", "ge2020", "eq2020-01-01T00:00:00Z", "ap5", "sa2020-13", "lt5|http://unitsofmeasure.org|mg"]
VALUES += [
    "1e400",
    "-1e-400",
    "5.40e-3",
    "0",
    "50",
    "1001",
    "family",
    "-family,birthdate",
    "accurate",
    "count",
    "text",
]
VALUES += [
    "Patient:organization",
    "Observation:patient",
    "*",
    "*:*",
    "Patient:link:Patient",
    "a,b,c",
    ",",
    "a\\,b",
    "|a",
]
VALUES += [
    "http://loinc.org|1234-5",
    "|",
    "a|",
    "Patient/a",
    "urn:uuid:1",
    "xml",
    "json",
    "5.0",
    "a$b",
    "$",
    "x,",
    "true",
]
QUERY_METHODS = ["GET", "GET", "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"]


@st.composite
def search_string(draw: Draw, type: str) -> str:
    """A query of parameters that the type has or lacks, not always percent-encoded as it should be."""
    codes = sorted(conformance.search_parameters(type)) or ["_id"]
    name = st.sampled_from(codes).flatmap(lambda code: st.sampled_from(MODIFIERS).map(lambda after: code + after))
    pair = st.tuples(name | st.sampled_from(SHAPES), st.sampled_from(VALUES))
    pairs = [f"{name}={value}" for name, value in draw(st.lists(pair, max_size=4))]
    return "&".join([*pairs, *(["&&=%ff%00&%zz"] if draw(st.integers(0, 30)) == 0 else [])])


@st.composite
def headers(draw: Draw) -> dict[str, str]:
    names = draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2))
    return {name: draw(st.sampled_from(HEADERS[name])) for name in names}
