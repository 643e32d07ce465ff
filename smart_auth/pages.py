"""The pages people see: log-in, consent, and errors. Server-rendered, script for security keys alone, no address from
the Host header."""

import hmac
import re
from secrets import token_urlsafe
from urllib.parse import quote, urlsplit

from flask import Response, g, render_template, request

from smart_auth.models import User
from smart_auth.outside.servers import OPENID
from smart_auth.service import AuthService

# frame-ancestors: nobody puts our log-in or consent page into a frame. form-action is left open: after consent the
# browser is sent on to the client, and browsers apply form-action to that redirect too.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]{0,8000}", re.ASCII)  # printable, no blank, no backslash


def page(template: str, status: int = 200, **values: object) -> Response:
    """A page with the headers that keep it to itself."""
    return Response(
        render_template(f"smart_auth/{template}", **values), status, _HEADERS, content_type="text/html; charset=utf-8"
    )


def local_path(wanted: str | None) -> str:
    """Where to go after a log-in: a path of this server, else `/`. Nothing a browser could read as another host."""
    if wanted and _LOCAL.fullmatch(wanted):
        try:
            parts = urlsplit(wanted)
        except ValueError:
            return "/"
        if not parts.scheme and not parts.netloc:
            return wanted
    return "/"


def login_page(
    service: AuthService, wanted: str, status: int = 200, *, name: str = "", problem: str = "", notice: str = ""
) -> Response:
    """The log-in form. problem: `failed` or `busy`; notice: `changed`, of the password."""
    providers = [one for one in service.outside.values() if one.kind == OPENID]
    return page_with_token(
        service,
        "login.html",
        status,
        wanted=local_path(wanted),
        problem=problem,
        notice=notice,
        name=name,
        providers=providers,
    )


def page_with_token(service: AuthService, template: str, status: int = 200, **values: object) -> Response:
    """A page with a form for who is not logged in. A cookie of its own, repeated in the form as `login_token`, shows
    that the form that comes back is ours."""
    token = request.cookies.get(login_cookie(service)) or ""
    if not re.fullmatch(r"[\w-]{43}", token, re.ASCII):
        token = token_urlsafe(32)
    response = page(template, status, token=token, **values)
    set_cookie(service, response, login_cookie(service), token)
    return response


def is_our_form(service: AuthService) -> bool:
    """Whether the form that came is from a `page_with_token` that this browser was given."""
    cookie, sent = request.cookies.get(login_cookie(service), ""), request.form.get("login_token", "")
    return bool(cookie) and hmac.compare_digest(cookie.encode(), sent.encode())


def let_in(service: AuthService, response: Response, user: User) -> Response:
    """Begin a session of this user in this browser; an earlier one ends."""
    service.sessions.end(request.cookies)
    g.entered = user
    id, _ = service.sessions.begin(user)
    set_cookie(service, response, service.sessions.cookie_name, id)
    return response


def set_cookie(service: AuthService, response: Response, name: str, value: str) -> None:
    """A cookie for this server and no script."""
    response.set_cookie(name, value, httponly=True, secure=service.sessions.secure, samesite="Lax", path="/")


def login_cookie(service: AuthService) -> str:
    return f"{service.sessions.cookie_name}-login"


def current_path() -> str:
    """The path and query of a GET, to return to after a log-in; `/` for anything else."""
    if request.method != "GET":
        return "/"
    query = request.query_string.decode("latin-1")
    return quote(request.path) + (f"?{query}" if query else "")
