"""Data sets in the Native DICOM Model, by way of DICOM JSON. PS3.19 annex A.1.

A private attribute has its tag without the block that it is in (gggg00ee), and the name of its creator instead.
"""

import re
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from dicomweb.dicom_json import Attribute, Attributes, first
from dicomweb.part10 import MAX_DEPTH

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_NAMES = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_TAG = re.compile("[0-9A-F]{8}")
_WHOLE = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
# What XML cannot carry, even as a reference.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_xml(attributes: Attributes) -> bytes:
    """One data set as a document. A character that XML cannot carry is left out."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<NativeDicomModel xml:space="preserve" xmlns="{NAMESPACE}">']
    _write(attributes, lines)
    lines.append("</NativeDicomModel>")
    return _NO_XML.sub("", "".join(lines)).encode()


def from_xml(data: bytes) -> Attributes:
    """The data set of a document, as DICOM JSON. Raises ValueError and ElementTree.ParseError for what is none."""
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314  # without a document type there is no entity
    parser.feed(data)
    root = parser.close()
    if _local(root) != "NativeDicomModel":
        raise ValueError("no data set of the Native DICOM Model")
    return _read(root, 0)


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        raise ValueError("the Native DICOM Model has no document type declaration")


def _read(parent: ElementTree.Element, depth: int) -> Attributes:
    if depth > MAX_DEPTH:
        raise ValueError("sequences are nested too deeply")
    attributes: Attributes = {}
    blocks: dict[tuple[str, str], int] = {}
    for element in parent:
        tag, vr, creator = element.attrib["tag"].upper(), element.attrib["vr"], element.get("privateCreator")
        if not _TAG.fullmatch(tag):
            raise ValueError("no tag")
        if creator is not None:
            block = blocks.setdefault((tag[:4], creator), 0x10 + sum(group == tag[:4] for group, _ in blocks))
            attributes[f"{tag[:4]}00{block:02X}"] = {"vr": "LO", "Value": [creator]}
            tag = f"{tag[:4]}{block:02X}{tag[6:]}"
        attribute: Attribute = {"vr": vr}
        values: list[Any] = []
        for child in element:
            match _local(child):
                case "BulkData":
                    attribute["BulkDataURI"] = child.attrib["uri"]
                case "InlineBinary":
                    attribute["InlineBinary"] = (child.text or "").strip()
                case "Item":
                    values.append(_read(child, depth + 1))
                case "PersonName":
                    values.append({_local(group): _joined(group) for group in child})
                case "Value":
                    values.append(_value(vr, child.text or ""))
        attributes[tag] = attribute | ({"Value": values} if values else {})
    return dict(sorted(attributes.items()))


def _joined(group: ElementTree.Element) -> str:
    """A person name group: its components, in order, as one text."""
    parts = {_local(part): part.text or "" for part in group}
    return "^".join(parts.get(name, "") for name in _NAMES).rstrip("^")


def _value(vr: str, text: str) -> str | int | float:
    if vr in _WHOLE:
        return int(text)
    return float(text) if vr in ("FL", "FD") else text


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _write(attributes: Attributes, lines: list[str]) -> None:
    for tag, attribute in attributes.items():
        private = int(tag[3], 16) % 2 == 1
        if private and tag[4:6] == "00" and int(tag[6:], 16) >= 0x10:
            continue  # reserves a block; its name stands with each attribute of the block
        shown, described = tag, ""
        if private:
            creator = first(attributes, f"{tag[:4]}00{tag[4:6]}")
            shown = f"{tag[:4]}00{tag[6:]}"
            described = f" privateCreator={quoteattr(creator)}" if isinstance(creator, str) else ""
        elif keyword := keyword_for_tag(int(tag, 16)):
            described = f' keyword="{keyword}"'
        lines.append(f'<DicomAttribute tag="{shown}" vr="{attribute["vr"]}"{described}>')
        _content(attribute, lines)
        lines.append("</DicomAttribute>")


def _content(attribute: Attribute, lines: list[str]) -> None:
    if "BulkDataURI" in attribute:
        lines.append(f"<BulkData uri={quoteattr(attribute['BulkDataURI'])}/>")
    elif "InlineBinary" in attribute:
        lines.append(f"<InlineBinary>{attribute['InlineBinary']}</InlineBinary>")
    for number, value in enumerate(attribute.get("Value", ()), 1):
        if attribute["vr"] == "SQ":
            lines.append(f'<Item number="{number}">')
            _write(value, lines)
            lines.append("</Item>")
        elif isinstance(value, dict):
            lines.append(f'<PersonName number="{number}">')
            lines += _person_name(value)
            lines.append("</PersonName>")
        elif value is not None:
            lines.append(f'<Value number="{number}">{escape(str(value))}</Value>')


def _person_name(value: dict) -> Iterable[str]:
    for group in _GROUPS:
        if text := value.get(group):
            parts = zip(_NAMES, text.split("^"), strict=False)
            inner = "".join(f"<{name}>{escape(part)}</{name}>" for name, part in parts if part)
            yield f"<{group}>{inner}</{group}>"
