"""A softcopy presentation state: how somebody wanted an image to be seen. PS3.3 sections A.33 and C.10, C.11.

Read from the metadata; drawn by `drawing`, in the pixel pool.
"""

from dataclasses import dataclass, field, replace

from dicomweb.dicom_json import Attributes, integer, items, number, text
from dicomweb.display import Display, Lut, ReadBulk, lut_of, value_lut, window_of, without_overlays
from dicomweb.overlays import GROUPS

GRAYSCALE, COLOR, PSEUDO_COLOR, BLENDING = (f"1.2.840.10008.5.1.4.1.1.11.{n}" for n in (1, 2, 3, 4))
CLASSES = frozenset({GRAYSCALE, COLOR, PSEUDO_COLOR})
MAX_GRAPHICS = 2000
MAX_POINTS = 20_000
_SERIES, _IMAGES, _CLASS, _INSTANCE, _FRAMES = "00081115", "00081140", "00081150", "00081155", "00081160"
_SERIES_UID = "0020000E"


@dataclass(frozen=True, slots=True)
class Shutter:
    """What is shown of the image: (left, top, right, bottom), (column, row, radius) and corners, in pixels from 1.
    level: 0 (black) to 255 of what is not."""

    rectangle: tuple[float, float, float, float] | None = None
    circle: tuple[float, float, float] | None = None
    polygon: tuple[tuple[float, float], ...] = ()
    level: int = 0


@dataclass(frozen=True, slots=True)
class Graphic:
    """kind: POINT, POLYLINE, CIRCLE, ELLIPSE or TEXT. points: in pixels from 1, or in parts of the displayed area."""

    kind: str
    points: tuple[tuple[float, float], ...]
    relative: bool = False
    filled: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class Presentation:
    """rotation: degrees clockwise, after the flip. area: the part of the image that is shown, in pixels from 0."""

    shutter: Shutter | None = None
    graphics: tuple[Graphic, ...] = ()
    rotation: int = 0
    flip: bool = False
    area: tuple[float, float, float, float] | None = None
    output_lut: Lut | None = field(default=None)


def shown_state(sop_class: str, state: str) -> str | None:
    """The state of the study, where a picture depends on that: a presentation state shows other instances, which may
    come or be deleted. None for all else."""
    return state if sop_class in CLASSES else None


def referenced(attributes: Attributes) -> list[tuple[str, str, int]]:
    """Series, instance and frame of each image that the state is for."""
    found = []
    for series in items(attributes, _SERIES):
        for image in items(series, _IMAGES):
            frames = [n for n in image.get(_FRAMES, {}).get("Value", []) if isinstance(n, int) and n > 0] or [1]
            found += [(text(series, _SERIES_UID), text(image, _INSTANCE), n) for n in frames]
    return found


def applied(display: Display, state: Attributes, instance: str, read_bulk: ReadBulk) -> Display:
    """The display of an image with the transformations of the state in place of its own."""
    slope, intercept = number(state, "00281053"), number(state, "00281052")
    modality = lut_of(state, "00283000", read_bulk)
    if modality is not None or slope is not None:
        display = replace(display, modality_lut=modality, slope=slope or 1.0, intercept=intercept or 0.0)
    for voi in items(state, "00283110"):
        named = {text(image, _INSTANCE) for image in items(voi, _IMAGES)}
        if not named or instance in named:
            display = replace(display, window=window_of(voi), voi_lut=lut_of(voi, "00283010", read_bulk))
            break
    shape = text(state, "20500020")
    if shape:
        display = replace(display, inverse=shape == "INVERSE")
    return display if shows_overlays(state) else without_overlays(display)


def presentation_of(state: Attributes, instance: str, read_bulk: ReadBulk) -> Presentation:
    """What the state draws over and around one of its images."""
    area = None
    for selection in items(state, "0070005A"):
        named = {text(image, _INSTANCE) for image in items(selection, _IMAGES)}
        corner, end = (_numbers(selection, tag, 2) for tag in ("00700052", "00700053"))
        if (not named or instance in named) and corner and end:
            (left, right), (top, bottom) = sorted((corner[0], end[0])), sorted((corner[1], end[1]))
            area = (left - 1, top - 1, right, bottom)
            break
    return Presentation(
        _shutter(state),
        tuple(_graphics(state, instance)),
        (integer(state, "00700042", 0) or 0) % 360 // 90 * 90,
        text(state, "00700041") == "Y",
        area,
        next((lut for item in items(state, "20500010") if (lut := value_lut(item, read_bulk))), None),
    )


def shows_overlays(state: Attributes) -> bool:
    """Whether the state switches an overlay on; those of an image are not shown otherwise. PS3.3 C.11.7."""
    return any(text(state, f"{group:04X}1001") for group in GROUPS)


def _shutter(state: Attributes) -> Shutter | None:
    shapes = set(state.get("00181600", {}).get("Value", []))
    if not shapes:
        return None
    edges = [number(state, tag) for tag in ("00181602", "00181606", "00181604", "00181608")]
    center, radius = _numbers(state, "00181610", 2), number(state, "00181612")
    corners = _numbers(state, "00181620", None) if "POLYGONAL" in shapes else []
    level = integer(state, "00181622", 0) or 0
    left, top, right, bottom = edges
    rectangle = None
    if "RECTANGULAR" in shapes and left is not None and top is not None and right is not None and bottom is not None:
        rectangle = (left, top, right, bottom)
    return Shutter(
        rectangle,
        (center[1], center[0], radius) if "CIRCULAR" in shapes and center and radius else None,
        tuple((corners[at + 1], corners[at]) for at in range(0, len(corners) - 1, 2)),
        max(0, min(255, level >> 8)),
    )


def _graphics(state: Attributes, instance: str) -> list[Graphic]:
    found: list[Graphic] = []
    for annotation in items(state, "00700001"):
        named = {text(image, _INSTANCE) for image in items(annotation, _IMAGES)}
        if named and instance not in named:
            continue
        for item in items(annotation, "00700009"):
            points = _points(item, "00700022")
            kind = text(item, "00700023")
            if kind == "INTERPOLATED":
                kind = "POLYLINE"  # through the same points
            if points and kind in ("POINT", "POLYLINE", "CIRCLE", "ELLIPSE"):
                relative = text(item, "00700005") == "DISPLAY"
                found.append(Graphic(kind, points, relative, text(item, "00700024") == "Y"))
        for item in items(annotation, "00700008"):
            anchor, box = _points(item, "00700014"), _points(item, "00700010")
            at = box[:1] or anchor[:1]
            relative = text(item, "00700003" if box else "00700004") == "DISPLAY"
            words = text(item, "00700006")[:1024]
            if at and words:
                found.append(Graphic("TEXT", at, relative, words=words))
        if len(found) > MAX_GRAPHICS:
            break
    return found[:MAX_GRAPHICS]


def _points(item: Attributes, tag: str) -> tuple[tuple[float, float], ...]:
    values = _numbers(item, tag, None)[: 2 * MAX_POINTS]
    return tuple((values[at], values[at + 1]) for at in range(0, len(values) - 1, 2))


def _numbers(attributes: Attributes, tag: str, count: int | None) -> list[float]:
    """The numbers of an attribute; none of them unless there are `count`."""
    values = [float(v) for v in attributes.get(tag, {}).get("Value", []) if isinstance(v, int | float)]
    return values if count is None or len(values) == count else []
