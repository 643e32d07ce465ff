"""Codes that should be another: the extensible bindings of R4. https://hl7.org/fhir/R4/terminologies.html#extensible

Nobody is refused for one, since nobody but a person can tell that no code of the value set fits.
"""

from collections.abc import Mapping
from functools import cache

from conformance.structures import structure
from fhir_server.fhirpath.nodes import Node, all_children, children
from fhir_server.validation.profiles.judgement import Judgement, codings


def advise(resource: Node, run: Judgement) -> None:
    """Warn of each code, in the resource and all that is in it, of which the value set is known not to have it."""
    waiting = [resource]
    while waiting:
        node = waiting.pop()
        run.work.spend()
        for name, url in _advised(node.type).items():
            for child in children(node, name):
                if codings(child) and run.in_value_set(child, url) is False:
                    run.tell("code-invalid", complaint(url), child.path, "warning")
        waiting += all_children(node)


def complaint(url: str) -> str:
    return f"no code of the value set {url[:200]}, which should be used if it has one that fits"


@cache
def _advised(name: str) -> Mapping[str, str]:
    """Element -> value set, of a structure."""
    definition = structure(name)
    elements = definition.elements if definition else ()
    return {one.name.removesuffix("[x]"): one.advised for one in elements if one.advised}
