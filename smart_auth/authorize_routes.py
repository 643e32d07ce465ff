"""The authorization endpoint and its pages: log in, choose a patient, agree. Thin: `consent` and `server` decide.

https://hl7.org/fhir/smart-app-launch/app-launch.html#obtain-authorization-code
"""

from datetime import timedelta
from urllib.parse import urlencode

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import InvalidScopeError
from authlib.oidc.core.errors import ConsentRequiredError, InteractionRequiredError
from flask import Blueprint, Response, request

from smart_auth.access import access_of_user
from smart_auth.consent import offer, wants_patient
from smart_auth.forms import check_csrf
from smart_auth.pages import login_page, page
from smart_auth.patients import Patients
from smart_auth.server import Consent, Request, Server
from smart_auth.service import AuthService
from smart_auth.sessions import LoggedIn

_FRESH_LOGIN = timedelta(minutes=2)  # answers `prompt=login`
_CARRIED = (  # parameters of an authorization request that our forms hand back
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "aud",
    "resource",
    "launch",
    "code_challenge",
    "code_challenge_method",
    "nonce",
)


def add(blueprint: Blueprint, service: AuthService, server: Server, patients: Patients) -> None:
    """Add /auth/authorize, /auth/patient and /auth/consent."""

    @blueprint.route("/auth/authorize", methods=["GET", "POST"])
    def authorize() -> Response:
        logged_in = service.sessions.find(request.cookies)
        oauth_request = server.create_oauth2_request(None)
        try:
            grant = server.get_consent_grant(oauth_request, end_user=logged_in.user if logged_in else None)
        except OAuth2Error as error:
            return _refuse(server, oauth_request, error)
        if logged_in is None or _must_log_in_again(service, oauth_request, logged_in):
            parameters = [(name, oauth_request.payload.data[name]) for name in oauth_request.payload.data]
            return login_page(service, f"/auth/authorize?{urlencode(parameters)}")
        silent = oauth_request.payload.data.get("prompt") == "none"
        if wants_patient(oauth_request.scope, logged_in.user, oauth_request.launch):
            if silent:
                return _back(server, oauth_request, grant.redirect_uri, InteractionRequiredError())
            return _picker(oauth_request, logged_in)
        if silent:
            return _back(server, oauth_request, grant.redirect_uri, ConsentRequiredError())
        return _ask(oauth_request, grant.redirect_uri, logged_in, None)

    @blueprint.post("/auth/patient")
    def patient() -> Response:
        """Look for a patient by what was typed, or go on with the one that was chosen."""
        logged_in, oauth_request, redirect_uri = _form()
        if isinstance(logged_in, Response):
            return logged_in
        access = access_of_user(logged_in.user)
        picked = patients.choice(access, request.form.get("patient", ""))
        if picked is not None:
            return _ask(oauth_request, redirect_uri, logged_in, picked.reference, picked.name)
        text = request.form.get("find", "")
        return _picker(oauth_request, logged_in, text, patients.find(access, text))

    @blueprint.post("/auth/consent")
    def consent() -> Response:
        logged_in, oauth_request, _ = _form()
        if isinstance(logged_in, Response):
            return logged_in
        picked = None
        if wants_patient(oauth_request.scope, logged_in.user, oauth_request.launch):
            found = patients.choice(access_of_user(logged_in.user), request.form.get("patient", ""))
            picked = found.reference if found is not None else None
        offered = offer(oauth_request.scope, logged_in.user, oauth_request.launch, picked)
        chosen = offered.chosen(request.form.getlist("approve"))
        session = logged_in.session
        granted = Consent(chosen, offered.context_for(chosen), session.created, session.digest)
        agreed = chosen and request.form.get("decision") == "allow"
        grant = oauth_request.grant
        return server.grant_authorization(oauth_request, grant, logged_in.user if agreed else None, granted)

    def _form() -> tuple[LoggedIn | Response, Request, str]:
        """Who sent one of our forms and the request in it; or what to answer instead."""
        logged_in = service.sessions.find(request.cookies)
        oauth_request = server.create_oauth2_request(None)
        if logged_in is None:
            text = "Go back to the app and start again."
            return page("error.html", 401, title="You were logged out", text=text), oauth_request, ""
        check_csrf(logged_in.session)
        try:
            grant = server.get_consent_grant(oauth_request, end_user=logged_in.user)
        except OAuth2Error as error:
            return _refuse(server, oauth_request, error), oauth_request, ""
        oauth_request.grant = grant
        return logged_in, oauth_request, grant.redirect_uri

    def _ask(
        oauth_request: Request, redirect_uri: str, logged_in: LoggedIn, picked: str | None, name: str = ""
    ) -> Response:
        offered = offer(oauth_request.scope, logged_in.user, oauth_request.launch, picked)
        if not offered.choices:
            problem = InvalidScopeError("This user has none of these scopes to give.")
            return _back(server, oauth_request, redirect_uri, problem)
        about = offered.patient
        return page(
            "consent.html",
            client=oauth_request.client,
            user=logged_in.user,
            offered=offered,
            own=about is not None and about == logged_in.user.fhir_user,
            picked=picked,
            picked_name=name,
            carried=_carried(oauth_request),
            csrf=logged_in.session.csrf,
        )


def _picker(oauth_request: Request, logged_in: LoggedIn, text: str = "", found: list | None = None) -> Response:
    return page(
        "patient.html",
        client=oauth_request.client,
        carried=_carried(oauth_request),
        csrf=logged_in.session.csrf,
        text=text,
        found=found,
    )


def _carried(oauth_request: Request) -> list[tuple[str, str | None]]:
    return [(name, oauth_request.payload.data.get(name)) for name in _CARRIED]


def _refuse(server: Server, oauth_request: Request, error: OAuth2Error) -> Response:
    """A page, and no redirect, while client and redirect URI are not known to be right; else back to the client."""
    if not error.redirect_uri:
        return page("error.html", 400, title="This app cannot be connected", text=error.description)
    error.state = oauth_request.payload.state
    return server.handle_error_response(oauth_request, error)


def _back(server: Server, oauth_request: Request, redirect_uri: str, error: OAuth2Error) -> Response:
    error.redirect_uri = redirect_uri
    return _refuse(server, oauth_request, error)


def _must_log_in_again(service: AuthService, oauth_request: Request, logged_in: LoggedIn) -> bool:
    prompts = (oauth_request.payload.data.get("prompt") or "").split()
    return "login" in prompts and service.clock() - logged_in.session.created > _FRESH_LOGIN
