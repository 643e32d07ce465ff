"""$everything: a patient's record, an encounter, or a whole referral, with what is needed to read it.
https://hl7.org/fhir/R4/patient-operation-everything.html

Pages go on by type and by creation within it, so that nothing is lost or repeated while others write. What supports
the entries of a page (practitioners, organizations, slots ...) comes with that page as `include`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from urllib.parse import urlencode

import conformance
from fhir_server import fhir_json, references
from fhir_server.bundle import Page, assemble
from fhir_server.errors import BadRequest, Issue
from fhir_server.index import rules
from fhir_server.index.spans import EARLIEST, LATEST, WIDE, Span, date_span
from fhir_server.operation import Answer, Operation, OperationRequest
from fhir_server.operations.parameters import Parameters
from fhir_server.prepare import instant
from fhir_server.repository import Repository
from fhir_server.search.condition import KEYS, Condition
from fhir_server.search.sight import Sight
from fhir_server.search.values import TooCostly
from fhir_server.store import MAX_PAGE_BYTES
from fhir_server.version import Version

PATIENT = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
ENCOUNTER = "http://hl7.org/fhir/OperationDefinition/Encounter-everything"
REFERRAL = f"{conformance.CANONICAL}/OperationDefinition/referral-everything"
MAX_COUNT = 1000  # and what a client gets who names no number: nearly always all of it
MAX_REFERRAL = 5000  # resources of one order
ROUNDS = 3  # order <- Appointment <- AppointmentResponse <- Provenance
HOPS = 2  # Task -> PractitionerRole -> Organization
_KNOWN = {"_since": ("instant", 1), "_type": ("code", 100), "_count": ("integer", 1), "_after": ("string", 1)}
_OF_PATIENT = {**_KNOWN, "start": ("date", 1), "end": ("date", 1)}
# The search parameter that tells when the care was, which `start` and `end` are about. What has no such date, or is
# of another type, is about no time in particular.
_CARE_DATES = {
    "AdverseEvent": "date",
    "AllergyIntolerance": "date",
    "Appointment": "date",
    "CarePlan": "date",
    "CareTeam": "date",
    "ClinicalImpression": "date",
    "Communication": "sent",
    "Composition": "date",
    "Condition": "onset-date",
    "DiagnosticReport": "date",
    "DocumentReference": "date",
    "Encounter": "date",
    "EpisodeOfCare": "date",
    "FamilyMemberHistory": "date",
    "ImagingStudy": "started",
    "Immunization": "date",
    "MedicationAdministration": "effective-time",
    "MedicationDispense": "whenhandedover",
    "MedicationRequest": "authoredon",
    "MedicationStatement": "effective",
    "Observation": "date",
    "Procedure": "date",
    "QuestionnaireResponse": "authored",
    "RiskAssessment": "date",
    "ServiceRequest": "authored",
}
_AFTER = re.compile(r"([A-Za-z]{1,64})\.(\d{1,19})", re.ASCII)
_IDS = "id_v"  # index of the store
_CHUNK = 200
# Who looked at an order is not part of it; there may be far more of that than of anything else.
_NOT_OF_A_REFERRAL = frozenset({"AuditEvent"})


@dataclass(frozen=True, slots=True)
class Part:
    """The resources of one type that belong to what was asked for. index: the one that finds them."""

    condition: Condition
    index: str = KEYS


# What belongs to the resource with this id, by type.
Selection = Callable[[Sight, str], Mapping[str, Part]]


def operations(repository: Repository) -> list[Operation]:
    selections: tuple[tuple[str, str, Selection], ...] = (
        ("Patient", PATIENT, _patient),
        ("Encounter", ENCOUNTER, _encounter),
        ("ServiceRequest", REFERRAL, _referral),
    )
    return [
        Operation(
            "everything",
            definition,
            resource_type,
            instance=True,
            type_level=False,
            affects_state=False,
            handler=partial(everything, repository, selection),
        )
        for resource_type, definition, selection in selections
    ]


def everything(repository: Repository, selection: Selection, request: OperationRequest) -> Answer:
    """A searchset of what the caller may see of it. Raises NotFound, Gone, Forbidden, BadRequest, TooCostly.

    _since holds for what belongs to the resource, not for what supports it.
    """
    given = Parameters(request, _OF_PATIENT if request.resource_type == "Patient" else _KNOWN)
    focus = repository.read(request.access, request.resource_type or "", request.id or "")
    sight = Sight(repository.store, request.access)
    parts = selection(sight, focus.id)
    wanted = _wanted(given)
    # Supporting resources are found through what they support, so for them all of it is walked.
    walked = set(parts) if wanted is None or wanted - parts.keys() else wanted
    types = sorted(sight.searchable_types(walked), key=lambda type: (type != focus.resource_type, type))
    count = min(given.value("_count", MAX_COUNT), MAX_COUNT)
    if count == 0:
        raise BadRequest("_count is at least 1 here")
    matches, more = _page(sight, parts, types, given, count)
    supporting, complete = _supporting(sight, matches, repository.base_url, _patients(focus))
    page = _head(repository, request, given, matches[-1] if more else None)
    for mode, versions in (("match", matches), ("include", supporting)):
        for version in versions:
            if wanted is None or version.resource_type in wanted:
                full_url = {"fullUrl": f"{repository.base_url}/{version.reference}"}
                body = repository.seen(request.access, version).body
                page.entries.append((full_url, body, {"search": {"mode": mode}}))
    if not complete:
        page.entries.append(({}, fhir_json.dumps(_incomplete()), {"search": {"mode": "outcome"}}))
    return Answer(assemble(page))


def _patient(_sight: Sight, id: str) -> dict[str, Part]:
    """The patient's compartment: its key stands with everything that is in it (`fhir_server.scope`)."""
    of_patient = Part(Condition({"keys": f"@Patient/{id}"}, KEYS))
    return dict.fromkeys({"Patient", *conformance.compartment("Patient")}, of_patient)


