"""Versions as weak entity tags: `W/"3"`. https://hl7.org/fhir/R4/http.html#versioning"""

import re

from fhir_server.errors import BadRequest
from fhir_server.version import Version

_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"')


def etag(version: Version) -> str:
    return f'W/"{version.version}"'


def parse_etag(text: object, path: str | None = None) -> int | None:
    """The version number of an If-Match value; None when there is none. Raises BadRequest for another form."""
    if text is None:
        return None
    match = _ETAG.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        raise BadRequest('If-Match has the form W/"3"', path)
    return int(match[1])
