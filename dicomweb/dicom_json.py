"""A data set as DICOM JSON. PS3.18 annex F.

Written from the raw elements, because a value that does not keep to its VR must be mended or kept as text, never
dropped: a missing Image Position (Patient) is a black volume in a viewer.
"""

import base64
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.sequence import Sequence
from pydicom.valuerep import TEXT_VR_DELIMS, format_number_as_ds

from dicomweb.failures import OUT_OF_RESOURCES, StoreFailure, cannot_understand
from dicomweb.part10 import MAX_DEPTH, UNDEFINED, Bounded

Attribute = dict[str, Any]  # {"vr": "CS", "Value": ["CT"]}
Attributes = dict[str, Attribute]  # by tag: "00080060"

INLINE_BYTES = 8 * 1024  # larger binary values are bulk data, read from the stored object when asked for
_NUMBERS = {"FL": "f", "FD": "d", "SL": "l", "SS": "h", "SV": "q", "UL": "L", "US": "H", "UV": "Q"}
_UNIT = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}  # bytes of a word, for big-endian values
_BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_ONE_TEXT = {"LT", "ST", "UT", "UR"}
_TEXTS = {"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI"}
_LEADING_SPACES_COUNT = {"LT", "ST", "UT", "UC"}
_IN_CHARACTER_SET = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_KNOWN = {*_NUMBERS, *_BINARY, *_ONE_TEXT, *_TEXTS, "AT", "DS", "IS", "PN", "SQ"}
_SAFE_INTEGER = 2**53
_DS_LENGTH = 16
_DEFAULT = "iso8859"  # pydicom's name of the default repertoire, also for a character set that it does not know
_UNITS = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(slots=True)
class Converted:
    """The data set, and where each value lies that it only names. bulk: path -> (offset, length).

    mended: paths of decimal strings that were longer than DS allows, and are written as a number that is not.
    """

    attributes: Attributes
    bulk: dict[str, tuple[int, int]] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)


