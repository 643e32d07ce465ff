"""What one request was given of the store: each version that the Repository handed out while it was served."""

from contextvars import ContextVar

from fhir_server.access import Access
from fhir_server.audit.event import Datum
from fhir_server.version import Version

_PATIENT = "@Patient/"
_OF_PATIENT = "patient=Patient/"
_NAMED = len("patient=")


class Touched:
    """Versions, each once, in order, with who got them and whether they asked for it to be written."""

    def __init__(self) -> None:
        self._versions: dict[tuple[int, str, str, int], tuple[Access, Version, bool]] = {}

    def add(self, access: Access, version: Version, written: bool) -> None:
        key = id(access), version.resource_type, version.id, version.version
        if written or key not in self._versions:
            self._versions[key] = access, version, written

    def by(self, access: Access, *, written: bool = False) -> tuple[Datum, ...]:
        """What this caller got, or what they wrote.

        Left out is what rules looked up for themselves, whose Access is another object.
        """
        found = (version for who, version, by in self._versions.values() if who is access and (by or not written))
        return tuple(map(datum, found))


_TOUCHED: ContextVar[Touched | None] = ContextVar("touched", default=None)


def begin() -> Touched:
    """Note from now on, in this context (a thread, or what a server has instead)."""
    touched = Touched()
    _TOUCHED.set(touched)
    return touched


def end() -> None:
    _TOUCHED.set(None)


def note(access: Access, version: Version, *, written: bool = False) -> None:
    """This caller gets this version, or had it written."""
    touched = _TOUCHED.get()
    if touched is not None:
        touched.add(access, version, written)


def datum(version: Version) -> Datum:
    """The version with its patients: its scope tells them (`fhir_server.scope`), and, of what is in no patient's
    compartment, as a Task is, the search keys of the newest version."""
    patients = tuple(key[1:] for key in version.scope if key.startswith(_PATIENT))
    if not patients:
        patients = tuple(key[_NAMED:] for key in version.keys if key.startswith(_OF_PATIENT))
    return Datum(version.versioned_reference if version.version else version.reference, patients)
