"""One websocket of a subscriber: what its client may say, and when it is sent what.

Frames of the client are JSON texts: `{"type": "bind-with-token", "payload": {"token": ...}}`, `unbind-from-token`
likewise, and `{"type": "ping"}`, answered by `{"type": "pong"}`. The server sends notification Bundles. R4's own
`bind ID` is understood of a client whose request carried its access token; it is answered `bound ID`, then `ping ID`.

The request's own thread receives, a second one sends; they meet under one condition. Nothing in the application's
own messages says that a Bundle arrived, so each is followed by a ping of the protocol: its pong, which every client
gives by itself, proves that the Bundle was there before it. What lacks that proof is sent again at the next bind.
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pymongo.errors import PyMongoError
from wsproto.events import Ping, Pong

from fhir_server import fhir_json
from fhir_server.errors import BadRequest
from subscriptions.binding import LIFE, Bindings
from subscriptions.feed import Feed, Sources, owned
from subscriptions.hub import Hub, TooMany
from subscriptions.store import Bound
from subscriptions.websocket import BrokenFrame, WebSocket

log = logging.getLogger(__name__)

R4_BIND = re.compile(r"bind ([A-Za-z0-9\-.]{1,64})")
MAX_REQUESTS = 32  # frames of the client waiting to be served
MAX_FEEDS = 100
MAX_UNPROVEN = 8  # notifications on their way; more wait for a pong
BIND_WITHIN_S = 30.0
PONG_WITHIN_S = 30.0
QUIET_S = 25.0  # then a ping, for proxies that cut silent connections
LOOK_S = 300.0  # after so long a look whether nothing was missed; the wakes tell of all that happens

# Close codes: those of RFC 6455 section 7.4.1, and 4000 to 4999 of our own, after HTTP's.
NORMAL, GOING_AWAY, POLICY, FAULT, TRY_LATER = 1000, 1001, 1008, 1011, 1013
NOT_UNDERSTOOD, NOT_BOUND, TOO_SLOW, TOO_MANY = 4400, 4401, 4408, 4429


class _Close(Exception):
    """The connection is to be closed, with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Message:
    """A frame of the client that was understood."""

    type: str
    token: str = ""  # of bind-with-token; of bind the id


@dataclass(frozen=True, slots=True)
class _Unproven:
    """A ping whose pong is not there yet, with the events that it followed."""

    sequence: int
    at: float
    feed: Feed | None = None
    number: int = 0


