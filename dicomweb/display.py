"""How an image is meant to be shown, taken from its metadata: the transformations from stored values to P-values.
PS3.3 sections C.7.6.16 (functional groups), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.9 (palettes).
"""

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dicomweb.dicom_json import Attribute, Attributes, first, items, number, text
from dicomweb.overlays import Overlay, overlays_of
from fhir_server.errors import BadRequest

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"
FUNCTIONS = (LINEAR, LINEAR_EXACT, SIGMOID)
_SHARED_GROUPS, _FRAME_GROUPS = "52009229", "52009230"
VOI_GROUP, _VALUE_GROUP = "00289132", "00289145"
CENTER, WIDTH, FUNCTION = "00281050", "00281051", "00281056"
_INTERCEPT, _SLOPE = "00281052", "00281053"
_LUT_DESCRIPTOR, _LUT_DATA = "00283002", "00283006"
_MODALITY_LUT, VOI_LUT = "00283000", "00283010"
_PALETTE = (
    ("00281101", "00281201", "00281221"),
    ("00281102", "00281202", "00281222"),
    ("00281103", "00281203", "00281223"),
)

_SQUARE = 0.005  # a difference of pixel sides that nobody sees

ReadBulk = Callable[[str], bytes]  # by the path in a BulkDataURI


@dataclass(frozen=True, slots=True)
class Window:
    """center and width in the units of the modality LUT's output."""

    center: float
    width: float
    function: str = LINEAR

    @property
    def valid(self) -> bool:
        """PS3.3 C.11.2.1.2: a width of at least 1 for LINEAR, more than 0 for the others."""
        finite = math.isfinite(self.center) and math.isfinite(self.width)
        return (
            finite and self.function in FUNCTIONS and (self.width >= 1 if self.function == LINEAR else self.width > 0)
        )


@dataclass(frozen=True, slots=True)
class Lut:
    """A lookup table: entry 0 belongs to the value `first`; entries are 8 or 16 bits wide, little endian."""

    count: int
    first: int
    bits: int
    data: bytes = field(repr=False)
    segmented: bool = False


@dataclass(frozen=True, slots=True)
class Display:
    """From stored values to what is seen. padding: closed range of stored values that are no part of the image.
    aspect: height of a pixel by its width. output_lut: applied last, before the inversion. icc: the colours' profile.
    """

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi_lut: Lut | None = None
    window: Window | None = None
    inverse: bool = False
    palette: tuple[Lut, ...] = ()
    padding: tuple[float, float] | None = None
    aspect: float = 1.0
    overlays: tuple[Overlay, ...] = ()
    output_lut: Lut | None = None
    icc: bytes = field(default=b"", repr=False)


def display_of(attributes: Attributes, frame_number: int, read_bulk: ReadBulk) -> Display:
    """The object's own presentation of a frame; the first one where there are several."""
    voi = _group(attributes, frame_number, VOI_GROUP, CENTER)
    values = _group(attributes, frame_number, _VALUE_GROUP, _SLOPE)
    padding, limit = number(attributes, "00280120"), number(attributes, "00280121")
    slope, intercept = number(values, _SLOPE), number(values, _INTERCEPT)
    inverse = text(attributes, "00280004") == "MONOCHROME1" or text(attributes, "20500020") == "INVERSE"
    return Display(
        slope if slope else 1.0,
        intercept or 0.0,
        lut_of(attributes, _MODALITY_LUT, read_bulk),
        lut_of(attributes, VOI_LUT, read_bulk) or lut_of(voi, VOI_LUT, read_bulk),
        window_of(voi),
        inverse,
        palette_of(attributes, read_bulk) if text(attributes, "00280004") == "PALETTE COLOR" else (),
        None if padding is None else _ordered(padding, padding if limit is None else limit),
        _aspect(attributes),
        overlays_of(attributes, frame_number, lambda value: bytes_of(value, read_bulk)),
        next((lut for item in items(attributes, "20500010") if (lut := value_lut(item, read_bulk))), None),
        bytes_of(attributes.get("00282000", {}), read_bulk),
    )


def without_overlays(display: Display) -> Display:
    """The display without the overlays of the image itself."""
    return replace(display, overlays=())


def _ordered(one: float, other: float) -> tuple[float, float]:
    return min(one, other), max(one, other)


