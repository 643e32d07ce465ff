"""Kick-off, status, files and end of bulk jobs. https://hl7.org/fhir/R4/async.html"""

import zlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

from flask import Blueprint, Response, request

import conformance
from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.bulk.files import CHUNK, Files, read_chunks
from fhir_server.bulk.importing import UPLOAD
from fhir_server.bulk.jobs import DONE, FAILED, RECEIVING, File, Job, JobStore, new_job
from fhir_server.bulk.kickoff import may_export, read_kickoff
from fhir_server.errors import BadRequest, Forbidden, Issue, NotFound, TooManyRequests, UnsupportedMediaType
from fhir_server.formats import FHIR_JSON
from fhir_server.http import choose_format, current_access, fhir_body, fhir_response, query_parameters
from fhir_server.prefer import preferences
from fhir_server.prepare import instant
from fhir_server.repository import Repository

NDJSON = "application/fhir+ndjson"
NDJSON_TYPES = (NDJSON, "application/ndjson", "application/x-ndjson")
IMPORT_COUNTS = f"{conformance.CANONICAL}/import-counts"  # what was stored and refused, in the manifest
SETTLE = timedelta(seconds=2)  # for writes that carry an earlier time than the export and are not committed yet
MAX_WAITING = 5  # jobs of one caller at a time
_RETRY_AFTER_S = "2"
_RETRY_KICKOFF_S = "60"


def create_blueprint(
    repository: Repository, jobs: JobStore, files: Files, max_upload_bytes: int, settle: timedelta = SETTLE
) -> Blueprint:
    """The views of bulk data; mount it at the FHIR base. max_upload_bytes: of one `$import`, unpacked."""
    bulk = Blueprint("bulk", __name__)

    @bulk.route("/$export", methods=["GET", "POST"])
    def system_export() -> Response:
        return export("system", "$export")

    @bulk.route("/Patient/$export", methods=["GET", "POST"])
    def patient_export() -> Response:
        return export("Patient", "Patient/$export")

    @bulk.route("/Group/<id>/$export", methods=["GET", "POST"])
    def group_export(id: str) -> Response:
        return export(f"Group/{id}", f"Group/{id}/$export")

    def export(level: str, path: str) -> Response:
        access, lenient = _begin()
        asked = read_kickoff(repository, access, level, _parameters(), lenient)
        query = request.query_string.decode(errors="replace")
        address = f"{repository.base_url}/{path}{'?' if query else ''}{query}"
        job = new_job("export", address, access, _now(repository), asked.as_document())
        jobs.add(job, due=job.begun + settle)
        return _accepted(job)

    @bulk.post("/$import")
    def import_() -> Response:
        access, _ = _begin()
        if not access.is_practice or not any("u" in scope.letters for scope in access.scopes):
            raise Forbidden("importing is for systems of the practice, with scopes to update what is sent")
        chunks = _upload()
        job = new_job("import", f"{repository.base_url}/$import", access, _now(repository), {}, RECEIVING)
        jobs.add(job, due=job.begun)
        try:
            size = files.receive(job.id, UPLOAD, chunks, max_upload_bytes)
            if not size:
                raise BadRequest("the request has no content")
            jobs.received(job, (File("work", UPLOAD, UPLOAD, size=size),))
        except BaseException:
            _remove(job)
            raise
        return _accepted(job)

    @bulk.get("/bulk/<job_id>")
    def status(job_id: str) -> Response:
        choose_format()
        job = _job_of(current_access(), job_id)
        if job.state == FAILED and job.failure is not None:
            return fhir_response(fhir_json.dumps(job.failure["outcome"]), job.failure["status"])
        if job.state != DONE:
            return Response(status=202, headers={"X-Progress": job.progress[:99], "Retry-After": _RETRY_AFTER_S})
        _require_all(current_access(), job)
        body = fhir_json.dumps(_manifest(repository.base_url, job))
        answer = Response(body, content_type="application/json")
        if job.expires is not None:
            answer.headers["Expires"] = format_datetime(job.expires, usegmt=True)
        return answer

    @bulk.delete("/bulk/<job_id>")
    def cancel(job_id: str) -> Response:
        _remove(_job_of(current_access(), job_id))
        return Response(status=202)

    @bulk.get("/bulk/<job_id>/<name>")
    def file(job_id: str, name: str) -> Response:
        job = _job_of(current_access(), job_id)
        found = next((one for one in job.files if one.name == name and one.kind != "work"), None)
        if job.state != DONE or found is None:
            raise NotFound("there is no such file")
        _require_all(current_access(), job)
        path = files.path(job.id, found.name)
        if not path.is_file():
            raise NotFound("there is no such file any more")
        answer = Response(read_chunks(path, found.size), content_type=NDJSON)
        answer.content_length = found.size
        return answer

    def _begin() -> tuple[Access, bool]:
        """Who asks, and whether handling is lenient. Raises BadRequest, NotAcceptable, TooManyRequests."""
        choose_format()
        access = current_access()
        preferred = preferences(", ".join(request.headers.getlist("Prefer")))
        if "respond-async" not in preferred:
            raise BadRequest("this takes its time: send the header `Prefer: respond-async`")
        if jobs.count_waiting(access.subject) >= MAX_WAITING:
            text = f"{MAX_WAITING} jobs of yours are not done yet; wait for them or cancel one"
            raise TooManyRequests(text, headers={"Retry-After": _RETRY_KICKOFF_S})
        return access, preferred.get("handling") == "lenient"

    def _job_of(access: Access, job_id: str) -> Job:
        """The job, for who asked for it. Raises NotFound."""
        job = jobs.find(job_id)
        if job is None or job.access.subject != access.subject:
            raise NotFound("there is no such job")
        return job

    def _accepted(job: Job) -> Response:
        where = {"Content-Location": f"{repository.base_url}/bulk/{job.id}"}
        issue = Issue("informational", "accepted; ask at Content-Location how far it is", severity="information")
        outcome = {"resourceType": "OperationOutcome", "issue": [issue.as_fhir()]}
        return fhir_response(fhir_json.dumps(outcome), 202, where)

    def _remove(job: Job) -> None:
        jobs.delete(job.id)
        files.delete(job.id)

    return bulk


