"""Log-in by password, on to the second factor where it is due; log-out."""

from flask import Blueprint, Response, request

from smart_auth import second_factor, second_factor_routes
from smart_auth.forms import check_csrf, see_other
from smart_auth.pages import is_our_form, let_in, local_path, login_cookie, login_page
from smart_auth.passwords import Busy
from smart_auth.service import AuthService
from smart_auth.users import verify_password


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add /auth/login and /auth/logout."""

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
            response = second_factor_routes.ask(service, user, wanted)
        else:
            response = let_in(service, see_other(wanted), user)
        response.delete_cookie(login_cookie(service), secure=service.sessions.secure)
        return response

    @blueprint.post("/auth/logout")
    def logout() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is not None:
            check_csrf(logged_in.session)
            service.sessions.end(request.cookies)
        response = see_other("/auth/login")
        response.delete_cookie(service.sessions.cookie_name, secure=service.sessions.secure)
        return response