def _aspect(attributes: Attributes) -> float:
    """By the distances of pixels; PS3.3 C.7.6.3.1.7 has the aspect ratio for images without."""
    groups = items(attributes, _SHARED_GROUPS)[:1]
    measures = next((m for group in groups for m in items(group, "00289110")), attributes)
    places = (measures, attributes, attributes, attributes)
    for place, tag in zip(places, ("00280030", "00181164", "00182010", "00280034"), strict=True):
        values = place.get(tag, {}).get("Value", [])
        if len(values) >= 2 and all(isinstance(value, int | float) and value > 0 for value in values[:2]):
            ratio = values[0] / values[1]
            return float(ratio) if 0.1 <= ratio <= 10 and abs(ratio - 1) > _SQUARE else 1.0
    return 1.0


def parse_window(given: str) -> Window:
    """`window=center,width,function`. PS3.18 section 8.3.5.1.4. Raises BadRequest."""
    parts = [part.strip() for part in given.split(",")]
    try:
        center, width = float(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        raise BadRequest("window takes center,width,function, for instance 40,400,linear") from None
    function = parts[2].upper().replace("-", "_") if len(parts) > 2 and parts[2] else LINEAR
    window = Window(center, width, function)
    if not window.valid or len(parts) > 3:
        raise BadRequest("window takes center,width,function: linear (width 1 or more), linear-exact or sigmoid")
    return window


def window_of(voi: Attributes) -> Window | None:
    """The first window of a VOI LUT module or group, if it is one."""
    center, width = number(voi, CENTER), number(voi, WIDTH)
    if center is None or width is None:
        return None
    window = Window(center, width, text(voi, FUNCTION) or LINEAR)
    return window if window.valid else None


def _group(attributes: Attributes, frame_number: int, group: str, member: str) -> Attributes:
    """Where an attribute of a functional group is: of the frame, shared by all frames, or in the data set itself."""
    per_frame = items(attributes, _FRAME_GROUPS)
    of_frame = per_frame[frame_number - 1] if frame_number <= len(per_frame) else {}
    for place in (of_frame, *items(attributes, _SHARED_GROUPS)[:1]):
        for item in items(place, group)[:1]:
            if first(item, member) is not None:
                return item
    return attributes


def lut_of(attributes: Attributes, sequence: str, read_bulk: ReadBulk) -> Lut | None:
    """The lookup table of the first item of a sequence."""
    for item in items(attributes, sequence)[:1]:
        return value_lut(item, read_bulk)
    return None


def value_lut(item: Attributes, read_bulk: ReadBulk) -> Lut | None:
    """The lookup table of an item, if it has a whole one."""
    return _lut(item, _LUT_DESCRIPTOR, _LUT_DATA, read_bulk)


def palette_of(attributes: Attributes, read_bulk: ReadBulk) -> tuple[Lut, ...]:
    """The tables for red, green and blue; none unless all are there."""
    luts = []
    for descriptor, data, segmented in _PALETTE:
        lut = _lut(attributes, descriptor, data, read_bulk)
        if lut is None:
            lut = _lut(attributes, descriptor, segmented, read_bulk, segmented=True)
        if lut is None:
            return ()
        luts.append(lut)
    return tuple(luts)


def _lut(
    attributes: Attributes, descriptor: str, data: str, read_bulk: ReadBulk, *, segmented: bool = False
) -> Lut | None:
    described = attributes.get(descriptor, {}).get("Value", [])
    content = bytes_of(attributes.get(data, {}), read_bulk)
    if len(described) != 3 or not content or not all(isinstance(value, int) for value in described):
        return None
    count, first_value, bits = described
    # The descriptor's count is unsigned whatever its VR; 0 stands for 65,536.
    return Lut(count % 65536 or 65536, first_value, bits if 8 <= bits <= 16 else 16, content, segmented)


def bytes_of(attribute: Attribute, read_bulk: ReadBulk) -> bytes:
    """A binary value, wherever it is; empty when there is none."""
    if "InlineBinary" in attribute:
        return base64.b64decode(attribute["InlineBinary"])
    if "BulkDataURI" in attribute:
        return read_bulk(attribute["BulkDataURI"].rpartition("/bulkdata/")[2])
    values = [value for value in attribute.get("Value", []) if isinstance(value, int)]
    return b"".join((value & 0xFFFF).to_bytes(2, "little") for value in values)
