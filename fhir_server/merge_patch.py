"""JSON Merge Patch (RFC 7396) over a resource: members that replace those of their names, null for those that go.

FHIR does not name it, but clients send it: a part of a resource as `application/json`.
"""

from collections.abc import Callable
from typing import Any

from fhir_server import fhir_json
from fhir_server.errors import BadRequest


def parse(patch: Any) -> Callable[[dict], dict]:
    """The change that a merge patch makes. Raises BadRequest for what is no object, or nested too deeply."""
    if not isinstance(patch, dict):
        raise BadRequest("a merge patch is a JSON object")
    fhir_json.dumps(patch)  # refuses what is nested too deeply
    return lambda resource: _merged(resource, patch)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    kept = target if isinstance(target, dict) else {}
    merged = {name: value for name, value in kept.items() if name not in patch}
    return merged | {name: _merged(kept.get(name), value) for name, value in patch.items() if value is not None}
