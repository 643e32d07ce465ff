"""One frame as an array, as native pixels, or in another transfer syntax. Runs in the pixel pool alone: a decoder may
crash, hang or take all memory.

Plain values go in and out, so that the processes of the pool know neither the blob store nor MongoDB.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import ExplicitVRBigEndian

from dicomweb import codecs
from dicomweb.codecs import CodecFault
from dicomweb.dicom_json import words_swapped
from dicomweb.frames import FrameTable

MAX_SAMPLES = 512 * 1024 * 1024  # of one frame
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_FLOAT = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}
_TRANSFORMED = ("YBR_RCT", "YBR_ICT")  # within a JPEG 2000 stream, whose decoder gives RGB
_LOSSY_JPEG = {codecs.JPEG_BASELINE, codecs.JPEG_EXTENDED}


class Undecodable(Exception):
    """No decoder for the transfer syntax is installed, or the pixel data is broken."""


@dataclass(frozen=True, slots=True)
class FrameFile:
    """A frame in a file of this machine: who decodes it reads it, so that it does not pass through the web server.

    table: of this frame alone. even: see FrameTable.read.
    """

    path: Path
    table: FrameTable
    even: bool

    def read(self) -> bytes:
        with self.path.open("rb", buffering=0) as file:

            def read_range(offset: int, length: int) -> bytes:
                file.seek(offset)
                data = file.read(length)
                while len(data) < length:
                    more = file.read(length - len(data))
                    if not more:
                        raise EOFError(str(self.path))
                    data += more
                return data

            return self.table.read(1, read_range, even=self.even)


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
    high_bit: int | None = None  # None: the bits stored are the lowest
    source: FrameFile | None = field(default=None, repr=False)  # where `data` is to be read from

    def loaded(self) -> "EncodedFrame":
        """With its data, where that has not been read yet. Raises FileNotFoundError, EOFError."""
        return self if self.source is None else replace(self, data=self.source.read(), source=None)

    @property
    def stored(self) -> int:
        """Bits stored, however absurd the attribute."""
        return max(1, min(self.bits_stored, self.bits_allocated))


def decode(frame: EncodedFrame, *, raw: bool) -> tuple[np.ndarray, str]:
    """The pixels, rows x columns (x samples), and their photometric interpretation.

    raw: as they are allocated, and YBR stays YBR; else the stored bits alone, signs extended, and colours as RGB.
    Raises Undecodable.
    """
    if not 0 < frame.rows * frame.columns * frame.samples <= MAX_SAMPLES or min(frame.rows, frame.columns) < 0:
        raise Undecodable("the frame has no pixels, or too many")
    if frame.samples not in (1, 3, 4):
        raise Undecodable("the frame has neither one sample for each pixel nor three")
    try:
        if frame.transfer_syntax == codecs.DEFLATED_FRAME:
            frame = _inflated(frame)
        pixels, photometric = _decompressed(frame) if frame.encapsulated else (_native(frame), frame.photometric)
    except CodecFault as fault:
        raise Undecodable(str(fault)) from None
    if frame.photometric == "YBR_FULL_422" and photometric.startswith("YBR"):
        photometric = "YBR_FULL"  # the chrominance has been repeated for each pixel
    if raw:
        return pixels, photometric
    if (pixels.dtype.kind in "iu" and not frame.encapsulated) or frame.transfer_syntax == codecs.RLE:
        pixels = _stored_bits(frame, pixels)
    if pixels.ndim == 3 and photometric.startswith("YBR"):
        pixels, photometric = rgb(pixels[..., :3], frame.stored, photometric), "RGB"
    return pixels, photometric


def decodable(transfer_syntax: str) -> bool:
    """Whether a decoder for compressed pixels in it is installed."""
    return transfer_syntax in codecs.DECODED


def encodable(transfer_syntax: str) -> bool:
    """Whether frames can be compressed into it."""
    return transfer_syntax in codecs.ENCODED


def recodable(frame: EncodedFrame, transfer_syntax: str) -> bool:
    """Whether the pixels, by what the data set says of them, fit into a compressed transfer syntax."""
    if transfer_syntax not in codecs.ENCODED or frame.bits_allocated == 1 or frame.keyword in _FLOAT:
        return False
    if transfer_syntax == codecs.RLE:
        return frame.samples * frame.bits_allocated <= 15 * 8  # a header names fifteen segments
    if frame.bits_allocated > 16 or frame.samples == 4:
        return False
    if transfer_syntax not in codecs.LOSSY:
        return True
    # The largest signed value could come back as the smallest, an index of a palette as any other colour.
    fits = codecs.LOSSY_BITS.get(transfer_syntax, frame.stored) == frame.stored
    return fits and not frame.signed and frame.photometric != "PALETTE COLOR"


def decoded(frame: EncodedFrame) -> bytes:
    """The frame as Explicit VR Little Endian has it: row by row, colour by pixel. Raises Undecodable."""
    pixels, _ = decode(frame, raw=True)
    if frame.bits_allocated == 1:
        return np.packbits(pixels.ravel(), bitorder="little").tobytes()
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def recoded(frame: EncodedFrame, transfer_syntax: str) -> bytes:
    """The frame in a compressed transfer syntax. Lossless but for those in `codecs.LOSSY`. Raises Undecodable."""
    if not recodable(frame, transfer_syntax):
        raise Undecodable("pixels of this kind cannot be compressed in that way")
    pixels, photometric = decode(frame, raw=True)
    if pixels.ndim == 3 and photometric == "RGB" and transfer_syntax in _LOSSY_JPEG:
        pixels = ybr(pixels)
    if transfer_syntax != codecs.RLE:
        pixels = _stored_bits(frame, pixels)
    try:
        return codecs.encode(transfer_syntax, pixels, frame.stored)
    except CodecFault as fault:
        raise Undecodable(str(fault)) from None


def photometric_in(frame: EncodedFrame, transfer_syntax: str) -> str:
    """The photometric interpretation that `decoded` or `recoded` leaves behind."""
    photometric = frame.photometric
    if frame.samples == 1:
        return photometric
    if frame.encapsulated:
        photometric = _colours(frame) if frame.data else photometric
    if photometric == "YBR_FULL_422":
        photometric = "YBR_FULL"
    if transfer_syntax in _LOSSY_JPEG and photometric == "RGB":
        return "YBR_FULL"
    return photometric


def rgb(pixels: np.ndarray, stored: int, photometric: str = "YBR_FULL") -> np.ndarray:
    """YBR as RGB, rounded. PS3.3 C.7.6.3.1.2. Fixed point with 16 bits of fraction: a third of the time of floats."""
    top = (1 << stored) - 1
    luma: Any
    blue: Any
    red: Any
    luma, blue, red = (pixels[..., plane].astype(np.int64 if stored > 14 else np.int32) for plane in range(3))
    middle = 1 << (stored - 1)
    blue -= middle
    red -= middle
    scale, chroma = 1.0, 1.0
    if photometric.startswith("YBR_PARTIAL"):  # black is 16 and white 235, of 256
        scale, chroma = 255 / 219, 255 / 224
        luma -= 16 << (stored - 8) if stored >= 8 else 0
    fixed = luma * round(65536 * scale) + 32768
    planes = (
        fixed + red * round(1.402 * chroma * 65536),
        fixed - blue * round(0.344136 * chroma * 65536) - red * round(0.714136 * chroma * 65536),
        fixed + blue * round(1.772 * chroma * 65536),
    )
    return np.stack([np.clip(plane >> 16, 0, top) for plane in planes], axis=-1).astype(pixels.dtype)


def ybr(pixels: np.ndarray) -> np.ndarray:
    """RGB of 8 bits as YBR_FULL, rounded. PS3.3 C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
    mixed = pixels.astype(np.float32) @ matrix.T + np.array([0.5, 128.5, 128.5], np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _inflated(frame: EncodedFrame) -> EncodedFrame:
    size = (frame.rows * frame.columns * frame.samples * frame.bits_allocated + 7) // 8
    data = codecs.inflated(frame.data, size)
    return replace(frame, data=data, encapsulated=False, transfer_syntax=EXPLICIT_LITTLE_ENDIAN)


def _decompressed(frame: EncodedFrame) -> tuple[np.ndarray, str]:
    if frame.transfer_syntax not in codecs.DECODED:
        raise Undecodable("no decoder for this transfer syntax is installed")
    pixels = codecs.decode(
        frame.transfer_syntax, frame.data, frame.rows, frame.columns, frame.samples, frame.bits_allocated
    )
    photometric = _colours(frame) if frame.samples == 3 else frame.photometric
    if frame.bits_allocated == 1:
        return pixels, photometric
    if pixels.dtype.kind == "f" or frame.bits_allocated not in (8, 16, 32):
        raise Undecodable("the frame has other samples than its data set says")
    if pixels.dtype.itemsize * 8 > frame.bits_allocated and frame.stored < pixels.dtype.itemsize * 8:
        pixels = pixels & np.array((1 << frame.stored) - 1, pixels.dtype)
    if frame.transfer_syntax != codecs.RLE:  # the stream counts from the lowest bit
        pixels = _signed(pixels, frame.stored, frame.signed)
    return pixels.astype(_integer(frame), copy=False), photometric


def _colours(frame: EncodedFrame) -> str:
    """What the three samples of a decoded stream are: the stream may know better than the data set."""
    syntax, photometric = frame.transfer_syntax, frame.photometric
    if syntax in (codecs.RLE, codecs.DEFLATED_FRAME):
        return photometric
    said = codecs.header(syntax, frame.data).colour
    if photometric in _TRANSFORMED or (said and syntax not in _LOSSY_JPEG and photometric.startswith("YBR")):
        return "RGB"
    if syntax in _LOSSY_JPEG and said is not None:
        return ("YBR_FULL" if photometric == "RGB" else photometric) if said else "RGB"
    return photometric


def _native(frame: EncodedFrame) -> np.ndarray:
    big = frame.transfer_syntax == ExplicitVRBigEndian
    data, allocated = frame.data, frame.bits_allocated
    if big and frame.vr == "OW" and allocated <= 8:
        data = words_swapped(data, "OW")  # bytes inside words; PS3.5 section 8.1.1
    count = frame.rows * frame.columns * frame.samples
    if frame.keyword not in _FLOAT and allocated == 1:
        return _shaped(frame, np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:count])
    if frame.keyword not in _FLOAT and allocated not in (8, 16, 32, 64):
        raise Undecodable("samples of 1, 8, 16, 32 or 64 bits are read")
    dtype = np.dtype(_FLOAT.get(frame.keyword) or _integer(frame)).newbyteorder(">" if big else "<")
    samples = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    samples = samples.astype(dtype.newbyteorder("="), copy=False)
    if frame.photometric == "YBR_FULL_422" and frame.samples == 3 and len(samples) < count:
        return _repeated(frame, samples)
    return _shaped(frame, samples[:count])


