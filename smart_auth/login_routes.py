"""Log-in by password and, where it is due, a code; log-out."""

import hmac

from flask import Blueprint, Response, request

from smart_auth import second_factor
from smart_auth.forms import check_csrf, see_other
from smart_auth.models import User
from smart_auth.pages import is_our_form, let_in, local_path, login_cookie, login_page, page, set_cookie
from smart_auth.passwords import Busy
from smart_auth.service import AuthService
from smart_auth.users import verify_password


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add /auth/login, /auth/second-factor and /auth/logout."""
    pending_cookie = f"{service.sessions.cookie_name}-second"

    @blueprint.get("/auth/login")
    def login_form() -> Response:
        return login_page(service, local_path(request.args.get("next")))

    @blueprint.post("/auth/login")
    def login() -> Response:
        wanted = local_path(request.form.get("next"))
        if not is_our_form(service):
            return login_page(service, wanted, 403)
        name = request.form.get("name", "")[:200]
        try:
            user = verify_password(
                service.store,
                service.passwords,
                name,
                request.form.get("password", ""),
                address=request.remote_addr or "",
                now=service.clock(),
            )
        except Busy as busy:
            response = login_page(service, wanted, busy.status, problem="busy", name=name)
            response.headers.update(busy.headers)
            return response
        if user is None:
            return login_page(service, wanted, 401, problem="failed", name=name)
        if second_factor.is_due(service, user):
            response = _ask_for_code(user, wanted)
        else:
            response = let_in(service, see_other(wanted), user)
        response.delete_cookie(login_cookie(service), secure=service.sessions.secure)
        return response

    @blueprint.route("/auth/second-factor", methods=["GET", "POST"])
    def code() -> Response:
        """Ask for a code; of a user who has no app for it yet, first of all to set one up."""
        value = request.cookies.get(pending_cookie, "")
        found = second_factor.find(service, value)
        if found is None:
            return login_page(service, "/", 401)
        pending, user = found
        if request.method == "GET":
            return _code_page(200)
        if not hmac.compare_digest(value.encode(), request.form.get("pending", "").encode()):
            return _code_page(403)
        typed = request.form.get("code", "")[:40]
        if pending.secret is not None:
            codes = second_factor.enrol(service, pending, typed)
            if codes is None:
                return _code_page(401)
            response = page("recovery.html", codes=codes, wanted=pending.wanted)
        elif second_factor.verify(service, user, typed):
            response = see_other(pending.wanted)
        else:
            return _code_page(401)
        service.store.end_pending(pending.digest)
        response.delete_cookie(pending_cookie, secure=service.sessions.secure)
        return let_in(service, response, user)

    def _code_page(status: int) -> Response:
        value = request.cookies.get(pending_cookie, "")
        found = second_factor.find(service, value)
        if found is None:
            return login_page(service, "/", 401)
        pending, _ = found
        picture = second_factor.picture(pending) if pending.secret is not None else None
        return page(
            "second_factor.html", status, picture=picture, secret=pending.secret, pending=value, failed=status == 401
        )

    @blueprint.post("/auth/second-factor/set-up")
    def set_up() -> Response:
        """A user who is logged in sets up an app for codes."""
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return login_page(service, "/auth/apps", 401)
        check_csrf(logged_in.session)
        return _ask_for_code(logged_in.user, "/auth/apps")

    @blueprint.post("/auth/logout")
    def logout() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is not None:
            check_csrf(logged_in.session)
            service.sessions.end(request.cookies)
        response = see_other("/auth/login")
        response.delete_cookie(service.sessions.cookie_name, secure=service.sessions.secure)
        return response

    def _ask_for_code(user: User, wanted: str) -> Response:
        response = see_other("/auth/second-factor")
        set_cookie(service, response, pending_cookie, second_factor.begin(service, user, wanted))
        return response
