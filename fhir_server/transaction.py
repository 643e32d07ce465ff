"""batch and transaction. https://hl7.org/fhir/R4/http.html#transaction"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from fhir_server.access import Access
from fhir_server.calling import calling, is_call
from fhir_server.entry import ORDER, READS, Entry, raw_entries, read_entry, status_line
from fhir_server.errors import BadRequest, FhirError
from fhir_server.etag import etag
from fhir_server.links import Links
from fhir_server.operation import Operations
from fhir_server.outcome import outcome_of
from fhir_server.prepare import Draft, in_bundle, instant
from fhir_server.reading import Answer, reading

if TYPE_CHECKING:
    from fhir_server.repository import Repository, Written

LARGE = 200  # entries; such Bundles go through one after the other


def perform(repository: "Repository", access: Access, bundle: Any, wanted: str, operations: Operations) -> dict:
    """Do what a Bundle of type batch or transaction asks for; the response Bundle.

    wanted: what the entries of writes bring back, `Prefer: return` in lower case. operations: those that entries may
    call. Raises BadRequest for other types.
    """
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise BadRequest("a Bundle is expected", "Bundle")
    kinds = {"transaction": transaction, "batch": batch}
    kind = bundle.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise BadRequest("a Bundle that is performed is of type batch or transaction", "Bundle.type")
    large = len(raw_entries(bundle)) > LARGE
    with repository.large if large else nullcontext():
        return kinds[kind](repository, access, bundle, wanted, operations)


def transaction(repository: "Repository", access: Access, bundle: dict, wanted: str, operations: Operations) -> dict:
    """Commit all entries or none; the response Bundle has an entry for each, in the same order.

    Writes are processed in the order of the specification. Reads, and operations that change nothing, come after the
    commit, so what they don't find is told in their entry. Other operations are refused: they commit for themselves.
    """
    entries = [read_entry(raw, index, repository.base_url) for index, raw in enumerate(raw_entries(bundle))]
    answers: dict[int, dict] = {}
    reads: dict[int, Answer] = {}
    drafts: dict[int, Draft] = {}
    for entry in sorted(entries, key=lambda entry: ORDER[entry.method]):  # stable: as listed within a method
        try:
            if is_call(entry):
                reads[entry.index] = calling(operations, access, entry, alone=False)
            elif entry.method in READS:
                reads[entry.index] = reading(repository, access, entry)
            else:
                drafts[entry.index] = entry.draft()
        except FhirError as error:
            raise in_bundle(error, entry.at("request.url")) from None
    for index, written in _write(repository, access, entries, drafts).items():
        answers[index] = _answer(repository, written, wanted)
    for index, read in reads.items():
        try:
            answers[index] = read()
        except FhirError as error:
            answers[index] = _refusal(error)
    return _response("transaction-response", (answers[entry.index] for entry in entries))


def batch(repository: "Repository", access: Access, bundle: dict, wanted: str, operations: Operations) -> dict:
    """Answer each entry for itself: a refused one has its OperationOutcome and changes nothing else."""
    answers = []
    for index, raw in enumerate(raw_entries(bundle)):
        try:
            entry = read_entry(raw, index, repository.base_url)
            if is_call(entry):
                answers.append(calling(operations, access, entry, alone=True)())
            elif entry.method in READS:
                answers.append(reading(repository, access, entry)())
            else:
                written = _write(repository, access, [entry], {index: entry.draft()})[index]
                answers.append(_answer(repository, written, wanted))
        except FhirError as error:
            answers.append(_refusal(error))
    return _response("batch-response", answers)


def _write(
    repository: "Repository", access: Access, entries: list[Entry], drafts: dict[int, Draft]
) -> "dict[int, Written]":
    """Write the drafts together, what they refer to one another by resolved; what came of each."""
    links = Links(repository, access, entries, drafts)
    return dict(zip(drafts, repository.write_together(access, drafts, links.resolve), strict=True))


def _answer(repository: "Repository", written: "Written", wanted: str) -> dict:
    version = written.version
    if version.deleted:
        response: dict = {"status": status_line(204)} | ({"etag": etag(version)} if version.version else {})
    else:
        response = {
            "status": status_line(201 if written.created else 200),
            "location": f"{repository.base_url}/{version.versioned_reference}",
            "etag": etag(version),
            "lastModified": instant(version.last_updated),
        }
    if wanted == "operationoutcome":
        response["outcome"] = outcome_of(written)
    if version.deleted:
        return {"response": response}
    answer: dict = {"fullUrl": f"{repository.base_url}/{version.reference}"}
    if wanted == "representation":
        answer["resource"] = version.resource()
    return answer | {"response": response}


def _refusal(error: FhirError) -> dict:
    return {"response": {"status": status_line(error.status), "outcome": error.outcome()}}


def _response(kind: str, answers: Iterable[dict]) -> dict:
    return {"resourceType": "Bundle", "type": kind, "entry": list(answers)}
