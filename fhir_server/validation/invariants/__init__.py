"""The invariants of R4 as Python, by their key. `conformance.structures` says where each holds.

R4 writes them in FHIRPath; each is written out here by hand, because an interpreter would take longer for one than
all checks of a resource may. An invariant gets the element that it is defined on, and returns True, or the path, from
that element, of what breaks it (`""`: the element itself). It may raise on misshapen content, which other checks
refuse.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fhir_server.validation.invariants import clinical, datatypes, definitional, exchange, resources
from fhir_server.validation.invariants.terms import Invariant

__all__ = ["INVARIANTS", "Invariant"]

INVARIANTS: Mapping[str, Invariant] = MappingProxyType(
    {
        **datatypes.INVARIANTS,
        **resources.INVARIANTS,
        **exchange.INVARIANTS,
        **clinical.INVARIANTS,
        **definitional.INVARIANTS,
    }
)
