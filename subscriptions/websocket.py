"""The server's end of a websocket, over the socket that the WSGI server lends us. https://www.rfc-editor.org/rfc/rfc6455

One thread receives and another one sends; nobody else touches the socket, so frames never interleave. It is used with
threads as well as with gevent, whose patched sockets and threads behave alike. No extensions: what is sent is small,
and a compressed message would hide its size from the limits.
"""

import base64
import binascii
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, generate_accept_token

from fhir_server.errors import BadRequest, FhirError

VERSION = "13"
RECEIVE_BYTES = 4096
MAX_REASON = 123  # bytes; a close frame holds no more
UNSUPPORTED, TOO_BIG = 1003, 1009  # close codes, RFC 6455 section 7.4.1


class UpgradeRequired(FhirError):
    """A plain request to an address that speaks websocket."""

    status, issue_code = 426, "not-supported"


class BrokenFrame(Exception):
    """The client sent what is not accepted; `code` is the one to close with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class WebSocket:
    """An open websocket. max_message: bytes of a message received; send_timeout_s: for the client to take a frame."""

    def __init__(self, connection: socket.socket, max_message: int, send_timeout_s: float) -> None:
        self._socket = connection
        self._socket.settimeout(send_timeout_s)
        self._max_message = max_message
        self._protocol = Connection(ConnectionType.SERVER)
        self._lock = threading.Lock()  # of the protocol's state, never held while the network is waited for

    def received(self) -> Iterator[str | Ping | Pong]:
        """What the client sends: texts, pings (to be answered by `pong`) and pongs; ends when the connection does.

        Raises BrokenFrame for messages that are too large, binary or no websocket frames.
        """
        message = ""
        while data := self._receive():
            with self._lock:
                self._protocol.receive_data(data)
                events = list(self._protocol.events())
            for event in events:
                if isinstance(event, CloseConnection):
                    if self._protocol.state is ConnectionState.OPEN:  # not closed by the client, but broken
                        raise BrokenFrame(event.code, "this is no websocket frame")
                    return
                if isinstance(event, BytesMessage):
                    raise BrokenFrame(UNSUPPORTED, "text only")
                if isinstance(event, TextMessage):
                    message += event.data
                    if len(message.encode()) > self._max_message:
                        raise BrokenFrame(TOO_BIG, "the message is too large")
                    if event.message_finished:
                        yield message
                        message = ""
                elif isinstance(event, Ping | Pong):
                    yield event

    def send(self, text: str) -> None:
        """Send a text message. Raises OSError when the client is gone or does not take it in time."""
        self._send(TextMessage(text))

    def ping(self, payload: bytes) -> None:
        self._send(Ping(payload))

    def pong(self, ping: Ping) -> None:
        self._send(ping.response())

    def close(self, code: int, reason: str) -> None:
        """Say why, or answer the client's closing, and send nothing more; `received` ends when the client does."""
        try:
            self._send(CloseConnection(code, reason.encode()[:MAX_REASON].decode(errors="ignore")))
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already

    def end(self) -> None:
        """Cut the connection, whatever the client does; `received` ends at once."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already

    def _send(self, event: Event) -> None:
        with self._lock:
            try:
                data = self._protocol.send(event)
            except LocalProtocolError:
                raise ConnectionError("the websocket is closed") from None
        self._socket.sendall(data)

    def _receive(self) -> bytes:
        """The next bytes; none when the connection has ended, or when a client goes on although we have closed."""
        while True:
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:  # the time is meant for sending; a client may be silent as long as it likes
                if self._protocol.state is not ConnectionState.OPEN:
                    return b""
            except OSError:
                return b""


def upgrade(environ: dict[str, Any], max_message: int, send_timeout_s: float) -> WebSocket:
    """Turn a request into a websocket. Raises UpgradeRequired for others, BadRequest for a faulty handshake."""
    upgrades = {part.strip().lower() for part in environ.get("HTTP_CONNECTION", "").split(",")}
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or "upgrade" not in upgrades:
        raise UpgradeRequired("this address speaks websocket", headers={"Upgrade": "websocket"})
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
        raise UpgradeRequired("websocket version 13 is needed", headers={"Sec-WebSocket-Version": VERSION})
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    if not _is_key(key):
        raise BadRequest("Sec-WebSocket-Key is not 16 bytes in base64")
    lent = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if lent is None:
        raise RuntimeError("this WSGI server does not lend its sockets")
    opened = WebSocket(lent, max_message, send_timeout_s)
    accept = generate_accept_token(key.encode()).decode()
    head = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    lent.sendall("\r\n".join((*head, f"Sec-WebSocket-Accept: {accept}", "", "")).encode())
    return opened


class AfterWebSocket(Response):
    """What a view returns after a websocket: nothing more is to be written to its socket."""

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Any:
        if "gunicorn.socket" in environ:
            raise StopIteration  # gunicorn's way to hear that the connection was taken care of
        return super().__call__(environ, start_response)


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (ValueError, binascii.Error):
        return False
