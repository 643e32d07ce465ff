"""Windows that are none, which viewers take at their word and show a black image. PS3.3 section C.11.2.1.2.

The stored object keeps them. Its metadata leaves them out, so that a viewer takes the range of the pixels, as it does
for an image without a window.
"""

import re
import zlib

import orjson

from dicomweb.dicom_json import Attributes, items, text
from dicomweb.display import CENTER, FUNCTION, LINEAR, VOI_GROUP, VOI_LUT, WIDTH, Window

_EXPLANATION, _SOFTCOPY = "00281055", "00283110"
_ABOUT_WINDOWS = (VOI_GROUP, _SOFTCOPY)  # an item of these has a window or a table, or says nothing
# A width of 1 or more is one whatever the function. All others are looked at.
_SUSPECT = re.compile(rb'"00281051":\{"vr":"DS","Value":(?!\[[1-9][0-9.]*(?:,[1-9][0-9.]*)*\])')


def mend(attributes: Attributes, path: str = "") -> list[str]:
    """Take such windows out of a data set, its sequences included; the paths at which there were any."""
    mended = [path + WIDTH] if _mend(attributes) else []
    for tag, attribute in list(attributes.items()):
        if attribute["vr"] != "SQ":
            continue
        inside = items(attributes, tag)
        for index, item in enumerate(inside):
            mended.extend(mend(item, f"{path}{tag}/{index}/"))
        left = [item for item in inside if WIDTH in item or VOI_LUT in item]
        if tag in _ABOUT_WINDOWS and len(left) < len(inside):
            if left:
                attribute["Value"] = left
            else:
                del attributes[tag]
    return mended


def inflated(metadata: bytes) -> bytes:
    """The JSON of a data set as it is told, from what is stored of it. What an earlier version stored, which took any
    window, is mended now."""
    json = zlib.decompress(metadata)
    if _SUSPECT.search(json) is None:
        return json
    attributes = orjson.loads(json)
    return orjson.dumps(attributes) if mend(attributes) else json


def _mend(attributes: Attributes) -> bool:
    """Whether there was a window that is none, or half of one."""
    centers, widths = (attributes.get(tag, {}).get("Value", []) for tag in (CENTER, WIDTH))
    function = text(attributes, FUNCTION) or LINEAR
    good = [
        index for index, pair in enumerate(zip(centers, widths, strict=False)) if _is_window(*pair, function=function)
    ]
    if len(good) == max(len(centers), len(widths)):
        return False
    for tag in (CENTER, WIDTH, _EXPLANATION):
        values = attributes.get(tag, {}).get("Value", [])
        if kept := [values[index] for index in good if index < len(values)]:
            attributes[tag]["Value"] = kept
        else:
            attributes.pop(tag, None)
    if not good:
        attributes.pop(FUNCTION, None)
    return True


def _is_window(center: object, width: object, function: str) -> bool:
    return (
        isinstance(center, int | float) and isinstance(width, int | float) and Window(center, width, function).valid
    )
