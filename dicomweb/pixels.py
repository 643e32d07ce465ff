"""Decoding one frame. Runs in the pixel pool alone: a decoder may crash, hang or take all memory.

Plain values go in and out, so that the processes of the pool know neither the blob store nor MongoDB.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

MAX_SAMPLES = 512 * 1024 * 1024  # of one frame


class Undecodable(Exception):
    """No decoder for the transfer syntax is installed, or the pixel data is broken."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame as stored, with the attributes that say what it is (Image Pixel module, PS3.3 C.7.6.3)."""

    data: bytes = field(repr=False)
    encapsulated: bool
    transfer_syntax: str
    keyword: str  # PixelData, FloatPixelData or DoubleFloatPixelData
    vr: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    planar: int
    photometric: str


def decode(frame: EncodedFrame, *, raw: bool) -> tuple[np.ndarray, str]:
    """The pixels, rows x columns (x samples), and their photometric interpretation. raw: YBR stays YBR.

    Raises Undecodable.
    """
    if not 0 < frame.rows * frame.columns * frame.samples <= MAX_SAMPLES:
        raise Undecodable("the frame has no pixels, or too many")
    syntax, source = frame.transfer_syntax, frame.data
    if frame.encapsulated:
        source = encapsulate([frame.data], has_bot=False)
    elif syntax != ExplicitVRBigEndian:  # the others have native pixels in common
        syntax = ExplicitVRLittleEndian
    options: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": frame.rows,
        "columns": frame.columns,
        "samples_per_pixel": frame.samples,
        "bits_allocated": frame.bits_allocated,
        "bits_stored": frame.bits_stored,
        "photometric_interpretation": frame.photometric,
        "pixel_keyword": frame.keyword,
        "pixel_vr": frame.vr,
        "pixel_representation": int(frame.signed),
    } | ({"planar_configuration": frame.planar} if frame.samples > 1 else {})
    try:
        pixels, described = get_decoder(syntax).as_array(source, index=0, raw=raw, **options)
    except Exception as error:
        # Whatever a decoder makes of broken data. Its message may be long and of no use to a client.
        raise Undecodable(f"the pixel data cannot be decoded ({type(error).__name__})") from None
    return pixels, str(described.get("photometric_interpretation", frame.photometric))


def decodable(transfer_syntax: str) -> bool:
    """Whether a decoder for it is installed."""
    try:
        return get_decoder(transfer_syntax).is_available
    except NotImplementedError:
        return False


def decoded(frame: EncodedFrame) -> bytes:
    """The frame as Explicit VR Little Endian has it: row by row, colour by pixel. Raises Undecodable."""
    pixels, _ = decode(frame, raw=True)
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
