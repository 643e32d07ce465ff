"""The HTTP edge shared by all packages: the caller's Access, and the one place that turns errors into answers."""

import logging
import traceback
import uuid

from flask import Flask, Response, g, request
from pymongo.errors import ExecutionTimeout, PyMongoError
from werkzeug.exceptions import HTTPException

from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.errors import (
    BadRequest,
    FhirError,
    MethodNotAllowed,
    NotAcceptable,
    NotAuthenticated,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)

log = logging.getLogger(__name__)

FHIR_JSON = "application/fhir+json"
_ACCEPTED = {FHIR_JSON, "application/json", "application/*", "*/*", "text/json", "json"}
_RETRY_AFTER_S = "2"
_OF_STATUS = {
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    413: TooLarge,
    415: UnsupportedMediaType,
}


def current_access() -> Access:
    """The Access of this request, as the guard found it. Raises NotAuthenticated when there is none."""
    access = g.get("access")
    if access is None:
        raise NotAuthenticated("a token is needed", headers={"WWW-Authenticate": "Bearer"})
    return access


def fhir_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of FHIR JSON."""
    return Response(body, status, headers, content_type=f"{FHIR_JSON}; charset=utf-8")


def check_acceptable() -> None:
    """Raise NotAcceptable when the client wants something other than FHIR JSON."""
    wanted = request.args.get("_format") or request.headers.get("Accept") or "*/*"
    offers = {part.partition(";")[0].strip().lower() for part in wanted.replace(" json", "+json").split(",")}
    if not offers & _ACCEPTED:
        raise NotAcceptable(f"{FHIR_JSON} is what this server answers")


def json_body() -> object:
    """The request's JSON. Raises UnsupportedMediaType, BadRequest, TooLarge."""
    if request.mimetype not in (FHIR_JSON, "application/json"):
        raise UnsupportedMediaType(f"send {FHIR_JSON}")
    body = request.get_data(cache=False)
    if not body:
        raise BadRequest("the request has no content")
    return fhir_json.loads(body)


def install(app: Flask) -> None:
    """Give the app its request ids and its error answers."""

    @app.before_request
    def name_request() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if given.isascii() and given.isprintable() and 0 < len(given) <= 64 else uuid.uuid4().hex

    @app.after_request
    def common_headers(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(FhirError)
    def refuse(error: FhirError) -> Response:
        return fhir_response(fhir_json.dumps(error.outcome()), error.status, error.headers)

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        if error.code is not None and error.code < 400:
            return Response(error.get_body(), error.code, error.get_headers())
        kind = _OF_STATUS.get(error.code or 0, BadRequest)
        answer = refuse(kind(f"{request.method} {request.path[:200]}: {error.name}"))
        if error.code is not None and error.code not in _OF_STATUS:
            answer.status_code = error.code
        return answer

    @app.errorhandler(ExecutionTimeout)
    def refuse_slow(_error: ExecutionTimeout) -> Response:
        return refuse(BadRequest("this search takes too long; narrow it with another parameter"))

    @app.errorhandler(PyMongoError)
    def refuse_outage(error: PyMongoError) -> Response:
        log.warning("request %s: MongoDB: %s", g.get("request_id"), type(error).__name__)
        unavailable = Unavailable(
            "the store does not answer just now; nothing was changed or not surely so, try again"
        )
        unavailable.headers["Retry-After"] = _RETRY_AFTER_S
        return refuse(unavailable)

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        # The lines, not the text of the error: it may carry patient data.
        lines = "".join(traceback.format_tb(error.__traceback__))
        log.error("request %s: %s\n%s", g.get("request_id"), type(error).__name__, lines)
        return refuse(FhirError(f"this is a fault of the server; its log tells more under {g.get('request_id')}"))
