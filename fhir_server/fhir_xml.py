"""FHIR XML in and out, by way of the JSON form. https://hl7.org/fhir/R4/xml.html

Generic over all types: names, order and types of elements come from the definitions. Decimals keep their digits and a
narrative its text, since JSON carries both as they are written. A document type is refused, and with it every entity.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.entities import name2codepoint
from typing import Any
from xml.parsers import expat

import conformance
from conformance import Element, layout
from fhir_server.errors import BadRequest, InvalidStructure, Issue, NotAcceptable
from fhir_server.fhir_json import Number

FHIR = "http://hl7.org/fhir"
XHTML = "http://www.w3.org/1999/xhtml"
MAX_DEPTH = 120
MAX_ISSUES = 100
_SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_INTEGERS = ("integer", "positiveInt", "unsignedInt")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENTITY = re.compile(r"&([A-Za-z0-9]+);")
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})


def loads(data: bytes) -> dict:
    """The resource in JSON form. Raises BadRequest for what is no XML, InvalidStructure for what is no FHIR."""
    faults: list[Issue] = []
    root = _parse(data)
    resource = _Reading(faults).resource(root, root.name)
    if faults:
        raise InvalidStructure("this is no valid FHIR XML", issues=faults[:MAX_ISSUES])
    return resource


def dumps(resource: dict, *, pretty: bool = False) -> bytes:
    """The resource as XML. Raises NotAcceptable for content that XML cannot carry, naming the element."""
    lines = _Writing(pretty)
    lines.resource(resource, f' xmlns="{FHIR}"', resource.get("resourceType", "Resource"), 0)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + "".join(lines.text).encode()


# Reading: a tree of nodes, and from it the JSON form


@dataclass(slots=True)
class _Node:
    """An element: attributes without a namespace, children; of a narrative's div its whole text instead."""

    name: str
    namespace: str
    attributes: dict[str, str]
    children: list["_Node"] = field(default_factory=list)
    xhtml: str | None = None


class _Tree:
    """Builds the nodes from what expat reports."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open: list[_Node] = []
        self._div: list[str] | None = None  # the div as written anew, for one that depends on prefixes outside it
        self._div_start, self._div_depth, self._div_verbatim = 0, 0, True
        self._declares: str | None = None  # default namespace that the next element declares
        self.root: _Node | None = None
        parser = self._parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace
        parser.XmlDeclHandler = self._declaration

    def build(self) -> _Node:
        try:
            self._parser.Parse(self._data, True)
        except expat.ExpatError as error:
            raise BadRequest(f"this is no valid XML: {error}") from None
        if self.root is None:
            raise BadRequest("this is no valid XML")
        return self.root

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in ("utf-8", "us-ascii"):
            raise BadRequest("FHIR XML is written in UTF-8")

    def _doctype(self, *_: Any) -> None:
        raise BadRequest("FHIR XML has no document type declaration")

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        if prefix is None:
            self._declares = uri

    def _start(self, qualified: str, attributes: dict[str, str]) -> None:
        namespace, name, prefix = _split(qualified)
        declares, self._declares = self._declares, None
        if self._div is not None:
            self._div_depth += 1
            self._div.append(self._within(namespace, name, prefix, attributes))
            return
        if len(self._open) == MAX_DEPTH:
            raise InvalidStructure(f"the XML is nested deeper than {MAX_DEPTH} levels", self._here())
        node = _Node(name, namespace, {})
        for key, value in attributes.items():
            of, local, _ = _split(key)
            if of != _SCHEMA_INSTANCE:
                node.attributes[local if not of else key] = value
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        if namespace == XHTML:
            self._div_depth = 1
            self._div_start = self._parser.CurrentByteIndex
            self._div_verbatim = declares == XHTML
            node.attributes = {}
            self._div = [self._within(namespace, name, prefix, attributes, f' xmlns="{XHTML}"')]
        self._open.append(node)

    def _within(
        self, namespace: str, name: str, prefix: str, attributes: dict[str, str], declaration: str = ""
    ) -> str:
        """The start tag of an element of a narrative, without prefixes."""
        if namespace != XHTML:
            raise InvalidStructure("a narrative has elements of XHTML only", self._here())
        self._div_verbatim &= not prefix
        written = [f"<{name}{declaration}"]
        for key, value in attributes.items():
            of, local, before = _split(key)
            self._div_verbatim &= not of or before == "xml"
            written.append(f' {"xml:" if before == "xml" else ""}{local}="{value.translate(_ESCAPES)}"')
        return "".join(written) + ">"

    def _end(self, qualified: str) -> None:
        if self._div is None:
            self._open.pop()
            return
        self._div_depth -= 1
        self._div.append(f"</{_split(qualified)[1]}>")
        if self._div_depth == 0:
            self._open.pop().xhtml = self._as_written() or "".join(self._div)
            self._div = None

    def _as_written(self) -> str | None:
        """The div's own text, when it stands for itself; None for one that needs prefixes declared outside it."""
        at = self._parser.CurrentByteIndex  # where the end tag begins; of `<div/>` where that does
        if not self._div_verbatim or self._data[at : at + 2] != b"</":
            return None
        return self._data[self._div_start : self._data.index(b">", at) + 1].decode()

    def _text(self, text: str) -> None:
        if self._div is not None:
            self._div.append(html.escape(text, quote=False))
        elif not text.isspace():
            text = "FHIR XML has its values in attributes, and no text outside a narrative"
            raise InvalidStructure(text, self._here())

    def _here(self) -> str:
        """The names of the elements that are open, as a path."""
        return ".".join(node.name[:64] for node in self._open)