class Session:
    """Serves one websocket: `run` until it ends. caller: whose access token the request carried, if it did."""

    def __init__(
        self, socket: WebSocket, hub: Hub, bindings: Bindings, sources: Sources, caller: str | None = None
    ) -> None:
        self._caller = caller
        self._socket = socket
        self._hub = hub
        self._bindings = bindings
        self._sources = sources
        # Shared by both threads, under the condition
        self._changed = threading.Condition()
        self._requests: deque[_Message | Ping] = deque()
        self._due: dict[str, None] = {}  # Subscriptions to look at, in the order of their turns
        self._proven = 0  # sequence of the newest pong
        self._gone = False
        self._refusal: _Close | None = None
        # The sender's own
        self._feeds: dict[str, Feed] = {}
        self._subject: str | None = None
        self._sequence = 0
        self._unproven: deque[_Unproven] = deque()
        self._unbound_since = self._last_sending = self._looked = time.monotonic()

    def run(self) -> None:
        """Receive until the connection ends."""
        sender = threading.Thread(target=self._send_all, name="websocket-sender", daemon=True)
        sender.start()
        try:
            for event in self._socket.received():
                if not sender.is_alive():
                    break  # closed, and the client goes on
                self._take(event)
        except BrokenFrame as fault:
            self._refuse(_Close(fault.code, str(fault)))
        except _Close as close:
            self._refuse(close)
        finally:
            with self._changed:
                self._gone = True
                self._changed.notify()
            sender.join()
            self._socket.end()

    def wake(self, subscription: str | None) -> None:
        """Something is new about this Subscription; None: perhaps about any."""
        with self._changed:
            # Other ids than those bound do no harm: the sender passes them over.
            self._due.update(dict.fromkeys([subscription] if subscription else list(self._feeds)))
            self._changed.notify()

    def close(self, code: int, reason: str) -> None:
        """End the connection from outside, by any thread."""
        self._refuse(_Close(code, reason))

    # The receiver

    def _take(self, event: str | Ping | Pong) -> None:
        with self._changed:
            if isinstance(event, Pong):
                self._proven = max(self._proven, _sequence(event))
            elif len(self._requests) >= MAX_REQUESTS:
                raise _Close(POLICY, "too many messages at once")
            else:
                self._requests.append(event if isinstance(event, Ping) else _message(event))
            self._changed.notify()

    def _refuse(self, close: _Close) -> None:
        with self._changed:
            self._refusal = self._refusal or close
            self._changed.notify()

    # The sender

    def _send_all(self) -> None:
        """Send until the client is gone or there is a reason to close."""
        try:
            self._loop()
            self._socket.close(NORMAL, "")
        except _Close as close:
            self._socket.close(close.code, close.reason)
        except OSError:
            self._socket.end()  # gone, or too slow to take a frame
        except PyMongoError as error:
            log.warning("websockets wait for MongoDB: %s", type(error).__name__)
            self._socket.close(TRY_LATER, "the store does not answer just now")
        except Exception as error:
            # The class alone: an error's text may carry patient data.
            log.error("%s while serving a websocket", type(error).__name__)
            self._socket.close(FAULT, "a fault of the server")
        finally:
            self._hub.leave(self)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, self._patience_s())
                if self._refusal is not None:
                    raise self._refusal
                if self._gone:
                    return
                request = self._requests.popleft() if self._requests else None
                proven = self._proven
                due = None
                if len(self._unproven) < MAX_UNPROVEN and self._due:
                    due = next(iter(self._due))
                    del self._due[due]
            if request is not None:
                self._serve(request)
            self._settle(proven)
            if due is not None:
                self._feed(due)
            self._keep_time()

    def _has_work(self) -> bool:
        return bool(
            self._gone
            or self._refusal
            or self._requests
            or (self._unproven and self._proven >= self._unproven[0].sequence)
            or (self._due and len(self._unproven) < MAX_UNPROVEN)
        )

    def _serve(self, request: _Message | Ping) -> None:
        if isinstance(request, Ping):
            self._socket.pong(request)
        elif request.type == "ping":
            self._socket.send('{"type":"pong"}')
        elif request.type == "bind-with-token":
            self._bind(self._bindings.find(request.token))
        elif request.type == "bind":
            until = self._bindings.now() + LIFE
            bound = owned(request.token, self._caller, self._sources, until) if self._caller else None
            self._bind(bound, pings=True)
        else:
            self._unbind(request.token)

    def _bind(self, bound: Bound | None, pings: bool = False) -> None:
        if bound is None:
            raise _Close(NOT_BOUND, "no token, or it is not good, or not any more")
        if self._subject not in (None, bound.subject):
            raise _Close(NOT_BOUND, "the token is somebody else's than the one before")
        if len(self._feeds.keys() | bound.numbers.keys()) > MAX_FEEDS:
            raise _Close(TOO_MANY, f"at most {MAX_FEEDS} Subscriptions on one websocket")
        self._subject = bound.subject
        for id in bound.numbers:
            self._feeds[id] = Feed(id, bound, self._sources, pings)
            try:
                # Before the first look, so that nothing happens between the look and the first wake.
                self._hub.listen(bound.subject, id, self)
            except TooMany:
                raise _Close(TOO_MANY, "too many websockets of this subscriber") from None
            self.wake(id)

    def _unbind(self, token: str) -> None:
        bound = self._bindings.find(token)
        digest = bound.digest if bound else None
        for feed in [feed for feed in self._feeds.values() if feed.bound.digest == digest]:
            self._drop(feed)

    def _drop(self, feed: Feed) -> None:
        del self._feeds[feed.id]
        self._hub.leave(self, feed.id)
        if not self._feeds:
            self._unbound_since = time.monotonic()

    def _settle(self, proven: int) -> None:
        """Note what the client is known to have."""
        numbers: dict[Feed, int] = {}
        while self._unproven and self._unproven[0].sequence <= proven:
            arrived = self._unproven.popleft()
            if arrived.feed is not None:
                numbers[arrived.feed] = arrived.number
        for feed, number in numbers.items():
            feed.received(number)

    def _feed(self, id: str) -> None:
        """Send the next notification of a Subscription, if it has one."""
        feed = self._feeds.get(id)
        if feed is None:
            return
        sending = feed.next()
        if sending is not None:
            self._send(sending.text)
            if sending.number is not None:
                self._prove(feed, sending.number)
            if sending.more:
                self.wake(id)  # the others have their turns first
        if feed.ended:
            self._drop(feed)

    def _send(self, text: str) -> None:
        self._socket.send(text)
        self._last_sending = time.monotonic()

    def _prove(self, feed: Feed | None = None, number: int = 0) -> None:
        """Ask for a pong, which proves that all before it has arrived."""
        self._sequence += 1
        self._unproven.append(_Unproven(self._sequence, time.monotonic(), feed, number))
        self._socket.ping(str(self._sequence).encode())
        self._last_sending = time.monotonic()

    def _keep_time(self) -> None:
        """What is due by time alone."""
        for at, act in self._deadlines():
            if at <= time.monotonic():
                act()

    def _patience_s(self) -> float:
        return max(0.0, min(at for at, _ in self._deadlines()) - time.monotonic())

    def _deadlines(self) -> list[tuple[float, Callable[[], None]]]:
        """Moments of time.monotonic() and what is to be done then."""
        deadlines: list[tuple[float, Callable[[], None]]] = [(self._last_sending + QUIET_S, self._break_silence)]
        if self._unproven:
            deadlines.append((self._unproven[0].at + PONG_WITHIN_S, _closing(TOO_SLOW, "no pong in time")))
        if not self._feeds:
            deadlines.append((self._unbound_since + BIND_WITHIN_S, _closing(NOT_BOUND, "no token in time")))
            return deadlines
        until = min(feed.bound.until for feed in self._feeds.values())
        left_s = (until - self._bindings.now()).total_seconds()
        deadlines.append((time.monotonic() + left_s, _closing(NOT_BOUND, "the token has ended; get a new one")))
        for feed in self._feeds.values():
            heartbeat_in_s = feed.heartbeat_in_s()
            if heartbeat_in_s is not None and feed.id not in self._due:
                deadlines.append((time.monotonic() + heartbeat_in_s, partial(self.wake, feed.id)))
        return deadlines

    def _break_silence(self) -> None:
        self._prove()
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self.wake(None)


def _closing(code: int, reason: str) -> Callable[[], None]:
    def close() -> None:
        raise _Close(code, reason)

    return close


def _message(text: str) -> _Message:
    if plain := R4_BIND.fullmatch(text):
        return _Message("bind", plain[1])
    try:
        message = fhir_json.loads(text)
    except BadRequest:
        raise _Close(NOT_UNDERSTOOD, "frames are JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "ping":
        return _Message("ping")
    payload = message.get("payload") if isinstance(message, dict) else None
    token = payload.get("token") if isinstance(payload, dict) else None
    if kind not in ("bind-with-token", "unbind-from-token") or not isinstance(token, str):
        raise _Close(NOT_UNDERSTOOD, "bind-with-token, unbind-from-token (with payload.token) or ping is understood")
    return _Message(kind, token)


def _sequence(pong: Pong) -> int:
    payload = bytes(pong.payload)
    return int(payload) if payload.isdigit() and len(payload) < 10 else 0  # a pong may also come unasked
