"""Calls to endpoints: by HTTP/1.1, many at once in one thread, each for so long and no longer.

An endpoint that takes its time costs a connection and nothing else. Connections are kept a while for the next call to
the same host; they go to the address that was checked when they were opened.
"""

import asyncio
import functools
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import h11

from subscriptions.outgoing import EndpointUnavailable, Outgoing, Target, parse

MAX_HEAD = 16 * 1024  # status line and headers of an answer, in bytes
MAX_ANSWER = 4 * 1024  # of an answer's body; the rest is not read
RESOLVERS = 32  # threads that look host names up
OPENING = 8  # connections to one host at once: a small server accepts no crowd
KEPT_S = 15.0  # a connection nobody uses
MOST_KEPT = 256  # connections
DEFAULT_PORTS = {"https": 443, "http": 80}

Headers = Iterable[tuple[str, str]]
Place = tuple[str, str, int]  # scheme, host and port


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered; `body` is at most MAX_ANSWER bytes, for a diagnostic, never stored."""

    status: int
    body: bytes

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(eq=False, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    )
    status: int | None = None  # of the answer that is being read, or was read last
    kept: asyncio.TimerHandle | None = None  # while nobody uses it: how long

    @property
    def is_open(self) -> bool:
        return not (self.writer.is_closing() or self.reader.at_eof())

    def cut(self) -> None:
        self.writer.transport.abort()


class _Stale(Exception):
    """The other side had closed a kept connection before it got the call."""


class Callers:
    """Calls from one event loop, until `close`."""

    def __init__(self, outgoing: Outgoing, resolvers: int = RESOLVERS) -> None:
        self._outgoing = outgoing
        self._resolvers = ThreadPoolExecutor(resolvers, "resolve")
        self._kept: dict[Place, list[_Connection]] = {}
        self._count = 0
        self._gates: WeakValueDictionary[Place, asyncio.Semaphore] = WeakValueDictionary()

    async def call(self, method: str, url: str, body: bytes, headers: Headers, timeout_s: float) -> Answer:
        """Call and return the answer, whatever its status; redirects are answers like any other.

        timeout_s: for all of it, from resolving to the last byte read.
        Raises OutgoingRefused, EndpointUnavailable.
        """
        scheme, host, port, path = parse(url)
        place = (scheme, host, port)
        told = [("Host", _authority(place)), *headers, ("Content-Length", str(len(body)))]
        call = _Call(method, path, [(name.encode(), value.encode("latin-1")) for name, value in told], body)
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while (connection := self._take(place)) is not None:
                    try:
                        return await self._exchange(place, connection, call)
                    except _Stale:
                        connection.cut()
                async with self._gates.setdefault(place, asyncio.Semaphore(OPENING)):
                    connection = await self._connect(url)
                return await self._exchange(place, connection, call)
        except (OSError, h11.ProtocolError, ValueError) as error:
            if connection is not None and connection.status is not None:
                return Answer(connection.status, b"")  # the status line has said it all
            raise EndpointUnavailable(_reason(error)) from None
        finally:
            if connection is not None and connection.kept is None:
                connection.cut()

    def close(self) -> None:
        """Cut the connections that are kept."""
        for place, connections in list(self._kept.items()):
            for connection in list(connections):
                self._end(place, connection)
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def _exchange(self, place: Place, connection: _Connection, call: _Call) -> Answer:
        protocol, used_before = connection.protocol, connection.status is not None
        connection.status = None
        parts = (
            h11.Request(method=call.method, target=call.path, headers=call.headers),
            h11.Data(data=call.body),
            h11.EndOfMessage(),
        )
        connection.writer.write(b"".join(protocol.send(part) or b"" for part in parts))
        budget, text = MAX_HEAD + MAX_ANSWER, b""
        try:
            await connection.writer.drain()
            while len(text) < MAX_ANSWER:
                event = protocol.next_event()
                if event is h11.NEED_DATA:
                    if budget <= 0:
                        raise OSError("the answer is too large")
                    data = await connection.reader.read(budget)
                    if used_before and not data and budget == MAX_HEAD + MAX_ANSWER:
                        raise _Stale
                    budget -= len(data)
                    protocol.receive_data(data)
                elif isinstance(event, h11.Response):
                    connection.status = event.status_code
                elif isinstance(event, h11.Data):
                    text += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self._keep(place, connection)
                    break
                elif not isinstance(event, h11.InformationalResponse):
                    raise ConnectionError("the connection was closed")
        except ConnectionError:
            if used_before and connection.status is None:
                raise _Stale from None
            raise
        return Answer(connection.status or 0, text[:MAX_ANSWER])

    async def _connect(self, url: str) -> _Connection:
        target = await asyncio.get_running_loop().run_in_executor(self._resolvers, self._outgoing.check, url)
        trouble: OSError | None = None
        for address in target.addresses:
            try:
                reader, writer = await _opened(target, address)
            except OSError as error:
                trouble = error
            else:
                return _Connection(reader, writer)
        raise trouble or OSError("no address")

    # Connections that are kept

    def _take(self, place: Place) -> _Connection | None:
        """A connection that nobody uses now."""
        while connections := self._kept.get(place):
            connection = connections[-1]
            self._let_go(place, connection)
            if connection.is_open:
                return connection
            connection.cut()
        return None

    def _keep(self, place: Place, connection: _Connection) -> None:
        """Keep the connection for the next call, where both sides have said that they would."""
        protocol = connection.protocol
        if self._count < MOST_KEPT and protocol.our_state is protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
            self._kept.setdefault(place, []).append(connection)
            self._count += 1
            connection.kept = asyncio.get_running_loop().call_later(KEPT_S, self._end, place, connection)

    def _let_go(self, place: Place, connection: _Connection) -> None:
        if connection.kept is not None:
            connection.kept.cancel()
            connection.kept = None
        connections = self._kept[place]
        connections.remove(connection)
        self._count -= 1
        if not connections:
            del self._kept[place]

    def _end(self, place: Place, connection: _Connection) -> None:
        self._let_go(place, connection)
        connection.cut()


async def _opened(target: Target, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.scheme == "https":
        return await asyncio.open_connection(address, target.port, ssl=_tls(), server_hostname=target.host)
    return await asyncio.open_connection(address, target.port)


def call_once(outgoing: Outgoing, method: str, url: str, body: bytes, headers: Headers, timeout_s: float) -> Answer:
    """`Callers.call` for who has a thread to wait in."""

    async def call() -> Answer:
        callers = Callers(outgoing, resolvers=1)
        try:
            return await callers.call(method, url, body, headers, timeout_s)
        finally:
            callers.close()

    return asyncio.run(call())


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _authority(place: Place) -> str:
    scheme, host, port = place
    name = f"[{host}]" if ":" in host else host
    return name if port == DEFAULT_PORTS[scheme] else f"{name}:{port}"


def _reason(error: Exception) -> str:
    """Why an endpoint is unavailable, in words that carry nothing of its answer."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "its TLS certificate or connection was not accepted"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, OSError):
        return "the connection failed"
    return "its answer is no HTTP"
