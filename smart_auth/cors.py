"""Cross-origin requests: public documents for any origin, data and tokens for the origins that clients registered."""

from collections.abc import Collection

from flask import Flask, Response, request

from smart_auth.service import AuthService

_REREAD_AFTER_S = 10.0
_TOKEN_PATHS = ("/auth/token", "/auth/revoke", "/auth/introspect")
_ANY_ORIGIN = ("/auth/jwks", "/auth/smart-style.json")
_DATA_PREFIXES = ("/fhir/", "/dicomweb/", "/wado")
_EXPOSED = (
    "ETag, Location, Last-Modified, Content-Location, Content-Length, Content-Range, Accept-Ranges, Warning, "
    "X-Request-Id, WWW-Authenticate"
)


def install(
    app: Flask, service: AuthService, public_paths: Collection[str], public_prefixes: tuple[str, ...]
) -> None:
    """Answer preflights, without a token as browsers send none, and mark the answers of allowed origins."""
    known = _Origins(service)

    def allowed_origin() -> str | None:
        origin = request.headers.get("Origin")
        if not origin:
            return None
        if request.path in _ANY_ORIGIN or (
            request.path.startswith("/fhir/")
            and (request.path in public_paths or request.path.startswith(public_prefixes))
        ):
            return "*"
        if request.path in _TOKEN_PATHS or request.path.startswith(_DATA_PREFIXES):
            return origin if known.has(origin) else None
        return None

    @app.before_request
    def preflight() -> Response | None:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        response = Response(status=204)
        if allowed_origin():
            response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, POST, PUT, PATCH, DELETE"
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, Accept, If-Match, If-None-Match, If-None-Exist, "
                "If-Range, Range, Prefer, X-Request-Id"
            )
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    @app.after_request
    def mark(response: Response) -> Response:
        origin = allowed_origin()
        if origin:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        if request.path.startswith(_DATA_PREFIXES):
            # Pages that isolate themselves (COEP), as viewers do for threads, take what says that it may be embedded.
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin" if origin else "same-origin"
        if origin != "*" and ("Origin" in request.headers or request.path.startswith(_DATA_PREFIXES)):
            response.vary.add("Origin")
        return response


class _Origins:
    """The registered origins. One that this process does not know is asked for, so that a new one counts at once in
    every process; one whose client is ended is known for ten seconds more, which without a token opens nothing."""

    def __init__(self, service: AuthService) -> None:
        self._service = service
        self._known: frozenset[str] = frozenset()
        self._read_at: float | None = None

    def has(self, origin: str) -> bool:
        now = self._service.clock().timestamp()
        if self._read_at is None or not 0 <= now - self._read_at < _REREAD_AFTER_S:
            self._known, self._read_at = self._service.store.origins(), now
        if origin in self._known:
            return True
        if origin == self._service.origin or not self._service.store.has_origin(origin):
            return False
        self._known |= {origin}
        return True
