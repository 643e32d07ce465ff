"""What an answer consists of: one stream of bytes, or several in a multipart message. RFC 2387."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from dicomweb.accept import MULTIPART
from dicomweb.multipart import closing, part_head


@dataclass(frozen=True, slots=True)
class Content:
    """What to send. length: bytes, where it is known before. section: (offset, length) -> these bytes, of content
    that can be had in pieces. close: called when it has been sent, or the client has gone."""

    content_type: str
    chunks: Iterable[bytes] = field(repr=False)
    length: int | None = None
    section: Callable[[int, int], Iterable[bytes]] | None = field(default=None, repr=False)
    close: Callable[[], None] | None = field(default=None, repr=False)

    def ending_with(self, close: Callable[[], None]) -> "Content":
        """The content, which calls `close` when it has been made; also when it never is. More than once."""

        def chunks() -> Iterator[bytes]:
            try:
                yield from self.chunks
            finally:
                close()

        return replace(self, chunks=chunks(), close=close)


@dataclass(frozen=True, slots=True)
class Part:
    """size: bytes, where it is known before."""

    headers: dict[str, str]
    chunks: Callable[[], Iterable[bytes]]
    size: int | None = None


def multipart(media_type: str, parts: list[Part]) -> Content:
    """The parts, which are of that type, in one message; its length when that of each is known."""
    boundary = secrets.token_hex(16)
    heads = [part_head(boundary, part.headers, index == 0) for index, part in enumerate(parts)]
    sizes = [part.size for part in parts]
    length = None
    if all(size is not None for size in sizes):
        length = sum(map(len, heads)) + sum(size or 0 for size in sizes) + len(closing(boundary))

    def chunks() -> Iterator[bytes]:
        for head, part in zip(heads, parts, strict=True):
            yield head
            yield from part.chunks()
        yield closing(boundary)

    return Content(_content_type(media_type, boundary), chunks(), length)


def multipart_of(media_type: str, parts: Iterable[Part]) -> Content:
    """As `multipart`, of parts that are made one after the other while they are sent."""
    boundary = secrets.token_hex(16)

    def chunks() -> Iterator[bytes]:
        first = True
        for part in parts:
            yield part_head(boundary, part.headers, first)
            yield from part.chunks()
            first = False
        yield closing(boundary)

    return Content(_content_type(media_type, boundary), chunks())


def _content_type(media_type: str, boundary: str) -> str:
    return f'{MULTIPART}; type="{media_type}"; boundary={boundary}'
