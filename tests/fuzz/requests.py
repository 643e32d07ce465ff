"""Strategies for whole requests: nearly right in address, query, headers and body, in every combination."""

import gzip
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.addresses import (
    ANY_TYPE,
    CONTENT_TYPES,
    IDS,
    JSON,
    PATCH,
    QUERY_METHODS,
    SEGMENTS,
    USUAL,
    VALUES,
    XML,
    headers,
    search_string,
)
from tests.fuzz.bodies import (
    PARAMETER_NAMES,
    bundle,
    fhirpath_patch,
    json_patch,
    parameters,
    resource,
)
from tests.fuzz.mutations import JUNK, Draw, json_of, xml_of


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
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": partial(gzip.compress, mtime=0), "deflate": zlib.compress}
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
