"""The entries of lookup tables, whole or in segments. Runs in the pixel pool. PS3.3 sections C.7.9 and C.11."""

import struct

import numpy as np

from dicomweb.display import Lut
from dicomweb.pixels import Undecodable

_DISCRETE, _LINEAR_SEGMENT, _INDIRECT = 0, 1, 2


def table(lut: Lut) -> np.ndarray:
    """The entries of a lookup table. Raises Undecodable."""
    if lut.segmented:
        return _expanded(lut)
    entries = np.frombuffer(lut.data, np.uint8)
    if len(lut.data) >= 2 * lut.count:
        entries = np.frombuffer(lut.data[: 2 * lut.count], "<u2")
    elif lut.bits > 8 or len(lut.data) < lut.count:
        raise Undecodable("a lookup table is shorter than it says")
    return entries[: lut.count]


def _expanded(lut: Lut) -> np.ndarray:
    """A segmented lookup table. PS3.3 C.7.9.2."""
    width, code = (1, "B") if lut.bits == 8 else (2, "H")
    words = struct.unpack(f"<{len(lut.data) // width}{code}", lut.data[: len(lut.data) // width * width])
    entries: list[int] = []
    try:
        at = 0
        while at < len(words) and len(entries) < lut.count:
            if words[at] == _INDIRECT:
                segments, offset = words[at + 1], words[at + 2] | (words[at + 3] << 8 * width)
                at += 4
                for _ in range(segments):
                    offset += _segment(words, offset, entries, lut.count)
            else:
                at += _segment(words, at, entries, lut.count)
    except IndexError:
        raise Undecodable("a segmented lookup table is broken") from None
    if not entries:
        raise Undecodable("a segmented lookup table is empty")
    return np.array(entries[: lut.count], np.uint8 if lut.bits == 8 else np.uint16)


def _segment(words: tuple[int, ...], at: int, entries: list[int], most: int) -> int:
    """Append one discrete or linear segment; returns how many words it took."""
    opcode, length = words[at], words[at + 1]
    if len(entries) > most or opcode not in (_DISCRETE, _LINEAR_SEGMENT):
        raise Undecodable("a segmented lookup table is broken")
    if opcode == _DISCRETE:
        entries += words[at + 2 : at + 2 + length]
        return 2 + length
    begin, end = entries[-1], words[at + 2]
    entries += [round(begin + (end - begin) * step / length) for step in range(1, length + 1)]
    return 3
