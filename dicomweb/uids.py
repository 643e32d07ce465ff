"""UIDs as clients and files give them, and the ids that we derive from them."""

import hashlib
import re

from fhir_server.errors import BadRequest

# Digits and dots, a digit at both ends (so no `..`). Leading zeros of components, which PS3.5 section 9.1 forbids,
# exist in real archives and harm nobody.
UID = re.compile(r"[0-9](?:[0-9.]{0,62}[0-9])?")

ENDPOINT_ID = "dicomweb"
STUDY_ID_PREFIX = "dicom-"


def is_uid(text: object) -> bool:
    return isinstance(text, str) and UID.fullmatch(text) is not None


def check_uid(text: str, name: str) -> str:
    """Return the UID. Raises BadRequest, which does not repeat the text, when it has not a UID's syntax."""
    if not is_uid(text):
        raise BadRequest(f"{name} is no UID: 1 to 64 digits and dots are expected")
    return text


def imaging_study_id(study_instance_uid: str) -> str:
    """The id of the ImagingStudy that stands for a study: the same at every attempt, and not to be guessed back."""
    return STUDY_ID_PREFIX + hashlib.sha256(study_instance_uid.encode()).hexdigest()[:32]
