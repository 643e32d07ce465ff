"""The pages by which people get a new password: from a link they are mailed, or while they are logged in."""

from flask import Blueprint, Response, g, request

from smart_auth import new_password
from smart_auth.forms import check_csrf, see_other
from smart_auth.pages import is_our_form, let_in, login_page, page, page_with_token
from smart_auth.passwords import LONGEST, SHORTEST
from smart_auth.service import AuthService

FORGOTTEN, CHANGE = "/auth/password/forgotten", "/auth/password"
_LENGTHS = {"shortest": SHORTEST, "longest": LONGEST}


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add /auth/password and what lies below it."""
    mails = service.postman.mail is not None

    @blueprint.route(FORGOTTEN, methods=["GET", "POST"])
    def forgotten() -> Response:
        if request.method == "GET":
            return page_with_token(service, "forgotten.html", mails=mails, asked=False)
        if not is_our_form(service):
            return page_with_token(service, "forgotten.html", 403, mails=mails, asked=False)
        new_password.ask(service, request.form.get("who", "")[:300], request.remote_addr or "")
        return page_with_token(service, "forgotten.html", mails=mails, asked=True)

    @blueprint.get(f"{new_password.PATH}<token>")
    def choose_form(token: str) -> Response:
        """The form, which uses nothing up: programs that look into mail open its links too."""
        return _choose(token)

    @blueprint.post(f"{new_password.PATH}<token>")
    def choose(token: str) -> Response:
        if not is_our_form(service):
            return _choose(token, 403)
        try:
            user = new_password.use_link(service, token, _typed_twice())
        except ValueError as fault:
            return _choose(token, 422, str(fault))
        g.person = user
        return _choose(token) if user is None else login_page(service, "/", name=user.name, notice="changed")

    def _choose(token: str, status: int = 200, fault: str = "") -> Response:
        user = new_password.user_of_link(service, token)
        if user is None:
            text = "It was used already, or is too old. Ask for another one."
            return page("error.html", 404, title="This link is not good any more", text=text)
        return page_with_token(service, "new_password.html", status, user=user, fault=fault, **_LENGTHS)

    @blueprint.route(CHANGE, methods=["GET", "POST"])
    def change() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return login_page(service, CHANGE, 401)
        user, fault = logged_in.user, ""
        own = new_password.may_have_password(user)
        if request.method == "POST" and own:
            check_csrf(logged_in.session)
            try:
                new, address = _typed_twice(), request.remote_addr or ""
                if new_password.change(service, user, request.form.get("present", ""), new, address):
                    return let_in(service, see_other("/auth/apps?changed=password"), user)
                fault = "the present password does not fit, or there were too many attempts"
            except ValueError as wrong:
                fault = str(wrong)
        csrf = logged_in.session.csrf
        return page("password.html", 422 if fault else 200, user=user, own=own, fault=fault, csrf=csrf, **_LENGTHS)


def _typed_twice() -> str:
    """The new password of a form. Raises ValueError when it was typed differently the second time."""
    password = request.form.get("password", "")
    if password != request.form.get("again", ""):
        raise ValueError("the new password was typed differently the second time")
    return password
