"""What a compressed stream says of itself before it is decoded: a stream that claims more pixels than its data set
has is a bomb or a mistake, and is not given to a decoder. ISO 10918-1 annex B (JPEG), 14495-1 annex C (JPEG-LS),
15444-1 annex A (JPEG 2000, and HTJ2K with it).
"""

import struct
from dataclasses import dataclass

_SOI, _SOC = b"\xff\xd8", b"\xff\x4f"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15, and SOF55 of JPEG-LS
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_SCAN, _END_OF_IMAGE, _APP0, _APP14 = 0xDA, 0xD9, 0xE0, 0xEE
_MAX_TILES = 65535
_SIZ, _COD, _START_OF_TILE = 0xFF51, 0xFF52, 0xFF90


class NotAStream(ValueError):
    """The bytes are no such stream."""


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """precision: bits of a sample. colour: whether the stream itself says that its three components are YCbCr (True)
    or something else (False); None when it does not say."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool = False
    colour: bool | None = None
    reversible: bool = True


def jpeg_header(data: bytes) -> StreamHeader:
    """Of a JPEG or JPEG-LS stream. Raises NotAStream."""
    if not data.startswith(_SOI):
        raise NotAStream
    at, colour = 2, None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise NotAStream
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (_SCAN, _END_OF_IMAGE):
            break
        body = data[at + 4 : at + 2 + struct.unpack_from(">H", data, at + 2)[0]]
        if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            colour = body[11] == 1
        elif marker == _APP0 and body.startswith(b"JFIF\0") and colour is None:
            colour = True
        elif marker in _JPEG_FRAMES:
            if len(body) < 6:
                raise NotAStream
            precision, rows, columns, samples = struct.unpack_from(">BHHB", body)
            if samples == 3 and body[6::3][:3] == b"RGB":
                colour = False
            return StreamHeader(rows, columns, samples, precision, colour=colour)
        at += 4 + len(body)
    raise NotAStream


def jpeg2000_header(data: bytes) -> StreamHeader:
    """Of a JPEG 2000 or HTJ2K code stream, bare or in a JP2 file. Raises NotAStream."""
    if data.startswith(_JP2_SIGNATURE):  # PS3.5 A.4.4 forbids the file format; old archives have it all the same
        at = data.find(_SOC + b"\xff\x51")
        if at < 0:
            raise NotAStream
        data = data[at:]
    if not data.startswith(_SOC) or len(data) < 45 or struct.unpack_from(">H", data, 2)[0] != _SIZ:
        raise NotAStream
    width, height, left, top = struct.unpack_from(">4L", data, 8)
    samples, depth = struct.unpack_from(">HB", data, 40)
    tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">4L", data, 24)
    if width <= left or height <= top or not samples:
        raise NotAStream
    # The first tile contains the corner of the image (B.3), and there are no more of them than can be numbered. A
    # decoder may search for such tiles without an end.
    if not (tile_left <= left < tile_left + tile_width and tile_top <= top < tile_top + tile_height):
        raise NotAStream
    if -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height) > _MAX_TILES:
        raise NotAStream
    return StreamHeader(
        height - top, width - left, samples, (depth & 0x7F) + 1, bool(depth & 0x80), *_transforms(data, samples)
    )


def _transforms(data: bytes, samples: int) -> tuple[bool | None, bool]:
    """Whether the colours are transformed within the stream (a decoder then gives RGB); whether it is reversible."""
    at = 2
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _COD and at + 14 <= len(data):
            return (bool(data[at + 8]) if samples == 3 else None), data[at + 13] == 1
        if marker == _START_OF_TILE:
            break
        at += 2 + length
    return None, True
