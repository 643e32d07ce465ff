"""multipart/related, read from a stream in bounded memory and written as one. RFC 2046 section 5.1, RFC 2387."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fhir_server.errors import BadRequest

CHUNK = 256 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_PREAMBLE_BYTES = 64 * 1024
# RFC 2046 allows 70 characters; a widespread sender takes 73.
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,127}[0-9A-Za-z'()+_,\-./:=?]")


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(slots=True)
class Part:
    """One part; its content can be read once, and is skipped by asking for the next part."""

    headers: dict[str, str]
    chunks: Iterator[bytes] = field(repr=False)


class BrokenMultipart(BadRequest):
    """The content is no multipart message, or ends too early."""


def parts(stream: Readable, boundary: str) -> Iterator[Part]:
    """Yield the parts one after the other. Raises BrokenMultipart.

    Holds at most two chunks in memory, however large a part is. What follows the last boundary is ignored.
    """
    if not BOUNDARY.fullmatch(boundary):
        raise BrokenMultipart("the boundary of the multipart message has not the right form")
    reader = _Reader(stream, boundary.encode("ascii"))
    reader.skip_preamble()
    while reader.next_part():
        headers = reader.headers()
        content = reader.content()
        yield Part(headers, content)
        for _ in content:  # whatever the caller left
            pass


class _Reader:
    def __init__(self, stream: Readable, boundary: bytes) -> None:
        self._stream = stream
        self._delimiter = b"\r\n--" + boundary
        # As if a line ended before the first byte, so that the first boundary looks like the others.
        self._buffer = bytearray(b"\r\n")

    def _fill(self) -> None:
        chunk = self._stream.read(CHUNK)
        if not chunk:
            raise BrokenMultipart("the multipart message ends before its closing boundary")
        self._buffer += chunk

    def skip_preamble(self) -> None:
        skipped = 0
        while (at := self._buffer.find(self._delimiter)) < 0:
            surplus = max(0, len(self._buffer) - len(self._delimiter))
            del self._buffer[:surplus]
            skipped += surplus
            if skipped > MAX_PREAMBLE_BYTES:
                raise BrokenMultipart("the boundary of the multipart message does not occur in it")
            self._fill()
        del self._buffer[: at + len(self._delimiter)]

    def next_part(self) -> bool:
        """After a delimiter: whether another part follows."""
        while len(self._buffer) < 2:
            self._fill()
        if self._buffer.startswith(b"--"):
            return False
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise BrokenMultipart("a boundary is not followed by the end of its line")
            self._fill()
        if bytes(self._buffer[:end]).strip(b" \t"):
            raise BrokenMultipart("a boundary is not followed by the end of its line")
        del self._buffer[:end]  # keeps the line end, which belongs to an empty header as well
        return True

    def headers(self) -> dict[str, str]:
        while (end := self._buffer.find(b"\r\n\r\n", 0, MAX_HEADER_BYTES)) < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise BrokenMultipart("the header of a part is too long")
            self._fill()
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 2]  # keeps one line end: the delimiter of an empty part begins with it
        headers = {}
        for line in filter(None, lines):
            name, colon, value = line.partition(":")
            if not colon:
                raise BrokenMultipart("a header line of a part has no colon")
            headers[name.strip().lower()] = value.strip()
        return headers

    def content(self) -> Iterator[bytes]:
        first = True
        while True:
            at = self._buffer.find(self._delimiter)
            keep = len(self._delimiter) - 1
            ready = at if at >= 0 else max(0, len(self._buffer) - keep)
            # The line end before the content is no part of it (see `headers`).
            start = 2 if first else 0
            if ready > start or at >= 0:
                chunk = bytes(self._buffer[start:ready])
                del self._buffer[:ready]
                first = False
                if chunk:
                    yield chunk
            if at >= 0:
                del self._buffer[: len(self._delimiter)]
                return
            self._fill()


def part_head(boundary: str, headers: dict[str, str], first: bool) -> bytes:
    """What stands before the content of a part that we send."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{'' if first else chr(13) + chr(10)}--{boundary}\r\n{lines}\r\n".encode()


def closing(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()
