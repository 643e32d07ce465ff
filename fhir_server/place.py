"""Places in a resource, found by the part of FHIRPath that selects, so that what is there can be changed.
https://hl7.org/fhirpath/
"""

import re
from dataclasses import dataclass
from typing import Any

from conformance import Element, layout
from fhir_server.errors import BadRequest
from fhir_server.fhir_json import Number

MAX_EXPRESSION = 2000
MAX_BRACKETS = 40
_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<text>'(?:[^'\\]|\\.)*')|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<sign>[.()\[\],]|!=|=))"
)
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Place:
    """A value and where it is. parent: the object that has it; siblings: the list it is in, `index` its number."""

    value: Any
    type: str
    element: Element
    parent: dict
    name: str
    siblings: list | None = None
    index: int = 0

    def remove(self) -> None:
        """Take the value out, and with it what stands beside a primitive one."""
        beside = "_" + self.name
        if self.siblings is None:
            del self.parent[self.name]
            self.parent.pop(beside, None)
            return
        del self.siblings[self.index]
        besides = self.parent.get(beside)
        if isinstance(besides, list) and self.index < len(besides):
            del besides[self.index]
        if not self.siblings:
            del self.parent[self.name]
        if isinstance(besides, list) and not any(besides):
            del self.parent[beside]

    def put(self, name: str, value: Any) -> None:
        """Put another value here; under another name when a choice changes its type."""
        if self.siblings is not None:
            self.siblings[self.index] = value
            return
        if name != self.name:
            self.remove()
        self.parent[name] = value


def find(resource: dict, expression: str) -> list[Place]:
    """The places that an expression such as `Patient.name.where(use = 'official').given[0]` leads to, in order.

    Raises BadRequest for what is not understood.
    """
    type = resource["resourceType"]
    root = Place(resource, type, Element(type, type, False), {}, type)
    return _Expression(expression).places(root)


class _Expression:
    """Walks an expression from left to right, with the places reached so far."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_EXPRESSION or text.count("(") > MAX_BRACKETS:
            raise BadRequest(f"a path has up to {MAX_EXPRESSION} characters and {MAX_BRACKETS} brackets")
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._broken()
            self._tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            at = match.end()
        self._at = 0

    def places(self, root: Place) -> list[Place]:
        found = self._path([root])
        if self._at < len(self._tokens):
            raise self._broken()
        return found

    def _path(self, context: list[Place]) -> list[Place]:
        """Steps joined by points. A first step that is the type of the context stays there."""
        places = self._step(context, first=True)
        while self._sign("."):
            places = self._step(places, first=False)
        return places

    def _step(self, places: list[Place], first: bool) -> list[Place]:
        name = self._name()
        if self._sign("("):
            places = self._function(name, places)
        elif not (first and all(place.type == name for place in places)):
            places = [child for place in places for child in children(place, name)]
        while self._sign("["):
            index = int(self._take("number"))
            self._expect("]")
            places = places[index : index + 1]
        return places

    def _function(self, name: str, places: list[Place]) -> list[Place]:
        if name in ("first", "last", "single"):
            self._expect(")")
            if name == "single" and len(places) > 1:
                raise BadRequest("single() meets several elements")
            return places[-1:] if name == "last" else places[:1]
        if name in ("ofType", "as"):
            type = self._name()
            self._expect(")")
            return [place for place in places if place.type == type]
        if name == "extension":
            url = self._literal()
            self._expect(")")
            extensions = [child for place in places for child in children(place, "extension")]
            return [place for place in extensions if place.value.get("url") == url]
        if name == "where":
            return self._where(places)
        raise BadRequest(f"{name[:64]}() is not understood in the path of a patch")

    def _where(self, places: list[Place]) -> list[Place]:
        begin = self._at
        kept = []
        for place in places:
            self._at = begin
            if self._holds(place):
                kept.append(place)
        if not places:  # the condition is to be read all the same
            self._holds(None)
        return kept

    def _holds(self, place: Place | None) -> bool:
        """`a.b = 'c' and d = true )`, up to its bracket."""
        holds = True
        while True:
            found = self._path([place] if place else [])
            sign = self._take("sign")
            if sign not in ("=", "!="):
                raise self._broken()
            literal = self._literal()
            equal = len(found) == 1 and _same(found[0].value, literal)
            holds &= bool(found) and equal == (sign == "=")
            if self._sign(")"):
                return holds
            if self._name() != "and":
                raise self._broken()

    def _literal(self) -> Any:
        kind, text = self._next()
        if kind == "text":
            return _ESCAPE.sub(r"\1", text[1:-1])
        if kind == "number":
            return Number(text)
        if kind == "name" and text in ("true", "false"):
            return text == "true"
        raise self._broken()

    def _name(self) -> str:
        return self._take("name").strip("`")

    def _take(self, kind: str) -> str:
        found, text = self._next()
        if found != kind:
            raise self._broken()
        return text

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise self._broken()
        self._at += 1
        return self._tokens[self._at - 1]

    def _sign(self, sign: str) -> bool:
        """Whether this sign comes next; it is passed then."""
        there = self._at < len(self._tokens) and self._tokens[self._at] == ("sign", sign)
        self._at += there
        return there

    def _expect(self, sign: str) -> None:
        if not self._sign(sign):
            raise self._broken()

    def _broken(self) -> BadRequest:
        return BadRequest(f"the path {self._text[:100]!r} is not understood")


def children(place: Place, name: str) -> list[Place]:
    """The places of a child element; of a choice (`value`) whichever type is there."""
    content = place.value
    if not isinstance(content, dict):
        return []
    found = []
    for element in layout(place.type).values():
        if name not in (element.name, element.choice) or element.name not in content:
            continue
        value = content[element.name]
        if isinstance(value, list):
            found += [
                Place(each, _type_of(each, element), element, content, element.name, value, index)
                for index, each in enumerate(value)
                if each is not None
            ]
        else:
            found.append(Place(value, _type_of(value, element), element, content, element.name))
    return found


def _type_of(value: Any, element: Element) -> str:
    """The type of a value; of a contained resource its own."""
    if element.type == "Resource" and isinstance(value, dict):
        return str(value.get("resourceType"))
    return element.type


def _same(value: Any, literal: Any) -> bool:
    if isinstance(value, bool) or isinstance(literal, bool):
        return value is literal
    return value == literal
