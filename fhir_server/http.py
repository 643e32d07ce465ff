"""The HTTP edge shared by all packages: the caller's Access, and the one place that turns errors into answers."""

import logging
import traceback
import uuid
from contextlib import suppress
from urllib.parse import parse_qsl

import werkzeug.exceptions
from flask import Flask, Response, g, request
from pymongo.errors import ExecutionTimeout, PyMongoError
from werkzeug.exceptions import HTTPException

from fhir_server import fhir_json, fhir_xml
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
from fhir_server.formats import FHIR_JSON, FHIR_XML, negotiate, sent_format

log = logging.getLogger(__name__)

BLUEPRINT = "fhir"  # whose answers have the form that the client asks for
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
    """An answer of FHIR in the form that the client asked for; `body` is JSON, or empty for none."""
    format = g.get("format", FHIR_JSON)
    pretty = request.args.get("_pretty") == "true"
    if body and format == FHIR_XML:
        body = fhir_xml.dumps(fhir_json.loads(body), pretty=pretty)
    elif body and pretty:
        body = fhir_json.dumps(fhir_json.loads(body), pretty=True)
    response = Response(body, status, headers, content_type=f"{format}; charset=utf-8")
    response.vary.add("Accept")
    return response


def query_parameters() -> list[tuple[str, str]]:
    """The parameters of the address, in order."""
    return parse_qsl(request.query_string.decode(errors="replace"), keep_blank_values=True)


def choose_format(format: str | None = None) -> None:
    """Settle the form of the answer, by `_format` and Accept. Raises NotAcceptable."""
    asked = format or request.args.get("_format")
    try:
        sent = sent_format(request.content_type) if request.content_type else None
    except UnsupportedMediaType:
        sent = None  # such as a form, or the content of a Binary
    g.format = negotiate(asked, request.headers.get("Accept", ""), sent)


def fhir_body() -> object:
    """The request's content in JSON form. Raises UnsupportedMediaType, BadRequest, InvalidStructure, TooLarge."""
    format = sent_format(request.content_type or "")
    body = content()
    return fhir_xml.loads(body) if format == FHIR_XML else fhir_json.loads(body)


def content() -> bytes:
    """The request's content. Raises UnsupportedMediaType when it is compressed, BadRequest when there is none."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the content as it is, without a Content-Encoding")
    body = request.get_data(cache=False)
    if not body:
        raise BadRequest("the request has no content")
    return body


def refusal(error: FhirError) -> Response:
    """The answer that tells the error."""
    g.refused = error
    if request.blueprint == BLUEPRINT and "format" not in g:  # refused before it was settled, as by the guard
        with suppress(NotAcceptable):
            choose_format()
    answer = fhir_response(fhir_json.dumps(error.outcome()), error.status, error.headers)
    if error.status == Unavailable.status:
        answer.headers.setdefault("Retry-After", _RETRY_AFTER_S)
    return answer


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
        return refusal(error)

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        if error.code is not None and error.code < 400:
            return Response(error.get_body(), error.code, error.get_headers())
        kind = _OF_STATUS.get(error.code or 0, BadRequest)
        answer = refuse(kind(f"{request.method} {request.path[:200]}: {error.name}"))
        if isinstance(error, werkzeug.exceptions.MethodNotAllowed) and error.valid_methods:
            answer.allow.update(error.valid_methods)
        if error.code is not None and error.code not in _OF_STATUS:
            answer.status_code = error.code
        return answer

    @app.errorhandler(ExecutionTimeout)
    def refuse_slow(_error: ExecutionTimeout) -> Response:
        return refuse(BadRequest("this search takes too long; narrow it with another parameter"))

    @app.errorhandler(PyMongoError)
    def refuse_outage(error: PyMongoError) -> Response:
        log.warning("request %s: MongoDB: %s", g.get("request_id"), type(error).__name__)
        text = "the store does not answer just now; nothing was changed or not surely so, try again"
        return refuse(Unavailable(text))

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        # The lines, not the text of the error: it may carry patient data.
        lines = "".join(traceback.format_tb(error.__traceback__))
        log.error("request %s: %s\n%s", g.get("request_id"), type(error).__name__, lines)
        return refuse(FhirError(f"this is a fault of the server; its log tells more under {g.get('request_id')}"))
