"""The parameters of a search, sorted into what filters and what shapes the answer.
https://hl7.org/fhir/R4/search.html#summary
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from fhir_server import paging
from fhir_server.errors import BadRequest, Issue
from fhir_server.index import rules
from fhir_server.search import explain
from fhir_server.search.include import Include, parse_include
from fhir_server.search.order import NEWEST_CREATED, Order, Position, parse
from fhir_server.search.sorting import Sorting
from fhir_server.search.subset import SUMMARIES, Subset, of_elements, of_summary
from fhir_server.search.values import TooCostly, UnknownParameter, bad_value

MAX_PARAMETERS = 100
MAX_COUNT = 1000
MAX_CHAINS = 10
MAX_LINKS = 4  # of a chain
MAX_NAME = 400  # characters of a parameter's name, chain included
_IGNORED = ("_format", "_pretty")
_CONTAINED = {"_contained": ("false", "true", "both"), "_containedType": ("container", "contained")}
_ONCE = ("_count", "_total", "_summary", "_elements", "_sort", *_CONTAINED, paging.PARAMETER, explain.PARAMETER)
_INCLUDES = ("_include", "_revinclude")
COMMON = ("_content", "_filter", "_list", "_text")  # parameters of every type that look at no element
NEVER = {  # and those that are refused, with the reason
    "_query": "no named queries are defined",
}


@dataclass(slots=True)
class Request:
    """A search as asked for. applied: the parameters that were understood, as they stand in the self link.

    contained: whether contained resources are searched: `false`, `true` (these alone) or `both`. contained_type:
    whether what contains them is returned (`container`) or they themselves are (`contained`).
    """

    resource_type: str
    count: int
    strict: bool
    filters: list[tuple[str, str]] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    order: Order | Sorting = NEWEST_CREATED
    page: str | None = None  # the token of a link to another page than the first
    position: Position | None = None
    backward: bool = False  # whether the page comes before the position
    subset: Subset | None = None
    total: str | None = None
    only_total: bool = False
    explain: bool = False
    contained: str = "false"
    contained_type: str = "container"
    applied: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[Issue] = field(default_factory=list)

    def leave_out(self, error: UnknownParameter) -> None:
        """Strict handling refuses what is not known here; lenient handling goes on without it and says so."""
        if self.strict:
            raise error
        issue = error.issues[0] if error.issues else Issue(error.issue_code, error.diagnostics)
        self.ignored.append(Issue(issue.code, f"left out: {issue.diagnostics}", severity="warning"))

    @property
    def query(self) -> str:
        """The self link's query."""
        return urlencode(self.applied)

    @property
    def first(self) -> str:
        """The query of the first page."""
        return urlencode([pair for pair in self.applied if pair[0] != paging.PARAMETER])


def read_request(
    resource_type: str, parameters: Sequence[tuple[str, str]], strict: bool, default_count: int
) -> Request:
    """Raises BadRequest. Filters are sorted out here and understood later."""
    if len(parameters) > MAX_PARAMETERS:
        raise BadRequest(f"a search may have {MAX_PARAMETERS} parameters")
    request = Request(resource_type, default_count, strict)
    once: dict[str, str] = {}
    chains = 0
    for name, value in parameters:
        if name in _IGNORED:
            continue
        _check_text(name, value)
        chains += is_chain(name)
        if chains > MAX_CHAINS or name.count(".") + name.count("_has:") > MAX_LINKS:
            raise TooCostly(f"a search may have {MAX_CHAINS} chains of {MAX_LINKS} links")
        base, _, modifier = name.partition(":")
        try:
            if not value:
                raise UnknownParameter(f"{name[:80]!r} has no value")
            if name in _ONCE:
                if name in once:
                    raise BadRequest(f"{name} is given twice")
                once[name] = value
                if name == explain.PARAMETER:
                    continue  # about this answer alone, and not of the links to other pages
            elif base in _INCLUDES:
                request.includes.append(parse_include(resource_type, base, modifier, value))
            else:
                request.filters.append((name, value))
                continue
        except UnknownParameter as error:
            request.leave_out(error)
        else:
            request.applied.append((name, value))
    _shape(request, once)
    return request


def _shape(request: Request, once: dict[str, str]) -> None:
    if "_count" in once:
        if not once["_count"].isascii() or not once["_count"].isdecimal() or len(once["_count"]) > 9:
            raise bad_value("_count", "a whole number")
        request.count = min(int(once["_count"]), MAX_COUNT)
        at = request.applied.index(("_count", once["_count"]))
        request.applied[at] = ("_count", str(request.count))
    if "_total" in once:
        if once["_total"] not in ("none", "estimate", "accurate"):
            raise bad_value("_total", "none, estimate or accurate")
        request.total = once["_total"]
    summary = once.get("_summary", "false")
    if summary not in SUMMARIES:
        raise bad_value("_summary", ", ".join(SUMMARIES))
    if summary == "text" and request.includes:
        raise BadRequest("_summary=text takes no includes")
    request.only_total = summary == "count"
    request.subset = of_summary(summary)
    if "_elements" in once:
        if request.subset:
            raise BadRequest("_elements and _summary exclude each other")
        request.subset = of_elements(_names(once["_elements"]))
    request.only_total |= request.count == 0
    if "_sort" in once:
        request.order = parse(request.resource_type, once["_sort"])
    for name, values in _CONTAINED.items():
        if once.get(name, values[0]) not in values:
            raise bad_value(name, " or ".join(values))
    request.contained = once.get("_contained", request.contained)
    request.contained_type = once.get("_containedType", request.contained_type)
    if once.get(explain.PARAMETER, "false") not in ("true", "false"):
        raise bad_value(explain.PARAMETER, "true or false")
    request.explain = once.get(explain.PARAMETER) == "true"
    request.page = once.get(paging.PARAMETER)


def _check_text(name: str, value: str) -> None:
    if len(name) > MAX_NAME:
        raise BadRequest(f"the name of a parameter may have {MAX_NAME} characters")
    try:
        (name + value).encode()
    except UnicodeEncodeError:
        raise BadRequest("a parameter is no valid Unicode") from None
    if "\0" in name + value:
        raise BadRequest("a parameter has a character that no text has")


def _names(text: str) -> frozenset[str]:
    names = text.split(",")
    if len(names) > MAX_PARAMETERS or not all(name.isascii() and name.isalnum() for name in names):
        raise bad_value("_elements", "names of elements")
    return frozenset(names)


def is_chain(name: str) -> bool:
    """Whether the parameter is about other resources than those searched for."""
    return name.startswith("_has:") or "." in name


def unknown(resource_type: str, name: str) -> UnknownParameter:
    """A refusal that lists what there is."""
    offered = ", ".join(sorted([*rules(resource_type), *COMMON, "_has"]))
    return UnknownParameter(f"{resource_type} cannot be searched by {name[:80]!r} here, only by {offered}")
