"""The R4 code systems, value sets and concept maps that are shipped, and the operation definitions.

Kept as text and parsed one at a time: most of them are never asked for.
"""

import gzip
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_TYPE = re.compile(r'"resourceType":"(\w+)"')
_URL = re.compile(r'"url":"([^"]+)"')


def r4_definition(resource_type: str, url: str) -> dict | None:
    """The CodeSystem, ValueSet or ConceptMap of R4 with this canonical URL; None when it is not shipped."""
    text = _by_url(resource_type).get(url)
    return None if text is None else json.loads(text)


def r4_definitions(resource_type: str) -> list[dict]:
    """All that are shipped of a type."""
    return [json.loads(text) for text in _by_url(resource_type).values()]


def operation_definitions() -> list[dict]:
    """The OperationDefinitions of R4."""
    return [json.loads(line) for line in _lines("operations.jsonl.gz")]


@cache
def _by_url(resource_type: str) -> Mapping[str, str]:
    return MappingProxyType({url: line for type, url, line in _shipped() if type == resource_type})


@cache
def _shipped() -> tuple[tuple[str, str, str], ...]:
    found = []
    for line in _lines("terminology.jsonl.gz"):
        type, url = _TYPE.search(line), _URL.search(line)
        if type is None or url is None:
            raise ValueError("terminology.jsonl.gz has a resource without type or url")
        found.append((type[1], url[1], line))
    return tuple(found)


def _lines(name: str) -> list[str]:
    packed = (files("conformance") / "r4" / name).read_bytes()
    return gzip.decompress(packed).decode().split("\n")
