"""Subscribers of the benchmark, in a process of their own: endpoints for rest-hooks and clients of websockets.

A subscriber notes when the events of a focus arrived, by CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

HANGING = "/hang/"  # an endpoint below this path takes the request and never answers
CONNECTING = 50  # websockets that are opened at once


@dataclass(slots=True)
class Arrivals:
    """When each focus first arrived; when an endpoint that hangs was called; websockets that were told of all; what
    receiving has taken of a core."""

    at: dict[str, float] = field(default_factory=dict)
    hung: int = 0
    bound: int = 0
    closed: int = 0
    cpu_s: float = 0.0

    def take(self, text: bytes | str) -> bool:
        """Note the events of a notification; whether it was a handshake."""
        now = time.monotonic()
        told = json.loads(text)["entry"][0]["resource"]["parameter"]
        for one in told:
            if one["name"] == "notification-event":
                focus = next(part["valueReference"]["reference"] for part in one["part"] if part["name"] == "focus")
                self.at.setdefault(focus.rpartition("/")[2], now)
        return any(one.get("valueCode") == "handshake" for one in told)


class Subscribers:
    """The process, as the benchmark sees it. Each call waits for its answer."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.port: int = pipe.recv()

    def hook(self, number: int) -> str:
        return f"http://127.0.0.1:{self.port}/hook/{number}"

    def hanging(self, number: int) -> str:
        return f"http://127.0.0.1:{self.port}{HANGING}{number}"

    def hang(self, on: bool) -> None:
        """From now on the endpoints below HANGING hang, or answer like all others."""
        self._ask("hang", on)

    def bind(self, url: str, tokens: list[str]) -> None:
        """Open a websocket for each token and wait for its handshake."""
        self._ask("bind", url, tokens)

    def arrivals(self) -> Arrivals:
        """What has arrived until now."""
        return self._ask("report")

    def cpu_s(self) -> float:
        """Seconds of a core that the process has had."""
        return self._ask("report").cpu_s

    def forget(self) -> None:
        """Close the websockets, and note anew."""
        self._ask("forget")

    def _ask(self, *call: object) -> Arrivals:
        self._pipe.send(call)
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextmanager
def subscribers() -> Iterator[Subscribers]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Subscribers(ours)
    finally:
        process.terminate()
        process.join()


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _main(pipe: Connection) -> None:
    raise_file_limit()
    asyncio.run(_Process(pipe).run())


class _Process:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._arrivals = Arrivals()
        self._hanging = False
        self._sockets: set[asyncio.Task] = set()

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self._pipe.send(server.sockets[0].getsockname()[1])
        while True:
            name, *arguments = await asyncio.to_thread(self._pipe.recv)
            try:
                await getattr(self, f"_{name}")(*arguments)
                answer: object = self._arrivals
            except (OSError, RuntimeError, TimeoutError) as error:
                answer = RuntimeError(f"{name}: {error}")
            self._pipe.send(answer)

    async def _report(self) -> None:
        self._arrivals.cpu_s = time.process_time()

    async def _hang(self, on: bool) -> None:
        self._hanging = on

    async def _forget(self) -> None:
        for task in self._sockets:
            task.cancel()
        await asyncio.gather(*self._sockets, return_exceptions=True)
        self._sockets.clear()
        self._arrivals = Arrivals()

    async def _bind(self, url: str, tokens: list[str]) -> None:
        gate, wanted = asyncio.Semaphore(CONNECTING), self._arrivals.bound + len(tokens)
        for token in tokens:
            task = asyncio.create_task(self._listen(url, token, gate))
            self._sockets.add(task)
        async with asyncio.timeout(300):
            while self._arrivals.bound < wanted:
                if self._arrivals.closed:
                    raise RuntimeError(f"{self._arrivals.closed} websockets were closed")
                await asyncio.sleep(0.05)

    # Rest-hooks

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:  # the connection is kept, as HTTP/1.1 has it
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                body = await reader.readexactly(length)
                if self._hanging and path.startswith(HANGING):
                    self._arrivals.hung += 1
                    await reader.read()  # until the caller is tired of it
                    return
                self._arrivals.take(body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller is gone
        finally:
            writer.close()

    # Websockets

    async def _listen(self, url: str, token: str, gate: asyncio.Semaphore) -> None:
        async with gate:
            parts = urlsplit(url)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            protocol = WSConnection(ConnectionType.CLIENT)
            writer.write(protocol.send(Request(host=parts.netloc, target=parts.path)))
            bound = asyncio.Event()
            task = asyncio.create_task(self._frames(reader, writer, protocol, token, bound))
            await bound.wait()
        try:
            await task
        finally:
            writer.close()

    async def _frames(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        protocol: WSConnection,
        token: str,
        bound: asyncio.Event,
    ) -> None:
        text = ""
        while data := await reader.read(65536):
            protocol.receive_data(data)
            for event in protocol.events():
                if isinstance(event, AcceptConnection):
                    bind = {"type": "bind-with-token", "payload": {"token": token}}
                    writer.write(protocol.send(TextMessage(json.dumps(bind))))
                elif isinstance(event, Ping):
                    writer.write(protocol.send(event.response()))
                elif isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        if self._arrivals.take(text):
                            self._arrivals.bound += 1
                            bound.set()
                        text = ""
                elif isinstance(event, CloseConnection):
                    break
        self._arrivals.closed += 1
        bound.set()
