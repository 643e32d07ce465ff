"""Where the frames of an instance lie, found once when it is stored, so that a frame is one ranged read.

Frame numbers count from 1, as in WADO-RS. PS3.5 section 8.2 and annex A.4.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicomweb.dicom_json import Attributes, integer, text
from dicomweb.failures import OUT_OF_RESOURCES, StoreFailure, cannot_understand
from dicomweb.part10 import UNDEFINED, Bounded, PixelElement

MAX_FRAGMENTS = 1_000_000
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_HEADER = 8  # bytes of an item's tag and length
# What the first fragment of a frame begins with: JPEG and JPEG-LS (SOI), JPEG 2000 and HTJ2K (SOC).
_FRAME_STARTS = (b"\xff\xd8", b"\xff\x4f")
_BITS = {0x7FE00008: 32, 0x7FE00009: 64}

ReadRange = Callable[[int, int], bytes]  # (offset, length) -> exactly these bytes


@dataclass(frozen=True, slots=True)
class FrameTable:
    """count: frames that can be read. Native: from `offset`, `bits` each, one after the other.
    Encapsulated: `spans` holds offset and length of each as 64-bit little-endian integers, item headers included;
    of a stream that cannot be cut into frames, one span and a count of 0."""

    count: int
    offset: int = 0
    bits: int = 0
    spans: bytes | None = None

    @property
    def encapsulated(self) -> bool:
        return self.spans is not None

    def read(self, frame_number: int, read_range: ReadRange, *, even: bool = False) -> bytes:
        """The frame as stored: native pixels, or the compressed stream. even: with the byte after an odd number of
        them, which belongs to the last word of big-endian pixels. Raises IndexError outside 1..count."""
        if not 1 <= frame_number <= self.count:
            raise IndexError(frame_number)
        if self.spans is not None:
            offset, length = struct.unpack_from("<QQ", self.spans, (frame_number - 1) * 16)
            return _without_headers(read_range(offset, length))
        begin = (frame_number - 1) * self.bits
        end = begin + self.bits
        first, shift = divmod(begin, 8)
        length = (end + 7) // 8 - first
        data = read_range(self.offset + first, length + (length % 2 if even else 0))
        if not shift and not self.bits % 8:
            return data
        # One-bit pixels follow each other without a gap, so a frame may begin inside a byte.
        bits = int.from_bytes(data, "little") >> shift & (1 << self.bits) - 1
        return bits.to_bytes((self.bits + 7) // 8, "little")

    def only(self, frame_number: int) -> "FrameTable":
        """A table of this frame alone. Raises IndexError, ValueError where it begins inside a byte."""
        if not 1 <= frame_number <= self.count:
            raise IndexError(frame_number)
        if self.spans is not None:
            return FrameTable(1, spans=self.spans[(frame_number - 1) * 16 : frame_number * 16])
        first, shift = divmod((frame_number - 1) * self.bits, 8)
        if shift:
            raise ValueError(frame_number)
        return FrameTable(1, self.offset + first, self.bits)

    def fragments(self, read_range: ReadRange) -> Iterator[tuple[int, int]]:
        """Offset and length of each fragment of encapsulated pixel data, in order."""
        for offset, length in struct.iter_unpack("<QQ", self.spans or b""):
            end = offset + length
            while offset < end:
                size = struct.unpack_from("<L", read_range(offset, _HEADER), 4)[0]
                yield offset + _HEADER, size
                offset += _HEADER + size


def find_frames(file: Bounded, element: PixelElement | None, attributes: Attributes) -> FrameTable | None:
    """The frame table; None when the instance has no pixel data. Raises StoreFailure for broken encapsulation."""
    if element is None:
        return None
    count = max(1, integer(attributes, "00280008", 1) or 1)
    if element.length == UNDEFINED:
        return _encapsulated(file, element.offset, count)
    bits = frame_bits(attributes, _BITS.get(element.tag))
    if not bits:
        return FrameTable(0)
    return FrameTable(min(count, element.length * 8 // bits), element.offset, bits)


def frame_bits(attributes: Attributes, allocated: int | None = None) -> int:
    """Bits of a native frame; 0 when the attributes do not say."""
    rows, columns = integer(attributes, "00280010", 0) or 0, integer(attributes, "00280011", 0) or 0
    samples = integer(attributes, "00280002", 1) or 1
    allocated = allocated or integer(attributes, "00280100", 0) or 0
    bits = rows * columns * samples * allocated
    # Two of three samples: chrominance is there for every other column only (PS3.3 C.7.6.3.1.2).
    return max(0, bits * 2 // 3 if text(attributes, "00280004") == "YBR_FULL_422" and samples == 3 else bits)


def _encapsulated(file: Bounded, offset: int, count: int) -> FrameTable:
    table, fragments = _items(file, offset)
    starts = _frame_starts(file, table, fragments, count)
    spans: list[int] = []
    if starts is None:  # several frames that nothing tells apart, such as those of a video
        return FrameTable(
            0, spans=struct.pack("<QQ", fragments[0][0], sum(fragments[-1]) + _HEADER - fragments[0][0])
        )
    for number, start in enumerate(starts):
        begin = fragments[start][0]
        last = fragments[(starts[number + 1] if number + 1 < len(starts) else len(fragments)) - 1]
        spans.extend((begin, last[0] + _HEADER + last[1] - begin))
    return FrameTable(len(starts), spans=struct.pack(f"<{len(spans)}Q", *spans))


def _items(file: Bounded, offset: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The basic offset table, and (offset of the item, length of its value) of each fragment."""
    fragments: list[tuple[int, int]] = []
    table: bytes | None = None
    while True:
        header = file.at(offset, _HEADER)
        group, element, length = struct.unpack("<HHL", header)
        tag = group << 16 | element
        if tag == _END:
            break
        if tag != _ITEM or length == UNDEFINED:
            raise cannot_understand("the encapsulated pixel data is broken")
        if table is None:
            table = file.at(offset + _HEADER, length)
        else:
            fragments.append((offset, length))
        if len(fragments) > MAX_FRAGMENTS:
            raise StoreFailure(OUT_OF_RESOURCES, "the pixel data has too many fragments")
        offset += _HEADER + length
        file.seek(offset)  # refuses a file that ends before
    return table or b"", fragments


