"""The addresses of the authorization server. Thin: what is decided is decided in `server`, `consent`, `sessions`."""

import hmac

from flask import Blueprint, Response, jsonify, request

from fhir_server.repository import Repository
from smart_auth import apps_routes, authorize_routes, discovery
from smart_auth.brand import brand_bundle
from smart_auth.forms import check_csrf, see_other
from smart_auth.pages import local_path, login_cookie, login_page
from smart_auth.patients import Patients
from smart_auth.server import Server
from smart_auth.service import STYLE, AuthService
from smart_auth.users import verify_password

MAX_FORM_BYTES = 128 * 1024


def create_blueprint(service: AuthService, repository: Repository, practice: str) -> Blueprint:
    """Everything below /auth, and discovery below /fhir/.well-known.

    repository: where users choose patients from. practice: whose brand it is, `Organization/<id>`.
    """
    blueprint = Blueprint(
        "smart_auth", __name__, template_folder="templates", static_folder="static", static_url_path="/auth/static"
    )
    server = Server(service)

    @blueprint.before_request
    def limit() -> None:
        request.max_content_length = MAX_FORM_BYTES
        request.max_form_memory_size = MAX_FORM_BYTES

    authorize_routes.add(blueprint, service, server, Patients(repository))
    apps_routes.add(blueprint, service)

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

    @blueprint.get("/auth/smart-style.json")
    def smart_style() -> Response:
        response = Response(STYLE, content_type="application/json")
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response

    @blueprint.get("/fhir/.well-known/brands.json")
    def brands() -> Response:
        found = brand_bundle(service, repository, practice)
        response = Response(found.body, content_type="application/fhir+json")
        response.set_etag(found.etag, weak=True)
        response.headers["Cache-Control"] = "public, max-age=300"
        response.make_conditional(request)
        return response

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
        response = see_other(wanted)
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
            check_csrf(logged_in.session)
            service.sessions.end(request.cookies)
        response = see_other("/auth/login")
        response.delete_cookie(service.sessions.cookie_name, secure=service.sessions.secure)
        return response

    return blueprint


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def _public(document: dict) -> Response:
    response = jsonify(document)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response