def _require_all(access: Access, job: Job) -> None:
    """Raise Forbidden unless the caller, as they are now, may see all that the job gathered."""
    then = job.access
    sees = _covers(access.audience, then.audience) and _covers(access.compartment, then.compartment)
    types = job.asked.get("types", ())
    if not sees or not all(may_export(access, type) and _reaches(access, then, type) for type in types):
        raise Forbidden("this token covers less than what was exported")


def _covers(keys: frozenset[str] | None, then: frozenset[str] | None) -> bool:
    return keys is None or (then is not None and then <= keys)


def _reaches(access: Access, then: Access, resource_type: str) -> bool:
    """Whether what scopes with parameters reach of the type is what they reached then, or all."""
    return all(access.reach(one, resource_type) in (None, then.reach(one, resource_type)) for one in "rs")


def _manifest(base_url: str, job: Job) -> dict[str, Any]:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#response---complete-status"""

    def listed(kind: str) -> list[dict]:
        return [
            {"type": file.type, "url": f"{base_url}/bulk/{job.id}/{file.name}", "count": file.count}
            for file in job.files
            if file.kind == kind
        ]

    manifest: dict[str, Any] = {
        "transactionTime": instant(job.begun),
        "request": job.request,
        "requiresAccessToken": True,
        "output": listed("output"),
        "error": listed("error"),
    }
    if job.asked.get("since") is not None:
        manifest["deleted"] = listed("deleted")
    if job.kind == "import":
        counts = {name: job.position[name] for name in ("stored", "refused")}
        manifest["extension"] = {IMPORT_COUNTS: counts}
    return manifest


def _parameters() -> list[tuple[str, str]]:
    """Names and texts of the parameters, of the address and of a Parameters resource."""
    found = query_parameters()
    if request.method == "GET" or not request.content_length:
        return found
    for index, entry in enumerate(_entries()):
        value = next((value for name, value in entry.items() if name.startswith("value")), None)
        if not isinstance(value, str):
            raise BadRequest("this parameter has no text as its value", f"Parameters.parameter[{index}]")
        found.append((str(entry.get("name")), value))
    return found


def _entries() -> list[dict]:
    body = fhir_body()
    if not isinstance(body, dict) or body.get("resourceType") != "Parameters":
        raise BadRequest("a Parameters resource is expected", "Parameters")
    entries = body.get("parameter", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("Parameters.parameter is a list of objects", "Parameters.parameter")
    return entries


def _upload() -> Iterable[bytes]:
    """The NDJSON that was sent: as it is, gzipped, or resources in a Parameters. Raises UnsupportedMediaType."""
    if request.mimetype in (FHIR_JSON, "application/json"):
        return [_resource_line(index, entry) for index, entry in enumerate(_entries())]
    if request.mimetype not in NDJSON_TYPES:
        raise UnsupportedMediaType(f"send {NDJSON}, or a Parameters with resources as {FHIR_JSON}")
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "gzip":
        return _unpacked(_sent())
    if encoding != "identity":
        raise UnsupportedMediaType("Content-Encoding is gzip, or none")
    return _sent()


def _resource_line(index: int, entry: dict) -> bytes:
    if not isinstance(entry.get("resource"), dict):
        text = "$import takes resources here, or NDJSON as the body; it fetches nothing from other addresses"
        raise BadRequest(text, issues=[Issue("not-supported", text, f"Parameters.parameter[{index}]")])
    return fhir_json.dumps(entry["resource"]) + b"\n"


def _sent() -> Iterator[bytes]:
    while chunk := request.stream.read(CHUNK):
        yield chunk


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """gunzip, no more than CHUNK at a time however much comes of a little. Raises BadRequest."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            while chunk:
                if unpacker.eof:  # a file of several members
                    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
                yield unpacker.decompress(chunk, CHUNK)
                chunk = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error:
        raise BadRequest("this is not gzip, as Content-Encoding says") from None
    if not unpacker.eof:
        raise BadRequest("the gzip ends too early")


def _now(repository: Repository) -> Any:
    moment = repository.clock()
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)  # what a version's time is made of
