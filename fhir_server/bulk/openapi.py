"""The addresses of bulk data in the OpenAPI description."""

from fhir_server.openapi.parts import action, body, parameters

_KICKOFF = ("_type", "_since", "_typeFilter", "_outputFormat")
_GUIDE = {"tags": ["bulk data"], "externalDocs": {"url": "https://hl7.org/fhir/uv/bulkdata/STU2/export.html"}}
_JOB = {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}
_FILE = _JOB | {"name": "file"}


def paths() -> dict[str, dict]:
    """Address below the FHIR base -> OpenAPI path item."""
    return {
        "/$export": _export("exportSystem"),
        "/Patient/$export": _export("exportPatient"),
        "/Group/{id}/$export": {"parameters": parameters("id")} | _export("exportGroup"),
        "/$import": {
            "post": _GUIDE | action("import", "Store NDJSON; a job", "Accepted", headers=("Async",)) | body("Upload")
        },
        "/bulk/{job}": {
            "parameters": [_JOB],
            "get": _GUIDE | action("jobStatus", "202 while it works, then the manifest", "Manifest", "Working"),
            "delete": _GUIDE | action("jobEnd", "Cancel the job, or delete its files", "Working"),
        },
        "/bulk/{job}/{file}": {
            "parameters": [_JOB, _FILE],
            "get": _GUIDE | action("jobFile", "A file that the manifest names", "Lines"),
        },
    }


def _export(id: str) -> dict[str, dict]:
    get = _GUIDE | action(id, "Export; a job", "Accepted", query=_KICKOFF, headers=("Async",))
    post = _GUIDE | action(f"{id}ByPost", "Export; a job", "Accepted", headers=("Async",)) | body("Parameters")
    return {"get": get, "post": post}
