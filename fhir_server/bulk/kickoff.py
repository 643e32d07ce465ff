"""What a kick-off request asks for. https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-kick-off-request"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import conformance
from fhir_server.access import Access
from fhir_server.errors import BadRequest, FhirError, Forbidden, Issue, Unprocessable
from fhir_server.references import local
from fhir_server.repository import Repository
from fhir_server.search import check_queries

FORMATS = ("application/fhir+ndjson", "application/ndjson", "ndjson")
MAX_QUERIES = 100
MAX_MEMBERS = 50_000  # of a Group; they have to fit one question to the store
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_QUERY = re.compile(r"([A-Za-z]{1,64})\?(.+)", re.DOTALL)
_NEXT_QUERY = re.compile(r",(?=[A-Z][A-Za-z]{1,63}\?)")  # a comma between queries; those within one stay


@dataclass(slots=True)
class Asked:
    """An export as asked for. level: system, Patient, or Group/<id>. queries: type -> searches, one to be met.

    patients: references to the members of the Group.
    """

    level: str
    types: list[str] = field(default_factory=list)
    patients: tuple[str, ...] | None = None
    since: datetime | None = None
    queries: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[Issue] = field(default_factory=list)

    def as_document(self) -> dict:
        return {
            "level": self.level,
            "types": self.types,
            "patients": None if self.patients is None else list(self.patients),
            "since": self.since,
            "queries": self.queries,
            "ignored": [issue.as_fhir() for issue in self.ignored],
        }


def read_kickoff(
    repository: Repository, access: Access, level: str, parameters: Sequence[tuple[str, str]], lenient: bool
) -> Asked:
    """Raises BadRequest, Forbidden, NotFound. lenient: leave out what is not offered, and say so in the answer."""
    asked = Asked(level)
    texts: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in ("_outputFormat", "_since", "_type", "_typeFilter"):
            texts.setdefault(name, []).append(value)
        elif name not in ("_format", "_pretty"):
            _leave_out(asked, lenient, Issue("not-supported", f"{name[:80]!r} is no parameter of $export here"))
    _check_format(texts.get("_outputFormat", []))
    asked.since = _since(texts.get("_since", []))
    if level.startswith("Group/"):
        asked.patients = members_of(repository, access, level.partition("/")[2])
    asked.types = _types(repository, access, asked, texts.get("_type"), lenient)
    _read_queries(asked, texts.get("_typeFilter", []), anything="_type" not in texts)
    with repository.parameters.current().applied():
        for type, queries in asked.queries.items():
            check_queries(repository.store, access, type, queries, repository.base_url, repository.vocabulary)
    return asked


def members_of(repository: Repository, access: Access, group_id: str) -> tuple[str, ...]:
    """References to the patients of a Group, which the caller must be able to see. Raises NotFound, Unprocessable."""
    group = repository.read(access, "Group", group_id).resource()
    members = (member["entity"] for member in group.get("member", []) if not member.get("inactive"))
    targets = (local(entity.get("reference", ""), repository.base_url) for entity in members)
    patients = tuple(dict.fromkeys("/".join(target) for target in targets if target and target[0] == "Patient"))
    if len(patients) > MAX_MEMBERS:
        raise Unprocessable(f"a Group of more than {MAX_MEMBERS} patients cannot be exported at once", "Group.member")
    return patients


def offered_types(level: str) -> frozenset[str]:
    """The types that an export of this level can have."""
    if level == "system":
        return conformance.resource_types()
    return frozenset(conformance.compartment("Patient")) | {"Patient"}


def may_export(access: Access, resource_type: str) -> bool:
    return access.allows("read", resource_type) and access.allows("search", resource_type)


def _leave_out(asked: Asked, lenient: bool, issue: Issue) -> None:
    if not lenient:
        raise BadRequest(issue.diagnostics, issues=[issue])
    asked.ignored.append(Issue(issue.code, f"left out: {issue.diagnostics}", severity="warning"))


def _check_format(texts: list[str]) -> None:
    # A + that was not escaped reads as a space.
    if any(text.replace(" ", "+") not in FORMATS for text in texts):
        raise _bad("_outputFormat", "one of " + ", ".join(FORMATS))


def _since(texts: list[str]) -> datetime | None:
    if not texts:
        return None
    text = texts[0].replace(" ", "+")
    try:
        if len(texts) > 1 or not _INSTANT.fullmatch(text):
            raise ValueError("no instant")
        return datetime.fromisoformat(text)
    except ValueError:
        raise _bad("_since", "one instant such as 2026-01-31T10:00:00Z") from None


def _types(repository: Repository, access: Access, asked: Asked, texts: list[str] | None, lenient: bool) -> list[str]:
    """The types to export: those asked for, or all that are stored, of this level, and allowed."""
    offered = offered_types(asked.level)
    if texts is None:
        found = [type for type in repository.store.types() if type in offered and may_export(access, type)]
        if not found and not any(may_export(access, type) for type in offered):
            raise Forbidden("no granted scope allows to read and search anything")
        return found
    types = []
    for type in dict.fromkeys(",".join(texts).split(",")):
        if type not in offered:
            where = "R4" if asked.level == "system" else "the Patient compartment"
            _leave_out(asked, lenient, Issue("not-supported", f"{type[:64]!r} is no resource type of {where}"))
        elif not may_export(access, type):
            raise Forbidden(f"no granted scope allows to read and search {type}")
        else:
            types.append(type)
    return types


def _read_queries(asked: Asked, texts: list[str], anything: bool) -> None:
    """anything: all types were asked for, also those that nothing is stored of."""
    queries = [query for text in texts for query in _NEXT_QUERY.split(text)]
    if len(queries) > MAX_QUERIES:
        raise _bad("_typeFilter", f"at most {MAX_QUERIES} queries")
    for text in queries:
        match = _QUERY.fullmatch(text)
        if match is None:
            raise _bad("_typeFilter", "queries such as Task?status=ready")
        if match[1] not in asked.types and not (anything and match[1] in offered_types(asked.level)):
            raise BadRequest(f"_typeFilter is about {match[1]}, which is not exported")
        asked.queries.setdefault(match[1], []).append(match[2])


def _bad(name: str, expected: str) -> FhirError:
    return BadRequest("bad value", issues=[Issue("value", f"{name!r} takes {expected}")])
