"""FHIR interactions over HTTP, each audited before it is answered; and what other views need to record theirs."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import parse_qsl

from flask import Flask, Response, g, request

from fhir_server.access import Access
from fhir_server.audit import touched
from fhir_server.audit.event import CLIENT_FAULT, SERVER_FAULT, Actor, Datum, Event
from fhir_server.audit.kinds import KINDS
from fhir_server.audit.trail import NotAudited, Trail
from fhir_server.errors import FhirError
from fhir_server.http import query_parameters, refusal

_KINDS = {
    f"fhir.{endpoint}": kind
    for endpoint, kind in {
        "read": "read",
        "vread": "vread",
        "system_history": "history-system",
        "type_history": "history-type",
        "instance_history": "history-instance",
        "search_system": "search-system",
        "search_system_by_post": "search-system",
        "search": "search-type",
        "search_by_post": "search-type",
        "search_compartment": "search",
        "search_compartment_by_post": "search",
        "search_in_compartment": "search-type",
        "search_in_compartment_by_post": "search-type",
        "create": "create",
        "update": "update",
        "conditional_update": "update",
        "patch": "patch",
        "conditional_patch": "patch",
        "delete": "delete",
        "conditional_delete": "delete",
        "bundle": "batch",  # or what it says of itself
        "system_operation": "operation",
        "type_operation": "operation",
        "instance_operation": "operation",
    }.items()
}
_KINDS |= {
    f"bulk.{endpoint}": "operation"
    for endpoint in ("system_export", "patient_export", "group_export", "import_", "status", "cancel", "file")
}
_WRITES = frozenset({"create", "update", "patch", "delete"})
_SHAPE = ("_format", "_pretty")  # parameters that say nothing of what is asked for


def install(app: Flask, trail: Trail) -> None:
    """Audit the app's FHIR interactions. Install it behind `http.install`, before whatever may refuse a request."""

    @app.before_request
    def begin() -> None:
        if request.endpoint in _KINDS:  # others, such as /health, are answered while the trail cannot be written
            g.touched = touched.begin()
            trail.ready()

    @app.after_request
    def record(response: Response) -> Response:
        kind = _KINDS.get(request.endpoint or "")
        if kind is None:
            return response

        def tell() -> None:
            trail.record(_event(g.get("interaction", kind), response.status_code))

        return audited(response, lambda: by_caller(trail, response, tell))

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        touched.end()


def audited(response: Response, tell: Callable[[], None]) -> Response:
    """The answer, once `tell` has recorded what it is about; where it cannot, what refuses it instead."""
    if isinstance(g.get("refused"), NotAudited):
        return response
    try:
        tell()
    except FhirError as error:
        response.close()  # what was about to be sent
        return refusal(error)
    return response


def by_caller(trail: Trail, response: Response, tell: Callable[[], None]) -> None:
    """Tell of a caller who is known; of others, that they were turned away."""
    if "access" in g:
        tell()
    elif response.status_code >= HTTPStatus.BAD_REQUEST:
        record_refusal(trail)


def actor() -> Actor:
    """Who makes this request."""
    access: Access | None = g.get("access")
    address = request.remote_addr or ""
    if access is None:
        return Actor(address=address)
    roles = tuple(sorted(access.roles))
    return Actor(access.subject, access.client_id, access.fhir_user, roles, access.token, address)


def record_act(trail: Trail, act: str, references: Iterable[str], patients: Iterable[str] = ()) -> None:
    """Record what the person of this request does on a page, before it is answered. Raises NotAudited.

    act: in words, such as `assigned the study to another patient`. references: what it is about, `ImagingStudy/1`.
    patients: whose data it is, `Patient/1`, one AuditEvent each; of a correction both.
    """
    data = tuple(map(Datum, references))
    said = {"patients": tuple(patients), "description": act, "request": g.get("request_id", "")}
    trail.record(Event("act", actor(), data=data, **said))


def record_refusal(trail: Trail) -> None:
    """Somebody was turned away before it was known who they are: once a minute for each address."""
    who = actor()
    trail.record_once(
        failed(Event("refused", who, description=f"{request.method} {request.path[:200]}")), who.address
    )


def _event(kind: str, status: int) -> Event:
    data = g.touched.by(g.access, written=kind in _WRITES)
    if not data and status >= HTTPStatus.BAD_REQUEST:
        asked = _asked()
        data = (Datum(asked),) if asked else ()
    sent = said = ""
    if KINDS[kind].action == "E" and kind not in ("batch", "transaction"):
        sent, said = query()
    event = Event(kind, actor(), data=data, query=sent, description=said, request=g.get("request_id", ""))
    return event if status < HTTPStatus.BAD_REQUEST else failed(event, status)


def failed(event: Event, status: int = HTTPStatus.BAD_REQUEST) -> Event:
    """The event with the outcome that this answer tells, and why."""
    refused: FhirError | None = g.get("refused")
    return replace(
        event,
        outcome=CLIENT_FAULT if status < HTTPStatus.INTERNAL_SERVER_ERROR else SERVER_FAULT,
        why=refused.diagnostics if refused else "",
        detail=refused.outcome() if refused else None,
        request=g.get("request_id", ""),
    )


def _asked() -> str:
    """What of the store was asked for: `Patient/12`, or a type."""
    given = request.view_args or {}
    names = ("resource_type", "id") if "owner" not in given else ("owner", "id")
    return "/".join(given[name] for name in names if name in given)


def query() -> tuple[str, str]:
    """The request as it was sent, the body of a search included; and the same to be read."""
    posted = g.get("posted", "")
    asked = [
        pair for pair in [*query_parameters(), *parse_qsl(posted, keep_blank_values=True)] if pair[0] not in _SHAPE
    ]
    sent = request.full_path if request.query_string else request.path
    said = "&".join(f"{name}={value}" for name, value in asked)
    return f"{sent}\n\n{posted}" if posted else sent, f"{request.path}?{said}" if said else request.path
