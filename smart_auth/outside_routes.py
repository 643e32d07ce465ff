"""Log-in by an outside OpenID provider."""

import logging

from flask import Blueprint, Response, request

from smart_auth.forms import see_other
from smart_auth.outside.calls import NoAnswer
from smart_auth.outside.discovery import Discovery
from smart_auth.outside.flow import Flow, Refused
from smart_auth.outside.servers import OPENID
from smart_auth.outside.users import user_of
from smart_auth.pages import let_in, local_path, page
from smart_auth.service import AuthService

log = logging.getLogger(__name__)

CALLBACK = "/auth/outside/callback"


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add /auth/outside/<name> and its callback."""
    flow = Flow(service, service.outside, Discovery(service.clock))
    cookie = f"{service.sessions.cookie_name}-outside"

    @blueprint.get("/auth/outside/<name>")
    def outside(name: str) -> Response:
        server = service.outside.get(name)
        if server is None or server.kind != OPENID:
            return page("error.html", 404, title="There is nothing here", text="No such log-in is set up.")
        wanted = local_path(request.args.get("next"))
        try:
            address, browser = flow.begin(server, f"{service.origin}{CALLBACK}", wanted=wanted)
        except NoAnswer as failure:
            log.warning("outside server %s: %s", name, failure)
            return _sorry(f"{server.title} cannot be reached just now.", 502)
        response = see_other(address)
        response.set_cookie(
            cookie, browser, httponly=True, secure=service.sessions.secure, samesite="Lax", path="/auth/", max_age=600
        )
        return response

    @blueprint.get(CALLBACK)
    def outside_callback() -> Response:
        if error := request.args.get("error"):
            log.info("an outside server refused a log-in: %s", error[:40] if error.isidentifier() else "?")
            return _sorry("The other server did not let you in.", 403)
        browser = request.cookies.get(cookie, "")
        try:
            arrival = flow.finish(request.args.get("state", ""), request.args.get("code", ""), browser)
            if arrival.server.kind != OPENID:
                raise Refused("This is not the way in from an EHR.")
            user = user_of(service, arrival)
        except NoAnswer as failure:
            log.warning("outside server: %s", failure)
            return _sorry("The other server does not answer as it should.", 502)
        except Refused as refusal:
            return _sorry(str(refusal), 403)
        response = let_in(service, see_other(arrival.wanted), user)
        response.delete_cookie(cookie, path="/auth/", secure=service.sessions.secure)
        return response


def _sorry(text: str, status: int) -> Response:
    return page("error.html", status, title="You are not logged in", text=text)
