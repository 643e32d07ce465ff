"""_include and _revinclude. https://hl7.org/fhir/R4/search.html#include

What is included is found by the search keys of what includes it, so nothing is parsed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import conformance
from fhir_server.errors import BadRequest
from fhir_server.index import rules
from fhir_server.references import RELATIVE
from fhir_server.search.condition import KEYS, Condition
from fhir_server.search.sight import Sight
from fhir_server.search.values import UnknownParameter
from fhir_server.store import MAX_PAGE_BYTES
from fhir_server.version import Version

MAX_INCLUDED = 5000  # resources of a page
MAX_ROUNDS = 5  # of :iterate
_CHUNK = 200  # keys of one query: as many scans of an index as are merged in order


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include` or `_revinclude`. codes: the reference parameters of the source; target: only this type."""

    source: str
    codes: tuple[str, ...]
    target: str | None
    reverse: bool
    iterate: bool


def parse_include(resource_type: str, name: str, modifier: str, value: str) -> Include:
    """`ServiceRequest:subject:Patient`, `ServiceRequest:*` or `*`. Raises BadRequest, UnknownParameter."""
    if modifier not in ("", "iterate", "recurse"):  # recurse: the name before R4
        raise BadRequest(f"{name} has the modifier iterate and no other")
    reverse, iterate = name == "_revinclude", bool(modifier)
    if value == "*" and not reverse:
        value = f"{resource_type}:*"
    source, _, rest = value.partition(":")
    code, _, target = rest.partition(":")
    if (
        not code
        or source not in conformance.resource_types()
        or (target and target not in conformance.resource_types())
    ):
        raise BadRequest(f"{name} takes Type:parameter or Type:parameter:Target")
    offered = tuple(code for code, rule in rules(source).items() if rule.parameter.type == "reference")
    if code != "*" and code not in offered:
        raise UnknownParameter(f"{source} has no reference parameter {code[:80]!r}; it has {', '.join(offered)}")
    return Include(source, offered if code == "*" else (code,), target or None, reverse, iterate)


def collect(sight: Sight, includes: list[Include], matches: list[Version]) -> tuple[list[Version], bool]:
    """What the matches include, each once; and whether that is all of it. What is referred to is found by one query
    a round, whatever its types."""
    seen = {(version.resource_type, version.id) for version in matches}
    included: list[Version] = []
    size = 0
    sources = matches
    for round in range(MAX_ROUNDS):
        found: list[Version] = []
        now = [include for include in includes if include.iterate or not round]
        wanted = {target for one in now if not one.reverse for target in _referred(one, sources)} - seen
        looks = [sight.current(sorted(wanted)), *(_referrers(sight, one, sources) for one in now if one.reverse)]
        for version in chain.from_iterable(looks):
            if (version.resource_type, version.id) not in seen:
                seen.add((version.resource_type, version.id))
                found.append(version)
                size += len(version.body or b"")
            if len(included) + len(found) > MAX_INCLUDED or size > MAX_PAGE_BYTES:
                return [*included, *found][:MAX_INCLUDED], False
        if not found:
            return included, True
        included += found
        sources = found
    return included, not any(include.iterate for include in includes)


def _referred(include: Include, sources: list[Version]) -> Iterator[tuple[str, str]]:
    """(type, id) of what the sources refer to by it."""
    prefixes = tuple(f"{code}=" for code in include.codes)
    for version in sources:
        if version.resource_type != include.source:
            continue
        for key in version.keys:
            target = RELATIVE.fullmatch(key.partition("=")[2]) if key.startswith(prefixes) else None
            if target and include.target in (None, target[1]) and target[1] in conformance.resource_types():
                yield target[1], target[2]


def _referrers(sight: Sight, include: Include, targets: list[Version]) -> Iterator[Version]:
    if not sight.may_include(include.source):
        return
    keys = [
        f"{code}={version.reference}"
        for version in targets
        if include.target in (None, version.resource_type)
        for code in include.codes
    ]
    for chunk in _chunks(keys):
        having = Condition({"keys": {"$in": chunk}}, KEYS)
        page = sight.page(include.source, [having], [("n", -1)], MAX_INCLUDED + 1, KEYS, included=True)
        while True:
            yield from page.versions
            if not page.cut:
                break
            behind = Condition({"n": {"$lt": page.versions[-1].created}})
            page = sight.page(include.source, [having, behind], [("n", -1)], MAX_INCLUDED + 1, KEYS, included=True)


def _chunks(values: list) -> Iterable[list]:
    return (values[at : at + _CHUNK] for at in range(0, len(values), _CHUNK))
