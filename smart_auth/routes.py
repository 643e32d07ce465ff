"""The addresses of the authorization server. Thin: what is decided is decided in `server`, `consent`, `sessions`."""

from flask import Blueprint, Response, jsonify, request

from fhir_server.repository import Repository
from smart_auth import (
    apps_routes,
    authorize_routes,
    discovery,
    login_routes,
    outside_routes,
    passkey_routes,
    password_routes,
    registration_routes,
    second_factor_routes,
)
from smart_auth.brand import brand_bundle
from smart_auth.pages import page
from smart_auth.passwords import Busy
from smart_auth.patients import Patients
from smart_auth.server import Server
from smart_auth.service import STYLE, AuthService

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

    @blueprint.errorhandler(Busy)
    def busy(refusal: Busy) -> Response:
        text = "Too many people are logging in right now. Go back, wait some seconds, and try again."
        response = page("error.html", refusal.status, title="Just a moment", text=text)
        response.headers.update(refusal.headers)
        return response

    authorize_routes.add(blueprint, service, server, Patients(repository))
    login_routes.add(blueprint, service)
    outside_routes.add(blueprint, service)
    second_factor_routes.add(blueprint, service)
    passkey_routes.add(blueprint, service)
    password_routes.add(blueprint, service)
    registration_routes.add(blueprint, service)
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
        if "If-Match" not in request.headers:  # which is for writes; the library would answer it by 412
            response.make_conditional(request)
        return response

    @blueprint.get("/fhir/.well-known/smart-configuration")
    def smart_configuration() -> Response:
        return _public(discovery.smart_configuration(service))

    @blueprint.get("/fhir/.well-known/openid-configuration")
    def openid_configuration() -> Response:
        return _public(discovery.openid_configuration(service))

    return blueprint


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def _public(document: dict) -> Response:
    response = jsonify(document)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response