def _parse(data: bytes) -> _Node:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest("FHIR XML is written in UTF-8") from None
    return _Tree(text.encode()).build()


def _split(qualified: str) -> tuple[str, str, str]:
    """(namespace, local name, prefix) of a name as expat gives it."""
    parts = qualified.split(" ")
    return ("", parts[0], "") if len(parts) == 1 else (parts[0], parts[1], parts[2] if len(parts) > 2 else "")


class _Reading:
    """From nodes to the JSON form. Notes every fault with its path."""

    def __init__(self, faults: list[Issue]) -> None:
        self._faults = faults

    def resource(self, node: _Node, path: str) -> dict:
        if node.namespace != FHIR:
            self._fault(f"the namespace of a resource is {FHIR}", path)
            return {}
        if node.name not in conformance.resource_types():
            self._fault(f"{node.name[:64]!r} is no FHIR R4 resource", path, "not-supported")
            return {}
        return {"resourceType": node.name} | self._content(node, node.name, path)

    def _content(self, node: _Node, type: str, path: str) -> dict:
        """The members of an object of this type."""
        elements = layout(type)
        content: dict[str, Any] = {}
        for name, text in node.attributes.items():
            if name in elements and elements[name].attribute:
                content[name] = text
            else:
                self._fault(f"{name[:64]!r} is no attribute of {type}", path)
        if not node.children and not content:
            self._fault("an element has content", path)
        for child, name, place in _numbered(node.children, path, elements):
            element = elements.get(name)
            if child.namespace != (XHTML if element and element.type == "xhtml" else FHIR):
                self._fault(f"{name[:64]!r} is in another namespace", place)
            elif element is None or element.attribute:
                self._fault(f"{name[:64]!r} is no element of {type}", place)
            elif not element.many and (name in content or "_" + name in content):
                self._fault(f"{name} may be given once", place)
            else:
                self._element(child, element, place, content)
        return content

    def _element(self, node: _Node, element: Element, path: str, content: dict) -> None:
        if element.type == "xhtml":
            _add(content, element, node.xhtml, None)
        elif element.type == "Resource":
            if len(node.children) != 1 or node.attributes:
                self._fault("one resource is expected", path)
            else:
                _add(content, element, self.resource(node.children[0], path), None)
        elif layout(element.type):
            _add(content, element, self._content(node, element.type, path), None)
        else:
            self._primitive(node, element, path, content)

    def _primitive(self, node: _Node, element: Element, path: str, content: dict) -> None:
        text = node.attributes.pop("value", None)
        value = None if text is None else self._value(text, element.type, path)
        beside = None
        if node.attributes or node.children or text is None:
            beside = self._content(node, "Element", path)
        _add(content, element, value, beside)

    def _value(self, text: str, type: str, path: str) -> Any:
        if type == "boolean":
            if text in ("true", "false"):
                return text == "true"
        elif type in _INTEGERS:
            if _INTEGER.fullmatch(text):
                return int(text)
        elif type == "decimal":
            if _DECIMAL.fullmatch(text) and len(text) < 1000:
                return int(text) if _INTEGER.fullmatch(text) and text != "-0" else _number(text)
        else:
            return text
        self._fault(f"this is no {type}", path, "value")
        return None

    def _fault(self, text: str, path: str, code: str = "structure") -> None:
        self._faults.append(Issue(code, text, path))


def _number(text: str) -> Number:
    try:
        return Number(text)
    except ArithmeticError:
        raise BadRequest("a decimal has an exponent beyond all bounds") from None


def _numbered(nodes: list[_Node], path: str, elements: Any) -> Iterator[tuple[_Node, str, str]]:
    """Each child with its name and its FHIRPath."""
    seen: dict[str, int] = {}
    for node in nodes:
        at = seen[node.name] = seen.get(node.name, -1) + 1
        element = elements.get(node.name)
        step = element.choice if element and element.choice else node.name[:64]
        yield node, node.name, f"{path}.{step}[{at}]" if element and element.many else f"{path}.{step}"


