"""From grey levels or colours to the picture that is sent: shutters, the region shown, square pixels, flips, turns,
graphics and words. Runs in the pixel pool. PS3.3 sections C.7.6.11, C.10.4-10.6; PS3.18 section 8.3.5.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dicomweb.presentation import Graphic, Presentation, Shutter

MAX_VIEWPORT = 8192
_INK = 255
_YELLOW = (255, 220, 60)


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


Point = tuple[float, float]


def shuttered(shown: np.ndarray, shutter: Shutter) -> np.ndarray:
    """The image where all of the shutter's shapes are open."""
    rows, columns = shown.shape[:2]
    mask = Image.new("L", (columns, rows), 0)
    draw = ImageDraw.Draw(mask)
    open_ = np.ones((rows, columns), bool)
    if shutter.rectangle:
        left, top, right, bottom = shutter.rectangle
        y, x = np.ogrid[1 : rows + 1, 1 : columns + 1]
        open_ &= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    if shutter.circle:
        column, row, radius = shutter.circle
        y, x = np.ogrid[1 : rows + 1, 1 : columns + 1]
        open_ &= (x - column) ** 2 + (y - row) ** 2 <= radius**2
    if len(shutter.polygon) > 2:
        draw.polygon([(x - 1, y - 1) for x, y in shutter.polygon], fill=1)
        open_ &= np.asarray(mask, bool)
    return np.where(open_ if shown.ndim == 2 else open_[..., None], shown, shutter.level).astype(np.uint8)


def pictured(
    shown: np.ndarray, aspect: float, viewport: Viewport | None, presentation: Presentation | None
) -> Image.Image:
    """The picture: the region that is shown, its pixels square, in the viewport's size.

    aspect: height of a pixel by its width.
    """
    image = Image.fromarray(shown)
    if aspect == 1 and viewport is None and presentation is None:
        return image
    state = presentation or Presentation()
    left, top, right, bottom, flip_x, flip_y = _region(image, viewport, state)
    flip_x ^= state.flip
    if (left, top, right, bottom) != (0, 0, image.width, image.height):
        image = image.crop((left, top, right, bottom))
    width, height = image.width, image.height
    size = _size(width, height, aspect, viewport, turned=state.rotation % 180 == 90)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    scale_x, scale_y = size[0] / width, size[1] / height
    if flip_x:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if flip_y:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if state.rotation:
        turn = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
        image = image.transpose(turn[state.rotation])
    if state.graphics:

        def place(point: Point) -> Point:
            # Coordinates count from the corner of the first pixel, which is 1\1 at its middle.
            x, y = (point[0] - 0.5 - left) * scale_x, (point[1] - 0.5 - top) * scale_y
            x, y = (size[0] - x if flip_x else x), (size[1] - y if flip_y else y)
            return {90: (size[1] - y, x), 180: (size[0] - x, size[1] - y), 270: (y, size[0] - x)}.get(
                state.rotation, (x, y)
            )

        _draw(image, state.graphics, place)
    return image


