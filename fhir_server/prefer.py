"""The Prefer header. https://www.rfc-editor.org/rfc/rfc7240, https://hl7.org/fhir/R4/http.html#ops"""

import re
from collections.abc import Mapping

_PREFERENCE = re.compile(r'\s*([A-Za-z-]+)\s*(?:=\s*"?([A-Za-z-]+)"?)?\s*')


def preferences(header: str) -> Mapping[str, str]:
    """Preference -> value, both as written in lower case; of one given twice the first counts."""
    found: dict[str, str] = {}
    for part in re.split("[,;]", header):
        match = _PREFERENCE.fullmatch(part)
        if match:
            found.setdefault(match[1].lower(), (match[2] or "").lower())
    return found
