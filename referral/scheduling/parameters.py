"""The parameters of the scheduling operations, read once: names, types and numbers as IHE Scheduling has them.

Whatever is wrong is refused with the FHIRPath of the entry at fault.
"""

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.errors import BadRequest
from fhir_server.operation import OperationRequest

MAX_TEXT = 1000
MAX_REPEATS = 20

# Parameter name -> (type, how many). A resource type stands for the resource itself.
FIND: Mapping[str, tuple[str, int]] = {
    "start": ("dateTime", 1),
    "end": ("dateTime", 1),
    "specialty": ("string", MAX_REPEATS),
    "visit-type": ("string", MAX_REPEATS),
    "practitioner": ("Reference", MAX_REPEATS),
    "organization": ("Reference", MAX_REPEATS),
    "location-string": ("string", MAX_REPEATS),
    "location-reference": ("Reference", MAX_REPEATS),
    "patient-reference": ("Reference", MAX_REPEATS),
    "patient-resource": ("Patient", MAX_REPEATS),
    "reason": ("string", MAX_REPEATS),
    "insurance-reference": ("Reference", MAX_REPEATS),
    "referral-identifier": ("Identifier", 1),
    "order-reference": ("Reference", 1),
    "timing": ("Timing", 1),
    "_count": ("integer", 1),
}
HOLD: Mapping[str, tuple[str, int]] = {
    "appointment-reference": ("Reference", 1),
    "referral-identifier": ("Identifier", 1),
    "order-reference": ("Reference", 1),
}
BOOK: Mapping[str, tuple[str, int]] = {
    **HOLD,
    "appointment-resource": ("Appointment", 1),
    "patient-reference": ("Reference", 1),
    "patient-resource": ("Patient", MAX_REPEATS),
    "comment": ("string", 1),
}
OBJECTS = {"Reference": "reference", "Identifier": "value"}  # and the string member without which they say nothing

# https://hl7.org/fhir/R4/datatypes.html#dateTime; a time needs its offset.
_DATE_TIME = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2}))?)?)?")


@dataclass(frozen=True, slots=True)
class Given:
    """One value of a parameter; `path` names it in an OperationOutcome."""

    value: Any
    path: str


class Parameters:
    """The values of one call by name. Raises BadRequest for unknown names, wrong types, too many."""

    def __init__(self, request: OperationRequest, known: Mapping[str, tuple[str, int]]) -> None:
        self._given: dict[str, list[Given]] = {}
        for index, entry in enumerate(request.parameters):
            path = f"Parameters.parameter[{index}]"
            name = entry.get("name")
            if not isinstance(name, str) or name not in known:
                raise BadRequest(f"a parameter here is one of {', '.join(known)}", f"{path}.name")
            fhir_type, most = known[name]
            values = self._given.setdefault(name, [])
            values.append(_value(entry, name, fhir_type, path))
            if len(values) > most:
                raise BadRequest(f"{name} may be given {most} times", path)

    def one(self, name: str) -> Given | None:
        return next(iter(self.all(name)), None)

    def required(self, name: str) -> Given:
        given = self.one(name)
        if given is None:
            raise BadRequest(f"{name} is needed", "Parameters.parameter")
        return given

    def all(self, name: str) -> list[Given]:
        return self._given.get(name, [])

    def strings(self, name: str) -> tuple[str, ...]:
        """The values of a repeatable string or Reference parameter; of a Reference its literal text."""
        values = [given.value for given in self.all(name)]
        return tuple(value["reference"] if isinstance(value, dict) else value for value in values)


def _value(entry: dict, name: str, fhir_type: str, path: str) -> Given:
    if fhir_type[0].isupper() and fhir_type not in (*OBJECTS, "Timing"):
        resource = entry.get("resource")
        if not isinstance(resource, dict) or resource.get("resourceType") != fhir_type:
            raise BadRequest(f"{name} is a resource of type {fhir_type}", f"{path}.resource")
        return Given(resource, f"{path}.resource")
    element = f"{path}.value.ofType({fhir_type})"
    key = f"value{fhir_type[0].upper()}{fhir_type[1:]}"
    # A query string has no types, so its values come as strings; an instant is a dateTime too.
    allowed = {"dateTime": (key, "valueInstant", "valueString"), "integer": (key, "valueString")}
    value = next((entry[k] for k in allowed.get(fhir_type, (key,)) if k in entry), None)
    if fhir_type == "integer":
        return Given(_whole_number(value, name, element), element)
    if fhir_type in ("string", "dateTime"):
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
            raise BadRequest(f"{name} is a {fhir_type} of 1 to {MAX_TEXT} characters", element)
        return Given(value.strip(), element)
    if not isinstance(value, dict):
        raise BadRequest(f"{name} is a {fhir_type}", element)
    member = OBJECTS.get(fhir_type)
    if member and not (isinstance(value.get(member), str) and 0 < len(value[member]) <= MAX_TEXT):
        raise BadRequest(f"{name} needs its {member}", f"{element}.{member}")
    if not isinstance(value.get("system", ""), str):
        raise BadRequest("an Identifier's system is a string", f"{element}.system")
    return Given(value, element)


def _whole_number(value: object, name: str, element: str) -> int:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise BadRequest(f"{name} is a whole number", element)
    return int(text)


def _days(first: datetime, of_month: bool) -> int:
    if of_month:
        return calendar.monthrange(first.year, first.month)[1]
    return 366 if calendar.isleap(first.year) else 365


def span(given: Given, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The moments [first, end) that a dateTime covers; a date without a time is one of the practice's zone."""
    match = _DATE_TIME.fullmatch(given.value)
    if match is None:
        raise BadRequest("a dateTime such as 2026-01-31 or 2026-01-31T09:30:00+01:00 is expected", given.path)
    year, month, day, time = match.groups()
    try:
        if time:
            moment = datetime.fromisoformat(given.value)
            return moment, moment
        first = datetime(int(year), int(month or 1), int(day or 1), tzinfo=zone)
        # Wall time plus days, so that a day on which the clock changes has 23 or 25 hours.
        return first, first + timedelta(days=1 if day else _days(first, bool(month)))
    except (ValueError, OverflowError):
        raise BadRequest("there is no such date", given.path) from None
