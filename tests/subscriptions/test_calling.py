"""Calls to endpoints from one event loop, over connections that are kept; see also test_outgoing.py."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from subscriptions import calling
from subscriptions.calling import Answer, Callers
from subscriptions.outgoing import EndpointUnavailable, Outgoing

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[["Endpoint", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Endpoint:
    """A server of the outside world, in the event loop of the test."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.at_once = 0  # most of them
        self.open = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> "Endpoint":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook?a=b"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.at_once = max(self.at_once, self.open)
        try:
            await self._serve(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller has gone
        finally:
            self.open -= 1
            writer.close()

    async def take(self, reader: asyncio.StreamReader) -> None:
        """The next request; its body is two bytes."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head + await reader.readexactly(2))


async def keep(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await endpoint.take(reader)
        writer.write(OK)


async def answer_once(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close without a word after the first answer, as a server does that is tired of waiting."""
    await endpoint.take(reader)
    writer.write(OK)
    await writer.drain()


async def hang(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await endpoint.take(reader)
    await reader.read()


def run(serve: Serve, work: Callable[[Endpoint, Callable[..., Awaitable[Answer]]], Awaitable[None]]) -> Endpoint:
    async def both() -> Endpoint:
        callers = Callers(Outgoing(["127.0.0.1"]))

        async def call(timeout_s: float = 20) -> Answer:
            return await callers.call("POST", endpoint.url, b"{}", [("X-A", "b")], timeout_s)

        try:
            async with Endpoint(serve) as endpoint:
                await work(endpoint, call)
        finally:
            callers.close()
        return endpoint

    return asyncio.run(both())


def test_a_connection_is_kept_for_the_next_call() -> None:
    async def work(_endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        assert [await call() for _ in range(3)] == [Answer(200, b"ok")] * 3

    endpoint = run(keep, work)
    assert endpoint.connections == 1
    host = endpoint.url.split("/")[2].encode()
    sent = b"POST /hook?a=b HTTP/1.1\r\nHost: %s\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}" % host
    assert endpoint.requests == [sent] * 3


def test_calls_at_once_have_connections_of_their_own() -> None:
    async def work(_endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        assert await asyncio.gather(*(call() for _ in range(3))) == [Answer(200, b"ok")] * 3

    assert run(keep, work).connections == 3


def test_one_that_the_other_side_has_closed_is_replaced() -> None:
    async def work(endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        for _ in range(3):
            assert await call() == Answer(200, b"ok")

    assert run(answer_once, work).connections == 3


def test_a_call_that_meets_the_closing_is_made_again() -> None:
    """The close crosses the next request; nothing of an answer came, so it goes once more over a new connection."""

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await endpoint.take(reader)
        writer.write(OK)
        if endpoint.connections == 1:
            await endpoint.take(reader)  # taken, and nothing said
            return
        await keep(endpoint, reader, writer)

    async def work(_endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        assert [await call() for _ in range(2)] == [Answer(200, b"ok")] * 2

    assert run(serve, work).connections == 2


def test_an_endpoint_that_says_nothing_on_a_new_connection_is_unavailable() -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await endpoint.take(reader)

    async def work(_endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        with pytest.raises(EndpointUnavailable):
            await call()

    assert run(serve, work).connections == 1


def test_one_that_nobody_uses_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "KEPT_S", 0.01)

    async def work(endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        await call()
        async with asyncio.timeout(20):
            while endpoint.open:
                await asyncio.sleep(0.01)

    run(keep, work)


def test_a_call_ends_at_its_time_and_takes_its_connection_along() -> None:
    async def work(endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        with pytest.raises(EndpointUnavailable, match="no answer in time"):
            await call(timeout_s=0.05)
        async with asyncio.timeout(20):
            while endpoint.open:
                await asyncio.sleep(0.01)

    run(hang, work)


def test_many_that_hang_keep_none_of_the_others_waiting() -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (hang if endpoint.connections <= 300 else keep)(endpoint, reader, writer)

    async def work(endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        hung = [asyncio.create_task(call(timeout_s=60)) for _ in range(300)]  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            while len(endpoint.requests) < 300:
                await asyncio.sleep(0.01)
        assert await call() == Answer(200, b"ok")
        for task in hung:
            task.cancel()

    run(serve, work)


def test_connections_to_one_host_are_opened_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0
    opened = calling._opened

    async def counted(*arguments: object) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        try:
            return await opened(*arguments)  # type: ignore[arg-type]
        finally:
            under_way -= 1

    monkeypatch.setattr(calling, "_opened", counted)

    async def work(_endpoint: Endpoint, call: Callable[..., Awaitable[Answer]]) -> None:
        await asyncio.gather(*(call() for _ in range(50)))

    run(keep, work)
    assert most == calling.OPENING