def _add(content: dict, element: Element, value: Any, beside: dict | None) -> None:
    """Put a value, and the id and extensions beside a primitive one, where JSON has them."""
    name = element.name
    if not element.many:
        if value is not None:
            content[name] = value
        if beside:
            content["_" + name] = beside
        return
    values, besides = content.setdefault(name, []), content.get("_" + name)
    values.append(value)
    if beside and besides is None:
        besides = content["_" + name] = [None] * (len(values) - 1)
    if besides is not None:
        besides.append(beside)
    if not any(each is not None for each in values):
        del content[name]  # extensions alone; JSON has no list of nothing but null
        content["_" + name] = besides


# Writing


class _Writing:
    """Collects the text."""

    def __init__(self, pretty: bool) -> None:
        self._pretty = pretty
        self.text: list[str] = []

    def resource(self, resource: dict, attributes: str, path: str, depth: int) -> None:
        type = resource.get("resourceType")
        if not isinstance(type, str) or type not in conformance.resource_types():
            raise NotAcceptable("this has no FHIR XML", path)
        content = {name: value for name, value in resource.items() if name != "resourceType"}
        self._object(type, content, type, path, depth, attributes)

    def _object(self, name: str, content: Any, type: str, path: str, depth: int, attributes: str = "") -> None:
        if not isinstance(content, dict):
            raise NotAcceptable("an object is expected", path)
        elements = layout(type)
        unknown = [key for key in content if key.removeprefix("_") not in elements]
        if unknown:
            raise NotAcceptable(f"{type} has no such element, so there is no FHIR XML of it", f"{path}.{unknown[0]}")
        inner = [element for key, element in elements.items() if key in content or "_" + key in content]
        for element in inner:
            if element.attribute and element.name in content:
                attributes += f' {element.name}="{_escaped(content[element.name], f"{path}.{element.name}")}"'
        inner = [element for element in inner if not element.attribute]
        self._line(depth, f"<{name}{attributes}>" if inner else f"<{name}{attributes}/>")
        for element in inner:
            self._element(element, content, f"{path}.{element.choice or element.name}", depth + 1)
        if inner:
            self._line(depth, f"</{name}>")

    def _element(self, element: Element, content: dict, path: str, depth: int) -> None:
        name = element.name
        values, besides = content.get(name), content.get("_" + name)
        if not element.many:
            self._one(element, values, besides, path, depth)
            return
        values = values if isinstance(values, list) else []
        besides = besides if isinstance(besides, list) else []
        for at in range(max(len(values), len(besides))):
            value = values[at] if at < len(values) else None
            beside = besides[at] if at < len(besides) else None
            self._one(element, value, beside, f"{path}[{at}]", depth)

    def _one(self, element: Element, value: Any, beside: Any, path: str, depth: int) -> None:
        name, type = element.name, element.type
        if type == "xhtml":
            self._line(depth, _narrative(value, path))
        elif type == "Resource":
            if not isinstance(value, dict):
                raise NotAcceptable("a resource is expected", path)
            self._line(depth, f"<{name}>")
            self.resource(value, "", path, depth + 1)
            self._line(depth, f"</{name}>")
        elif layout(type):
            self._object(name, value, type, path, depth)
        else:
            attribute = "" if value is None else f' value="{_escaped(value, path)}"'
            beside = beside if isinstance(beside, dict) else {}
            if isinstance(beside.get("id"), str):
                attribute = f' id="{_escaped(beside["id"], path)}"{attribute}'
                beside = {key: each for key, each in beside.items() if key != "id"}
            self._object(name, beside, "Element", path, depth, attribute)

    def _line(self, depth: int, text: str) -> None:
        self.text.append(f"\n{'  ' * depth}{text}" if self._pretty else text)


def _escaped(value: Any, path: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        raise NotAcceptable("a value is expected", path)
    text = value.text if isinstance(value, Number) else str(value)
    if _NO_XML.search(text):
        raise NotAcceptable("this text has a character that XML cannot carry; ask for JSON", path)
    return text.translate(_ESCAPES)


def _narrative(text: Any, path: str) -> str:
    """The div as it is; what is well-formed HTML only gets its entities as characters."""
    written = _ENTITY.sub(_character, text) if isinstance(text, str) else ""
    if "<!DOCTYPE" in written or written.startswith("<?"):
        raise NotAcceptable("this narrative is more than a div; ask for JSON", path)
    try:
        expat.ParserCreate().Parse(written.encode(), True)
    except (expat.ExpatError, UnicodeEncodeError):
        raise NotAcceptable("this narrative is no well-formed XHTML; ask for JSON", path) from None
    return written


def _character(entity: re.Match) -> str:
    name = entity[1]
    return entity[0] if name in _XML_ENTITIES or name not in name2codepoint else chr(name2codepoint[name])
