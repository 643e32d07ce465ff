"""$expand and $validate-code of ValueSet. https://hl7.org/fhir/R4/valueset-operations.html"""

import uuid
from collections.abc import Mapping

from fhir_server.errors import BadRequest, NotFound
from fhir_server.index.text import fold
from fhir_server.operation import OperationRequest
from fhir_server.operations.parameters import MANY, Parameters
from fhir_server.prepare import instant
from fhir_server.terminology.answered import unfit, validated
from fhir_server.terminology.asked import CODED, Coded, checked, coded_values, only_one
from fhir_server.terminology.source import Terminology
from fhir_server.terminology.value_set import Composer, Member, Versions

LANGUAGES = "urn:ietf:bcp:47"


_EXPAND = {
    "url": ("uri", 1),
    "valueSet": ("ValueSet", 1),
    "valueSetVersion": ("string", 1),
    "filter": ("string", 1),
    "offset": ("integer", 1),
    "count": ("integer", 1),
    "includeDesignations": ("boolean", 1),
    "designation": ("string", MANY),
    "includeDefinition": ("boolean", 1),
    "activeOnly": ("boolean", 1),
    "excludeNested": ("boolean", 1),  # as these expansions always are
    "excludeNotForUI": ("boolean", 1),
    "excludePostCoordinated": ("boolean", 1),  # there are none here
    "displayLanguage": ("code", 1),
    "exclude-system": ("canonical", MANY),
    "system-version": ("canonical", MANY),
    "check-system-version": ("canonical", MANY),
    "force-system-version": ("canonical", MANY),
}

_IN_VALUE_SET = {
    **CODED,
    "url": ("uri", 1),
    "valueSet": ("ValueSet", 1),
    "valueSetVersion": ("string", 1),
    "system": ("uri", 1),
    "systemVersion": ("string", 1),
    "abstract": ("boolean", 1),
    "displayLanguage": ("code", 1),
}


def expand(terminology: Terminology, request: OperationRequest) -> dict:
    """The ValueSet with its expansion, flat; `offset` and `count` take a part. Raises CannotExpand, NotFound."""
    given = Parameters(request, _EXPAND)
    value_set = _value_set(terminology, request, given)
    composer = Composer(terminology, _versions(given))
    members = _filtered(composer.expand(value_set), given)
    offset, count = given.value("offset", 0), given.value("count")
    part = members[offset:] if count is None else members[offset : offset + count]
    left_out = {"id", "meta", "text", "expansion", *(() if given.value("includeDefinition") else ("compose",))}
    expansion = {
        "identifier": f"urn:uuid:{uuid.uuid4()}",
        "timestamp": instant(terminology.repository.clock()),
        "total": len(members),
        "offset": offset,
        "parameter": [*_used(given), *({"name": "version", "valueUri": url} for url in composer.used)],
        "contains": [_contained(member, given) for member in part],
    }
    kept = {name: value for name, value in value_set.items() if name not in left_out}
    return kept | {"expansion": {name: value for name, value in expansion.items() if value != []}}


def validate_in_value_set(terminology: Terminology, request: OperationRequest) -> dict:
    """Whether one of the codes asked about is in the value set. Raises CannotExpand where that cannot be told."""
    given = Parameters(request, _IN_VALUE_SET)
    value_set = _value_set(terminology, request, given)
    composer = Composer(terminology)
    name = value_set.get("url") or "the value set"

    def fault(coded: Coded) -> tuple[str | None, str | None]:
        if coded.system is None:
            return "a code without its system is in no value set", None
        member = composer.find(value_set, coded.system, coded.code)
        if member is None:
            return f"{coded.system}|{coded.code} is not in {name}", None
        names = [member.display, *(one.get("value") for one in member.designations)]
        display = _display(member, given.value("displayLanguage"))
        return unfit(coded, member.concept, member.version, names, given), display

    return validated(coded_values(given, "systemVersion", need_system=True), fault)


def _value_set(terminology: Terminology, request: OperationRequest, given: Parameters) -> dict:
    """The ValueSet of the address, of the parameter `valueSet`, or the one with the URL."""
    only_one(request, given, "url", "valueSet")
    if request.id is not None:
        return terminology.repository.read(request.access, "ValueSet", request.id).resource()
    request.access.require_every("read", "ValueSet")
    if (sent := given.one("valueSet")) is not None:
        return checked(terminology, sent)
    url = given.required("url")
    found = terminology.value_set(url.value, given.value("valueSetVersion"))
    if found is None:
        raise NotFound(f"the value set {url.value[:200]} is not known here", url.path)
    return found


def _filtered(members: list[Member], given: Parameters) -> list[Member]:
    """Those that the parameters of $expand leave."""
    words, left_out = fold(given.value("filter", "")).split(), set(given.values("exclude-system"))
    return [
        member
        for member in members
        if not (given.value("activeOnly", False) and member.inactive)
        and not (given.value("excludeNotForUI", False) and member.abstract)
        and left_out.isdisjoint((member.system, f"{member.system}|{member.version}"))
        and all(word in fold(f"{member.code} {member.display or ''}") for word in words)
    ]


def _versions(given: Parameters) -> Versions:
    def named(name: str) -> Mapping[str, str]:
        found = {}
        for one in given.all(name):
            url, bar, version = one.value.partition("|")
            if not (url and bar and version):
                raise BadRequest(f"{name} has the form url|version", one.path)
            found[url] = version
        return found

    return Versions(named("system-version"), named("check-system-version"), named("force-system-version"))


def _used(given: Parameters) -> list[dict]:
    """The parameters that shaped the expansion, as ValueSet.expansion.parameter has them."""
    types = {"string": "String", "code": "Code", "integer": "Integer", "boolean": "Boolean", "canonical": "Uri"}
    return [
        {"name": name, f"value{types[kind]}": value}
        for name, (kind, _most) in _EXPAND.items()
        if kind in types
        for value in given.values(name)
    ]


def _contained(member: Member, given: Parameters) -> dict:
    row: dict = {"system": member.system}
    row |= {"abstract": True} if member.abstract else {}
    row |= {"inactive": True} if member.inactive else {}
    row |= {"version": member.version} if member.version else {}
    display = _display(member, given.value("displayLanguage"))
    row |= {"code": member.code} | ({"display": display} if display else {})
    if given.value("includeDesignations", False) or given.all("designation"):
        wanted = given.values("designation")
        shown = [one for one in member.designations if not wanted or not _tokens(one).isdisjoint(wanted)]
        row |= {"designation": shown} if shown else {}
    return row


def _tokens(designation: dict) -> set[str]:
    """What a designation is asked for by: its language, with or without the system of languages, and its use."""
    language, use = designation.get("language"), designation.get("use", {})
    return {f"{LANGUAGES}|{language}", f"{language}", f"{use.get('system')}|{use.get('code')}"}


def _display(member: Member, language: str | None) -> str | None:
    for designation in member.designations:
        if language is not None and str(designation.get("language", "")).lower() == language.lower():
            return designation.get("value")
    return member.display
