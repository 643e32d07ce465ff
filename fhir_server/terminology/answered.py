"""What a terminology operation answers."""

from collections.abc import Callable, Iterable
from typing import Any

from fhir_server.operations.parameters import Parameters
from fhir_server.terminology.asked import Coded
from fhir_server.terminology.code_system import Concept


def parameters(*entries: tuple[str, str, Any] | dict) -> dict:
    """A Parameters; entries: (name, type, value), left out where the value is None, or whole ones."""
    made = [
        entry if isinstance(entry, dict) else {"name": entry[0], f"value{entry[1]}": entry[2]}
        for entry in entries
        if isinstance(entry, dict) or entry[2] is not None
    ]
    return {"resourceType": "Parameters", "parameter": made}


def validated(asked: Iterable[Coded], fault: Callable[[Coded], tuple[str | None, str | None]]) -> dict:
    """result, message and display. One code that is right is enough; fault: (what is wrong, the display)."""
    faults: list[str] = []
    shown: str | None = None
    for coded in asked:
        wrong, display = fault(coded)
        if wrong is None:
            return parameters(("result", "Boolean", True), ("display", "String", display))
        faults.append(wrong)
        shown = shown or display
    message = "; ".join(faults)
    return parameters(("result", "Boolean", False), ("message", "String", message), ("display", "String", shown))


def unfit(
    coded: Coded, concept: Concept | None, version: str | None, names: Iterable[str | None], given: Parameters
) -> str | None:
    """What is wrong with a code that is there, or None."""
    if concept is not None and concept.abstract and not given.value("abstract", False):
        return f"{coded.code} groups other codes and is not to be chosen itself"
    if coded.version is not None and version is not None and coded.version != version:
        return f"{coded.code} is known here in version {version}, not {coded.version}"
    known = [name for name in names if name]
    if coded.display is not None and known and _same(coded.display) not in map(_same, known):
        return f"the display of {coded.code} is {known[0]!r}"
    return None


def _same(text: str) -> str:
    return " ".join(text.split()).casefold()