def _shaped(frame: EncodedFrame, samples: np.ndarray) -> np.ndarray:
    rows, columns, planes = frame.rows, frame.columns, frame.samples
    if samples.size != rows * columns * planes:
        raise Undecodable("the pixel data is shorter than the data set says")
    if planes == 1:
        return samples.reshape(rows, columns)
    if frame.planar == 1:
        return np.moveaxis(samples.reshape(planes, rows, columns), 0, -1)
    return samples.reshape(rows, columns, planes)


def _repeated(frame: EncodedFrame, samples: np.ndarray) -> np.ndarray:
    """YBR_FULL_422 with a chrominance for every pixel: two of them share one, stored as Y Y B R."""
    pairs = frame.rows * frame.columns // 2
    if frame.columns % 2 or samples.size < pairs * 4:
        raise Undecodable("the pixel data is shorter than the data set says")
    quads = samples[: pairs * 4].reshape(pairs, 4)
    pixels = np.stack([quads[:, (0, 1)], quads[:, (2, 2)], quads[:, (3, 3)]], axis=-1)
    return pixels.reshape(frame.rows, frame.columns, 3)


def _integer(frame: EncodedFrame) -> str:
    return f"{'i' if frame.signed else 'u'}{frame.bits_allocated // 8}"


def _stored_bits(frame: EncodedFrame, pixels: np.ndarray) -> np.ndarray:
    """The stored bits alone: what is above or below them is an overlay of old, or nothing."""
    if frame.bits_allocated == 1 or frame.stored == frame.bits_allocated:
        return pixels
    high = frame.high_bit if frame.high_bit is not None else frame.stored - 1
    shift = high + 1 - frame.stored
    if 0 < shift <= frame.bits_allocated - frame.stored and (
        not frame.encapsulated or frame.transfer_syntax == codecs.RLE
    ):
        pixels = pixels.view(f"u{pixels.dtype.itemsize}") >> shift
    return _signed(pixels, frame.stored, frame.signed)


def _signed(pixels: np.ndarray, stored: int, signed: bool) -> np.ndarray:
    """The lowest `stored` bits as signed or unsigned, whatever the array took them for."""
    bits = pixels.dtype.itemsize * 8
    if stored >= bits:
        return pixels.view(f"{'i' if signed else 'u'}{bits // 8}")
    if signed:
        left = pixels.view(f"i{bits // 8}") << (bits - stored)
        return left >> (bits - stored)
    return pixels.view(f"u{bits // 8}") & np.array((1 << stored) - 1, f"u{bits // 8}")
