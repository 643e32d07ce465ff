"""_summary and _elements: matches with some of their elements. https://hl7.org/fhir/R4/search.html#summary"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from fhir_server import fhir_json
from fhir_server.elements import elements
from fhir_server.errors import BadRequest
from fhir_server.version import Version

Subset = Callable[[dict], dict]

_SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
_ALWAYS = frozenset({"resourceType", "id", "meta"})
SUMMARIES = ("true", "text", "data", "count", "false")


def of_summary(kind: str) -> Subset | None:
    """What `_summary` leaves of a resource; None when that is all of it."""
    kinds: dict[str, Subset] = {
        "true": _summary,
        "text": partial(_only, names=frozenset({"text"})),
        "data": _without_text,
    }
    return kinds.get(kind)


def of_elements(names: frozenset[str]) -> Subset:
    """What `_elements` leaves: the elements asked for and the mandatory ones."""
    return partial(_only, names=names)


def of_read(given: Mapping[str, str]) -> Subset | None:
    """What the parameters of a read leave of the resource; None when that is all. Raises BadRequest."""
    summary = given.get("_summary", "false")
    if summary not in ("true", "text", "data", "false"):
        raise BadRequest("_summary of one resource is true, text, data or false")
    if "_elements" not in given:
        return of_summary(summary)
    names = frozenset(name.strip() for name in given["_elements"].split(","))
    if summary != "false":
        raise BadRequest("_elements and _summary exclude each other")
    if not all(name.isascii() and name.isalnum() for name in names):
        raise BadRequest("_elements is names of elements, separated by commas")
    return of_elements(names)


def reduced(version: Version, subset: Subset) -> Version:
    """The version with that part of its content, marked so that nobody takes it for the whole."""
    resource = subset(version.resource())
    meta = resource.get("meta", {})
    resource["meta"] = {**meta, "tag": [*meta.get("tag", []), _SUBSETTED]}
    return replace(version, body=fhir_json.dumps(resource))


def _only(resource: dict, names: frozenset[str]) -> dict:
    known = elements(resource["resourceType"])
    mandatory = {name for name, element in known.items() if element.mandatory}
    kept = _ALWAYS | names | mandatory
    # `_status` carries the extensions of `status`; `value` asks for whichever type of value[x] is there.
    return {
        name: value
        for name, value in resource.items()
        if name.lstrip("_") in kept or any(_is_choice(name.lstrip("_"), asked) for asked in names)
    }


def _is_choice(name: str, asked: str) -> bool:
    return name.startswith(asked) and name[len(asked) : len(asked) + 1].isupper()


def _without_text(resource: dict) -> dict:
    return {name: value for name, value in resource.items() if name != "text"}


def _summary(resource: dict) -> dict:
    return _summarized(resource, resource["resourceType"])


def _summarized(content: dict, type: str) -> dict:
    """The elements of the summary, in the parts of a resource too; data types are left whole."""
    known = elements(type)
    if not known:
        return dict(content)
    kept: dict = {}
    for name, value in content.items():
        element = known.get(name.lstrip("_"))
        if name in _ALWAYS or (element and element.summary):
            part = element.type if element and element.type and element.type.startswith(type) else None
            kept[name] = _each(value, part) if part else value
    return kept


def _each(value: object, type: str) -> object:
    if isinstance(value, list):
        return [_each(item, type) for item in value]
    return _summarized(value, type) if isinstance(value, dict) else value