def annotated(image: Image.Image, corners: dict[str, list[str]]) -> Image.Image:
    """With words in its corners. corners: lines by `left` and `right`, beginning at the top."""
    size = max(9, min(image.width, image.height) // 36)
    written = image.convert("RGB") if image.mode not in ("L", "RGB") else image.copy()
    draw = ImageDraw.Draw(written)
    for side, lines in corners.items():
        for index, line in enumerate(lines):
            at = (image.width - size // 2 if side == "right" else size // 2, size // 2 + index * (size + 2))
            words(draw, at, line, size, 255 if written.mode == "L" else (255, 255, 255), right=side == "right")
    return written


def words(
    draw: ImageDraw.ImageDraw,
    at: Point,
    text: str,
    size: int,
    fill: int | tuple[int, int, int],
    *,
    right: bool = False,
    outline: bool = True,
) -> None:
    """One line of text, readable on any ground."""
    background = 0 if isinstance(fill, int) else (0, 0, 0)
    stroke = {"stroke_width": 1, "stroke_fill": background} if outline else {}
    draw.text(at, text, fill=fill, font=font(size), anchor="ra" if right else "la", **stroke)  # type: ignore[arg-type]


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface."""
    return ImageFont.load_default(size)


def _region(
    image: Image.Image, viewport: Viewport | None, state: Presentation
) -> tuple[int, int, int, int, bool, bool]:
    """Left, top, right, bottom in pixels, and whether it is flipped. What lies outside of the image is not there."""
    flip_x = flip_y = False
    left, top, right, bottom = 0.0, 0.0, float(image.width), float(image.height)
    if state.area:
        left, top, right, bottom = state.area
    if viewport and (viewport.x or viewport.y or viewport.source_width or viewport.source_height):
        width = image.width - viewport.x if viewport.source_width is None else viewport.source_width
        height = image.height - viewport.y if viewport.source_height is None else viewport.source_height
        flip_x, flip_y = width < 0, height < 0
        left, top = round(viewport.x), round(viewport.y)
        right, bottom = left + max(1, round(abs(width))), top + max(1, round(abs(height)))
    first = min(max(round(left), 0), image.width - 1), min(max(round(top), 0), image.height - 1)
    last = max(first[0] + 1, min(round(right), image.width)), max(first[1] + 1, min(round(bottom), image.height))
    return *first, *last, flip_x, flip_y


def _size(width: int, height: int, aspect: float, viewport: Viewport | None, *, turned: bool) -> tuple[int, int]:
    across, down = (float(width), height * aspect) if aspect >= 1 else (width / aspect, float(height))
    room = (MAX_VIEWPORT, MAX_VIEWPORT) if viewport is None else (viewport.width, viewport.height)
    if turned:
        room = room[::-1]
    scale = min(room[0] / across, room[1] / down)
    if viewport is None:
        scale = min(1.0, scale)
    return max(1, round(across * scale)), max(1, round(down * scale))


def _draw(image: Image.Image, graphics: Sequence[Graphic], place: Callable[[Point], Point]) -> None:
    draw = ImageDraw.Draw(image)
    ink = _INK if image.mode == "L" else _YELLOW
    width = max(1, round(min(image.size) / 400))
    for graphic in graphics:
        if graphic.relative:
            points = [(x * image.width, y * image.height) for x, y in graphic.points]
        else:
            points = [place(point) for point in graphic.points]
        points = [(max(-1e5, min(1e5, x)), max(-1e5, min(1e5, y))) for x, y in points]
        if graphic.kind == "TEXT":
            size = max(9, min(image.size) // 40)
            for index, line in enumerate(graphic.words.splitlines()[:40]):
                words(draw, (points[0][0], points[0][1] + index * (size + 2)), line, size, ink)
        elif graphic.kind == "POINT":
            x, y = points[0]
            draw.line([(x - 4, y), (x + 4, y)], ink, width)
            draw.line([(x, y - 4), (x, y + 4)], ink, width)
        elif graphic.kind == "CIRCLE" and len(points) > 1:
            (x, y), (edge_x, edge_y) = points[:2]
            radius = float(np.hypot(edge_x - x, edge_y - y))
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, ink if graphic.filled else None, ink, width)
        elif graphic.kind == "ELLIPSE" and len(points) > 3:
            draw.line(_ellipse(points), ink, width)
        elif graphic.kind == "POLYLINE" and len(points) > 1:
            if graphic.filled and len(points) > 2:
                draw.polygon(points, ink)
            draw.line(points, ink, width)


def _ellipse(points: list[Point]) -> list[Point]:
    """By the ends of its major and of its minor axis."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = points[:4]
    middle = (ax + bx) / 2, (ay + by) / 2
    turn = np.linspace(0, 2 * np.pi, 73)
    x = middle[0] + np.cos(turn) * (bx - ax) / 2 + np.sin(turn) * (dx - cx) / 2
    y = middle[1] + np.cos(turn) * (by - ay) / 2 + np.sin(turn) * (dy - cy) / 2
    return list(zip(x.tolist(), y.tolist(), strict=True))
