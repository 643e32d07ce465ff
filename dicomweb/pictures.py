"""Pictures of what is no image: documents, curves, contours, colours, films. Runs in the pixel pool.

Each function draws plain values that the web process has taken from the metadata, and returns the image file.
"""

from dataclasses import dataclass, field

import numpy as np
import pypdfium2
from PIL import Image, ImageDraw

from dicomweb.display import Lut
from dicomweb.documents import Line
from dicomweb.drawing import font, words
from dicomweb.pixels import Undecodable
from dicomweb.render import Rendering, coloured, written

PAGE = (720, 960)
MAX_PDF_SIDE = 1600
_INK, _PALE, _PAPER, _DARK = (28, 32, 38), (110, 118, 128), (255, 255, 255), (24, 27, 32)
_GRID, _GRID_5 = (250, 224, 224), (240, 180, 180)
_PER_MM = 4  # pixels of a waveform's paper
_MM_PER_S, _MM_PER_MV = 25, 10
_MAX_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Channel:
    """unit: `uV`, `mV` or another. values: one for each sample, in that unit; about `per_second` of them."""

    name: str
    unit: str
    per_second: float
    scale: float
    offset: float
    dtype: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Contour:
    """One closed line of a structure, in millimetres."""

    colour: tuple[int, int, int]
    points: tuple[tuple[float, float], ...]
    closed: bool = True


def document(title: str, facts: list[tuple[str, str]], lines: list[Line], wanted: Rendering) -> bytes:
    """The first page of a document."""
    image = Image.new("RGB", PAGE, _PAPER)
    draw = ImageDraw.Draw(image)
    y = 36
    for row in _wrapped(draw, title, 26, PAGE[0] - 80):
        words(draw, (40, y), row, 26, _INK, outline=False)
        y += 34
    for name, value in facts:
        words(draw, (40, y + 4), f"{name}: {value}", 15, _PALE, outline=False)
        y += 22
    draw.line([(40, y + 12), (PAGE[0] - 40, y + 12)], _PALE)
    y += 28
    for line in lines:
        left = 40 + min(line.depth, 8) * 18
        size = 17 if line.heading else 15
        said = line.name if line.heading else f"{line.name}: {line.value}" if line.name else line.value
        for row in _wrapped(draw, said, size, PAGE[0] - 40 - left):
            if y > PAGE[1] - 40:
                words(draw, (40, y), "…", 17, _PALE, outline=False)
                return _sent(image, wanted)
            words(draw, (left, y), row, size, _INK, outline=False)
            y += size + 6
        y += 4
    return _sent(image, wanted)


def card(kind: str, lines: list[str], wanted: Rendering, *, film: bool = False) -> bytes:
    """What an object is, in words; with the sign of a film."""
    image = Image.new("RGB", (640, 480), _DARK)
    draw = ImageDraw.Draw(image)
    if film:
        draw.ellipse((250, 60, 390, 200), outline=(230, 230, 230), width=5)
        draw.polygon([(300, 95), (300, 165), (360, 130)], fill=(230, 230, 230))
    y = 240 if film else 120
    for size, colour, line in ((30, (245, 245, 245), kind), *((20, (180, 188, 198), line) for line in lines)):
        for row in _wrapped(draw, line, size, 580):
            draw.text((320, y), row, fill=colour, font=font(size), anchor="ma")
            y += size + 10
        if y > 450:
            break
    return _sent(image, wanted)


def pdf_page(data: bytes, number: int, wanted: Rendering) -> bytes:
    """A page of a PDF. Raises Undecodable."""
    try:
        document_ = pypdfium2.PdfDocument(data)
        if not 1 <= number <= len(document_):
            raise Undecodable(f"the document has {len(document_)} pages")
        page = document_[number - 1]
        width, height = page.get_size()
        scale = min(MAX_PDF_SIDE / max(width, height, 1e-3), 4.0)
        image = page.render(scale=scale).to_pil().convert("RGB")
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise Undecodable(f"the document cannot be read ({type(error).__name__})") from None
    return _sent(image, wanted)


