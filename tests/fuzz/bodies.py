"""What is sent as content: resources, Bundles, patches and the parameters of operations, all nearly right."""

from typing import Any

from hypothesis import strategies as st

import conformance
from conformance.terminology import operation_definitions
from tests.fuzz.addresses import IDS, PATCH
from tests.fuzz.corpus import PATIENT, corpus, free
from tests.fuzz.mutations import JUNK, NAMES, Draw, mutated


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
