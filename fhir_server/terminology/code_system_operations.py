"""$lookup, $validate-code and $subsumes of CodeSystem. https://hl7.org/fhir/R4/codesystem-operations.html"""

from typing import Any

from fhir_server.errors import BadRequest, Issue, NotFound, Unprocessable
from fhir_server.operation import OperationRequest
from fhir_server.operations.parameters import MANY, Given, Parameters
from fhir_server.terminology.answered import parameters, unfit, validated
from fhir_server.terminology.asked import CODED, Coded, checked, coded_values, missing, of_pair, only_one
from fhir_server.terminology.code_system import CodeSystem, Concept, display_of
from fhir_server.terminology.source import Terminology

_IN_CODE_SYSTEM = {
    **CODED,
    "url": ("uri", 1),
    "codeSystem": ("CodeSystem", 1),
    "version": ("string", 1),
    "abstract": ("boolean", 1),
    "displayLanguage": ("code", 1),
}

_LOOKUP = {
    "code": ("code", 1),
    "system": ("uri", 1),
    "version": ("string", 1),
    "coding": ("Coding", 1),
    "displayLanguage": ("code", 1),
    "property": ("code", MANY),
}

_SUBSUMES = {
    "codeA": ("code", 1),
    "codeB": ("code", 1),
    "system": ("uri", 1),
    "version": ("string", 1),
    "codingA": ("Coding", 1),
    "codingB": ("Coding", 1),
}


def validate_in_code_system(terminology: Terminology, request: OperationRequest) -> dict:
    """Whether one of the codes asked about is in the code system."""
    given = Parameters(request, _IN_CODE_SYSTEM)
    code_system = _code_system(terminology, request, given)

    def fault(coded: Coded) -> tuple[str | None, str | None]:
        if coded.system not in (None, code_system.url):
            return f"{coded.system}|{coded.code} is not of {code_system.url}", None
        concept = code_system.find(coded.code)
        if concept is None:
            _require_complete(code_system)
            return f"{code_system.url} has no code {coded.code}", None
        names = [concept.display, *(one.get("value") for one in concept.designations)]
        display = display_of(concept, given.value("displayLanguage"))
        return unfit(coded, concept, code_system.version, names, given), display

    return validated(coded_values(given, "version", need_system=False), fault)


def lookup(terminology: Terminology, request: OperationRequest) -> dict:
    """What the code system says of a code. Raises NotFound."""
    given = Parameters(request, _LOOKUP)
    request.access.require_every("read", "CodeSystem")
    coded = coded_values(given, "version", need_system=True)[0]
    if coded.system is None:
        raise BadRequest("a system is needed", coded.path)
    code_system = terminology.code_system(coded.system, coded.version)
    concept = code_system.find(coded.code) if code_system is not None else None
    if code_system is None or concept is None:
        shown = coded.system if code_system is None else f"{coded.system}|{coded.code}"
        raise NotFound(f"{shown[:300]} is not known here", coded.path)
    found = [("name", "String", code_system.name), ("version", "String", code_system.version)]
    found += [("display", "String", display_of(concept, given.value("displayLanguage")) or concept.code)]
    return parameters(
        *found,
        *({"name": "designation", "part": _designation(one)} for one in concept.designations if "value" in one),
        *_properties(concept, given.values("property")),
    )


def subsumes(terminology: Terminology, request: OperationRequest) -> dict:
    """equivalent, subsumes, subsumed-by or not-subsumed: how the first code stands to the second."""
    given = Parameters(request, _SUBSUMES)
    request.access.require_every("read", "CodeSystem")
    one, other = of_pair(given, "A"), of_pair(given, "B")
    systems = {coded.system for coded in (one, other) if coded.system is not None}
    if len(systems) > 1:
        raise BadRequest("both codes are of one system")
    if request.id is not None:
        code_system = terminology.compiled(terminology.repository.read(request.access, "CodeSystem", request.id))
        if systems - {code_system.url}:
            raise BadRequest("the system is not the one of the address")
    else:
        if not systems:
            raise missing("system")
        code_system = loaded(terminology, systems.pop(), one.version or other.version)
    codes = []
    for coded in (one, other):
        concept = code_system.find(coded.code)
        if concept is None:
            raise NotFound(f"{code_system.url}|{coded.code} is not known here", coded.path)
        codes.append(concept.code)
    return parameters(("outcome", "Code", _relation(code_system, *codes)))


def _code_system(terminology: Terminology, request: OperationRequest, given: Parameters) -> CodeSystem:
    only_one(request, given, "url", "codeSystem")
    if request.id is not None:
        return terminology.compiled(terminology.repository.read(request.access, "CodeSystem", request.id))
    request.access.require_every("read", "CodeSystem")
    if (sent := given.one("codeSystem")) is not None:
        return CodeSystem(checked(terminology, sent))
    url = given.one("url")
    if url is None and (coding := given.one("coding")) is not None and isinstance(coding.value.get("system"), str):
        url = Given(coding.value["system"], coding.path)  # a Coding says of which system it is
    if url is None:
        raise missing("url")
    return loaded(terminology, url.value, given.value("version"), url.path)


def loaded(terminology: Terminology, url: str, version: str | None, path: str | None = None) -> CodeSystem:
    found = terminology.code_system(url, version)
    if found is None:
        shown = f"{url}|{version}" if version else url
        raise NotFound(f"the code system {shown[:300]} is not known here", path)
    return found


def _require_complete(code_system: CodeSystem) -> None:
    if not code_system.is_complete:
        raise Unprocessable(
            f"not all codes of {code_system.url} are loaded here, so that this one cannot be judged",
            issues=[Issue("not-supported", f"not all codes of {code_system.url} are loaded here")],
        )


def _designation(designation: dict) -> list[dict]:
    types = {"language": "Code", "use": "Coding", "value": "String"}
    return [{"name": name, f"value{types[name]}": designation[name]} for name in types if name in designation]


def _properties(concept: Concept, wanted: list[str]) -> list[dict]:
    """The properties asked for; all, when none is named. Definition and hierarchy are among them."""
    rows: list[tuple[str, str, Any]] = []
    if concept.definition:
        rows.append(("definition", "valueString", concept.definition))
    rows.append(("inactive", "valueBoolean", concept.inactive))
    rows += [("parent", "valueCode", parent) for parent in concept.parents]
    rows += [("child", "valueCode", child) for child in concept.children]
    for one in concept.properties:
        if one.get("code") not in ("parent", "child", "inactive"):
            rows += [(one["code"], key, value) for key, value in one.items() if key.startswith("value")]
    return [
        {"name": "property", "part": [{"name": "code", "valueCode": code}, {"name": "value", key: value}]}
        for code, key, value in rows
        if not wanted or code in wanted
    ]


def _relation(code_system: CodeSystem, one: str, other: str) -> str:
    if one == other:
        return "equivalent"
    if code_system.subsumes(one, other):
        return "subsumes"
    return "subsumed-by" if code_system.subsumes(other, one) else "not-subsumed"
