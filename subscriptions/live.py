"""The process that holds websockets, as a Flask app for gunicorn's gevent worker (or any server with threads)."""

import threading
from collections.abc import Callable, Collection

from flask import Flask, Response, jsonify, request

from fhir_server import http
from fhir_server.errors import Forbidden, Unavailable
from subscriptions.binding import Bindings
from subscriptions.feed import Sources
from subscriptions.hub import Hub
from subscriptions.session import GOING_AWAY, Session
from subscriptions.websocket import AfterWebSocket, upgrade

PATH = "/ws/subscriptions"
MAX_SESSIONS = 5000  # in one process
MAX_MESSAGE = 4096  # bytes; a client has little to say
SEND_TIMEOUT_S = 20.0


class Sessions:
    """The open websockets of this process. origins: those whose pages may connect, asked anew each time.

    subject_of: `client:x` or `user:y` of an access token, None of one that sees less than they do; raises
    NotAuthenticated.
    """

    def __init__(
        self,
        sources: Sources,
        bindings: Bindings,
        origins: Callable[[], Collection[str]],
        subject_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self._subject_of = subject_of
        self._sources = sources
        self._bindings = bindings
        self._origins = origins
        self._hub = Hub(sources.store)
        self._lock = threading.Lock()
        self._open: set[Session] = set()

    def serve(self) -> Response:
        """Turn the current request into a websocket and serve it until it ends."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins():  # a program sends none
            raise Forbidden("pages of this origin may not connect")
        with self._lock:
            full = len(self._open) >= MAX_SESSIONS
        if full:
            raise Unavailable("this server holds as many websockets as it can", headers={"Retry-After": "10"})
        caller = self._caller()
        socket = upgrade(request.environ, MAX_MESSAGE, SEND_TIMEOUT_S)
        session = Session(socket, self._hub, self._bindings, self._sources, caller)
        with self._lock:
            self._open.add(session)
        try:
            session.run()
        finally:
            with self._lock:
                self._open.discard(session)
        return AfterWebSocket()

    def _caller(self) -> str | None:
        """Whose access token the request carries; None where it carries none. Raises NotAuthenticated."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if self._subject_of is None or scheme.lower() != "bearer":
            return None
        return self._subject_of(token.strip())

    def close(self) -> None:
        """Ask all clients to come again elsewhere, and end the watcher."""
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            session.close(GOING_AWAY, "the server stops")
        self._hub.close()


def create_live_app(sessions: Sessions) -> Flask:
    """The app: the websocket endpoint and `/health/live`. Others may add their own websockets to it."""
    app = Flask(__name__)
    http.install(app)

    @app.get(PATH, websocket=True)  # werkzeug keeps the addresses of upgrade requests apart
    @app.get(PATH)  # the others are told to upgrade
    def subscriptions() -> Response:
        return sessions.serve()

    @app.get("/health/live")
    def live() -> Response:
        return jsonify(status="live")

    return app
