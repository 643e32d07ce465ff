"""OperationOutcomes that tell of success."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fhir_server.repository import Written

_DONE = {"create": "created", "update": "updated", "delete": "deleted"}


def outcome_of(written: "Written") -> dict:
    """What a write did, for who prefers an OperationOutcome."""
    version = written.version
    done = _DONE[version.op] if written.changed else "left as it was"
    text = f"{version.reference} {done}, version {version.version}" if version.version else "nothing to delete"
    if written.others:
        text += f", and {written.others} more that meet the conditions"
    issue = {"severity": "information", "code": "informational", "diagnostics": text}
    return {"resourceType": "OperationOutcome", "issue": [issue]}
