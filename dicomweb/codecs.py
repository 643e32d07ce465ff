"""The image codecs, by transfer syntax: a stream in, samples out, and back. Runs in the pixel pool alone.

Transfer syntaxes of PS3.5 section 8.2 and annex A.4. What a codec raises is turned into `CodecFault` here.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import jpeg_ls
import numpy as np
from rle.utils import decode_frame as rle_decode
from rle.utils import encode_pixel_data as rle_encode

from dicomweb.codestream import NotAStream, StreamHeader, jpeg2000_header, jpeg_header

RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"  # each frame is native pixels, deflated
JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)
)
JPEG_LS, JPEG_LS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K = (f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))

# The processes that PS3.5 has retired are read as well: archives are older than standards.
_JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70)}
_JPEG_LS = {JPEG_LS, JPEG_LS_NEAR}
_JPEG_2000 = {JPEG_2000_LOSSLESS, JPEG_2000}
_HTJ2K = {HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K}
DECODED = frozenset({RLE, DEFLATED_FRAME} | _JPEG | _JPEG_LS | _JPEG_2000 | _HTJ2K)

LOSSY = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_LS_NEAR})  # what is written in these is never the same image
# JPEG 2000 (.91) and HTJ2K (.203) take both kinds; they are written reversibly: asking for them loses nothing.
ENCODED = frozenset({RLE, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_2000_LOSSLESS, JPEG_2000, JPEG_LS} | _HTJ2K | LOSSY)
LOSSY_BITS = {JPEG_BASELINE: 8, JPEG_EXTENDED: 12}  # fewer would come back with more bits than the data set says
JPEG_QUALITY = 95
_TINY = 4096  # samples
NEAR = 2  # the most that a sample of near-lossless JPEG-LS differs


class CodecFault(Exception):
    """The stream is broken, or is not what the data set says; the text says which, without a value of the image."""


def header(transfer_syntax: str, data: bytes) -> StreamHeader:
    """Raises CodecFault."""
    try:
        return jpeg2000_header(data) if transfer_syntax in _JPEG_2000 | _HTJ2K else jpeg_header(data)
    except NotAStream:
        raise CodecFault("the frame does not begin as its transfer syntax says") from None


def decode(transfer_syntax: str, data: bytes, rows: int, columns: int, samples: int, allocated: int) -> np.ndarray:
    """rows x columns (x samples), as the stream has them: the colours of JPEG are not converted, those that JPEG 2000
    transforms within the stream are. Raises CodecFault."""
    if transfer_syntax == RLE:
        return _decode_rle(data, rows, columns, samples, allocated)
    found = header(transfer_syntax, data)
    if (found.rows, found.columns, found.samples) != (rows, columns, samples):
        raise CodecFault(
            f"the frame is {found.columns} x {found.rows} x {found.samples} and not "
            f"{columns} x {rows} x {samples} as the data set says"
        )
    pixels: np.ndarray = _called(_decoder(transfer_syntax), data)
    if samples > 1 and pixels.ndim == 3 and pixels.shape[-1] != samples:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape != ((rows, columns) if samples == 1 else (rows, columns, samples)):
        raise CodecFault("the decoded frame has another shape than its stream says")
    return pixels


def encode(transfer_syntax: str, pixels: np.ndarray, stored: int) -> bytes:
    """pixels: unsigned, or signed for the syntaxes that know signs. stored: bits that are used of each sample.
    Raises CodecFault for what the syntax cannot hold."""
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind not in "iu" or (transfer_syntax != RLE and size > 2):
        raise CodecFault("only integers of up to 16 bits can be compressed in that way")
    if transfer_syntax == RLE:
        return _encode_rle(pixels)
    if kind == "i" and transfer_syntax not in _JPEG_2000 | _HTJ2K:
        pixels = pixels.view(f"u{size}")  # PS3.5 section 8.2: as bits, whatever they mean
        if stored < size * 8:
            pixels = pixels & np.array((1 << stored) - 1, pixels.dtype)
    pixels = np.ascontiguousarray(pixels)
    if transfer_syntax in _JPEG:
        return _encode_jpeg(transfer_syntax, pixels, stored)
    if transfer_syntax in _JPEG_LS:
        return _encode_jpeg_ls(transfer_syntax, pixels, stored)
    if transfer_syntax in _JPEG_2000:
        # The colours are not transformed: so a stream is the image of its photometric interpretation.
        options = {"codecformat": "J2K", "reversible": True, "mct": False, "bitspersample": stored}
        return bytes(_called(imagecodecs.jpeg2k_encode, pixels, 0, **options))
    if transfer_syntax in _HTJ2K:  # progression RPCL and tile lengths: what .202 demands is good for the others
        return bytes(_called(imagecodecs.htj2k_encode, pixels, reversible=True, tlm=True, rgb=False))
    raise CodecFault("nothing is written in that transfer syntax")


def inflated(data: bytes, size: int) -> bytes:
    """Native pixels that were deflated: `size` bytes and no more. Raises CodecFault."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    except zlib.error:
        raise CodecFault("the pixel data cannot be inflated") from None


