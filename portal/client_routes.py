"""Where administrators register SMART apps and backend systems, and end their access."""

import json

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from fhir_server.access import Access
from fhir_server.errors import Forbidden, NotFound
from fhir_server.http import current_access
from portal.page import page, sent_text
from smart_auth.clients import Registered, activate_client, add_client, deactivate_client, remove_client
from smart_auth.registration import TOKEN, make_token
from smart_auth.service import AuthService

KINDS = {
    "public": "App without a secret, such as one that runs in a browser",
    "confidential-symmetric": "App with a secret",
    "confidential-asymmetric": "App with keys",
    "backend": "System without a user, with keys",
}
DONE = {"removed": "It is removed.", "ended": "Its access is ended.", "begun": "It may ask for access again."}


def add(portal: Blueprint, auth: AuthService) -> None:
    """Add these pages to the portal."""

    @portal.get("/admin/clients")
    def clients() -> Response:
        require_admin()
        done = DONE.get(request.args.get("done", ""))
        return page(
            "clients.html", clients=auth.store.clients(), kinds=KINDS, done=done, registration=auth.registration
        )

    @portal.post("/admin/clients/registration-token")
    def registration_token() -> Response:
        require_admin()
        if auth.registration != TOKEN:
            raise NotFound("programs do not register themselves by a token here")
        return page("registration_token.html", 201, token=make_token(auth), auth=auth)

    @portal.route("/admin/clients/new", methods=["GET", "POST"])
    def new_client() -> Response:
        """The form, and after it the new client with its secret, which is shown this once."""
        require_admin()
        if request.method == "GET":
            return page("client_form.html", kinds=KINDS, sent={"type": "public"}, fault=None)
        try:
            registered = _register(auth)
        except ValueError as fault:
            return page("client_form.html", 422, kinds=KINDS, sent=request.form, fault=str(fault))
        return page("client_added.html", 201, client=registered.client, secret=registered.secret, auth=auth)

    @portal.post("/admin/clients/<client_id>/<move>")
    def change_client(client_id: str, move: str) -> AnyResponse:
        require_admin()
        moves = {
            "end": (deactivate_client, "ended"),
            "begin": (activate_client, "begun"),
            "remove": (remove_client, "removed"),
        }
        if move not in moves or not moves[move][0](auth.store, client_id):
            raise NotFound("there is no such client")
        return redirect(url_for("portal.clients", done=moves[move][1]), 303)


def require_admin() -> Access:
    """The Access of an administrator. Raises Forbidden for everybody else."""
    access = current_access()
    if "admin" not in access.roles:
        raise Forbidden("this page is for administrators")
    return access


def _register(auth: AuthService) -> Registered:
    """Raises ValueError with what is wrong."""
    keys = sent_text("jwks")
    return add_client(
        auth.store,
        sent_text("client_id"),
        type=sent_text("type"),
        scope=" ".join(sent_text("scope").split()),
        name=sent_text("name")[:200],
        redirect_uris=sent_text("redirect_uris").split(),
        launch_uris=sent_text("launch_uris").split(),
        origins=sent_text("origins").split(),
        jwks=_jwks(keys) if keys else None,
        jwks_uri=sent_text("jwks_uri") or None,
        organization=sent_text("organization") or None,
        practice="practice" in request.form,
    )


def _jwks(text: str) -> dict:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the keys are no JSON") from None
    if not isinstance(found, dict):
        raise ValueError('the keys are given as {"keys": [...]}')
    return found
