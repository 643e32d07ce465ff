"""FHIRPath Patch: a Parameters resource of operations. https://hl7.org/fhir/R4/fhirpatch.html

A path must lead to one place, so only the part of FHIRPath is understood that selects: children, `[n]`, `first()`,
`last()`, `single()`, `where(...)`, `extension(...)` and `ofType(...)`.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from conformance import Element, layout
from fhir_server import fhir_json
from fhir_server.errors import BadRequest, FhirError, Unprocessable
from fhir_server.place import Place, find

MAX_OPERATIONS = 1000
_TYPES = ("add", "insert", "delete", "replace", "move")


def parse(parameters: Any) -> Callable[[dict], dict]:
    """The change that the Parameters make. Raises BadRequest for what are no patch operations.

    The change raises Unprocessable where an operation does not fit the resource.
    """
    entries = parameters.get("parameter", []) if isinstance(parameters, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_OPERATIONS:
        raise BadRequest(f"a patch has up to {MAX_OPERATIONS} operations", "Parameters.parameter")
    fhir_json.dumps(parameters)  # refuses what is nested too deeply
    operations = [_Operation(entry, f"Parameters.parameter[{index}]") for index, entry in enumerate(entries)]

    def change(resource: dict) -> dict:
        for operation in operations:
            try:
                operation.apply(resource)
            except FhirError as error:
                raise type(error)(error.diagnostics, operation.path) from None
        return resource

    return change


class _Operation:
    """One operation: its type, and its parts by name."""

    def __init__(self, entry: Any, path: str) -> None:
        self.path = path
        if not isinstance(entry, dict) or entry.get("name") != "operation" or not isinstance(entry.get("part"), list):
            raise BadRequest("each parameter is an `operation` with parts", path)
        for index, part in enumerate(entry["part"]):
            if not isinstance(part, dict) or not isinstance(part.get("name"), str):
                raise BadRequest("a part is an object with a name", f"{path}.part[{index}]")
        self._parts = {part["name"]: part for part in entry["part"]}
        self._type = self._text("type")
        if self._type not in _TYPES:
            raise BadRequest(f"the type of an operation is one of {', '.join(_TYPES)}", path)
        self._expression = self._text("path")
        self._name = self._text("name") if self._type == "add" else ""
        self._numbers = [self._number(name) for name in _NUMBERS.get(self._type, ())]
        if self._type in ("add", "insert", "replace") and "value" not in self._parts:
            raise BadRequest(f"{self._type} needs a value", path)

    def apply(self, resource: dict) -> None:
        """Change the resource."""
        places = find(resource, self._expression)
        if self._type == "add":
            self._add(_one(places))
        elif self._type == "insert":
            self._insert(places)
        elif self._type == "move":
            _move(places, *self._numbers)
        elif self._type == "delete":
            if places:  # R4: no match is no fault
                _inner(places).remove()
        else:
            place = _inner(places)
            place.put(*self._value(place.element))

    def _add(self, place: Place) -> None:
        container = place.value
        if not isinstance(container, dict):
            raise Unprocessable(f"nothing can be added to a {place.type}")
        element = self._member(place.type)
        name, value = self._value(element)
        if element.many:
            container.setdefault(name, []).append(value)
        elif any(key in container for key in _alternatives(place.type, element)):
            raise Unprocessable(f"{self._name} is there already; replace it")
        else:
            container[name] = value

    def _member(self, type: str) -> Element:
        """The element of the name given; of a choice, any of its types."""
        for element in layout(type).values():
            if self._name in (element.name, element.choice):
                return element
        raise Unprocessable(f"{type} has no element {self._name[:64]!r}")

    def _insert(self, places: list[Place]) -> None:
        if not places:
            raise Unprocessable("there is no list to insert into; add to it")
        values = _list(places)
        index = self._numbers[0]
        if index > len(values):
            raise Unprocessable(f"index is at most {len(values)}")
        values.insert(index, self._value(places[0].element)[1])

    def _value(self, element: Element) -> tuple[str, Any]:
        """(member of the parent, value) for an element; a choice takes its name from the type given."""
        part = self._parts["value"]
        given = [key for key in part if key.startswith("value") and len(key) > 5]
        name = element.name
        if element.choice and given:
            name = element.choice + given[0].removeprefix("value")
        if given:
            return name, deepcopy(part[given[0]])
        if "resource" in part:
            return name, deepcopy(part["resource"])
        if isinstance(part.get("part"), list):
            return name, _built(part["part"], element.type)
        raise BadRequest("a value has a value[x], a resource or parts", self.path)

    def _text(self, name: str) -> str:
        values = [value for key, value in self._parts.get(name, {}).items() if key in _TEXTS]
        if len(values) != 1 or not isinstance(values[0], str):
            raise BadRequest(f"an operation has a part {name}", self.path)
        return values[0]

    def _number(self, name: str) -> int:
        value = self._parts.get(name, {}).get("valueInteger")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadRequest(f"{self._type} has a part {name}, a valueInteger from 0", self.path)
        return value


_NUMBERS = {"insert": ("index",), "move": ("source", "destination")}
_TEXTS = ("valueString", "valueCode", "valueMarkdown", "valueUri")


def _built(parts: list, type: str) -> dict:
    """An element without a type of its own, such as Patient.contact, from parts named as its children."""
    content: dict[str, Any] = {}
    for part in parts:
        name = part.get("name") if isinstance(part, dict) else None
        element = next((one for one in layout(type).values() if name in (one.name, one.choice)), None)
        if element is None:
            raise Unprocessable(f"{type} has no element {str(name)[:64]!r}")
        given = [key for key in part if key.startswith("value") and len(key) > 5]
        value = part[given[0]] if given else part.get("resource")
        if value is None:
            inner = part.get("part")
            if not isinstance(inner, list):
                raise BadRequest("a part has a value[x], a resource or parts")
            value = _built(inner, element.type)
        key = element.choice + given[0].removeprefix("value") if element.choice and given else element.name
        if element.many:
            content.setdefault(key, []).append(deepcopy(value))
        else:
            content[key] = deepcopy(value)
    return content


def _alternatives(type: str, element: Element) -> list[str]:
    """The element, or all types of its choice, as members."""
    if element.choice is None:
        return [element.name]
    return [other.name for other in layout(type).values() if other.choice == element.choice]


def _one(places: list[Place]) -> Place:
    if len(places) != 1:
        raise Unprocessable(f"the path leads to {len(places)} elements, where one is meant")
    return places[0]


def _inner(places: list[Place]) -> Place:
    """The one place, which is not the whole resource."""
    place = _one(places)
    if not place.parent:
        raise Unprocessable("the path leads to the whole resource")
    return place


def _list(places: list[Place]) -> list:
    """The one list that the places are in."""
    values = places[0].siblings
    if values is None or any(place.siblings is not values for place in places):
        raise Unprocessable("the path is not that of one list")
    return values


def _move(places: list[Place], source: int, destination: int) -> None:
    if not places:
        raise Unprocessable("the path leads to no list")
    values = _list(places)
    if max(source, destination) >= len(values):
        raise Unprocessable(f"source and destination are below {len(values)}")
    values.insert(destination, values.pop(source))
