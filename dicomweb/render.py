"""A frame as a JPEG or PNG. Runs in the pixel pool. PS3.3 section C.11, PS3.18 section 8.3.5.1."""

from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO

import imagecodecs
import numpy as np
from PIL import Image

from dicomweb import profiles
from dicomweb.display import LINEAR, LINEAR_EXACT, Display, Lut, Window
from dicomweb.drawing import Viewport, annotated, pictured, shuttered
from dicomweb.luts import table
from dicomweb.overlays import burnt
from dicomweb.pixels import EncodedFrame, decode
from dicomweb.presentation import Presentation

JPEG, PNG, GIF = "image/jpeg", "image/png", "image/gif"
_PNG_LEVEL = 3  # half the time of the default for a few per cent more bytes


@dataclass(frozen=True, slots=True)
class Rendering:
    """What the client wants: `window` replaces the object's own. icc: `no`, `yes` (the image's own profile, or sRGB),
    or a space that it is converted to, `srgb` or one of profiles.SPACES. annotation: `patient`, `technique`; corners:
    their words, by `left` and `right`."""

    media_type: str = JPEG
    quality: int = 90
    window: Window | None = None
    viewport: Viewport | None = None
    icc: str = "no"
    annotation: tuple[str, ...] = ()
    corners: tuple[tuple[str, tuple[str, ...]], ...] = ()


def render(
    frame: EncodedFrame, display: Display, wanted: Rendering, presentation: Presentation | None = None
) -> bytes:
    """The image file. Raises Undecodable."""
    pixels, photometric = decode(frame, raw=False)
    if photometric == "PALETTE COLOR" and display.palette:
        shown = coloured(pixels, display.palette)
    elif pixels.ndim == 3:
        shown = _eight_bits(pixels[..., :3], frame.stored)
    else:
        shown = grey(pixels, frame.bits_stored, display, wanted.window)
    if display.overlays:
        embedded = any(overlay.bit is not None for overlay in display.overlays)
        shown = burnt(shown, display.overlays, decode(frame, raw=True)[0] if embedded else None)
    if presentation and presentation.shutter:
        shown = shuttered(shown, presentation.shutter)
    image = pictured(shown, display.aspect, wanted.viewport, presentation)
    return written(image, wanted, display.icc if shown.ndim == 3 else b"")


def written(image: Image.Image, wanted: Rendering, icc: bytes = b"") -> bytes:
    """The picture as a file of the type wanted. icc: the profile of its colours, empty for sRGB."""
    if wanted.corners:
        image = annotated(image, {side: list(lines) for side, lines in wanted.corners})
    profile = b""
    if wanted.icc != "no" and image.mode == "RGB":
        if wanted.icc == "yes":
            profile = icc or profiles.profile("srgb")
        elif wanted.icc == "srgb" or wanted.media_type != GIF:  # which cannot say what its colours are
            image = profiles.converted(image, icc, wanted.icc) if icc or wanted.icc != "srgb" else image
            profile = profiles.profile(wanted.icc)
    if wanted.media_type == JPEG and not profile:
        # The same library without Pillow's buffers: a third of the time of a whole rendering.
        return bytes(imagecodecs.jpeg8_encode(np.asarray(image), wanted.quality))
    file = BytesIO()
    if wanted.media_type == PNG:
        image.save(file, "PNG", compress_level=_PNG_LEVEL, icc_profile=profile or None)
    elif wanted.media_type == GIF:
        image.save(file, "GIF")
    else:
        image.save(file, "JPEG", quality=wanted.quality, icc_profile=profile or None)
    return file.getvalue()


def grey(pixels: np.ndarray, bits_stored: int, display: Display, window: Window | None = None) -> np.ndarray:
    """Stored values as 0 (black) to 255, with the window given, or the object's own."""
    if window is None and display.voi_lut is None:
        window = display.window or _whole(pixels, bits_stored, display)
    if pixels.dtype.kind == "f" or pixels.dtype.itemsize > 2 or pixels.size < 65536:
        return _grey(pixels, display, window)
    # Each possible value once, then looked up: a tenth of the time for a large image. The slices of a series have
    # most of their tables in common.
    values = _greys(pixels.dtype.str, replace(display, overlays=(), icc=b"", padding=None), window)
    return values[pixels.view(f"u{pixels.dtype.itemsize}")]


@lru_cache(maxsize=16)
def _greys(dtype: str, display: Display, window: Window | None) -> np.ndarray:
    """The grey level of each value of an integer type, in the order of its bit patterns."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    return _grey(np.arange(np.iinfo(unsigned).max + 1).astype(unsigned).view(dtype), display, window)


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


def _grey(values: np.ndarray, display: Display, window: Window | None) -> np.ndarray:
    """window: None where the display has a VOI LUT."""
    output = _modality(values, display)
    if window is None and display.voi_lut is not None:
        entries = table(display.voi_lut)
        found = entries[np.clip(np.rint(output).astype(np.int64) - display.voi_lut.first, 0, len(entries) - 1)]
        shown = found / max(2**display.voi_lut.bits - 1, 1) * 255.0
    else:
        shown = windowed(output, window or Window(0, 1))
    if display.output_lut is not None:
        entries = table(display.output_lut)
        index = np.rint(np.nan_to_num(shown) / 255.0 * (len(entries) - 1)).astype(np.int64)
        shown = entries[index] / max(2**display.output_lut.bits - 1, 1) * 255.0
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


def coloured(pixels: np.ndarray, palette: tuple[Lut, ...]) -> np.ndarray:
    """PS3.3 C.7.6.3.1.5: values beyond the table take its first or last entry."""
    planes = []
    for lut in palette:
        entries = table(lut)
        found = entries[np.clip(pixels.astype(np.int64) - lut.first, 0, len(entries) - 1)]
        # Entries of 16 bits fill all of them, even where the descriptor says 8 (scaled as 257 times the value).
        planes.append((found >> 8 if entries.dtype.itemsize == 2 and entries.max() > 255 else found).astype(np.uint8))
    return np.stack(planes, axis=-1)