def _frame_starts(file: Bounded, table: bytes, fragments: list[tuple[int, int]], count: int) -> list[int] | None:
    """The index of the first fragment of each frame; None when it cannot be told."""
    if not fragments:
        return []
    if count == 1:
        return [0]
    if len(fragments) == count:  # so it is whenever there is an Extended Offset Table (PS3.3 C.7.6.3.1.8)
        return list(range(count))
    by_offset = {item[0] - fragments[0][0]: index for index, item in enumerate(fragments)}
    offsets = struct.unpack(f"<{len(table) // 4}L", table[: len(table) // 4 * 4])
    starts = [by_offset[at] for at in offsets if at in by_offset]
    if len(starts) == count and starts == sorted(set(starts)) and starts[0] == 0:
        return starts
    starts = [
        index
        for index, (offset, length) in enumerate(fragments)
        if length >= 2 and file.at(offset + _HEADER, 2) in _FRAME_STARTS
    ]
    return starts if len(starts) == count and starts[0] == 0 else None


def _without_headers(span: bytes) -> bytes:
    if struct.unpack_from("<L", span, 4)[0] == len(span) - _HEADER:  # one fragment, as nearly always
        return span[_HEADER:]
    fragments, at = [], 0
    while at < len(span):
        length = struct.unpack_from("<L", span, at + 4)[0]
        fragments.append(span[at + _HEADER : at + _HEADER + length])
        at += _HEADER + length
    return b"".join(fragments)
