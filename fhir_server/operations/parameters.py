"""The parameters of one call, read by the table of the operation's definition.

Whatever is wrong is refused, with the FHIRPath of the entry at fault where it stood in a body.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fhir_server.errors import BadRequest, FhirError, Issue
from fhir_server.index.spans import date_span
from fhir_server.operation import OperationRequest

MANY = 100  # values of a parameter that may repeat without a limit
MAX_TEXT = 2000  # characters
MAX_WHOLE_NUMBER = 2**31 - 1

# Types whose values are strings, and so may be written as any of them; a query has no others.
_TEXTS = ("string", "code", "uri", "canonical", "url", "id", "markdown")
_DATES = ("instant", "dateTime", "date")
_WHOLE_NUMBERS = ("integer", "positiveInt", "unsignedInt")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Given:
    """One value. path: its FHIRPath in the Parameters sent; None when it stood in the query."""

    value: Any
    path: str | None


class Parameters:
    """The values of one call by name, checked against `known`: name -> (type, how many at most).

    A type that names a resource (`ValueSet`, or `Resource` for any) is one in `resource`. Raises BadRequest for
    unknown names, wrong types, too many.
    """

    def __init__(self, request: OperationRequest, known: Mapping[str, tuple[str, int]]) -> None:
        self._given: dict[str, list[Given]] = {}
        for index, entry in enumerate(request.parameters):
            path = f"Parameters.parameter[{index}]" if index < request.sent else None
            name = entry.get("name")
            if not isinstance(name, str) or name not in known:
                shown = repr(name[:64]) if isinstance(name, str) else "a parameter without a name"
                raise BadRequest(f"{shown} is not known; there are {', '.join(known)}", path and f"{path}.name")
            kind, most = known[name]
            values = self._given.setdefault(name, [])
            if request.bare and index == 0:
                values.append(Given(entry["resource"], _bare(entry["resource"], kind)))
            else:
                values.append(_read(entry, name, kind, path))
            if len(values) > most:
                raise BadRequest(f"{name} may be given {_times(most)}", path)

    def all(self, name: str) -> list[Given]:
        return self._given.get(name, [])

    def one(self, name: str) -> Given | None:
        return next(iter(self.all(name)), None)

    def value(self, name: str, default: Any = None) -> Any:
        """The first value of that name, as Python has it: bool, int, datetime (of an instant), str or dict."""
        given = self.one(name)
        return default if given is None else given.value

    def values(self, name: str) -> list[Any]:
        return [given.value for given in self.all(name)]

    def required(self, name: str) -> Given:
        given = self.one(name)
        if given is None:
            text = f"{name} is needed"
            raise BadRequest(text, issues=[Issue("required", text, "Parameters.parameter")])
        return given


def below(path: str | None, error: FhirError) -> list[Issue]:
    """The issues of a resource that stood at `path`, their expressions from there on."""
    issues = error.issues or [Issue(error.issue_code, error.diagnostics, error.expression)]
    if path is None:
        return issues
    return [replace(issue, expression=_below(path, issue.expression)) for issue in issues]


def _below(path: str, expression: str | None) -> str:
    return f"{path}.{expression.partition('.')[2]}".rstrip(".") if expression else path


def _bare(resource: dict, kind: str) -> str:
    if kind not in ("Resource", resource["resourceType"]):
        raise BadRequest(f"the resource sent is a {kind}, or a Parameters", "Resource.resourceType")
    return resource["resourceType"]


def _read(entry: dict, name: str, kind: str, path: str | None) -> Given:
    values = [key for key in entry if key.startswith("value")]
    if len(values) + ("resource" in entry) + ("part" in entry) != 1:
        raise BadRequest(f"{name} has one value", path)
    if kind == "part":
        part = entry.get("part")
        if not isinstance(part, list) or not all(isinstance(one, dict) for one in part):
            raise BadRequest(f"{name} has parts", path)
        return Given(part, path and f"{path}.part")
    if "resource" in entry or not values:
        return Given(_resource(entry.get("resource"), name, kind, path), path and f"{path}.resource")
    value, element = entry[values[0]], path and f"{path}.value.ofType({_type_of(values[0])})"
    if kind in _TEXTS and _type_of(values[0]) in _TEXTS:
        return Given(_text(value, name, kind, element), element)
    if kind == "boolean":
        return Given(_boolean(value, name, element), element)
    if kind in _WHOLE_NUMBERS:
        return Given(_whole_number(value, name, kind, element), element)
    if kind == "instant" and _type_of(values[0]) in ("instant", "dateTime", "string"):
        return Given(_instant(value, name, element), element)
    if kind == "date" and _type_of(values[0]) in ("date", "dateTime", "string"):
        return Given(_date(value, name, element), element)
    if _type_of(values[0]) == kind and isinstance(value, dict):
        return Given(value, element)
    raise BadRequest(f"{name} is a {kind}", element)


def _type_of(key: str) -> str:
    """`valueCode` -> `code`, `valueCoding` -> `Coding`."""
    name = key.removeprefix("value")
    lowered = name[:1].lower() + name[1:]
    return lowered if lowered in (*_TEXTS, *_DATES, *_WHOLE_NUMBERS, "boolean", "decimal") else name


def _resource(resource: object, name: str, kind: str, path: str | None) -> dict:
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise BadRequest(f"{name} is a {kind}", path)
    if kind not in ("Resource", resource["resourceType"]):
        raise BadRequest(f"{name} is a {kind}", path and f"{path}.resource")
    return resource


def _text(value: object, name: str, kind: str, path: str | None) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise BadRequest(f"{name} is a {kind} of 1 to {MAX_TEXT} characters", path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is no valid Unicode", path) from None
    if "\0" in value:
        raise BadRequest(f"{name} has a character that no text has", path)
    return value


def _boolean(value: object, name: str, path: str | None) -> bool:
    if not isinstance(value, bool) and value not in ("true", "false"):
        raise BadRequest(f"{name} is true or false", path)
    return value is True or value == "true"


def _whole_number(value: object, name: str, kind: str, path: str | None) -> int:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    least = 1 if kind == "positiveInt" else 0
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or not least <= int(text) <= MAX_WHOLE_NUMBER:
        raise BadRequest(f"{name} is a whole number from {least}", path)
    return int(text)


def _instant(value: object, name: str, path: str | None) -> datetime:
    # A + in a query reads as a space.
    text = value.replace(" ", "+") if isinstance(value, str) else ""
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        pass  # as 2026-02-30
    raise BadRequest(f"{name} is an instant, such as 2026-01-31T10:00:00Z", path)


def _date(value: object, name: str, path: str | None) -> str:
    if not isinstance(value, str) or len(value) > len("2026-01-31") or date_span(value) is None:
        raise BadRequest(f"{name} is a date, such as 2026-01-31", path)
    return value


def _times(most: int) -> str:
    return "once" if most == 1 else f"{most} times"
