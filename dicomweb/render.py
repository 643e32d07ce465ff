"""A frame as a JPEG or PNG. Runs in the pixel pool. PS3.3 section C.11, PS3.18 section 8.3.5.1."""

import struct
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from dicomweb.display import LINEAR, LINEAR_EXACT, Display, Lut, Window
from dicomweb.pixels import EncodedFrame, Undecodable, decode

JPEG, PNG = "image/jpeg", "image/png"
MAX_VIEWPORT = 8192
_PNG_LEVEL = 3  # half the time of the default for a few per cent more bytes
_DISCRETE, _LINEAR_SEGMENT, _INDIRECT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Viewport:
    """width x height to fit into. The region of the source that is shown: its corner and its size in source pixels,
    None for all of it; a negative size flips."""

    width: int
    height: int
    x: float = 0.0
    y: float = 0.0
    source_width: float | None = None
    source_height: float | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """What the client wants: `window` replaces the object's own."""

    media_type: str = JPEG
    quality: int = 90
    window: Window | None = None
    viewport: Viewport | None = None


def render(frame: EncodedFrame, display: Display, wanted: Rendering) -> bytes:
    """The image file. Raises Undecodable."""
    pixels, photometric = decode(frame, raw=False)
    if photometric == "PALETTE COLOR" and display.palette:
        shown = _coloured(pixels, display.palette)
    elif pixels.ndim == 3:
        shown = _eight_bits(pixels, frame.bits_stored)
    else:
        shown = grey(pixels, frame.bits_stored, display, wanted.window)
    image = Image.fromarray(shown)
    if wanted.viewport:
        image = _fitted(image, wanted.viewport)
    file = BytesIO()
    if wanted.media_type == PNG:
        image.save(file, "PNG", compress_level=_PNG_LEVEL)
    else:
        image.save(file, "JPEG", quality=wanted.quality)
    return file.getvalue()


def grey(pixels: np.ndarray, bits_stored: int, display: Display, window: Window | None = None) -> np.ndarray:
    """Stored values as 0 (black) to 255, with the window given, or the object's own."""
    if pixels.dtype.kind == "f" or pixels.dtype.itemsize > 2 or pixels.size < 65536:
        return _grey(pixels, pixels, bits_stored, display, window)
    # Each of the 65,536 possible values once, then looked up: a tenth of the time for a large image.
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    domain = np.arange(np.iinfo(unsigned).max + 1).astype(unsigned).view(pixels.dtype)
    return _grey(domain, pixels, bits_stored, display, window)[pixels.view(unsigned)]


def windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """Output of the modality LUT as 0.0 to 255.0. PS3.3 C.11.2.1.2.1 and C.11.2.1.3."""
    center, width = window.center, window.width
    if window.function == LINEAR:
        center, width = center - 0.5, width - 1
    elif window.function != LINEAR_EXACT:
        with np.errstate(over="ignore"):
            return 255.0 / (1 + np.exp(-4 * (values - center) / width))
    if width == 0:
        return np.where(values <= center, 0.0, 255.0)
    return np.clip((values - center) / width + 0.5, 0, 1) * 255.0


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


def _grey(
    values: np.ndarray, image: np.ndarray, bits_stored: int, display: Display, window: Window | None
) -> np.ndarray:
    """`values` as they are shown in that image, whose range counts where there is no window."""
    output = _modality(values, display)
    if window is None and display.voi_lut is not None:
        entries = table(display.voi_lut)
        found = entries[np.clip(np.rint(output).astype(np.int64) - display.voi_lut.first, 0, len(entries) - 1)]
        shown = found / max(2**display.voi_lut.bits - 1, 1) * 255.0
    else:
        shown = windowed(output, window or display.window or _whole(image, bits_stored, display))
    shown = np.floor(np.nan_to_num(shown) + 0.5)
    return (255 - shown if display.inverse else shown).astype(np.uint8)


def _modality(values: np.ndarray, display: Display) -> np.ndarray:
    if display.modality_lut is not None:
        entries = table(display.modality_lut)
        index = np.clip(values.astype(np.int64) - display.modality_lut.first, 0, len(entries) - 1)
        return entries[index].astype(np.float64)
    return values.astype(np.float64) * display.slope + display.intercept


def _whole(image: np.ndarray, bits_stored: int, display: Display) -> Window:
    """The window of an image that has none: its possible values up to 8 bits, its actual values beyond."""
    if image.dtype.kind != "f" and bits_stored <= 8:
        low, high = (
            (-(2 ** (bits_stored - 1)), 2 ** (bits_stored - 1) - 1)
            if image.dtype.kind == "i"
            else (0, 2**bits_stored - 1)
        )
        ends = _modality(np.array([low, high]), display)
    else:
        seen = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
        if display.padding is not None:
            seen = seen[(seen < display.padding[0]) | (seen > display.padding[1])]
        if seen.size == 0:
            return Window(0, 1)
        output = _modality(np.array([seen.min(), seen.max()]), display)
        ends = np.array([output.min(), output.max()])
    low_end, high_end = float(ends.min()), float(ends.max())
    return Window((low_end + high_end) / 2, max(high_end - low_end, 1e-9), LINEAR_EXACT)


def _eight_bits(pixels: np.ndarray, bits_stored: int) -> np.ndarray:
    return pixels.astype(np.uint8) if bits_stored <= 8 else (pixels >> (bits_stored - 8)).astype(np.uint8)


def _coloured(pixels: np.ndarray, palette: tuple[Lut, ...]) -> np.ndarray:
    """PS3.3 C.7.6.3.1.5: values beyond the table take its first or last entry."""
    planes = []
    for lut in palette:
        entries = table(lut)
        found = entries[np.clip(pixels.astype(np.int64) - lut.first, 0, len(entries) - 1)]
        # Entries of 16 bits fill all of them, even where the descriptor says 8 (scaled as 257 times the value).
        planes.append((found >> 8 if entries.dtype.itemsize == 2 and entries.max() > 255 else found).astype(np.uint8))
    return np.stack(planes, axis=-1)


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


def _fitted(image: Image.Image, viewport: Viewport) -> Image.Image:
    """The region of the image, scaled to fit the viewport; its sides keep their ratio. PS3.18 section 8.3.5.1.3."""
    width = image.width - viewport.x if viewport.source_width is None else viewport.source_width
    height = image.height - viewport.y if viewport.source_height is None else viewport.source_height
    left, top = round(viewport.x), round(viewport.y)
    right, bottom = left + max(1, round(abs(width))), top + max(1, round(abs(height)))
    if (left, top, right, bottom) != (0, 0, image.width, image.height):
        # What lies outside of the image is not there, rather than black.
        left, top = min(max(left, 0), image.width - 1), min(max(top, 0), image.height - 1)
        image = image.crop(
            (left, top, max(left + 1, min(right, image.width)), max(top + 1, min(bottom, image.height)))
        )
    if width < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    scale = min(viewport.width / image.width, viewport.height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
