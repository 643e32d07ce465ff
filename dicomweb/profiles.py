"""ICC profiles of the colour spaces that a rendered image can be had in. ICC.1:2001-04, PS3.18 section 8.3.5.1.4.

A profile is made from what defines its space: chromaticities of its primaries and white, and its transfer curve.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_D65, _D50 = (0.3127, 0.3290), (0.3457, 0.3585)
_PCS = np.array((0.9642, 1.0, 0.8249))  # the white of the profile connection space: D50 as ICC writes it
_BRADFORD = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
_ENTRIES = 4096  # of a curve that is no power
Chromaticity = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Space:
    """primaries: of red, green and blue. curve: encoded 0 to 1 -> light 0 to 1."""

    name: str
    primaries: tuple[Chromaticity, Chromaticity, Chromaticity]
    white: Chromaticity
    curve: Callable[[np.ndarray], np.ndarray]


def _srgb_light(encoded: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1"""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _romm_light(encoded: np.ndarray) -> np.ndarray:
    """ISO 22028-2"""
    return np.where(encoded < 16 / 512, encoded / 16, encoded**1.8)


SPACES = {
    "adobergb": Space(
        "Adobe RGB (1998) compatible", ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), _D65, lambda v: v ** (563 / 256)
    ),
    "rommrgb": Space("ROMM RGB", ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), _D50, _romm_light),
    "displayp3": Space("Display P3 compatible", ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), _D65, _srgb_light),
}


@lru_cache
def profile(name: str) -> bytes:
    """The profile of one of SPACES, or `srgb`."""
    if name == "srgb":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    space = SPACES[name]
    light = space.curve(np.linspace(0, 1, _ENTRIES))
    curve = b"curv\0\0\0\0" + struct.pack(">L", _ENTRIES) + np.rint(light * 65535).astype(">u2").tobytes()
    red, green, blue = to_pcs(space).T
    return _file(
        {
            b"desc": _description(space.name),
            b"cprt": b"text\0\0\0\0No copyright, use freely\0",
            b"wtpt": _xyz(_PCS),
            b"rXYZ": _xyz(red),
            b"gXYZ": _xyz(green),
            b"bXYZ": _xyz(blue),
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        }
    )


def converted(image: Image.Image, icc: bytes, name: str) -> Image.Image:
    """In that space. icc: the profile of its colours, empty (or what cannot be read) for sRGB."""
    target = ImageCms.ImageCmsProfile(BytesIO(profile(name)))
    for source in (icc, profile("srgb")):
        try:
            done = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(BytesIO(source)), target)
        except (ImageCms.PyCMSError, OSError):
            continue
        return done or image
    return image


def to_pcs(space: Space) -> np.ndarray:
    """The matrix from light of the three primaries to XYZ under D50."""
    primaries = np.array([_tristimulus(one) for one in space.primaries]).T
    white = _tristimulus(space.white)
    cones = (_BRADFORD @ _PCS) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    return adapted @ primaries @ np.diag(np.linalg.solve(primaries, white))


def _tristimulus(xy: Chromaticity) -> np.ndarray:
    x, y = xy
    return np.array((x / y, 1.0, (1 - x - y) / y))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + np.rint(values * 65536).astype(">i4").tobytes()


def _description(text: str) -> bytes:
    ascii_ = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">L", len(ascii_)) + ascii_ + bytes(4 + 4 + 2 + 1 + 67)


def _file(tags: dict[bytes, bytes]) -> bytes:
    """Header, table and content; what is the same is there once."""
    table, content, places = b"", b"", dict[bytes, int]()
    begin = 128 + 4 + 12 * len(tags)
    for signature, data in tags.items():
        if data not in places:
            places[data] = begin + len(content)
            content += data + bytes(-len(data) % 4)
        table += struct.pack(">4sLL", signature, places[data], len(data))
    size = begin + len(content)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    header = struct.pack(">L4sL4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ") + date + b"acsp"
    header += bytes(28) + _xyz(_PCS)[8:]
    return header.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + content
