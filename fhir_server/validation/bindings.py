"""Required bindings. https://hl7.org/fhir/R4/terminologies.html#required

Value sets whose codes cannot be listed (`conformance.structures.value_set`) leave a code to the syntax of its type.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from conformance.structures import value_set
from fhir_server.validation.run import Run

FEW = 12  # codes that a diagnostics still lists


@cache
def concepts(url: str) -> Mapping[str, frozenset[str]] | None:
    """System -> codes; None when they cannot be listed."""
    return value_set(url)


@cache
def codes(url: str) -> frozenset[str] | None:
    """The codes of a value set whatever their system, as a `code` has none; None when they cannot be listed."""
    found = concepts(url)
    return None if found is None else frozenset().union(*found.values())


def complaint(url: str | None, known: frozenset[str]) -> str:
    listed = f" ({', '.join(sorted(known))})" if len(known) <= FEW else ""
    return f"no code of the value set {url}{listed}"


def check_of(type: str, url: str, known: Mapping[str, frozenset[str]]) -> Callable[[dict, str, Run], None]:
    """The check of a Coding, or of a CodeableConcept, of which one coding must be of the value set."""

    def is_known(coding: Any) -> bool:
        if not isinstance(coding, dict):
            return False
        system, code = coding.get("system"), coding.get("code")
        return isinstance(system, str) and isinstance(code, str) and code in known.get(system, ())

    def check_coding(value: dict, path: str, run: Run) -> None:
        if not is_known(value) and "extension" not in value:
            run.fault("code-invalid", complaint(url, codes(url) or frozenset()), path)

    def check_concept(value: dict, path: str, run: Run) -> None:
        codings = value.get("coding")
        if not (isinstance(codings, list) and any(map(is_known, codings))) and "extension" not in value:
            run.fault("code-invalid", complaint(url, codes(url) or frozenset()), path)

    return check_coding if type == "Coding" else check_concept
