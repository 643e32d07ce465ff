"""Rules that a write must pass before it is committed, registered per resource type by the packages above."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhir_server.access import Access

if TYPE_CHECKING:
    from fhir_server.repository import Repository


@dataclass(frozen=True, slots=True)
class Write:
    """A write about to be committed: `before` is None for a create, `after` is None for a delete."""

    interaction: str
    before: dict | None
    after: dict | None
    access: Access
    repository: "Repository"


# Returns the resource to store, changed or not (None for a delete); raises a FhirError to refuse.
Admission = Callable[[Write], dict | None]
