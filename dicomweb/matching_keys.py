"""Attribute values as they are compared: the same folding for what is stored and for what is asked.
PS3.4 section C.2.2.2.
"""

import unicodedata
from typing import Any

from dicomweb.attributes import Attribute
from dicomweb.dicom_json import Attributes, items

MAX_VALUES = 64  # of one attribute; the keys that are searched have one value, or a few


# Letters with a stroke or joined ones, which Unicode does not take apart.
_LETTERS = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ı": "i"}
)


def fold(text: str) -> str:
    """A person name without case and accents, and without the empty components at its end."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign)).casefold().rstrip("^ ")


def date(text: str) -> str:
    """`20240131`, also of the retired form `2024.01.31`."""
    return text.replace(".", "") if text[4:5] == "." else text


def time(text: str) -> str:
    """`101500.5`, also of the retired form `10:15:00.5`."""
    return text.replace(":", "")


def comparable(vr: str, value: Any) -> list[str]:
    """One value of an attribute as it is compared; a person name has a form for each group of components."""
    if isinstance(value, dict):
        return [folded for group in value.values() if isinstance(group, str) and (folded := fold(group))]
    if value is None or isinstance(value, (list, float)):
        return []
    text = str(value)
    return [{"DA": date, "TM": time}.get(vr, str)(text)]


def keys_of(attributes: Attributes, matched: list[Attribute]) -> dict[str, str | list[str]]:
    """Path (dots as underscores) -> what a query compares with; attributes without a value are left out."""
    keys: dict[str, str | list[str]] = {}
    for attribute in matched:
        values = [form for value in _values(attributes, attribute.path) for form in comparable(attribute.vr, value)]
        # Both ends of a range must hold for one and the same value, so a date or time has one (as PS3.6 says).
        values = values[: 1 if attribute.vr in ("DA", "TM") else MAX_VALUES]
        if values:
            keys[field_of(attribute.path)] = values[0] if len(values) == 1 else values
    return keys


def field_of(path: str) -> str:
    """The name under which the value at a path is stored."""
    return path.replace(".", "_")


def _values(attributes: Attributes, path: str) -> list[Any]:
    sequence, dot, inner = path.partition(".")
    if dot:
        return [value for item in items(attributes, sequence) for value in _values(item, inner)]
    return attributes.get(path, {}).get("Value", [])
