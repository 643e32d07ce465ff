"""The XHTML of a Narrative: what R4 allows there, nothing active, nothing loaded from elsewhere.

Refused rather than cleaned: whoever wrote it learns of it, and nobody reads a text that its author did not write.
https://hl7.org/fhir/R4/narrative.html, invariants txt-1 and txt-2.
"""

import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

NAMESPACE = "http://www.w3.org/1999/xhtml"
MAX_DEPTH = 200
_ELEMENTS = frozenset(
    """
    a abbr acronym address b bdo big blockquote br caption cite code col colgroup dd del dfn div dl dt em h1 h2 h3 h4
    h5 h6 hr i img ins kbd li ol p pre q samp small span strong sub sup table tbody td tfoot th thead tr tt ul var
    """.split()
)
_ATTRIBUTES = frozenset(
    """
    abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char charoff charset
    cite class clear color colspan compact coords dir frame headers height href hreflang hspace id lang longdesc name
    nowrap rel rev rowspan rules scope shape span src start style summary tabindex title type valign value vspace
    width xml:id xml:lang xml:space
    """.split()
)
_ADDRESSES = frozenset({"cite", "href", "longdesc", "src"})
_PICTURE = r"data:\s*image/(?:png|gif|jpeg|bmp|webp)[;,]"
_IS_PICTURE = re.compile(rf"(?i)\s*{_PICTURE}")
_ELSEWHERE = re.compile(r"(?i)\s*(?:[a-z][a-z0-9+.\-]*:|//)")
_ACTIVE_ADDRESS = re.compile(rf"(?i)[\x00-\x20]*(?:javascript|vbscript|(?!{_PICTURE})data):")
_ACTIVE_STYLE = re.compile(
    rf"(?i)url\s*\((?!\s*['\"]?{_PICTURE})|expression\s*\(|@import|javascript:|-moz-binding|behaviou?r\s*:|\\"
)
_XML = "http://www.w3.org/XML/1998/namespace "


class _Refused(Exception):
    """Says what the narrative must not have."""


def is_narrative(value: Any) -> bool:
    return isinstance(value, str) and narrative_fault(value) is None


def narrative_fault(div: str) -> str | None:
    """What is wrong with the `div` of a Narrative; None when nothing is."""
    reader = _Reader()
    try:
        reader.parse(div)
    except _Refused as refused:
        return str(refused)
    except (expat.ExpatError, UnicodeEncodeError):
        return "the narrative is no well-formed XML (which knows no entities such as &nbsp;)"
    return None if reader.has_content else "the narrative has no content"


def _loads(address: str) -> bool:
    """Whether a reader of the text would ask another server for it, and so tell that server of the reading."""
    return bool(_ELSEWHERE.match(address)) and not _IS_PICTURE.match(address)


class _Reader:
    """Walks the XML once; stops at the first thing that must not be there."""

    def __init__(self) -> None:
        self.has_content = False
        self._depth = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype  # and with it all entities
        self._parser.ProcessingInstructionHandler = self._instruction

    def parse(self, div: str) -> None:
        self._parser.Parse(div, True)

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        namespace, _, name = tag.rpartition(" ")
        if namespace != NAMESPACE:
            raise _Refused(f"the narrative is in the namespace {NAMESPACE}")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"the narrative is nested deeper than {MAX_DEPTH} levels")
        if self._depth == 1 and name != "div":
            raise _Refused("the narrative is one div")
        if name not in _ELEMENTS:
            raise _Refused(f"the narrative must not have the element {name[:32]}")
        if name == "img":
            self.has_content = True
        for attribute, value in attributes.items():
            self._attribute(name, attribute.replace(_XML, "xml:"), value)

    def _attribute(self, element: str, name: str, value: str) -> None:
        if name not in _ATTRIBUTES:
            raise _Refused(f"the narrative must not have the attribute {name[:32]}")
        if name in _ADDRESSES and _ACTIVE_ADDRESS.match(value):
            raise _Refused(f"the narrative must not have an active address in {name}")
        if element == "img" and name in ("src", "longdesc") and _loads(value):
            raise _Refused("the narrative must not load an image from elsewhere")
        if name == "style" and _ACTIVE_STYLE.search(value):
            raise _Refused("the narrative must not load or run anything by its style")

    def _end(self, _tag: str) -> None:
        self._depth -= 1

    def _text(self, text: str) -> None:
        if not self.has_content and text.strip():
            self.has_content = True

    def _doctype(self, *_declaration: object) -> None:
        raise _Refused("the narrative must not have a document type")

    def _instruction(self, *_instruction: object) -> None:
        raise _Refused("the narrative must not have processing instructions")
