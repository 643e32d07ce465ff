"""One version of one resource, as committed: the unit of everything that is stored, read and streamed."""

from dataclasses import dataclass
from datetime import datetime

from fhir_server import fhir_json


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version.

    number: 64-bit write number, ordered by time. created: the number of version 1, which stays.
    op: create, update or delete. body: the JSON as served; None for a deletion.
    scope: who may see it. keys: its search keys; empty once a newer version exists. position: its place in the order
    of commits, as the stream of versions tells it; 0 where it was read from the store, which does not know.
    """

    resource_type: str
    id: str
    version: int
    number: int
    created: int
    last_updated: datetime
    by: str
    op: str
    body: bytes | None
    scope: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    position: int = 0

    @property
    def deleted(self) -> bool:
        return self.op == "delete"

    @property
    def reference(self) -> str:
        """`Task/12`"""
        return f"{self.resource_type}/{self.id}"

    @property
    def versioned_reference(self) -> str:
        """`Task/12/_history/3`"""
        return f"{self.resource_type}/{self.id}/_history/{self.version}"

    def resource(self) -> dict:
        """The content, parsed anew each time, so that it is the caller's to change. Not for deletions."""
        if self.body is None:
            raise ValueError(f"{self.versioned_reference} is a deletion and has no content")
        return fhir_json.loads(self.body)
