"""What can be done to something valid: values, members and text that are wrong, or only unusual."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

from fhir_server import fhir_xml
from fhir_server.errors import FhirError

Draw = Any
WORDS = [
    "",
    "a",
    "male",
    "Patient/a",
    "#o",
    "urn:uuid:1",
    "urn:oid:1.2",
    "Patient?family=x",
    "2020-01-01",
    "2020-02-30",
]
WORDS += [
    "2020-01-01T00:00:00Z",
    "0000",
    "9999-12-31T23:59:60Z",
    "٣",
    "\x01",
    "\0",
    "\ud800",
    "\u202e",
    "$where",
    ".",
]
WORDS += ["x" * 3000, "9" * 400, "a|b", "\\", " a", "a ", "\ufeff", "http://x/Patient/a", "Patient/a/_history/1", "é"]
WORDS += [
    '<div xmlns="http://www.w3.org/1999/xhtml">x</div>',
    "<div><script>x</script></div>",
    "&amp;",
    "]]>",
    "YQ==",
]
WORDS += [
    "application/fhir+xml",
    "en",
    "http://loinc.org",
    "true",
    "1",
    "-1",
    "1e400",
    "[]",
    "../..",
    "%00",
    "active",
]
VALUES = [*WORDS, 0, 1, -1, 1.5, 10**30, -0.0, 1e300, True, False, None, [], {}, [None], {"id": "x"}]
LEAVES = st.sampled_from(VALUES).map(copy.deepcopy)  # what is drawn may be changed later on
MEMBERS = (
    "id meta name family given _given gender contained extension modifierExtension url valueString valueReference "
    "valueQuantity reference text div status entry request method resource fullUrl type identifier system value "
    "parameter part link other birthDate _birthDate contentType data path op from versionId lastUpdated tag profile "
    "coding code display subject resourceType implicitRules language fhir_comments $where __proto__ item answer x"
).split()
NAMES = st.sampled_from(MEMBERS)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
TEXT_INSERTS = ["{", "[", "]", '"', ",", ":", "null", "\\u0000", "\\ud800", "NaN", "1e999", "-", "0123", "1.10", "\t"]
TEXT_INSERTS += ["\x00", "\xff", "\ufeff", '"resourceType":"Group",', "[" * 300, '{"a":' * 300, "9" * 5000, "//", "<"]
XML_INSERTS = [
    "<",
    ">",
    "&",
    "&#0;",
    "&x;",
    "]]>",
    "<!--c-->",
    "<?p?>",
    "<![CDATA[x]]>",
    "\x00",
    "<id/>",
    "</Patient>",
]
XML_INSERTS += ['<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>', ' value="x"', ' id="1"', "<x:a/>", "\ufeff"]
XML_INSERTS += [' xmlns="urn:x"', "<a>" * 300, "<name/>", "<contained/>", "<div/>", '<extension url="x"/>', " a=b"]


@st.composite
def mutated(draw: Draw, resource: dict, most: int = 3) -> dict:
    """The resource with up to `most` things in it changed."""
    made = copy.deepcopy(resource)
    for _ in range(draw(st.integers(0, most))):
        _change(draw, made)
    return made


def _change(draw: Draw, made: Any) -> None:
    at = made
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 4)) == 0:
            break
        at = inner
    kind = draw(st.sampled_from(["put", "put", "put", "remove", "again", "rename", "more", "wrap", "deep"]))
    if kind == "put":
        at[key] = draw(JUNK)
    elif kind == "remove":
        del at[key]
    elif kind == "wrap":
        at[key] = [at[key]] if draw(st.booleans()) else {"value": at[key]}
    elif kind == "deep":
        at[key] = _nested(draw(st.sampled_from([5, 60, 200])))
    elif isinstance(at, list):
        at.append(copy.deepcopy(at[key]) if kind == "again" else draw(JUNK))
    elif kind == "rename":
        at[draw(NAMES | st.just(f"_{key}"))] = at.pop(key)
    elif kind == "again":
        at[key] = [at[key], copy.deepcopy(at[key])]
    else:
        at[draw(NAMES)] = draw(JUNK)


def _nested(depth: int) -> Any:
    found: Any = "x"
    for _ in range(depth):
        found = {"extension": [found]}
    return found


@st.composite
def spoilt(draw: Draw, text: str, inserts: list[str]) -> bytes:
    """The text cut, repeated or with something put in; as bytes, at times not UTF-8."""
    kind = draw(st.sampled_from(["cut", "insert", "insert", "again", "bytes", "utf-16"]))
    at = draw(st.integers(0, len(text)))
    if kind == "cut":
        return text[:at].encode(errors="surrogatepass")
    if kind == "insert":
        text = text[:at] + draw(st.sampled_from(inserts)) + text[at:]
    elif kind == "again":
        text = text[:at] + text[max(0, at - 40) :]
    elif kind == "utf-16":
        return text.encode("utf-16", errors="surrogatepass")
    made = text.encode(errors="surrogatepass")
    return made[:at] + b"\xff\xfe" + made[at:] if kind == "bytes" else made


@st.composite
def json_of(draw: Draw, value: Any) -> bytes:
    """The value as JSON, now and then spoilt. A lone surrogate may stand in it as an escape or as bytes."""
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 9)) == 0:
        return draw(spoilt(text, TEXT_INSERTS))
    return text.encode(errors="surrogatepass")


@st.composite
def xml_of(draw: Draw, value: Any) -> bytes:
    """The resource as XML where it can be written as such, half the time spoilt."""
    try:
        text = fhir_xml.dumps(value).decode()
    except FhirError:
        text = '<Patient xmlns="http://hl7.org/fhir"><active value="x"/></Patient>'
    return draw(spoilt(text, XML_INSERTS)) if draw(st.booleans()) else text.encode()
