"""Who may define profiles."""

from fhir_server.admission import Write
from fhir_server.errors import Forbidden


def by_the_practice(write: Write) -> dict | None:
    """An admission of StructureDefinitions: a profile decides what others may write, so an office cannot define one.

    Otherwise one office could stop the resources of all that name a profile of its choice.
    """
    if not write.access.is_practice:
        raise Forbidden("StructureDefinitions are written by the practice: they decide what others may write")
    return write.after
