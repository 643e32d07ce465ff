"""Between the password and the log-in: a code of an app, or a security key; and setting codes up."""

import hmac

from flask import Blueprint, Response, g, request

from smart_auth import passkeys, second_factor
from smart_auth.forms import check_csrf, json_text, see_other
from smart_auth.models import Pending, User
from smart_auth.pages import let_in, login_page, page, set_cookie
from smart_auth.passkeys import NotTaken
from smart_auth.service import AuthService

PATH = "/auth/second-factor"


def ask(service: AuthService, user: User, wanted: str, *, set_up: bool = False) -> Response:
    """On to the second factor. set_up: a user who is logged in adds codes."""
    response = see_other(PATH)
    set_cookie(service, response, _cookie(service), second_factor.begin(service, user, wanted, set_up=set_up))
    return response


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add /auth/second-factor and what lies below it."""

    @blueprint.route(PATH, methods=["GET", "POST"])
    def code() -> Response:
        """Ask for a code or key; of a user who has neither yet, first of all to set codes up."""
        found = _find(service)
        if found is None or request.method == "GET":
            return _page(200)
        pending, user = found
        if not _is_our_form():
            return _page(403)
        typed = request.form.get("code", "")[:40]
        if pending.secret is not None:
            codes = second_factor.enrol(service, pending, typed)
            if codes is None:
                return _page(401)
            return _done(page("recovery.html", codes=codes, wanted=pending.wanted), pending, user)
        if not second_factor.verify(service, user, typed):
            return _page(401)
        return _done(see_other(pending.wanted), pending, user)

    @blueprint.post(f"{PATH}/key/begin")
    def begin_key() -> Response:
        """What the browser is asked to prove by a key."""
        found = _find(service)
        if found is None or not _is_our_form() or passkeys.host(service) is None:
            return json_text("{}", 403)
        return json_text(passkeys.options_to_log_in(service, found[1]))

    @blueprint.post(f"{PATH}/key")
    def key() -> Response:
        found = _find(service)
        if found is None or not _is_our_form():
            return _page(403)
        pending, user = found
        if not passkeys.verify(service, user, request.form.get("proof", "")):
            return _page(401)
        return _done(see_other(pending.wanted), pending, user)

    @blueprint.post(f"{PATH}/new-key/begin")
    def begin_new_key() -> Response:
        """What the browser is asked to make a key by, of who sets a second factor up."""
        found = _find_set_up()
        if found is None or passkeys.host(service) is None:
            return json_text("{}", 403)
        return json_text(passkeys.options_to_add(service, found[1]))

    @blueprint.post(f"{PATH}/new-key")
    def new_key() -> Response:
        """A key instead of codes."""
        found = _find_set_up()
        if found is None:
            return _page(403)
        pending, user = found
        try:
            passkeys.add(service, user, request.form.get("name", ""), request.form.get("proof", ""))
        except NotTaken as fault:
            return _page(422, str(fault))
        return _done(see_other(pending.wanted), pending, user)

    @blueprint.post(f"{PATH}/set-up")
    def set_up() -> Response:
        """A user who is logged in sets up an app for codes."""
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return login_page(service, "/auth/apps", 401)
        check_csrf(logged_in.session)
        return ask(service, logged_in.user, "/auth/apps", set_up=True)

    def _find_set_up() -> tuple[Pending, User] | None:
        found = _find(service) if _is_our_form() else None
        return found if found is not None and found[0].secret is not None else None

    def _page(status: int, fault: str = "") -> Response:
        found = _find(service)
        if found is None:
            return login_page(service, "/", 401)
        pending, user = found
        setting_up = pending.secret is not None
        return page(
            "second_factor.html",
            status,
            picture=second_factor.picture(pending) if setting_up else None,
            secret=pending.secret,
            codes=setting_up or service.credentials.second_factor(user.name) is not None,
            keys=not setting_up and bool(service.credentials.passkeys_of(user.name)),
            possible=passkeys.host(service) is not None,
            pending=request.cookies[_cookie(service)],
            failed=status == 401,
            fault=fault,
        )

    def _is_our_form() -> bool:
        value = request.cookies.get(_cookie(service), "")
        return hmac.compare_digest(value.encode(), request.form.get("pending", "").encode())

    def _done(response: Response, pending: Pending, user: User) -> Response:
        service.credentials.end_pending(pending.digest)
        response.delete_cookie(_cookie(service), secure=service.sessions.secure)
        return let_in(service, response, user)


def _find(service: AuthService) -> tuple[Pending, User] | None:
    found = second_factor.find(service, request.cookies.get(_cookie(service), ""))
    if found is not None:
        g.trying = found[1].name
    return found


def _cookie(service: AuthService) -> str:
    return f"{service.sessions.cookie_name}-second"
