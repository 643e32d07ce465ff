"""Log-ins, tokens, consent, and who changes what others may do, in the audit trail before it is answered.

Codes of DICOM PS3.15 section A.5.3. No password, token or code is told, and no name that is not a user's: what is
typed as one may be a password.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

from flask import Flask, Response, g, request

from fhir_server.audit.event import Actor, Event
from fhir_server.audit.rest import actor, audited, failed
from fhir_server.audit.trail import Trail
from fhir_server.errors import NotAuthenticated
from smart_auth.models import User
from smart_auth.service import AuthService

LOGIN, LOGOUT, TOKEN, REVOKED, CONSENT = "login", "logout", "token", "token-end", "consent"
USER, CLIENT = "user-changed", "client-changed"
_MAX_DESCRIPTION = 250


@dataclass(frozen=True, slots=True)
class Audited:
    """kind: of the trail. act: in words; `{name}` is a part of the address or a field of the form.

    ends: access, which is done even while the trail cannot be written. by_session: of who is logged in; elsewhere a
    cookie that comes along is nobody's word.
    """

    kind: str
    act: str
    ends: bool = False
    by_session: bool = False


ENDPOINTS: Mapping[str, Audited] = MappingProxyType(
    {
        f"smart_auth.{endpoint}": row
        for endpoint, row in {
            "login": Audited(LOGIN, "log-in by password"),
            "code": Audited(LOGIN, "log-in by password and code"),
            "key": Audited(LOGIN, "log-in by password and security key"),
            "new_key": Audited(LOGIN, "log-in by password and a new security key"),
            "outside_callback": Audited(LOGIN, "log-in by an outside server"),
            "logout": Audited(LOGOUT, "log-out", ends=True, by_session=True),
            "token": Audited(TOKEN, "token by {grant_type}"),
            "revoke": Audited(REVOKED, "token revoked", ends=True),
            "consent": Audited(CONSENT, "access of {client_id}", by_session=True),
            "register": Audited(CLIENT, "a program registers itself"),
            "apps": Audited(REVOKED, "access of {client_id} taken back", ends=True, by_session=True),
            "change": Audited(USER, "own password changed", by_session=True),
            "choose": Audited(USER, "password chosen by a link"),
            "keys": Audited(USER, "security key added", by_session=True),
            "remove_key": Audited(USER, "security key removed", by_session=True),
        }.items()
    }
)


def install(
    app: Flask, trail: Trail, service: AuthService, more: Mapping[str, Audited] = MappingProxyType({})
) -> None:
    """Audit what posts to these endpoints do. Install it behind `http.install`, before whatever may refuse a request.

    more: of other packages' pages, by endpoint.
    """
    endpoints = {**ENDPOINTS, **more}

    def concerned() -> Audited | None:
        by_get = request.endpoint == "smart_auth.outside_callback"
        return endpoints.get(request.endpoint or "") if by_get or request.method == "POST" else None

    @app.before_request
    def begin() -> None:
        found = concerned()
        if found is None:
            return
        if not found.ends:
            trail.ready()
        if found.by_session:
            logged_in = service.sessions.find(request.cookies)
            g.person = logged_in.user if logged_in is not None else None  # before a log-out ends it

    @app.after_request
    def record(response: Response) -> Response:
        found = concerned()
        return audited(response, partial(_record, trail, service, found, response)) if found else response


def _record(trail: Trail, service: AuthService, row: Audited, response: Response) -> None:
    fault = response.status_code >= HTTPStatus.BAD_REQUEST
    if row.kind == LOGIN and not fault and "entered" not in g:
        return  # on to the second factor
    if row.kind in (LOGOUT, REVOKED) and not fault and "access" not in g and _nobody():
        return
    who, act = _who(service, row, response), _act(row, response)
    event = Event(row.kind, who, description=act[:_MAX_DESCRIPTION], request=g.get("request_id", ""))
    if not fault:
        trail.record(event)
        return
    event = failed(event, response.status_code)
    if not event.why:
        event = replace(event, why=_why(response))
    if who.subject:
        trail.record(event)
    else:  # anybody may try, as often as they like
        if name := _tried(service):
            event = replace(event, description=f"{event.description} of {name}")
        # What they send is no part of the key, or each try would be another line.
        trail.record_once(event, who.address, who.client or "", row.act, name, event.why)


def _nobody() -> bool:
    """Nobody is logged in, and no program said who it is."""
    return g.get("person") is None and g.get("client_id") is None


def _who(service: AuthService, row: Audited, response: Response) -> Actor:
    address = request.remote_addr or ""
    if "access" in g:
        return actor()
    if row.kind == TOKEN and response.status_code == HTTPStatus.OK:
        try:
            access = service.verifier.access((response.get_json(silent=True) or {}).get("access_token", ""))
        except NotAuthenticated:  # ended since
            return Actor(client=g.get("client_id"), address=address)
        roles = tuple(sorted(access.roles))
        return Actor(access.subject, access.client_id, access.fhir_user, roles, access.token, address)
    person: User | None = g.get("entered") or g.get("person")
    if person is not None:
        return Actor(person.subject, None, person.fhir_user, tuple(sorted(person.roles)), address=address)
    return Actor(client=g.get("client_id"), address=address)


def _act(row: Audited, response: Response) -> str:
    given = {**request.form.to_dict(), **(request.view_args or {})}
    act = row.act
    for name in ("client_id", "grant_type", "name", "move"):
        act = act.replace(f"{{{name}}}", str(given.get(name, ""))[:100])
    if row.kind == CONSENT and response.status_code < HTTPStatus.BAD_REQUEST:
        answer = parse_qs(urlsplit(response.location or "").query)
        return f"{act} {'agreed to' if 'code' in answer else 'refused'}"
    return act


def _why(response: Response) -> str:
    """The code of an OAuth error; of a page, its status."""
    told = response.get_json(silent=True) if response.is_json else None
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, str) else HTTPStatus(response.status_code).phrase


def _tried(service: AuthService) -> str:
    """The name of the user as whom somebody tries to come in; empty when there is none of that name."""
    if "trying" in g:  # the password was right
        return str(g.trying)
    name = request.form.get("name", "")[:200].strip().lower() if request.endpoint == "smart_auth.login" else ""
    return name if name and service.store.user(name) is not None else ""