def convert(dataset: Dataset, file: Bounded, bulk_address: str) -> Converted:
    """The data set without group lengths. `bulk_address`: what the BulkDataURI of a value at `path` begins with.

    Raises StoreFailure, and other errors that `part10.refusing` makes one.
    """
    converted = Converted({})
    converted.attributes = _Writer(file, bulk_address, converted).attributes(dataset, "", 0, None)
    if "00080005" in converted.attributes or _is_not_ascii(converted.attributes):
        # The JSON is in UTF-8, whatever the file was in.
        converted.attributes["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
        converted.attributes = dict(sorted(converted.attributes.items()))
    return converted


def first(attributes: Attributes, tag: str) -> Any:
    """The first value of an attribute, or None."""
    values = attributes.get(tag, {}).get("Value")
    return values[0] if values else None


def text(attributes: Attributes, tag: str) -> str:
    """The first value as text; empty when there is none. A person name: its first group of components."""
    value = first(attributes, tag)
    if isinstance(value, dict):
        return next((value[unit] for unit in _UNITS if value.get(unit)), "")
    return "" if value is None else str(value)


def integer(attributes: Attributes, tag: str, default: int | None = None) -> int | None:
    """The first value as a whole number, or the default."""
    value = first(attributes, tag)
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def number(attributes: Attributes, tag: str) -> float | None:
    """The first value as a finite number, or None."""
    value = first(attributes, tag)
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def items(attributes: Attributes, tag: str) -> list[Attributes]:
    """The items of a sequence."""
    return [item for item in attributes.get(tag, {}).get("Value", []) if isinstance(item, dict)]


def words_swapped(value: bytes, vr: str) -> bytes:
    """A big-endian binary value as little endian."""
    unit = _UNIT.get(vr, 1)
    if unit == 1 or len(value) % unit:
        return value
    return b"".join(value[at : at + unit][::-1] for at in range(0, len(value), unit))


class _Writer:
    def __init__(self, file: Bounded, bulk_address: str, converted: Converted) -> None:
        self._file = file
        self._bulk_address = bulk_address
        self._bulk = converted.bulk
        self._mended = converted.mended

    def attributes(self, dataset: Dataset, path: str, depth: int, signed: bool | None) -> Attributes:
        """signed: Pixel Representation of the data set around this one."""
        if depth > MAX_DEPTH:
            raise cannot_understand("sequences are nested too deeply")
        written: Attributes = {}
        encodings = _encodings(dataset)
        representation = dataset.get_item(0x00280103, keep_deferred=True)
        if isinstance(representation, RawDataElement) and isinstance(representation.value, bytes):
            signed = any(representation.value)
        for tag in sorted(dataset.keys()):
            element = dataset.get_item(tag, keep_deferred=True)
            if tag.element == 0 or tag.group in (0x0002, 0xFFFE):  # group lengths; stray delimiters
                continue
            name = f"{int(tag):08X}"
            place = f"{path}{name}"
            if isinstance(element, RawDataElement):
                written[name] = self._raw(dataset, element, place, depth, signed, encodings)
            else:  # a sequence of undefined length, read already
                written[name] = self._sequence(element.value, place, depth, signed)
        return written

    def _raw(
        self,
        dataset: Dataset,
        raw: RawDataElement,
        place: str,
        depth: int,
        signed: bool | None,
        encodings: list[str],
    ) -> Attribute:
        vr = _vr(dataset, raw, signed)
        length = len(raw.value or b"") if raw.length == UNDEFINED else raw.length
        if raw.value is not None and len(raw.value) != length:
            raise cannot_understand("the file ends inside an element")
        if length == 0:
            return {"vr": vr}
        if vr in _BINARY and length > INLINE_BYTES:
            self._bulk[place] = (raw.value_tell, length)
            return {"vr": vr, "BulkDataURI": self._bulk_address + place}
        if vr == "SQ":
            # Read again from the file and not from `raw.value`, so that all places inside it are those of the file.
            self._file.seek(raw.value_tell)
            implicit = raw.is_implicit_VR or raw.VR == "UN"  # PS3.5 section 6.2.2, note 5
            sequence = read_sequence(self._file, implicit, raw.is_little_endian, length, encodings)  # type: ignore[arg-type]
            return self._sequence(sequence, place, depth, signed)
        value = raw.value
        if value is None:  # left out while reading
            if raw.length == UNDEFINED:
                raise StoreFailure(OUT_OF_RESOURCES, "a value of undefined length is too large")
            value = self._file.at(raw.value_tell, raw.length)
        if vr in _BINARY:
            inline = value if raw.is_little_endian else words_swapped(value, vr)
            return {"vr": vr, "InlineBinary": base64.b64encode(inline).decode("ascii")}
        if vr == "DS" and any(len(part.strip(b"\0 ")) > _DS_LENGTH for part in value.split(b"\\")):
            self._mended.append(place)
        values = _values(vr, value, raw.is_little_endian, encodings)
        return {"vr": vr, "Value": values} if values else {"vr": vr}

    def _sequence(self, sequence: Sequence, place: str, depth: int, signed: bool | None) -> Attribute:
        written = [
            self.attributes(item, f"{place}/{index}/", depth + 1, signed) for index, item in enumerate(sequence)
        ]
        return {"vr": "SQ", "Value": written} if written else {"vr": "SQ"}


def _vr(dataset: Dataset, raw: RawDataElement, signed: bool | None) -> str:
    """The element's VR: the file's; where it has none, or says UN, that of the dictionary."""
    vr = raw.VR
    if vr is None or vr not in _KNOWN or vr == "UN":
        vr = _dictionary_vr(dataset, raw)
    if " or " in vr:  # PS3.6: decided by Pixel Representation, or binary anyway
        if "OW" in vr and (vr.startswith("OB") or raw.length > 2):
            return "OW"
        return "SS" if signed else "US"
    return vr if vr in _KNOWN else "UN"


def _dictionary_vr(dataset: Dataset, raw: RawDataElement) -> str:
    try:
        if not raw.tag.is_private:
            return dictionary_VR(raw.tag)
        if raw.tag.is_private_creator:
            return "LO"
        creator = dataset.get_item(raw.tag.group << 16 | raw.tag.element >> 8, keep_deferred=True)
        if creator is not None and isinstance(creator.value, bytes):
            return private_dictionary_VR(raw.tag, creator.value.decode("latin-1").strip("\0 "))
    except KeyError:
        pass  # a tag that no dictionary knows
    return "UN"


def _values(vr: str, value: bytes, little_endian: bool, encodings: list[str]) -> list[Any]:
    if vr in _NUMBERS:
        return _binary_numbers(vr, value, little_endian)
    if vr == "AT":
        words = struct.unpack(f"{'<' if little_endian else '>'}{len(value) // 4 * 2}H", value[: len(value) // 4 * 4])
        return [f"{words[at]:04X}{words[at + 1]:04X}" for at in range(0, len(words), 2)]
    decoded = _decode(value, encodings) if vr in _IN_CHARACTER_SET else value.decode("latin-1")
    decoded = decoded.rstrip("\0 ")
    if vr in _ONE_TEXT:
        return [decoded] if decoded else []
    if not decoded:
        return []
    convert_one: Callable[[str], Any] = _ONE.get(vr, str.strip if vr not in _LEADING_SPACES_COUNT else str.rstrip)
    values = [convert_one(part) if part.strip("\0 ") else None for part in decoded.split("\\")]
    return values if any(value is not None for value in values) else []


def _binary_numbers(vr: str, value: bytes, little_endian: bool) -> list[Any]:
    order, code = "<" if little_endian else ">", _NUMBERS[vr]
    size = struct.calcsize(order + code)
    numbers = struct.unpack(f"{order}{len(value) // size}{code}", value[: len(value) // size * size])
    return [_json_number(n) for n in numbers]


def _json_number(value: float) -> Any:
    """What JSON can carry: no NaN, and no integer that a reader would round."""
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    return value if abs(value) < _SAFE_INTEGER else str(value)


def _decimal(part: str) -> Any:
    """A decimal string as a number; a longer one than DS allows is rounded to what fits; what is none stays text."""
    stripped = part.strip("\0 ")
    try:
        value = float(stripped)
    except ValueError:
        return stripped
    if not math.isfinite(value):
        return stripped
    if len(stripped) > _DS_LENGTH:
        value = float(format_number_as_ds(value))
    return int(value) if value.is_integer() and "." not in stripped and abs(value) < _SAFE_INTEGER else value


def _whole(part: str) -> Any:
    """An integer string as a number; written as a decimal too (`1.0`, real archives have it); else its text."""
    stripped = part.strip("\0 ")
    try:
        value = float(stripped)
    except ValueError:
        return stripped
    return int(value) if math.isfinite(value) and value.is_integer() and abs(value) < _SAFE_INTEGER else stripped


def _person_name(part: str) -> Any:
    groups = {
        unit: group.strip() for unit, group in zip(_UNITS, part.split("="), strict=False) if group.strip("^ \0")
    }
    return groups or None


_ONE: dict[str, Callable[[str], Any]] = {"DS": _decimal, "IS": _whole, "PN": _person_name}


def _encodings(dataset: Dataset) -> list[str]:
    """Python's names of the character sets of a data set (its own, or of the one around it)."""
    charset = dataset.original_character_set
    names = [charset] if isinstance(charset, str) else list(charset)
    return [python_encoding.get(name, name) for name in names] or [_DEFAULT]


def _decode(value: bytes, encodings: list[str]) -> str:
    """Text in the declared character sets; in UTF-8 or Latin-1 where it is not: wrong declarations are common."""
    if b"\x1b" in value:
        return decode_bytes(value, encodings, TEXT_VR_DELIMS)
    declared = (
        () if encodings[0] == _DEFAULT else (encodings[0],)
    )  # the default is ASCII and says nothing of the rest
    for encoding in (*declared, "utf-8"):
        try:
            return value.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return value.decode("latin-1")


def _is_not_ascii(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_is_not_ascii(child) for child in children)
