"""The addresses of the authorization server. Thin: what is decided is decided in `server`, `consent`, `sessions`."""

import hmac
from datetime import timedelta
from urllib.parse import urlencode

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import InvalidScopeError
from authlib.oidc.core.errors import ConsentRequiredError
from flask import Blueprint, Response, jsonify, request

from fhir_server.errors import Forbidden
from smart_auth import discovery
from smart_auth.consent import offer
from smart_auth.pages import local_path, login_cookie, login_page, page
from smart_auth.server import Consent, Request, Server
from smart_auth.service import AuthService
from smart_auth.sessions import LoggedIn, csrf_matches
from smart_auth.users import verify_password

MAX_FORM_BYTES = 128 * 1024
_FRESH_LOGIN = timedelta(minutes=2)  # answers `prompt=login`
_CARRIED = (  # parameters of an authorization request that the consent form hands back
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "aud",
    "resource",
    "code_challenge",
    "code_challenge_method",
    "nonce",
)


def create_blueprint(service: AuthService) -> Blueprint:
    """Everything below /auth, and discovery below /fhir/.well-known."""
    blueprint = Blueprint(
        "smart_auth", __name__, template_folder="templates", static_folder="static", static_url_path="/auth/static"
    )
    server = Server(service)

    @blueprint.before_request
    def limit() -> None:
        request.max_content_length = MAX_FORM_BYTES
        request.max_form_memory_size = MAX_FORM_BYTES

    @blueprint.route("/auth/authorize", methods=["GET", "POST"])
    def authorize() -> Response:
        logged_in = service.sessions.find(request.cookies)
        oauth_request = server.create_oauth2_request(None)
        try:
            grant = server.get_consent_grant(oauth_request, end_user=logged_in.user if logged_in else None)
        except OAuth2Error as error:
            return _refuse_authorization(server, oauth_request, error)
        if logged_in is None or _must_log_in_again(service, oauth_request, logged_in):
            parameters = [(name, oauth_request.payload.data[name]) for name in oauth_request.payload.data]
            return login_page(service, f"/auth/authorize?{urlencode(parameters)}")
        offered = offer(oauth_request.scope, logged_in.user)
        problem = None
        if not offered.choices:
            problem = InvalidScopeError("This user has none of these scopes to give.")
        elif oauth_request.payload.data.get("prompt") == "none":
            problem = ConsentRequiredError()
        if problem is not None:
            problem.redirect_uri, problem.state = grant.redirect_uri, oauth_request.payload.state
            return server.handle_error_response(oauth_request, problem)
        return page(
            "consent.html",
            client=oauth_request.client,
            user=logged_in.user,
            offered=offered,
            carried=[(name, oauth_request.payload.data.get(name)) for name in _CARRIED],
            csrf=logged_in.session.csrf,
        )

    @blueprint.post("/auth/consent")
    def consent() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is None:
            return page("error.html", 401, title="You were logged out", text="Go back to the app and start again.")
        _check_csrf(logged_in)
        oauth_request = server.create_oauth2_request(None)
        try:
            grant = server.get_consent_grant(oauth_request, end_user=logged_in.user)
        except OAuth2Error as error:
            return _refuse_authorization(server, oauth_request, error)
        offered = offer(oauth_request.scope, logged_in.user)
        chosen = offered.chosen(request.form.getlist("approve"))
        granted = Consent(chosen, offered.patient, logged_in.session.created)
        agreed = chosen and request.form.get("decision") == "allow"
        return server.grant_authorization(oauth_request, grant, logged_in.user if agreed else None, granted)

    @blueprint.post("/auth/token")
    def token() -> Response:
        return _uncached(server.token_response())

    @blueprint.post("/auth/introspect")
    def introspect() -> Response:
        return _uncached(server.endpoint_response("introspection"))

    @blueprint.post("/auth/revoke")
    def revoke() -> Response:
        return _uncached(server.endpoint_response("revocation"))

    @blueprint.get("/auth/jwks")
    def jwks() -> Response:
        return _public(service.keys.jwks())

    @blueprint.get("/fhir/.well-known/smart-configuration")
    def smart_configuration() -> Response:
        return _public(discovery.smart_configuration(service))

    @blueprint.get("/fhir/.well-known/openid-configuration")
    def openid_configuration() -> Response:
        return _public(discovery.openid_configuration(service))

    @blueprint.get("/auth/login")
    def login_form() -> Response:
        return login_page(service, local_path(request.args.get("next")))

    @blueprint.post("/auth/login")
    def login() -> Response:
        wanted = local_path(request.form.get("next"))
        cookie, sent = request.cookies.get(login_cookie(service), ""), request.form.get("login_token", "")
        if not cookie or not hmac.compare_digest(cookie.encode(), sent.encode()):
            return login_page(service, wanted, 403)
        name = request.form.get("name", "")[:200]
        user = verify_password(
            service.store,
            service.passwords,
            name,
            request.form.get("password", ""),
            address=request.remote_addr or "",
            now=service.clock(),
        )
        if user is None:
            return login_page(service, wanted, 401, failed=True, name=name)
        service.sessions.end(request.cookies)
        id, _ = service.sessions.begin(user)
        response = _see_other(wanted)
        response.set_cookie(
            service.sessions.cookie_name,
            id,
            httponly=True,
            secure=service.sessions.secure,
            samesite="Lax",
            path="/",
        )
        response.delete_cookie(login_cookie(service), secure=service.sessions.secure)
        return response

    @blueprint.post("/auth/logout")
    def logout() -> Response:
        logged_in = service.sessions.find(request.cookies)
        if logged_in is not None:
            _check_csrf(logged_in)
            service.sessions.end(request.cookies)
        response = _see_other("/auth/login")
        response.delete_cookie(service.sessions.cookie_name, secure=service.sessions.secure)
        return response

    return blueprint


def _refuse_authorization(server: Server, oauth_request: Request, error: OAuth2Error) -> Response:
    """A page, and no redirect, while client and redirect URI are not known to be right; else back to the client."""
    if not error.redirect_uri:
        return page("error.html", 400, title="This app cannot be connected", text=error.description)
    error.state = oauth_request.payload.state
    return server.handle_error_response(oauth_request, error)


def _must_log_in_again(service: AuthService, oauth_request: Request, logged_in: LoggedIn) -> bool:
    prompts = (oauth_request.payload.data.get("prompt") or "").split()
    return "login" in prompts and service.clock() - logged_in.session.created > _FRESH_LOGIN


def _check_csrf(logged_in: LoggedIn) -> None:
    if not csrf_matches(logged_in.session, request.form.get("csrf_token")):
        raise Forbidden("this form is out of date; load the page again")


def _see_other(path: str) -> Response:
    return Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def _public(document: dict) -> Response:
    response = jsonify(document)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response