def _encounter(_sight: Sight, id: str) -> dict[str, Part]:
    """The encounter and its compartment."""
    parts = {}
    for type, codes in conformance.compartment("Encounter").items():
        keys = [f"{code}=Encounter/{id}" for code in codes if code in rules(type)]
        parts[type] = Part(Condition({"keys": {"$in": keys}}, KEYS))
    return parts | {"Encounter": Part(Condition({"keys": f"_id={id}"}, KEYS))}


def _referral(sight: Sight, id: str) -> dict[str, Part]:
    """The order, what refers to it, and in turn to that. Raises TooCostly for more than MAX_REFERRAL resources."""
    found: set[tuple[str, str]] = {("ServiceRequest", id)}
    edge = found
    types = sight.searchable_types(sorted(conformance.resource_types() - _NOT_OF_A_REFERRAL))
    for _ in range(ROUNDS):
        edge = {target for type in types for target in _referrers(sight, type, edge)} - found
        found |= edge
        if len(found) > MAX_REFERRAL:
            raise TooCostly(f"more than {MAX_REFERRAL} resources belong to this order; ask for them by search")
    by_type: dict[str, list[str]] = {}
    for type, found_id in sorted(found):
        by_type.setdefault(type, []).append(found_id)
    return {type: Part(Condition({"id": {"$in": ids}}), _IDS) for type, ids in by_type.items()}