def waveform(title: str, channels: list[Channel], wanted: Rendering) -> bytes:
    """Curves, one below the other, at 25 mm a second; voltages at 10 mm a millivolt on the usual paper.

    Raises Undecodable.
    """
    curves = [(channel, _samples(channel)) for channel in channels]
    seconds = max((len(values) / channel.per_second for channel, values in curves), default=0.0)
    if not curves or not seconds > 0:
        raise Undecodable("the waveform has no samples")
    seconds = min(seconds, _MAX_SECONDS)
    lane = max(15, min(30, 300 // len(curves))) * _PER_MM
    width = round(seconds * _MM_PER_S * _PER_MM) + 60
    image = Image.new("RGB", (max(width, 320), lane * len(curves) + 40), _PAPER)
    draw = ImageDraw.Draw(image)
    for step, colour in ((_PER_MM, _GRID), (5 * _PER_MM, _GRID_5)):
        for x in range(0, image.width, step):
            draw.line([(x, 0), (x, image.height)], colour)
        for y in range(0, image.height, step):
            draw.line([(0, y), (image.width, y)], colour)
    words(draw, (8, 6), title, 16, _INK, outline=False)
    for index, (channel, values) in enumerate(curves):
        middle = 40 + lane * index + lane / 2
        values = values[: int(seconds * channel.per_second)]
        volts = {"uV": 0.001, "mV": 1.0, "V": 1000.0}.get(channel.unit)
        if volts is None:  # of another quantity only the shape
            spread = float(np.ptp(values)) or 1.0
            heights = (values - values.mean()) / spread * lane * 0.8
        else:
            heights = (values - np.median(values)) * volts * _MM_PER_MV * _PER_MM
        across = 50 + np.arange(len(values)) / channel.per_second * _MM_PER_S * _PER_MM
        down = np.clip(middle - heights, 0, image.height)
        draw.line(list(zip(across.tolist(), down.tolist(), strict=True)), _INK, 1)
        words(draw, (6, middle - 22), channel.name, 15, _INK, outline=False)
    return _sent(image, wanted)


def contours(
    title: str, lines: list[Contour], legend: list[tuple[str, tuple[int, int, int]]], wanted: Rendering
) -> bytes:
    """The structures of one plane. Raises Undecodable."""
    points = np.array([point for line in lines for point in line.points])
    if not len(points) or not np.isfinite(points).all():
        raise Undecodable("the structure set has no contours")
    low, high = points.min(axis=0), points.max(axis=0)
    side, margin = 640, 40
    scale = (side - 2 * margin) / max(float((high - low).max()), 1e-6)
    image = Image.new("RGB", (side, side), (0, 0, 0))
    draw = ImageDraw.Draw(image)
    shift = (side - (high - low) * scale) / 2
    for line in lines:
        at = [tuple(p) for p in ((np.array(line.points) - low) * scale + shift).tolist()]
        if len(at) == 1:
            draw.ellipse((at[0][0] - 3, at[0][1] - 3, at[0][0] + 3, at[0][1] + 3), fill=line.colour)
        else:
            draw.line([*at, at[0]] if line.closed else at, line.colour, 2)
    words(draw, (10, 8), title, 18, (240, 240, 240))
    for index, (name, colour) in enumerate(legend[:24]):
        words(draw, (10, 34 + index * 20), name, 15, colour)
    return _sent(image, wanted)


def colours(title: str, luts: tuple[Lut, ...], wanted: Rendering) -> bytes:
    """A palette from its first entry to its last. Raises Undecodable."""
    lowest = min(lut.first for lut in luts)
    values = np.arange(lowest, max(lut.first + lut.count for lut in luts))
    entries = coloured(values[:65536], luts)
    image = Image.new("RGB", (640, 200), (0, 0, 0))
    index = np.linspace(0, len(entries) - 1, 600).round().astype(int)
    strip = np.repeat(entries[index][None].astype(np.uint8), 110, axis=0)
    image.paste(Image.fromarray(strip), (20, 60))
    words(ImageDraw.Draw(image), (20, 18), title, 22, (240, 240, 240))
    return _sent(image, wanted)


def _samples(channel: Channel) -> np.ndarray:
    size = np.dtype(channel.dtype).itemsize
    data = np.frombuffer(channel.data[: len(channel.data) // size * size], channel.dtype)
    return data.astype(np.float64) * channel.scale + channel.offset


def _sent(image: Image.Image, wanted: Rendering) -> bytes:
    if wanted.viewport:
        room = (wanted.viewport.width, wanted.viewport.height)
        scale = min(room[0] / image.width, room[1] / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return written(image, wanted)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> list[str]:
    """The text in rows that fit; at most a page of them."""
    rows: list[str] = []
    for paragraph in text[:4000].splitlines() or [""]:
        row = ""
        for word in paragraph.split(" "):
            longer = f"{row} {word}" if row else word
            if row and draw.textlength(longer, font=font(size)) > width:
                rows.append(row)
                row = word
            else:
                row = longer
        rows.append(row)
    return rows[:60]
