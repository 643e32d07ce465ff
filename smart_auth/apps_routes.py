"""The page on which a user sees which apps have access, and takes it back (`management_endpoint`)."""

from flask import Blueprint, Response, request

from smart_auth.apps import apps_of, take_back
from smart_auth.forms import check_csrf
from smart_auth.pages import login_page, page
from smart_auth.service import AuthService

PATH = "/auth/apps"


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add the page."""

    @blueprint.route(PATH, methods=["GET", "POST"])
    def apps() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return login_page(service, PATH, 401)
        taken = None
        if request.method == "POST":
            check_csrf(logged_in.session)
            client_id = request.form.get("client_id", "")
            before = {app.client_id: app.name for app in apps_of(service, logged_in.user)}
            if take_back(service, logged_in.user, client_id):
                taken = before.get(client_id, client_id)
        found = apps_of(service, logged_in.user)
        return page(
            "apps.html",
            user=logged_in.user,
            apps=found,
            taken=taken,
            changed=request.args.get("changed") == "password",
            csrf=logged_in.session.csrf,
            has_codes=service.credentials.second_factor(logged_in.user.name) is not None,
            has_keys=bool(service.credentials.passkeys_of(logged_in.user.name)),
        )
