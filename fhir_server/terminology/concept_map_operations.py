"""$translate of ConceptMap. https://hl7.org/fhir/R4/conceptmap-operation-translate.html"""

from fhir_server.errors import NotFound
from fhir_server.operation import OperationRequest
from fhir_server.operations.parameters import Parameters
from fhir_server.terminology import concept_map as maps
from fhir_server.terminology.answered import parameters
from fhir_server.terminology.asked import checked, coded_values, missing, only_one
from fhir_server.terminology.source import Terminology

_TRANSLATE = {
    "url": ("uri", 1),
    "conceptMap": ("ConceptMap", 1),
    "conceptMapVersion": ("string", 1),
    "code": ("code", 1),
    "system": ("uri", 1),
    "version": ("string", 1),
    "source": ("uri", 1),
    "coding": ("Coding", 1),
    "codeableConcept": ("CodeableConcept", 1),
    "target": ("uri", 1),
    "targetsystem": ("uri", 1),
    "reverse": ("boolean", 1),
}


def translate(terminology: Terminology, request: OperationRequest) -> dict:
    """What concept maps make of the codes asked about; all maps that are known here, unless one is named."""
    given = Parameters(request, _TRANSLATE)
    request.access.require_every("read", "ConceptMap")
    reverse, codings = given.value("reverse", False), coded_values(given, "version", need_system=False)
    named = _concept_map(terminology, request, given)
    source, target = given.value("source"), given.value("target")
    matches: dict[maps.Match, None] = {}
    for coded in codings:
        if named is None and coded.system is None:
            raise missing("system", coded.path)
        candidates = [named] if named is not None else terminology.concept_maps(coded.system or "", reverse)
        for one in candidates:
            if maps.fits(one, *((target, source) if reverse else (source, target))):
                found = maps.translate(
                    one, coded.system, coded.code, given.value("targetsystem"), reverse, terminology.concept_map
                )
                matches |= dict.fromkeys(found)
    result = any(match.equivalence not in maps.NO_MATCH for match in matches)
    message = None if result else "no concept map that is known here has a match"
    return parameters(
        ("result", "Boolean", result),
        ("message", "String", message),
        *({"name": "match", "part": _matched(match)} for match in matches),
    )


def _concept_map(terminology: Terminology, request: OperationRequest, given: Parameters) -> dict | None:
    """The ConceptMap of the address, the one sent, the one with the URL, or None when any will do."""
    only_one(request, given, "url", "conceptMap")
    if request.id is not None:
        return terminology.repository.read(request.access, "ConceptMap", request.id).resource()
    if (sent := given.one("conceptMap")) is not None:
        return checked(terminology, sent)
    if (url := given.one("url")) is None:
        return None
    found = terminology.concept_map(url.value, given.value("conceptMapVersion"))
    if found is None:
        raise NotFound(f"the concept map {url.value[:200]} is not known here", url.path)
    return found


def _matched(match: maps.Match) -> list[dict]:
    parts: list[dict] = [{"name": "equivalence", "valueCode": match.equivalence}]
    parts += [{"name": "concept", "valueCoding": match.concept}] if match.concept else []
    return parts + ([{"name": "source", "valueUri": match.source}] if match.source else [])
