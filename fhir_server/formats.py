"""Which form of FHIR a client sends and wants. https://hl7.org/fhir/R4/http.html#mime-type"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fhir_server.errors import NotAcceptable, UnsupportedMediaType

FHIR_JSON, FHIR_XML = "application/fhir+json", "application/fhir+xml"
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
FORMATS: Mapping[str, str] = MappingProxyType(
    {
        FHIR_JSON: FHIR_JSON,
        "application/json": FHIR_JSON,
        "application/json+fhir": FHIR_JSON,
        "text/json": FHIR_JSON,
        "json": FHIR_JSON,
        FHIR_XML: FHIR_XML,
        "application/xml": FHIR_XML,
        "application/xml+fhir": FHIR_XML,
        "text/xml": FHIR_XML,
        "xml": FHIR_XML,
    }
)
_VERSIONS = ("4.0", "4.0.1")


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One element of an Accept header. https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1"""

    type: str
    quality: float
    version: str | None = None

    def covers(self, type: str) -> bool:
        main, _, sub = self.type.partition("/")
        return self.type in (type, "*/*") or (sub == "*" and type.startswith(f"{main}/"))

    @property
    def any(self) -> bool:
        return self.type.endswith("*")


def media_ranges(accept: str) -> list[MediaRange]:
    """What a client accepts, best first; of equal quality what is named comes before what is covered by a `*`."""
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    wanted = [found for found in ranges if found.quality > 0]
    return sorted(wanted, key=lambda found: (-found.quality, found.any))  # stable: then as listed


def negotiate(format: str | None, accept: str, sent: str | None = None) -> str:
    """FHIR_JSON or FHIR_XML: what `_format` says, else Accept, else the form of what was sent.

    Raises NotAcceptable when neither is asked for.
    """
    asked = [_media_range(format.replace(" ", "+"))] if format else media_ranges(accept or "*/*")
    refused = {
        FORMATS.get(found.type) for found in map(_media_range, (accept or "").split(",")) if found.quality == 0
    }
    default = sent if sent in (FHIR_JSON, FHIR_XML) and sent not in refused else FHIR_JSON
    for found in asked:
        if found.version is not None and found.version not in _VERSIONS:
            continue
        if found.type in FORMATS:
            return FORMATS[found.type]
        if found.covers(FHIR_JSON) or found.covers("text/json"):
            return FHIR_XML if default in refused else default
    raise NotAcceptable(f"this server answers {FHIR_JSON} and {FHIR_XML} of FHIR 4.0")


def sent_format(content_type: str) -> str:
    """FHIR_JSON or FHIR_XML, of a Content-Type. Raises UnsupportedMediaType."""
    found = _media_range(content_type)
    if found.type not in FORMATS or "/" not in found.type:
        raise UnsupportedMediaType(f"send {FHIR_JSON} or {FHIR_XML}")
    if found.version is not None and found.version not in _VERSIONS:
        raise UnsupportedMediaType("this server takes FHIR 4.0")
    if _parameters(content_type).get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType("FHIR is sent in UTF-8")
    return FORMATS[found.type]


def _media_range(text: str) -> MediaRange:
    parameters = _parameters(text)
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    type = text.partition(";")[0].strip().lower().replace(" ", "+")
    return MediaRange(type, quality if 0 <= quality <= 1 else 0.0, parameters.get("fhirversion"))


def _parameters(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";")[1:])
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
