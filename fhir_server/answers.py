"""Versions as HTTP answers: their headers, and how much of them the client wants back."""

from datetime import UTC, datetime
from email.utils import format_datetime

from flask import Response, request

from fhir_server import fhir_json
from fhir_server.binary import is_native, native
from fhir_server.etag import etag
from fhir_server.http import fhir_response
from fhir_server.outcome import outcome_of
from fhir_server.prefer import preferences
from fhir_server.repository import Repository, Written
from fhir_server.search.subset import of_read, reduced
from fhir_server.version import Version


def resource_answer(repository: Repository, version: Version) -> Response:
    """A version as content, or 304 when the client has it. https://hl7.org/fhir/R4/http.html#cread"""
    headers = version_headers(version) | {"Content-Location": f"{repository.base_url}/{version.versioned_reference}"}
    if not_modified(version):
        return Response(status=304, headers=headers)
    if version.resource_type == "Binary" and (answer := native_answer(version.resource())):
        answer.headers.extend(headers)
        return answer
    subset = of_read(request.args)
    return fhir_response((reduced(version, subset) if subset else version).body or b"", headers=headers)


def native_answer(binary: dict) -> Response | None:
    """The content of a Binary in its native form; None when it is wanted as a resource. Raises NotAcceptable."""
    if "_format" in request.args or not is_native(str(binary.get("contentType")), request.headers.get("Accept", "")):
        return None
    content, content_type, headers = native(binary)
    return Response(content, 200, headers | {"Vary": "Accept"}, content_type=content_type)


def written_answer(repository: Repository, written: Written) -> Response:
    """What a write answers, by `Prefer: return`. https://hl7.org/fhir/R4/http.html#ops"""
    version = written.version
    wanted = preferences(request.headers.get("Prefer", "")).get("return", "representation")
    if version.deleted:
        headers = {"ETag": etag(version)} if version.version else {}
        if wanted != "operationoutcome":
            return Response(status=204, headers=headers)
        return fhir_response(fhir_json.dumps(outcome_of(written)), 200, headers)
    location = f"{repository.base_url}/{version.versioned_reference}"
    headers = version_headers(version) | {"Location": location}
    body = version.body or b""
    if wanted == "minimal":
        body = b""
    elif wanted == "operationoutcome":
        body = fhir_json.dumps(outcome_of(written))
    else:
        headers["Content-Location"] = location
    return fhir_response(body, 201 if written.created else 200, headers)


def version_headers(version: Version) -> dict[str, str]:
    return {"ETag": etag(version), "Last-Modified": format_datetime(version.last_updated, usegmt=True)}


def not_modified(version: Version) -> bool:
    """Whether the client has this version. If-None-Match wins over If-Modified-Since (RFC 9110, section 13.2.2)."""
    tags, since = request.if_none_match, request.if_modified_since
    if "If-None-Match" in request.headers:
        return tags.star_tag or tags.contains_weak(str(version.version))
    return since is not None and _seconds(version.last_updated) <= since


def _seconds(moment: datetime) -> datetime:
    """As Last-Modified tells it."""
    return moment.astimezone(UTC).replace(microsecond=0)
