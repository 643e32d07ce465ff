"""Where administrators see who may log in, end and begin it, and let people choose a new password."""

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from fhir_server.errors import NotFound, Unprocessable
from portal.client_routes import require_admin
from portal.page import page
from smart_auth import new_password, second_factor
from smart_auth.service import AuthService
from smart_auth.users import activate_user, deactivate_user

DONE = {
    "ended": "The log-in is ended, and with it all sessions and all access of apps.",
    "begun": "The log-in is good again.",
    "codes": "The log-in takes the password alone now.",
}


def add(portal: Blueprint, auth: AuthService) -> None:
    """Add these pages to the portal."""

    @portal.get("/admin/users")
    def users() -> Response:
        require_admin()
        return page(
            "users.html",
            users=auth.store.users(),
            with_second_factor=second_factor.users_with_one(auth),
            may_have_password=new_password.may_have_password,
            done=DONE.get(request.args.get("done", "")),
        )

    @portal.post("/admin/users/<name>/end")
    def end_user(name: str) -> AnyResponse:
        """Not one's own: an administrator would lock everybody out who could undo it."""
        if require_admin().subject == f"user:{name}":
            raise Unprocessable("another administrator has to end your log-in")
        return _done("ended", deactivate_user(auth.store, name))

    @portal.post("/admin/users/<name>/begin")
    def begin_user(name: str) -> AnyResponse:
        require_admin()
        return _done("begun", activate_user(auth.store, name))

    @portal.post("/admin/users/<name>/one-factor")
    def end_second_factor(name: str) -> AnyResponse:
        """For who lost phone, recovery codes and keys."""
        require_admin()
        return _done("codes", second_factor.forget(auth, name))

    @portal.post("/admin/users/<name>/link")
    def password_link(name: str) -> Response:
        """A link by which the user chooses a password, to be handed over; shown this once."""
        require_admin()
        user = auth.store.user(name)
        if user is None or not new_password.may_have_password(user):
            raise NotFound("there is no such log-in with a password")
        return page("user_link.html", 201, name=user.name, link=new_password.hand_over(auth, user))


def _done(what: str, known: bool) -> AnyResponse:
    if not known:
        raise NotFound("there is no such log-in")
    return redirect(url_for("portal.users", done=what), 303)
