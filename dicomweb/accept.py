"""What a client accepts, read as leniently as viewers write it, and the media types of DICOM pixel data.
PS3.18 sections 8.3.3 and 8.7.3.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from fhir_server.errors import NotAcceptable

ANY = "*/*"
DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
ZIP = "application/zip"
OCTETS = "application/octet-stream"
MULTIPART = "multipart/related"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
MAX_LENGTH = 2048  # of a header; real ones have some hundred characters

# Transfer syntax -> media type of a frame as stored. PS3.18 table 8.7.3-5; a syntax without a row has no image type.
_JPEG, _JLS, _JP2, _JPX, _JPHC = "image/jpeg", "image/jls", "image/jp2", "image/jpx", "image/jphc"
FRAME_TYPES = {
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG,
    "1.2.840.10008.1.2.4.53": _JPEG,
    "1.2.840.10008.1.2.4.55": _JPEG,
    "1.2.840.10008.1.2.4.57": _JPEG,
    "1.2.840.10008.1.2.4.70": _JPEG,
    "1.2.840.10008.1.2.4.80": _JLS,
    "1.2.840.10008.1.2.4.81": _JLS,
    "1.2.840.10008.1.2.4.90": _JP2,
    "1.2.840.10008.1.2.4.91": _JP2,
    "1.2.840.10008.1.2.4.92": _JPX,
    "1.2.840.10008.1.2.4.93": _JPX,
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": _JPHC,
    "1.2.840.10008.1.2.4.202": _JPHC,
    "1.2.840.10008.1.2.4.203": _JPHC,
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_ALIASES = {
    "image/x-dicom-rle": "image/dicom-rle",
    "image/x-jls": _JLS,
    "image/jpg": _JPEG,
    "application/json": DICOM_JSON,
    "application/xml": DICOM_XML,
    "text/xml": DICOM_XML,
}
# Commas and semicolons inside quotes do not separate.
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_SEMICOLON = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*$)')


@dataclass(frozen=True, slots=True)
class Accepted:
    """One range of an Accept header. part: the type of the parts, when `media_type` is multipart/related.

    transfer_syntax: a UID, `*` for any, None when it is not named. q: 0 to 1.
    """

    media_type: str
    part: str = ANY
    transfer_syntax: str | None = None
    q: float = 1.0

    @property
    def multipart(self) -> bool:
        return self.media_type in (MULTIPART, "multipart/*", ANY)

    @property
    def content(self) -> str:
        """The type of the content, whether in parts or not."""
        return self.part if self.media_type in (MULTIPART, "multipart/*") else self.media_type

    def fits(self, media_type: str) -> bool:
        """Whether the range takes in a media type, in parts or not."""
        main = media_type.partition("/")[0]
        return self.content in (ANY, media_type, f"{main}/*")


def parse_accept(*headers: str | None) -> list[Accepted]:
    """The ranges of the first header (or `accept` parameter) that is not empty, best first; `*/*` without one."""
    return list(_ranges(next((text for text in headers if text and text.strip()), ANY)[:MAX_LENGTH]))


@lru_cache(maxsize=256)  # a viewer sends the same header with each of a thousand frames
def _ranges(header: str) -> tuple[Accepted, ...]:
    ranges = [_range(part) for part in _COMMA.split(header) if part.strip()]
    return tuple(sorted((accepted for accepted in ranges if accepted.q > 0), key=lambda accepted: -accepted.q))


def json_or_xml(accepted: Iterable[Accepted], what: str) -> str:
    """DICOM_JSON, or DICOM_XML, which is sent in parts also to those who ask for it alone. Raises NotAcceptable."""
    for wanted in accepted:
        in_parts = wanted.media_type in (MULTIPART, "multipart/*")
        if wanted.fits(DICOM_JSON) and (not in_parts or wanted.part == DICOM_JSON):
            return DICOM_JSON
        if wanted.fits(DICOM_XML) and (not in_parts or wanted.part in (DICOM_XML, ANY)):
            return DICOM_XML
    raise NotAcceptable(f'{what} is available as {DICOM_JSON} and as {MULTIPART}; type="{DICOM_XML}"')


def choose(accepted: Iterable[Accepted], offers: Iterable[str], what: str) -> str:
    """The offered single-part media type that the client likes best. Raises NotAcceptable."""
    offers = list(offers)
    for wanted in accepted:
        for offer in offers:
            # Who asks for parts of exactly this type is content with the one part alone.
            if wanted.fits(offer) and (wanted.media_type not in (MULTIPART, "multipart/*") or wanted.part == offer):
                return offer
    raise NotAcceptable(f"{what} is available as {', '.join(offers)}")


def frame_type(transfer_syntax: str) -> str:
    """The media type of a frame as stored."""
    return FRAME_TYPES.get(transfer_syntax, OCTETS)


def content_type(text: str) -> tuple[str, dict[str, str]]:
    """The media type of a Content-Type header, in lower case, and its parameters; `type` may lack its quotes."""
    media_type, *parameters = _SEMICOLON.split(text[:MAX_LENGTH])
    return _canonical(media_type), dict(_parameters(parameters))


def _range(text: str) -> Accepted:
    media_type, *parameters = _SEMICOLON.split(text)
    named = dict(_parameters(parameters))
    # Some write the transfer syntax inside the quotes: type="application/octet-stream; transfer-syntax=*"
    part, *inner = _SEMICOLON.split(named.get("type", ANY))
    named = dict(_parameters(inner)) | named
    try:
        q = min(1.0, max(0.0, float(named.get("q", "1"))))
    except ValueError:
        q = 1.0
    syntax = named.get("transfer-syntax")
    return Accepted(_canonical(media_type), _canonical(part) or ANY, syntax or None, q)


def _parameters(parameters: Iterable[str]) -> Iterator[tuple[str, str]]:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        yield name.strip().lower(), value.strip().strip('"').strip()


def _canonical(media_type: str) -> str:
    lower = media_type.strip().strip('"').strip().lower()
    return ANY if lower == "*" else _ALIASES.get(lower, lower)