def _decoder(transfer_syntax: str) -> Callable[[bytes], np.ndarray]:
    if transfer_syntax in _JPEG:
        return _decode_jpeg
    if transfer_syntax in _JPEG_LS:
        return imagecodecs.jpegls_decode
    if transfer_syntax in _JPEG_2000:
        return imagecodecs.jpeg2k_decode
    if transfer_syntax in _HTJ2K:
        return _decode_htj2k
    raise CodecFault("no decoder for this transfer syntax is installed")


def _decode_jpeg(data: bytes) -> np.ndarray:
    found = jpeg_header(data)
    if found.samples == 3:
        # Told the same of both sides, the library converts nothing.
        return imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")
    return imagecodecs.jpeg8_decode(data)


def _decode_htj2k(data: bytes) -> np.ndarray:
    # What goes wrong inside a code block is told to this hook alone; the pixels that come back are not all decoded.
    faults: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda told: faults.append(told.exc_type.__name__)
    try:
        pixels = imagecodecs.htj2k_decode(data)
    finally:
        sys.unraisablehook = before
    if faults:
        raise CodecFault(f"the pixel data cannot be decoded ({faults[0]})")
    return pixels


def _encode_jpeg(transfer_syntax: str, pixels: np.ndarray, stored: int) -> bytes:
    options: dict[str, Any] = {}
    if pixels.ndim == 3:
        options = {"colorspace": "RGB", "outcolorspace": "RGB"}
    if transfer_syntax in LOSSY:
        bits = LOSSY_BITS[transfer_syntax]
        if stored != bits:
            raise CodecFault(f"this transfer syntax holds samples of {bits} bits")
        if pixels.ndim == 3:
            options = {"colorspace": "YCBCR", "outcolorspace": "YCBCR", "subsampling": "444"}
        pixels = pixels.astype(np.uint8 if bits == 8 else np.uint16)
        return bytes(_called(imagecodecs.jpeg8_encode, pixels, JPEG_QUALITY, bitspersample=bits, **options))
    bits = max(2, min(stored, pixels.dtype.itemsize * 8))
    if bits <= 8:
        pixels = pixels.astype(np.uint8)
    return bytes(_called(imagecodecs.jpeg8_encode, pixels, lossless=True, predictor=1, bitspersample=bits, **options))


def _encode_jpeg_ls(transfer_syntax: str, pixels: np.ndarray, stored: int) -> bytes:
    rows, columns, samples = (*pixels.shape, 1)[:3]
    near = NEAR if transfer_syntax == JPEG_LS_NEAR else 0
    if stored == pixels.dtype.itemsize * 8 or (pixels.size < _TINY and not near):
        room = bytearray(pixels.nbytes * 2 + 4096)  # noise grows, and so does what is smaller than its header
        return bytes(_called(imagecodecs.jpegls_encode, pixels, near, out=room))
    return bytes(
        _called(
            jpeg_ls.encode_pixel_data,
            pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes(),
            lossy_error=near,
            rows=rows,
            columns=columns,
            samples_per_pixel=samples,
            bits_stored=max(2, stored),
            bits_allocated=pixels.dtype.itemsize * 8,
            planar_configuration=0,
        )
    )


def _decode_rle(data: bytes, rows: int, columns: int, samples: int, allocated: int) -> np.ndarray:
    """PS3.5 annex G: a segment for each byte of each sample, the colours one plane after the other."""
    if allocated == 1:  # eight pixels in a byte, as native pixels have them
        packed = _called(rle_decode, data, (rows * columns + 7) // 8, 8, "<")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
        return bits[: rows * columns].reshape(rows, columns)
    frame = _called(rle_decode, data, rows * columns, allocated, "<")
    pixels = np.frombuffer(frame, f"<u{allocated // 8}")
    if pixels.size != rows * columns * samples:
        raise CodecFault("the frame has another number of segments than the data set says")
    return (
        pixels.reshape(rows, columns) if samples == 1 else np.moveaxis(pixels.reshape(samples, rows, columns), 0, -1)
    )


def _encode_rle(pixels: np.ndarray) -> bytes:
    rows, columns, samples = (*pixels.shape, 1)[:3]
    return bytes(
        _called(
            rle_encode,
            pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes(),
            rows=rows,
            columns=columns,
            samples_per_pixel=samples,
            bits_allocated=pixels.dtype.itemsize * 8,
            number_of_frames=1,
            byteorder="<",
        )
    )


def _called(codec: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return codec(*arguments, **options)
    except (CodecFault, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # Whatever a codec makes of broken data, the panics of one written in Rust among it, which are no Exception.
        # Its message may be long and of no use to a client.
        raise CodecFault(f"the pixel data cannot be decoded ({type(error).__name__})") from None
