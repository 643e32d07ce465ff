"""What the service offers, for machines: a WADL document, made from its routes. PS3.18 section 8.9, annex H."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from dicomweb.accept import DICOM, DICOM_JSON, DICOM_XML, FRAME_TYPES, MULTIPART, OCTETS, ZIP
from dicomweb.attributes import MODALITIES, Level, of_level
from dicomweb.render import GIF, JPEG, PNG

WADL = "application/vnd.sun.wadl+xml"
NAMESPACE = "http://wadl.dev.java.net/2009/02"
_VARIABLES = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
    "numbers": "frameList",
    "number": "frameList",
    "path": "bulkdataReference",
}
_VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")
_IN_PARTS = f'{MULTIPART}; type="{{}}"'
_DATA_SETS = (DICOM_JSON, _IN_PARTS.format(DICOM_XML))
_PICTURES = (JPEG, PNG, GIF)
_RENDERED = ("window", "viewport", "quality", "annotation", "iccprofile")
_LEVELS: dict[str, Level] = {"studies": "study", "series": "series", "instances": "instance"}
_NOT_GIVEN = "400 401 403 404 406 410 503"


@dataclass(frozen=True, slots=True)
class _Method:
    """accept: media types of the answer, the default first; content: of the request; query: names of parameters."""

    id: str
    status: str
    refused: str = _NOT_GIVEN
    accept: Sequence[str] = ()
    query: Sequence[str] = ()
    content: Sequence[str] = ()


@dataclass(slots=True)
class _Resource:
    """A segment of the address; methods: of HTTP."""

    methods: set[str] = field(default_factory=set)
    below: dict[str, "_Resource"] = field(default_factory=dict)


def wadl(routes: Iterable[tuple[str, Iterable[str]]], base_url: str, target: str) -> bytes:
    """The document. routes: address of each below the service, such as `/studies/<study>`, with its methods.

    base_url: of the service. target: the address that is asked for, `/` for all; it and what is below is told of.
    """
    root = _Resource()
    for address, methods in routes:
        here = root
        for segment in _segments(address):
            here = here.below.setdefault(segment, _Resource())
        here.methods |= set(methods) & {"GET", "POST", "DELETE"}
    application = Element("application", {"xmlns": NAMESPACE})
    element = SubElement(application, "resources", {"base": base_url})
    wanted, path = root, []
    for segment in _segments(target):
        wanted = wanted.below[segment]
        path.append(segment)
    if path:
        _describe(SubElement(element, "resource", {"path": "/".join(path)}), wanted, path)
    else:
        for segment, below in sorted(wanted.below.items()):
            _describe(SubElement(element, "resource", {"path": segment}), below, [segment])
    ElementTree.indent(application)
    return ElementTree.tostring(application, "utf-8", xml_declaration=True)


def _segments(address: str) -> list[str]:
    named = _VARIABLE.sub(lambda found: f"{{{_VARIABLES[found[1]]}}}", address)
    return [segment for segment in named.split("/") if segment]


def _describe(element: Element, resource: _Resource, path: list[str]) -> None:
    for name in sorted(resource.methods, key=("GET", "POST", "DELETE").index):
        _add_method(element, name, _method(name, path))
    for segment, below in sorted(resource.below.items()):
        _describe(SubElement(element, "resource", {"path": segment}), below, [*path, segment])


def _add_method(element: Element, name: str, method: _Method) -> None:
    described = SubElement(element, "method", {"name": name, "id": method.id})
    request = SubElement(described, "request")
    if method.accept:
        accept = SubElement(request, "param", {"name": "Accept", "style": "header", "default": method.accept[0]})
        for media_type in method.accept:
            SubElement(accept, "option", {"value": media_type})
    for parameter in method.query:
        SubElement(request, "param", {"name": parameter, "style": "query"})
    for media_type in method.content:
        SubElement(request, "representation", {"mediaType": media_type})
    answer = SubElement(described, "response", {"status": method.status})
    for media_type in method.accept:
        SubElement(answer, "representation", {"mediaType": media_type})
    SubElement(described, "response", {"status": method.refused})


def _method(name: str, path: list[str]) -> _Method:
    """What is known of a method by where it is."""
    last, uids = path[-1], [segment for segment in path if segment.startswith("{") and segment.endswith("UID}")]
    level = ("", "Study", "Series", "Instance")[len(uids)]
    if name == "POST":
        types = [form for one in (DICOM, DICOM_JSON, DICOM_XML) for form in (_IN_PARTS.format(one), one)]
        refused = "400 401 403 413 415 503"
        return _Method(f"Store{level}Instances", "200 202 409", refused, (DICOM_JSON, DICOM_XML), content=types)
    if name == "DELETE":
        return _Method(f"Delete{level}", "204", "400 401 403 404 410")
    if last in _LEVELS:
        id = "SearchFor" + "".join(segment.capitalize() for segment in path if segment in _LEVELS)
        names = ("limit", "offset", "fuzzymatching", "includefield", *_keys(_LEVELS[last]))
        return _Method(_singular(id, len(uids)), "200", "400 401 403 404 406", _DATA_SETS, names)
    if "frames" in path:
        level = "Frames"
    match last:
        case "metadata":
            return _Method(f"Retrieve{level}Metadata", "200", accept=_DATA_SETS)
        case "rendered":
            types = [*_PICTURES, *map(_IN_PARTS.format, _PICTURES)]
            if level == "Instance":
                types += ["application/pdf", "video/mp4", "text/html"]
            return _Method(f"RetrieveRendered{level}", "200", accept=types, query=_RENDERED)
        case "thumbnail":
            return _Method(f"Retrieve{level}Thumbnail", "200", accept=_PICTURES, query=_RENDERED)
        case "bulkdata" | "pixeldata":
            word = "Bulkdata" if last == "bulkdata" else "PixelData"
            return _Method(f"Retrieve{level}{word}", "200", accept=(_IN_PARTS.format(OCTETS),))
        case "{bulkdataReference}":
            return _Method("RetrieveBulkdata", "200 206", accept=(_IN_PARTS.format(OCTETS), OCTETS))
        case "{frameList}":
            types = list(dict.fromkeys((OCTETS, *FRAME_TYPES.values())))
            return _Method("RetrieveFrames", "200", accept=[*map(_IN_PARTS.format, types), *types])
        case _:
            in_parts = _IN_PARTS.format(DICOM)
            types = [in_parts, f"{in_parts}; transfer-syntax=*", *([DICOM] if level == "Instance" else []), ZIP]
            return _Method(f"Retrieve{level}", "200 206" if level == "Instance" else "200", accept=types)


def _singular(id: str, levels: int) -> str:
    """`SearchForStudiesSeries` is `SearchForStudySeries`: the study is one."""
    return id.replace("Studies", "Study") if levels else id


def _keys(level: Level) -> Iterator[str]:
    """What a search on that level matches, by keyword and by tag."""
    for attribute in of_level(level):
        if attribute.matched and (level == "study" or attribute.path != MODALITIES):
            yield attribute.keyword
            yield attribute.path
