"""`POST /auth/register`, where it is on. https://www.rfc-editor.org/rfc/rfc7591#section-3"""

import orjson
from flask import Blueprint, Response, jsonify, request

from smart_auth import registration
from smart_auth.registration import RegistrationRefused
from smart_auth.service import AuthService

PATH = "/auth/register"
MAX_BYTES = 32 * 1024


def add(blueprint: Blueprint, service: AuthService) -> None:
    """Add the endpoint, if programs may register themselves."""
    if service.registration == registration.OFF:
        return

    @blueprint.post(PATH)
    def register() -> Response:
        request.max_content_length = MAX_BYTES
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        try:
            answer = registration.register(service, _metadata(), bearer, request.remote_addr or "")
        except RegistrationRefused as refusal:
            return _refused(refusal)
        response = jsonify(answer)
        response.status_code = 201
        return response

    @blueprint.after_request
    def unkept(response: Response) -> Response:
        if request.path == PATH:
            response.headers["Cache-Control"] = "no-store"
            response.headers["Pragma"] = "no-cache"
        return response


def _metadata() -> dict:
    if request.mimetype != "application/json":
        raise RegistrationRefused("invalid_client_metadata", "the metadata is sent as application/json")
    try:
        found = orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        raise RegistrationRefused("invalid_client_metadata", "this is no JSON") from None
    if not isinstance(found, dict):
        raise RegistrationRefused("invalid_client_metadata", "the metadata is a JSON object")
    return found


def _refused(refusal: RegistrationRefused) -> Response:
    response = jsonify(error=refusal.error, error_description=refusal.description)
    response.status_code = refusal.status
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = f'Bearer error="{refusal.error}"'
    elif refusal.status in (429, 503):
        response.headers["Retry-After"] = "60"
    return response