def _referrers(sight: Sight, type: str, targets: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    keys = [
        f"{code}={target}/{id}"
        for target, id in sorted(targets)
        for code, allowed in _reference_parameters(type)
        if not allowed or target in allowed
    ]
    for at in range(0, len(keys), _CHUNK):
        having = Condition({"keys": {"$in": keys[at : at + _CHUNK]}}, KEYS)
        yield from ((type, id) for id in sight.ids(type, [having], MAX_REFERRAL + 1, KEYS))


@cache
def _reference_parameters(type: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(code, types that it may lead to) of a type's reference parameters."""
    found = (rule.parameter for rule in rules(type).values())
    return tuple((parameter.code, parameter.targets) for parameter in found if parameter.type == "reference")


def _wanted(given: Parameters) -> frozenset[str] | None:
    """The types named by `_type`, which may repeat and have commas; None when all are wanted."""
    named = [(one.path, name) for one in given.all("_type") for name in one.value.split(",")]
    for path, name in named:
        if name not in conformance.resource_types():
            raise BadRequest(f"{name[:64]!r} is no FHIR R4 resource type", path)
    return frozenset(name for _, name in named) if named else None


def _page(
    sight: Sight, parts: Mapping[str, Part], types: list[str], given: Parameters, count: int
) -> tuple[list[Version], bool]:
    """The matches after the position that a next link names, at most `count`; and whether there are more."""
    since, after, care = given.value("_since"), _position(given, types), _care(given)
    met = [Condition({"lu": {"$gte": since}})] if since is not None else []
    found: list[Version] = []
    size = 0
    for type in types[types.index(after[0]) :] if after else types:
        behind = [Condition({"n": {"$gt": after[1]}})] if after and after[0] == type else []
        part = parts[type]
        conditions = [part.condition, *met, *behind, *_within(type, care)]
        page = sight.page(type, conditions, [("n", 1)], count - len(found) + 1, part.index)
        for version in page.versions:
            size += len(version.body or b"")
            if len(found) == count or (found and size > MAX_PAGE_BYTES):
                return found, True
            found.append(version)
        if page.cut:
            return found, True
    return found, False


def _care(given: Parameters) -> Span | None:
    """From the first moment of `start` to the last one of `end`; None when neither is given."""
    if not given.all("start") and not given.all("end"):
        return None
    start, end = (date_span(given.value(name, "")) for name in ("start", "end"))
    return (start[0] if start else EARLIEST), (end[1] if end else LATEST)


def _within(type: str, care: Span | None) -> list[Condition]:
    """That the care was in this span of time, as far as the resource says when it was."""
    code = _CARE_DATES.get(type)
    if care is None or code is None:
        return []
    some = {"r": {"$elemMatch": {"p": {"$in": [code, code + WIDE]}, "lo": {"$lt": care[1]}, "hi": {"$gt": care[0]}}}}
    return [Condition({"$or": [{"keys": {"$ne": f"+{code}"}}, some]})]


def _position(given: Parameters, types: list[str]) -> tuple[str, int] | None:
    after = given.one("_after")
    if after is None:
        return None
    match = _AFTER.fullmatch(after.value)
    if match is None or match[1] not in types or int(match[2]) >= 2**63:
        raise BadRequest("_after is what a next link says", after.path)
    return match[1], int(match[2])


def _supporting(
    sight: Sight, matches: list[Version], base_url: str, patients: set[str]
) -> tuple[list[Version], bool]:
    """What the matches refer to, and what that refers to, each once; and whether it is all.

    Nothing of another patient: a reference to it does not make it part of this record.
    """
    seen = {(version.resource_type, version.id) for version in matches}
    found: list[Version] = []
    sources, size = matches, 0
    for _ in range(HOPS):
        targets = sorted({target for version in sources for target in _targets(version, base_url)} - seen)
        seen |= set(targets)
        sources = []
        for at in range(0, len(targets), _CHUNK):
            for version in sight.current(targets[at : at + _CHUNK]):
                size += len(version.body or b"")
                if _patients(version) <= patients:
                    sources.append(version)
            if size > MAX_PAGE_BYTES:
                return [*found, *sources], False
        found += sources
    return found, True


def _targets(version: Version, base_url: str) -> Iterator[tuple[str, str]]:
    """The (type, id) of all local references of a resource, attachments included."""
    resource = version.resource()
    for _path, element in references.each(resource, ""):
        if (target := references.local(element["reference"], base_url)) is not None:
            yield target
    for address in _addresses(resource):
        target = references.local(address, base_url)
        if target is not None and target[0] == "Binary":
            yield target


def _addresses(value: Any) -> Iterator[str]:
    """Every `url` below a value, as Attachments have them."""
    if isinstance(value, dict):
        if isinstance(value.get("url"), str):
            yield value["url"]
        for child in value.values():
            yield from _addresses(child)
    elif isinstance(value, list):
        for child in value:
            yield from _addresses(child)


def _patients(version: Version) -> set[str]:
    """The keys of the patients whose records a resource belongs to."""
    return {key for key in version.scope if key.startswith("@Patient/")}


def _head(repository: Repository, request: OperationRequest, given: Parameters, last: Version | None) -> Page:
    """The searchset before it has entries. last: the last match when there are more."""
    address = f"{repository.base_url}/{request.resource_type}/{request.id}/$everything"
    kept = [("_type", ",".join(given.values("_type")))] if given.all("_type") else []
    kept += [("_since", instant(given.value("_since")))] if given.all("_since") else []
    kept += [(name, given.value(name)) for name in ("start", "end") if given.all(name)]
    kept += [("_count", str(given.value("_count")))] if given.all("_count") else []
    here = [*kept, ("_after", given.value("_after"))] if given.all("_after") else kept
    links = [{"relation": "self", "url": f"{address}?{urlencode(here)}".rstrip("?")}]
    if last is not None:
        following = [*kept, ("_after", f"{last.resource_type}.{last.created}")]
        links.append({"relation": "next", "url": f"{address}?{urlencode(following)}"})
    return Page({"resourceType": "Bundle", "type": "searchset", "link": links})


def _incomplete() -> dict:
    text = "not all that supports these entries is here; ask for fewer at once with _count"
    issue = Issue("too-costly", text, severity="warning")
    return {"resourceType": "OperationOutcome", "issue": [issue.as_fhir()]}
