"""What a structured report or a key object selection says, line by line and as a page. PS3.3 section C.17.3.

Pure: the metadata in, words out. HTML is written with every value escaped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from dicomweb.dicom_json import Attributes, first, items, text

CONTENT = "0040A730"
MAX_LINES = 5000
MAX_DEPTH = 40
_NAME, _MEANING, _CODE = "0040A043", "00080104", "00080100"
_PLAIN = {
    "TEXT": "0040A160",
    "DATE": "0040A121",
    "TIME": "0040A122",
    "DATETIME": "0040A120",
    "PNAME": "0040A123",
    "UIDREF": "0040A124",
}
_THINGS = {
    "IMAGE": "image",
    "COMPOSITE": "object",
    "WAVEFORM": "waveform",
    "SCOORD": "region of an image",
    "SCOORD3D": "region in space",
    "TCOORD": "time range",
}


@dataclass(frozen=True, slots=True)
class Line:
    """depth: of nesting, from 0. A heading has no value."""

    depth: int
    name: str
    value: str

    @property
    def heading(self) -> bool:
        return not self.value


def title_of(attributes: Attributes) -> str:
    """What the document is called."""
    return _meaning(attributes, _NAME) or text(attributes, "0008103E") or "Document"


def facts_of(attributes: Attributes) -> list[tuple[str, str]]:
    """Who and when, as far as it is known."""
    known = (
        ("Patient", person(text(attributes, "00100010"))),
        ("Patient ID", text(attributes, "00100020")),
        ("Study", text(attributes, "00081030")),
        ("Date", _date(text(attributes, "00080023") or text(attributes, "00080020"))),
        ("Status", f"{text(attributes, '0040A491')} {text(attributes, '0040A493')}".strip().lower()),
    )
    return [(name, value) for name, value in known if value]


def lines_of(attributes: Attributes) -> list[Line]:
    """The content tree from top to bottom, at most MAX_LINES."""
    found: list[Line] = []
    for line in _lines(attributes, 0):
        found.append(line)
        if len(found) == MAX_LINES:
            break
    return found


def html_of(attributes: Attributes) -> str:
    """The document as a page without script, style sheet or anything from elsewhere."""
    title = escape(title_of(attributes))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts_of(attributes))
    body: list[str] = []
    for line in lines_of(attributes):
        level = min(6, line.depth + 2)
        if line.heading:
            body.append(f"<h{level}>{escape(line.name)}</h{level}>")
        else:
            name = f"<strong>{escape(line.name)}:</strong> " if line.name else ""
            body.append(f"<p>{name}{escape(line.value)}</p>")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><dl>{facts}</dl>{''.join(body)}</body></html>\n"
    )


def person(name: str) -> str:
    """`Doe^Jane` as `Doe, Jane`."""
    parts = [part.strip() for part in name.split("^") if part.strip()]
    return ", ".join((parts[0], " ".join(parts[1:]))) if len(parts) > 1 else "".join(parts)


def _lines(attributes: Attributes, depth: int) -> Iterator[Line]:
    for item in items(attributes, CONTENT) if depth < MAX_DEPTH else ():
        kind = text(item, "0040A040")
        value = _value(item, kind)
        name = _meaning(item, _NAME)
        if value or (name and kind == "CONTAINER"):
            yield Line(depth, name, value)
        yield from _lines(item, depth + 1)


def _value(item: Attributes, kind: str) -> str:
    if kind in _PLAIN:
        value = text(item, _PLAIN[kind])
        return person(value) if kind == "PNAME" else _date(value) if kind == "DATE" else value
    if kind == "CODE":
        return _meaning(item, "0040A168")
    if kind == "NUM":
        for measured in items(item, "0040A300")[:1]:
            unit = next(iter(items(measured, "004008EA")), {})
            shown = text(unit, _CODE) if len(text(unit, _CODE)) < len(text(unit, _MEANING)) else text(unit, _MEANING)
            return f"{first(measured, '0040A30A')} {'' if shown == '1' else shown}".strip()
        return "not measured"
    return _THINGS.get(kind, "")


def _meaning(attributes: Attributes, sequence: str) -> str:
    return next((text(code, _MEANING) for code in items(attributes, sequence)), "")


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value
