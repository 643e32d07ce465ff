"""Overlay planes: bitmaps that lie on an image. PS3.3 section C.9.2."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dicomweb.dicom_json import Attribute, Attributes, integer

GROUPS = range(0x6000, 0x6020, 2)
MAX_BYTES = 64 * 1024 * 1024

ReadValue = Callable[[Attribute], bytes]


@dataclass(frozen=True, slots=True)
class Overlay:
    """row, column: where its corner lies in the image, from 1. data: its bits, packed; older objects have none, and
    then `bit` is the place of its bit in each pixel."""

    rows: int
    columns: int
    row: int
    column: int
    data: bytes = field(repr=False)
    bit: int | None = None


def overlays_of(attributes: Attributes, frame_number: int, read_value: ReadValue) -> tuple[Overlay, ...]:
    """The overlays of a frame. What is not readable as an overlay is none."""
    found = []
    for group in GROUPS:
        rows, columns = (integer(attributes, f"{group:04X}{element}", 0) or 0 for element in ("0010", "0011"))
        origin = attributes.get(f"{group:04X}0050", {}).get("Value", [1, 1])
        if rows <= 0 or columns <= 0 or len(origin) != 2 or not all(isinstance(at, int) for at in origin):
            continue
        data = attributes.get(f"{group:04X}3000")
        if data is None:
            if (integer(attributes, f"{group:04X}0100", 1) or 1) > 1:
                bit = integer(attributes, f"{group:04X}0102", 0) or 0
                found.append(Overlay(rows, columns, origin[0], origin[1], b"", bit))
            continue
        bits = rows * columns
        count = integer(attributes, f"{group:04X}0015", 1) or 1
        index = frame_number - (integer(attributes, f"{group:04X}0051", 1) or 1) if count > 1 else 0
        if not 0 <= index < count or bits * (index + 1) > MAX_BYTES * 8:
            continue
        packed = read_value(data)
        if len(packed) * 8 < bits * (index + 1):
            continue
        begin = bits * index
        if begin % 8:
            plane = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[begin : begin + bits]
            packed = np.packbits(plane, bitorder="little").tobytes()
        else:
            packed = packed[begin // 8 : (begin + bits + 7) // 8]
        found.append(Overlay(rows, columns, origin[0], origin[1], packed))
    return tuple(found)


def burnt(shown: np.ndarray, overlays: tuple[Overlay, ...], stored: np.ndarray | None) -> np.ndarray:
    """The image with its overlays in white. stored: its pixels as allocated, for overlays that are bits of them."""
    shown = shown.copy()
    for overlay in overlays:
        if overlay.bit is not None:
            if stored is None or stored.ndim != 2 or stored.dtype.kind not in "iu":
                continue
            if overlay.bit >= stored.dtype.itemsize * 8:
                continue
            plane = (stored.view(f"u{stored.dtype.itemsize}") >> overlay.bit & 1).astype(bool)
        else:
            bits = np.unpackbits(np.frombuffer(overlay.data, np.uint8), bitorder="little")
            plane = bits[: overlay.rows * overlay.columns].reshape(overlay.rows, overlay.columns).astype(bool)
        top, left = overlay.row - 1, overlay.column - 1
        plane = plane[max(0, -top) :, max(0, -left) :]
        top, left = max(0, top), max(0, left)
        under = shown[top : top + plane.shape[0], left : left + plane.shape[1]]
        under[plane[: under.shape[0], : under.shape[1]]] = 255
    return shown
