"""The boxes of an MP4 file, as they lie one after the other. ISO 14496-12 section 4.2"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from dicomweb.failures import cannot_understand

Content = bytes | mmap  # what can be looked into without being read


@dataclass(frozen=True, slots=True)
class Box:
    """begin: of its header, body: behind that, end: behind the box; places in the content."""

    name: bytes
    begin: int
    body: int
    end: int


def boxes(content: Content, begin: int, end: int) -> Iterator[Box]:
    """Those between two places, not what they contain. Raises StoreFailure for one that does not fit."""
    at = begin
    while at + 8 <= end:
        size, name = struct.unpack_from(">L4s", content, at)
        head = 8
        if size == 1 and at + 16 <= end:
            size, head = struct.unpack_from(">Q", content, at + 8)[0], 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            raise cannot_understand("the film is broken")
        yield Box(name, at, at + head, at + size)
        at += size
