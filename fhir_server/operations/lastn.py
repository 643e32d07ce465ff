"""$lastn: the most recent Observations of each kind. https://hl7.org/fhir/R4/observation-operation-lastn.html"""

from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fhir_server.bundle import Page, assemble
from fhir_server.errors import BadRequest, Issue
from fhir_server.index import rules
from fhir_server.index.spans import date_spans
from fhir_server.operation import Answer, Operation, OperationRequest
from fhir_server.operations.parameters import MAX_WHOLE_NUMBER
from fhir_server.repository import Repository
from fhir_server.search.values import TooCostly
from fhir_server.version import Version

DEFINITION = "http://hl7.org/fhir/OperationDefinition/Observation-lastn"
MAX_OBSERVATIONS = 5000  # that one call looks at
_FILTERS = ("_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_has")
_SUBJECT = ("patient", "subject")
_KIND = ("category", "code", "combo-code", "component-code", "code-value", "combo-code-value", "component-code-value")


def operation(repository: Repository) -> Operation:
    return Operation(
        "lastn",
        DEFINITION,
        "Observation",
        instance=False,
        type_level=True,
        affects_state=False,
        handler=partial(lastn, repository),
    )


def lastn(repository: Repository, request: OperationRequest) -> Answer:
    """A searchset, most recent first: of each group by code `max` Observations, and those as recent as the last."""
    filters, most = _asked(request)
    found = [(version, version.resource()) for version in _observations(repository, request, filters)]
    groups = _groups(_names(resource.get("code")) for _, resource in found)
    taken: dict[int, list[int | None]] = {}
    last: list[Version] = []
    for (version, resource), group in zip(found, groups, strict=True):
        effective, before = _effective(resource), taken.setdefault(group, [])
        if len(before) < most or (effective is not None and effective == before[-1]):
            before.append(effective)
            last.append(version)
    query = urlencode([*filters, ("max", str(most))])
    links = [{"relation": "self", "url": f"{repository.base_url}/Observation/$lastn?{query}"}]
    page = Page({"resourceType": "Bundle", "type": "searchset", "total": len(last), "link": links})
    for version in last:
        full_url = {"fullUrl": f"{repository.base_url}/{version.reference}"}
        page.entries.append((full_url, version.body, {"search": {"mode": "match"}}))
    return Answer(assemble(page))


def _asked(request: OperationRequest) -> tuple[list[tuple[str, str]], int]:
    """The search parameters, and how many of each group. Raises BadRequest."""
    filters: list[tuple[str, str]] = []
    most: int | None = None
    for index, entry in enumerate(request.parameters):
        path = f"Parameters.parameter[{index}]" if index < request.sent else None
        name, text = entry.get("name"), _text(entry)
        if not isinstance(name, str) or text is None:
            raise BadRequest("a parameter has a name and a simple value", path)
        if name == "max":
            if most is not None or not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
                raise BadRequest(f"max is one whole number from 1 to {MAX_WHOLE_NUMBER}", path)
            most = int(text)
        elif name.startswith("_") and name.partition(":")[0] not in _FILTERS:
            raise BadRequest(f"{name[:64]!r} shapes a search; $lastn takes what filters", path)
        else:
            filters.append((name, text))
    names = {_base(name) for name, _ in filters}
    for needed in (_SUBJECT, _KIND):
        if names.isdisjoint(needed):
            text = f"$lastn needs one of {', '.join(needed)}"
            raise BadRequest(text, issues=[Issue("required", text, "Parameters.parameter")])
    return filters, most or 1


def _base(name: str) -> str:
    """`code-value-concept:not` is `code-value` of something, `patient.name` asks for a patient."""
    code = name.partition(":")[0].partition(".")[0]
    return code.rpartition("-")[0] if "code-value-" in code else code


def _text(entry: dict) -> str | None:
    values = [value for key, value in entry.items() if key.startswith("value")]
    if len(values) != 1 or isinstance(values[0], dict | list) or values[0] is None:
        return None
    return str(values[0]).lower() if isinstance(values[0], bool) else str(values[0])


def _observations(
    repository: Repository, request: OperationRequest, filters: list[tuple[str, str]]
) -> Iterable[Version]:
    """All that match, the most recent first; those without a time last."""
    query, found = [*filters, ("_sort", "-date"), ("_count", "1000")], 0
    position: list[tuple[str, str]] | str = query
    while True:
        result = repository.search(request.access, "Observation", position, strict=True)
        found += len(result.matches)
        if found > MAX_OBSERVATIONS:
            raise TooCostly(f"more than {MAX_OBSERVATIONS} Observations match; narrow them, by date say")
        yield from result.matches
        if result.next is None:
            return
        position = result.next


def _names(code: Any) -> list[tuple]:
    """What a code goes by: each of its codings, or else its text."""
    codings = code.get("coding", []) if isinstance(code, dict) else []
    named = [(one.get("system"), one["code"]) for one in codings if isinstance(one, dict) and "code" in one]
    return named or [("text", code.get("text") if isinstance(code, dict) else None)]


def _groups(named: Iterable[list[tuple]]) -> list[int]:
    """The group of each: those that share a name are in one, and so are those that share one with a third."""
    parents: list[int] = []
    first: dict[tuple, int] = {}

    def root(of: int) -> int:
        while parents[of] != of:
            parents[of] = of = parents[parents[of]]
        return of

    for index, names in enumerate(named):
        parents.append(index)
        for name in names:
            parents[root(index)] = root(first.setdefault(name, index))
    return [root(index) for index in range(len(parents))]


def _effective(observation: dict) -> int | None:
    """When it was true: what the search by date sorts by."""
    values = rules("Observation")["date"].path.walk([observation], observation)
    lows = [low for value in values for low, _ in date_spans(value)]
    return min(lows) if lows else None
