"""Who may define profiles, value sets and code systems."""

from fhir_server.admission import Write
from fhir_server.errors import Forbidden


def by_the_practice(write: Write) -> dict | None:
    """An admission of what decides what others may write: a profile, and the codes that it and R4 ask for.

    Otherwise one office could stop the resources of all that name a profile, or a code, of its choice.
    """
    if not write.access.is_practice:
        resource_type = (write.after or write.before or {})["resourceType"]
        raise Forbidden(f"a {resource_type} is written by the practice: it decides what others may write")
    return write.after
