"""The door of the whole app: nothing but the public addresses is answered without a token or a log-in.

Data (/fhir, /dicomweb, /wado) takes bearer tokens and never a cookie, so no page elsewhere can use a browser's log-in
to read or write it. Pages take the session cookie, and with it a CSRF token for whatever changes something.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeVar
from weakref import WeakKeyDictionary

from flask import Flask, Response, current_app, g, request

from fhir_server.access import AUDIT_TRAIL, Access, Scope
from fhir_server.errors import Forbidden, NotAuthenticated
from smart_auth import cors
from smart_auth.access import access_of_user
from smart_auth.models import ROLES
from smart_auth.pages import current_path, login_page
from smart_auth.service import AuthService
from smart_auth.sessions import csrf_matches

DATA_PREFIXES = ("/fhir", "/dicomweb", "/wado")
PUBLIC_PATHS = frozenset({"/fhir/metadata", "/fhir/openapi.json"})
PUBLIC_PREFIXES = ("/fhir/.well-known/", "/.well-known/", "/health/", "/auth/", "/static/")
BACKGROUND = "X-Background"  # a page that refreshes itself says so: it shall not keep an unattended log-in alive
MAX_FORM_BYTES = 128 * 1024
_OPEN = (Scope("system", "*", "cruds"), Scope("system", AUDIT_TRAIL, "rs"))
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGER_FORMS: WeakKeyDictionary[Callable, int] = WeakKeyDictionary()  # by view

View = TypeVar("View", bound=Callable)


def install(
    app: Flask,
    service: AuthService,
    *,
    public_paths: Collection[str] = (),
    public_prefixes: Collection[str] = (),
    open_access: bool = False,
) -> None:
    """Guard every request of the app; sets `flask.g.access`, and `flask.g.login` where there is a session.

    public_paths, public_prefixes: more addresses (beyond those above) that need neither; prefixes end in `/`.
    open_access: let everybody in as `system:open`, for trying out on the loopback interface only.
    """
    paths = PUBLIC_PATHS | frozenset(public_paths)
    prefixes = (*PUBLIC_PREFIXES, *public_prefixes)
    if any(not prefix.endswith("/") for prefix in prefixes):
        raise ValueError("a public prefix ends in / , or it opens its neighbours too")
    cors.install(app, service, paths, prefixes)
    app.jinja_env.globals["csrf_token"] = csrf_token

    @app.before_request
    def guard() -> Response | None:
        if request.path in paths or request.path.startswith(prefixes):
            return None
        if open_access:
            _refuse_cross_site()
            g.access = replace(Access.system("open"), scopes=_OPEN, roles=ROLES | {"system"})
            return None
        if is_data(request.path) or request.headers.get("Authorization"):
            g.access = service.verifier.access(bearer_token())
            return None
        logged_in = service.sessions.find(request.cookies, background=BACKGROUND in request.headers)
        if logged_in is None:
            return _ask_to_log_in(service)
        g.login, g.access = logged_in, access_of_user(logged_in.user)
        if request.method not in _SAFE_METHODS:
            _refuse_cross_site()
            if not csrf_matches(logged_in.session, _sent_token()):
                raise Forbidden("this form is out of date; load the page again")
        return None


def is_data(path: str) -> bool:
    """Whether a path belongs to an API that takes bearer tokens only."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in DATA_PREFIXES)


def bearer_token() -> str:
    """The token of the Authorization header (RFC 6750). Raises NotAuthenticated."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
    return token.strip()


def csrf_token() -> str:
    """What a form of this session carries in its field `csrf_token`; empty when there is no session (`--open`)."""
    return g.login.session.csrf if "login" in g else ""


def _sent_token() -> str | None:
    """The CSRF token of a header or a form. To find it a form is read whole, so it may not be large."""
    if token := request.headers.get("X-CSRF-Token"):
        return token
    request.max_content_length = longest_form()
    return request.form.get("csrf_token")


def takes_files(max_bytes: int) -> Callable[[View], View]:
    """Let the form of a view be as long as that: it carries a file."""

    def mark(view: View) -> View:
        _LONGER_FORMS[view] = max_bytes
        return view

    return mark


def longest_form() -> int:
    """Bytes that the form of this request may have."""
    view = current_app.view_functions.get(request.endpoint or "")
    return MAX_FORM_BYTES if view is None else _LONGER_FORMS.get(view, MAX_FORM_BYTES)


def _ask_to_log_in(service: AuthService) -> Response:
    if "text/html" not in request.headers.get("Accept", ""):
        raise NotAuthenticated("a log-in or a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
    response = login_page(service, current_path(), 401)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _refuse_cross_site() -> None:
    if request.method not in _SAFE_METHODS and request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Forbidden("a page of another site may not do this")
