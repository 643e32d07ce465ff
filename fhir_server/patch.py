"""The two forms of a patch, as they are sent. https://hl7.org/fhir/R4/http.html#patch"""

import base64
import binascii
from typing import Any

from fhir_server import fhir_json, fhirpath_patch, json_patch
from fhir_server.errors import BadRequest
from fhir_server.formats import JSON_PATCH
from fhir_server.prepare import Patch


def patch_of(content: Any) -> Patch:
    """The patch in a request's content: a list of JSON Patch operations, or Parameters."""
    if isinstance(content, list):
        return json_patch.parse(content)
    if isinstance(content, dict) and content.get("resourceType") == "Parameters":
        return fhirpath_patch.parse(content)
    raise BadRequest("a patch is a JSON Patch or a Parameters resource")


def patch_in_bundle(resource: Any) -> Patch:
    """The patch in an entry of a Bundle: Parameters, or a JSON Patch in a Binary."""
    if isinstance(resource, dict) and resource.get("resourceType") == "Binary":
        if resource.get("contentType") != JSON_PATCH:
            raise BadRequest(f"the Binary of a patch is {JSON_PATCH}", "Binary.contentType")
        try:
            data = base64.b64decode(resource.get("data", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise BadRequest("this is no base64", "Binary.data") from None
        return json_patch.parse(fhir_json.loads(data))
    return patch_of(resource)
