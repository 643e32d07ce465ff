"""The profiles that are shipped: those of R4 itself, and ours. Each as far as resources are checked by it."""

import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from conformance.resources import conformance_resources


def shipped_profile(url: str) -> dict | None:
    """The StructureDefinition with this canonical URL; None when it is not shipped."""
    if url in _own():
        return _own()[url]
    line = _of_r4().get(url)
    return None if line is None else json.loads(line)


def r4_profiles() -> list[str]:
    """The canonical URLs of those of R4."""
    return list(_of_r4())


def own_profiles(resource_type: str) -> list[str]:
    """The canonical URLs of ours that are about a resource type."""
    return [url for url, definition in _own().items() if definition["type"] == resource_type]


@cache
def _own() -> Mapping[str, dict]:
    found = (one for one in conformance_resources() if one["resourceType"] == "StructureDefinition")
    return {one["url"]: one for one in found if one["derivation"] == "constraint"}


@cache
def _of_r4() -> Mapping[str, bytes]:
    text = gzip.decompress((files("conformance") / "r4" / "profiles.jsonl.gz").read_bytes())
    return {url.decode(): content for url, content in (line.split(b"\t", 1) for line in text.split(b"\n"))}
