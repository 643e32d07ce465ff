"""The pages people see: log-in, consent, and errors. Server-rendered, no script, no address from the Host header."""

import re
from secrets import token_urlsafe
from urllib.parse import quote, urlsplit

from flask import Response, render_template, request

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
    service: AuthService, wanted: str, status: int = 200, failed: bool = False, name: str = "", busy: bool = False
) -> Response:
    """The log-in form. A cookie of its own, repeated in the form, shows that the form that comes back is ours."""
    token = request.cookies.get(login_cookie(service)) or ""
    if not re.fullmatch(r"[\w-]{43}", token, re.ASCII):
        token = token_urlsafe(32)
    providers = [one for one in service.outside.values() if one.kind == OPENID]
    response = page(
        "login.html",
        status,
        wanted=local_path(wanted),
        token=token,
        failed=failed,
        busy=busy,
        name=name,
        providers=providers,
    )
    response.set_cookie(
        login_cookie(service), token, httponly=True, secure=service.sessions.secure, samesite="Lax", path="/"
    )
    return response


def login_cookie(service: AuthService) -> str:
    return f"{service.sessions.cookie_name}-login"


def current_path() -> str:
    """The path and query of a GET, to return to after a log-in; `/` for anything else."""
    if request.method != "GET":
        return "/"
    query = request.query_string.decode("latin-1")
    return quote(request.path) + (f"?{query}" if query else "")
