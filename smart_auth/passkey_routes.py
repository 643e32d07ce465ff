"""The page of a user's security keys: adding and removing them."""

from flask import Blueprint, Response, request

from smart_auth import passkeys
from smart_auth.forms import check_csrf, json_text, see_other
from smart_auth.pages import login_page, page
from smart_auth.passkeys import NotTaken
from smart_auth.service import AuthService
from smart_auth.sessions import LoggedIn

PATH = "/auth/keys"


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add the page."""

    @blueprint.route(PATH, methods=["GET", "POST"])
    def keys() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return login_page(service, PATH, 401)
        if request.method == "GET":
            return _page(logged_in)
        check_csrf(logged_in.session)
        try:
            passkeys.add(service, logged_in.user, request.form.get("name", ""), request.form.get("proof", ""))
        except NotTaken as fault:
            return _page(logged_in, 422, str(fault))
        return see_other(PATH)

    @blueprint.post(f"{PATH}/begin")
    def begin_key_to_add() -> Response:
        """What the browser is asked to make a key by."""
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None or passkeys.host(service) is None:
            return json_text("{}", 403)
        check_csrf(logged_in.session)
        return json_text(passkeys.options_to_add(service, logged_in.user))

    @blueprint.post(f"{PATH}/remove")
    def remove_key() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return login_page(service, PATH, 401)
        check_csrf(logged_in.session)
        service.credentials.remove_passkey(logged_in.user.name, request.form.get("id", ""))
        return see_other(PATH)

    def _page(logged_in: LoggedIn, status: int = 200, fault: str = "") -> Response:
        return page(
            "keys.html",
            status,
            user=logged_in.user,
            csrf=logged_in.session.csrf,
            keys=service.credentials.passkeys_of(logged_in.user.name),
            possible=passkeys.host(service) is not None,
            fault=fault,
            longest=passkeys.MAX_NAME,
        )
