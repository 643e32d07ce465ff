"""Strategies for whole requests: nearly right in address, query, headers and body, in every combination."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

import conformance
from conformance.terminology import operation_definitions
from tests.fuzz.corpus import PATIENT, corpus, free
from tests.fuzz.mutations import JUNK, NAMES, WORDS, Draw, json_of, mutated, xml_of

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


def _parameter_names() -> dict[str, list[str]]:
    """Operation -> what its definition, or that of another of its name, calls its parameters."""
    found: dict[str, set[str]] = {}
    for one in [*operation_definitions(), *conformance.conformance_resources()]:
        if one["resourceType"] == "OperationDefinition":
            names = {row["name"] for row in one.get("parameter", ()) if row["use"] == "in"}
            found.setdefault(one["code"], set()).update(names)
    return {code: sorted(names) for code, names in found.items()}


PARAMETER_NAMES = _parameter_names()
VALUE_TYPES = "String Code Uri Boolean Integer Coding CodeableConcept Meta Instant Date Period Reference X".split()


@st.composite
def search_string(draw: Draw, type: str) -> str:
    """A query of parameters that the type has or lacks, not always percent-encoded as it should be."""
    codes = sorted(conformance.search_parameters(type)) or ["_id"]
    name = st.sampled_from(codes).flatmap(lambda code: st.sampled_from(MODIFIERS).map(lambda after: code + after))
    pair = st.tuples(name | st.sampled_from(SHAPES), st.sampled_from(VALUES))
    pairs = [f"{name}={value}" for name, value in draw(st.lists(pair, max_size=4))]
    return "&".join([*pairs, *(["&&=%ff%00&%zz"] if draw(st.integers(0, 30)) == 0 else [])])


@st.composite
def resource(draw: Draw) -> dict:
    """A valid resource with something changed; mostly one that refers to nothing."""
    made = draw(st.sampled_from(corpus()) | st.just(PATIENT))
    if draw(st.integers(0, 3)):
        made = free(made)
    made = draw(mutated(made, most=draw(st.sampled_from([0, 0, 1, 1, 3]))))
    id = draw(IDS | st.none() | st.sampled_from([5, None, ["a"]]))
    return made | {"id": id} if id is not None else {name: value for name, value in made.items() if name != "id"}


@st.composite
def entry(draw: Draw) -> dict:
    """An entry of a batch or transaction."""
    made = draw(resource())
    type = made.get("resourceType", "Patient")
    method = draw(st.sampled_from(["POST", "POST", "PUT", "PUT", "PATCH", "DELETE", "GET", "HEAD", "X", 5, None]))
    urls = [
        type,
        f"{type}/{made.get('id', 'a')}",
        "Patient?family=x",
        "Patient/a/_history",
        "_history",
        "",
        "/",
        "?x=1",
    ]
    urls += [
        "Patient/a/_history/1",
        "Patient/$validate",
        "Patient/a",
        "metadata",
        "http://x/Patient",
        5,
        "Patient?_id",
    ]
    url = draw(st.sampled_from(urls))
    if method in ("POST", "PUT") and draw(st.integers(0, 4)):
        url = urls[method == "PUT"]
    request = {"method": method, "url": url}
    for name, values in {
        "ifMatch": ['W/"1"', 5],
        "ifNoneExist": ["family=x", "?", 5, "identifier=urn:oid:2.999.1|1"],
        "ifNoneMatch": ["*", 5, 'W/"1"'],
        "ifModifiedSince": ["x", "2020-01-01T00:00:00Z", "Thu", 5, "20", "2020-13-45T99:99:99Z"],
    }.items():
        if draw(st.integers(0, 7)) == 0:
            request[name] = draw(st.sampled_from(values))
    content = made
    if method == "PATCH":
        content = draw(st.sampled_from([{"resourceType": "Binary", "contentType": PATCH, "data": "W10="}, made]))
        content = draw(fhirpath_patch()) if draw(st.booleans()) else content
    full_url = draw(
        st.sampled_from(["urn:uuid:1", "urn:uuid:2", "http://x/Patient/1", 5, "", "urn:uuid:" + "3" * 32])
    )
    return {"fullUrl": full_url, "resource": content, "request": request}


@st.composite
def bundle(draw: Draw) -> dict:
    entries = draw(st.lists(entry(), max_size=4))
    for at, one in enumerate(entries):
        if draw(st.integers(0, 2)):
            one["fullUrl"] = f"urn:uuid:{at:08d}-0000-4000-8000-000000000000"
    made = {
        "resourceType": "Bundle",
        "type": draw(st.sampled_from(["transaction", "batch", "batch", "collection", 5])),
    }
    return draw(mutated(made | {"entry": entries}, most=1))


POINTERS = ["/name", "/name/0", "/name/-", "", "/x/y", "/gender", "/id", "~", "/name/0/family", 5, "/meta/versionId"]
POINTERS += ["/name/00", "/name/99999999999", "/name/0/given/1", "/~1", "/contained/0/id", "/resourceType", "//"]
PATHS = ["Patient.name", "Patient", "Patient.name[0].given", "Patient.gender", "name.where(a=", "`x", "a[" + "9" * 30]
PATHS += [
    "Patient.name.where(family='Chalmers')",
    "Patient.id",
    "Patient.name.given[1]",
    "(" * 200,
    "Patient.a.b",
    "",
]


@st.composite
def json_patch(draw: Draw) -> Any:
    operations = [
        {
            "op": draw(st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"])),
            "path": draw(st.sampled_from(POINTERS)),
            "from": draw(st.sampled_from(POINTERS)),
            "value": draw(JUNK),
        }
        for _ in range(draw(st.integers(0, 3)))
    ]
    return operations if draw(st.integers(0, 9)) else draw(JUNK)


@st.composite
def fhirpath_patch(draw: Draw) -> dict:
    kind = draw(
        st.sampled_from(["valueString", "valueCode", "valueHumanName", "part", "resource", "value", "valueX"])
    )
    parts = [
        {"name": "type", "valueCode": draw(st.sampled_from(["add", "delete", "insert", "replace", "move", "x"]))},
        {"name": "path", "valueString": draw(st.sampled_from(PATHS))},
        {"name": "name", "valueString": draw(st.sampled_from(["gender", "name", "id", "x", "extension", "active"]))},
        {"name": "value", kind: draw(JUNK)},
        {"name": "index", "valueInteger": draw(st.sampled_from([0, 1, -1, True, 10**30]))},
        {"name": "source", "valueInteger": 0},
        {"name": "destination", "valueInteger": draw(st.sampled_from([0, 5]))},
    ]
    return draw(mutated({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}, most=1))


@st.composite
def parameters(draw: Draw, name: str) -> Any:
    """What an operation is asked: a Parameters, a bare resource, or something else."""
    names = st.sampled_from(PARAMETER_NAMES.get(name) or ["x"]) | NAMES
    entries: list[Any] = []
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.integers(0, 2)) == 0:
            entries.append({"name": draw(names), "resource": draw(resource())})
        else:
            entries.append({"name": draw(names), f"value{draw(st.sampled_from(VALUE_TYPES))}": draw(JUNK)})
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(JUNK)
    if kind == 1:
        return draw(resource())
    return {"resourceType": "Parameters", "parameter": entries}


@st.composite
def headers(draw: Draw) -> dict[str, str]:
    names = draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2))
    return {name: draw(st.sampled_from(HEADERS[name])) for name in names}


@st.composite
def _sent(draw: Draw, method: str, path: str, query: str, content: Any, patch: bool = False) -> dict:
    """A request as `werkzeug` opens it; `content` in a form that is mostly the one that Content-Type says."""
    type = JSON
    if draw(st.integers(0, 9)) == 0:
        type = draw(st.sampled_from(CONTENT_TYPES))
    elif draw(st.integers(0, 5)) == 0 and isinstance(content, dict):
        type = XML
    elif patch and isinstance(content, list):
        type = PATCH
    sent = draw(headers())
    data = draw(xml_of(content) if type == XML and isinstance(content, dict) else json_of(content))
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    if draw(st.booleans()):
        data = packers.get(sent.get("Content-Encoding", ""), bytes)(data)
    return {
        "method": method,
        "path": f"/fhir/{path}".encode(errors="replace").decode(),  # no address has a lone surrogate
        "query_string": query,
        "headers": sent,
        "content_type": type or None,
        "data": data,
    }


@st.composite
def write(draw: Draw) -> dict:
    """Create, update, patch, delete, also conditional."""
    method = draw(st.sampled_from(["POST", "PUT", "PUT", "PATCH", "DELETE"]))
    if method == "PATCH":
        type, id = draw(USUAL), draw(IDS)
        content = draw(json_patch() | fhirpath_patch())
    else:
        content = draw(resource())
        type, id = str(content.get("resourceType", "Patient"))[:40], content.get("id", "a")
    if draw(st.integers(0, 9)) == 0:
        type = draw(ANY_TYPE)
    path, query = type, ""
    if method != "POST":
        path, query = (type, draw(search_string(type))) if draw(st.integers(0, 4)) == 0 else (f"{type}/{id}", "")
    return draw(_sent(method, path, query, content, patch=method == "PATCH"))


@st.composite
def together(draw: Draw) -> dict:
    return draw(_sent("POST", "", "", draw(bundle())))


@st.composite
def look(draw: Draw) -> dict:
    """Read, history, search."""
    type, id = draw(ANY_TYPE), draw(IDS)
    paths = [type, type, type, f"{type}/{id}", f"{type}/{id}/_history", f"{type}/_history", "_history", ""]
    paths += [f"{type}/{id}/_history/1", f"{type}/_search", "metadata", "openapi.json", f"{type}/{id}/_history/x"]
    query = draw(search_string(type))
    path = draw(st.sampled_from(paths))
    made = {"method": draw(st.sampled_from(QUERY_METHODS)), "path": f"/fhir/{path}", "headers": draw(headers())}
    if path.endswith("_search"):
        form = draw(st.sampled_from(["application/x-www-form-urlencoded"] * 5 + CONTENT_TYPES)) or None
        return made | {"method": "POST", "data": query.encode(errors="replace"), "content_type": form}
    return made | {"query_string": query}


@st.composite
def wander(draw: Draw) -> dict:
    """Any address, any method, any content."""
    path = "/".join(draw(st.lists(SEGMENTS, max_size=5)))
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "X", "get"]))
    return draw(_sent(method, path, draw(search_string("Patient")), draw(JUNK)))


def operation(addresses: list[str]) -> st.SearchStrategy[dict]:
    """A call of one of the operations whose addresses (`/Patient/{id}/$everything`) are given."""

    @st.composite
    def called(draw: Draw) -> dict:
        path = draw(st.sampled_from(addresses)).removeprefix("/")
        name = path.rpartition("$")[2]
        path = path.replace("{type}", draw(USUAL)).replace("{id}", draw(IDS))
        names = st.sampled_from(PARAMETER_NAMES.get(name) or ["x"])
        pairs = draw(st.lists(st.tuples(names, st.sampled_from(VALUES)), max_size=3))
        query = "&".join(f"{name}={value}" for name, value in pairs)
        if draw(st.integers(0, 2)) == 0:
            return {"method": "GET", "path": f"/fhir/{path}", "query_string": query, "headers": draw(headers())}
        return draw(_sent("POST", path, query if draw(st.booleans()) else "", draw(parameters(name))))

    return called()


def requests(addresses: list[str]) -> st.SearchStrategy[dict]:
    """A request of any kind. addresses: those of operations."""
    return st.one_of(write(), write(), together(), look(), look(), operation(addresses), wander())
