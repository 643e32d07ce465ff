"""An export, bit by bit: the stored bytes of what is selected, a line each, into files of one type."""

from collections.abc import Iterator
from dataclasses import replace

from fhir_server import fhir_json, references
from fhir_server.bulk.files import Files, Output
from fhir_server.bulk.jobs import DONE, Job, JobStore
from fhir_server.bulk.turn import Turn
from fhir_server.prepare import instant
from fhir_server.repository import Repository
from fhir_server.search import Selection
from fhir_server.version import Version

BEGINNING = {"leg": 0, "after": 0, "done": 0}


def run_export(repository: Repository, jobs: JobStore, files: Files, job: Job, turn: Turn) -> None:
    """Go on with the export until it is done or its turn is over. Raises JobLost, and FhirError where it cannot be.

    The place in the store is noted together with the sizes of the files, so that after a crash each line is there
    once: what was written behind the noted sizes is cut off and written again.
    """
    legs = legs_of(job)
    position = {**BEGINNING, **job.position}
    output = Output(files, job.id, job.files)
    try:
        if not job.position:
            for issue in job.asked["ignored"]:
                outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
                output.write("error", "OperationOutcome", fhir_json.dumps(outcome))
        while position["leg"] < len(legs):
            kind, type = legs[position["leg"]]
            for line_type, line, after in _lines(repository, job, kind, type, position["after"]):
                output.write(kind, line_type, line)
                position["after"], position["done"] = after, position["done"] + 1
                if turn.is_due():
                    progress = f"{position['done']} resources; {type}, {position['leg'] + 1} of {len(legs)} steps"
                    job = replace(job, position=dict(position), progress=progress, files=output.sync())
                    jobs.save(job)
                    if turn.is_over():
                        jobs.release(job)
                        return
            output.close()
            position["leg"], position["after"] = position["leg"] + 1, 0
        jobs.finish(replace(job, position=position, progress="done", files=output.sync()), DONE)
    finally:
        output.close()


def legs_of(job: Job) -> list[tuple[str, str]]:
    """(kind, type) of what is gone through, in order: all that is there, then what was deleted."""
    kinds = ["output"] if job.asked["since"] is None else ["output", "deleted"]
    return [(kind, type) for kind in kinds for type in job.asked["types"]]


def _lines(repository: Repository, job: Job, kind: str, type: str, after: int) -> Iterator[tuple[str, bytes, int]]:
    """(type of the resource in the line, line, where to go on after it)"""
    selection = _selection(job, type)
    if kind == "output":
        for version in repository.walk(job.access, selection, after):
            patient = _patient_of(repository, version) if type == "Binary" else None
            if patient is not None:
                yield "DocumentReference", _document(version, patient, repository.base_url), version.created
            else:
                yield type, _line(version, repository.base_url), version.created
    else:
        for version in repository.deletions(job.access, selection, after):
            yield "Bundle", _deletion(version), version.number


def _selection(job: Job, type: str) -> Selection:
    patients = job.asked["patients"]
    return Selection(
        type,
        at=job.begun,
        since=job.asked["since"],
        queries=tuple(job.asked["queries"].get(type, ())),
        patients=None if patients is None else tuple(patients),
        in_compartment=job.asked["level"] != "system",
    )


def _line(version: Version, base_url: str) -> bytes:
    """The stored bytes; addresses of attachments made absolute, as the guide asks for.

    A quotation mark inside of text is escaped, so that these bytes are nothing but an element named url.
    """
    return (version.body or b"").replace(b'"url":"Binary/', b'"url":"' + base_url.encode() + b"/Binary/")


def _patient_of(repository: Repository, binary: Version) -> str | None:
    """`Patient/id` of whom the content is about, by its security context; None when it is about nobody."""
    if b'"securityContext"' not in (binary.body or b""):
        return None
    context = binary.resource()["securityContext"].get("reference", "")
    target = references.local(context, repository.base_url)
    newest = repository.store.newest(*target) if target else None
    scope = newest.scope if newest is not None else ()
    return next((key.removeprefix("@") for key in scope if key.startswith("@Patient/")), None)


def _document(binary: Version, patient: str, base_url: str) -> bytes:
    """The DocumentReference that stands for content about a patient, as the guide asks for."""
    attachment = {"contentType": binary.resource()["contentType"], "url": f"{base_url}/{binary.reference}"}
    document = {
        "resourceType": "DocumentReference",
        "id": binary.id,
        "meta": {"versionId": str(binary.version), "lastUpdated": instant(binary.last_updated)},
        "status": "current",
        "subject": {"reference": patient},
        "content": [{"attachment": attachment}],
    }
    return fhir_json.dumps(document)


def _deletion(version: Version) -> bytes:
    entry = {"request": {"method": "DELETE", "url": version.reference}}
    meta = {"lastUpdated": instant(version.last_updated)}
    return fhir_json.dumps({"resourceType": "Bundle", "meta": meta, "type": "transaction", "entry": [entry]})
