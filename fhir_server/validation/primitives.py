"""Values of the primitive data types. https://hl7.org/fhir/R4/datatypes.html

A predicate a type: whether a JSON value, as parsed by `fhir_server.fhir_json`, is one of the type.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from math import isfinite
from types import MappingProxyType
from typing import Any

from fhir_server.validation.narrative import is_narrative

MAX_STRING = 1024 * 1024  # characters, by the definition of string
# A number that no measurement has, and that would cost its reader memory when written out.
MAX_EXPONENT, MAX_DIGITS = 400, 400
_INT32 = 2**31

_DAY = r"(?!0000)[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01])%s)?)?"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?"  # to the nanosecond
_MOMENT = rf"T{_CLOCK}(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_DATE = re.compile(_DAY % "")
_DATETIME = re.compile(_DAY % rf"(?:{_MOMENT})?")
_INSTANT = re.compile(rf"(?!0000)[0-9]{{4}}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01]){_MOMENT}")
_TIME = re.compile(_CLOCK)
_CODE = re.compile(r"\S+(?:\s\S+)*", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_OID = re.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+")
_UUID = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SPACE = re.compile(r"\s", re.ASCII)
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")  # what XML cannot carry


def is_boolean(value: Any) -> bool:
    return value is True or value is False


def is_integer(value: Any) -> bool:
    return type(value) is int and -_INT32 <= value < _INT32


def is_unsigned_int(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INT32


def is_positive_int(value: Any) -> bool:
    return type(value) is int and 1 <= value < _INT32


def is_decimal(value: Any) -> bool:
    if isinstance(value, Decimal):
        if not value.is_finite():
            return False
        return abs(value.adjusted()) <= MAX_EXPONENT and len(value.as_tuple().digits) <= MAX_DIGITS
    if type(value) is int:
        return value.bit_length() <= 3 * MAX_DIGITS
    return isinstance(value, float) and isfinite(value)


def is_string(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_STRING and not _UNWRITABLE.search(value)


def is_code(value: Any) -> bool:
    return is_string(value) and _CODE.fullmatch(value) is not None


def is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_uri(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not _SPACE.search(value) and not _UNWRITABLE.search(value)


def is_oid(value: Any) -> bool:
    return isinstance(value, str) and _OID.fullmatch(value) is not None


def is_uuid(value: Any) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def is_date(value: Any) -> bool:
    return isinstance(value, str) and _DATE.fullmatch(value) is not None and _in_calendar(value)


def is_date_time(value: Any) -> bool:
    return isinstance(value, str) and _DATETIME.fullmatch(value) is not None and _in_calendar(value)


def is_instant(value: Any) -> bool:
    return isinstance(value, str) and _INSTANT.fullmatch(value) is not None and _in_calendar(value)


def is_time(value: Any) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def is_base64(value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if _SPACE.search(value):  # allowed, as in the line breaks of an e-mail
        value = "".join(value.split())
    # Looked at, not decoded: an attachment of megabytes should not be in memory once more.
    return len(value) % 4 == 0 and _BASE64.fullmatch(value) is not None


def _in_calendar(text: str) -> bool:
    if text[8:10] <= "28":  # also when there is no day
        return True
    try:
        date(int(text[:4]), int(text[5:7]), int(text[8:10]))
    except ValueError:
        return False
    return True


PRIMITIVES: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "base64Binary": is_base64,
        "boolean": is_boolean,
        "canonical": is_uri,
        "code": is_code,
        "date": is_date,
        "dateTime": is_date_time,
        "decimal": is_decimal,
        "id": is_id,
        "instant": is_instant,
        "integer": is_integer,
        "markdown": is_string,
        "oid": is_oid,
        "positiveInt": is_positive_int,
        "string": is_string,
        "time": is_time,
        "unsignedInt": is_unsigned_int,
        "uri": is_uri,
        "url": is_uri,
        "uuid": is_uuid,
        "xhtml": is_narrative,
    }
)
