"""Binary in its native form: bytes under their own Content-Type. https://hl7.org/fhir/R4/binary.html#rest

What is answered natively is never shown by a browser as a page of this origin: it is an attachment in a sandbox.
"""

import base64
import binascii
import re

from fhir_server import fhir_json, fhir_xml
from fhir_server.errors import BadRequest, FhirError, NotAcceptable
from fhir_server.formats import FHIR_JSON, FHIR_XML, FORMATS, media_ranges

CONTEXT = "X-Security-Context"
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[\x20-\x7e]{0,200})?")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,1000}")
_SAFE = {"Content-Disposition": "attachment", "Content-Security-Policy": "sandbox; default-src 'none'"}


def is_native(content_type: str, accept: str) -> bool:
    """Whether a Binary of this content type is wanted as it is, rather than as a FHIR resource.

    Raises NotAcceptable when it is wanted as neither.
    """
    own = content_type.partition(";")[0].strip().lower()
    ranges = media_ranges(accept or "*/*")
    for found in ranges:
        if "fhir" in found.type and found.type in FORMATS:
            return False
        if found.covers(own):
            return True
    # `application/json` and the like only when nothing else is wanted: browsers list `application/xml` before `*/*`.
    if any(found.type in FORMATS for found in ranges):
        return False
    raise NotAcceptable(f"this is {own[:100]}, or {FHIR_JSON} or {FHIR_XML}")


def native(binary: dict) -> tuple[bytes, str, dict[str, str]]:
    """(content, content type, headers) of a Binary. Raises NotAcceptable when its data is no base64."""
    try:
        content = base64.b64decode(binary.get("data", ""))
    except (binascii.Error, TypeError, ValueError):
        raise NotAcceptable("the data is no base64, so it has no native form") from None
    content_type = binary.get("contentType", "")
    if not isinstance(content_type, str) or not _MEDIA_TYPE.fullmatch(content_type):
        content_type = "application/octet-stream"
    headers = dict(_SAFE)
    context = binary.get("securityContext")
    reference = context.get("reference") if isinstance(context, dict) else None
    if isinstance(reference, str) and _PRINTABLE.fullmatch(reference):
        headers[CONTEXT] = reference
    return content, content_type, headers


def sent_binary(content: bytes, content_type: str, context: str | None, base_url: str) -> tuple[dict, bool]:
    """(the Binary of what is sent, whether it came natively).

    FHIR that is itself a Binary is that Binary; other FHIR is content like any other.
    """
    form = FORMATS.get(content_type.partition(";")[0].strip().lower())
    if form is not None:
        try:
            resource = fhir_xml.loads(content) if form == FHIR_XML else fhir_json.loads(content)
        except FhirError:
            if "fhir" in content_type.lower():
                raise
            resource = None
        if isinstance(resource, dict) and resource.get("resourceType") == "Binary":
            return resource, False
    if not _MEDIA_TYPE.fullmatch(content_type):
        raise BadRequest("the content has no Content-Type that can be kept")
    data = base64.b64encode(content).decode()
    binary: dict = {"resourceType": "Binary", "contentType": content_type, "data": data}
    if context:
        if not _PRINTABLE.fullmatch(context):
            raise BadRequest(f"{CONTEXT} is a reference", "Binary.securityContext")
        binary["securityContext"] = {"reference": context.removeprefix(f"{base_url}/")}
    return binary, True
