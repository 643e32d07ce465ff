"""Requests as bytes on a connection of their own, and the answers that come back."""

import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from hypothesis import strategies as st

from tests.fuzz.mutations import Draw

TIMEOUT_S = 60
_NO_HEADER = re.compile(r"[\r\n\0]")
LINES = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "HTTP/2", "", "x"]
# Lines of a header that no library would send.
ODD = [b"Content-Length: -1", b"Content-Length: 1, 1", b"Transfer-Encoding: x", b"X", b": x", b"X : y", b" x: y"]
ODD += [b"X-Request-Id: \xff\xfe", b"Expect: 100-continue", b"Host: x", b"Connection: close", b"A: " + b"a" * 9000]
ODD += [b"Content-Type: application/fhir+json", b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"\xff: x", b"A:\t\t"]


@dataclass(frozen=True, slots=True)
class Answer:
    """status: None when the connection was closed without a word."""

    status: int | None
    headers: dict[str, str]
    body: bytes


@st.composite
def on_the_wire(draw: Draw, requests: st.SearchStrategy[dict], token: str) -> bytes:
    """A request of the strategy, its length told or in chunks, now and then with something odd about it."""
    asked = draw(requests)
    query = asked.get("query_string", "")
    target = quote(asked["path"], safe="/%$.~\\") + (f"?{quote(query, safe='%=&|,:;$/+-._~')}" if query else "")
    content = asked.get("data") or b""
    content = content if isinstance(content, bytes) else content.encode()
    lines = [f"{asked['method']} {target} HTTP/1.1".encode()]
    lines += [b"Host: 127.0.0.1", f"Authorization: Bearer {token}".encode()]
    given = asked["headers"] | {"Content-Type": asked.get("content_type") or ""}
    lines += [f"{name}: {value}".encode() for name, value in given.items() if not _NO_HEADER.search(str(value))]
    if draw(st.booleans()):
        lines.append(f"Content-Length: {len(content)}".encode())
    else:
        lines.append(b"Transfer-Encoding: chunked")
        content = _in_chunks(content, draw(st.integers(1, 2000)))
    if draw(st.integers(0, 4)) == 0:
        lines.insert(draw(st.integers(1, len(lines))), draw(st.sampled_from(ODD)))
    if draw(st.integers(0, 19)) == 0:
        lines[0] = f"{asked['method']} {target} {draw(st.sampled_from(LINES))}".encode()
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def _in_chunks(content: bytes, size: int) -> bytes:
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def ask(origin: str, raw: bytes) -> Answer:
    """Send, say that there is no more, and read to the end."""
    address = urlsplit(origin)
    with socket.create_connection((address.hostname, address.port), TIMEOUT_S) as connection:
        received = b""
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # it did not read all of what it refused; what it said before counts
    return _read(received)


def _read(received: bytes) -> Answer:
    """The first answer that is not provisional."""
    while received.startswith(b"HTTP/1.1 100"):
        received = received.partition(b"\r\n\r\n")[2]
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.[01] (\d{3}) .*", lines[0])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length: Any = headers.get("content-length")
    return Answer(int(match[1]) if match else None, headers, body if length is None else body[: int(length)])
