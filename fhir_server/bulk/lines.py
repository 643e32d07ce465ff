"""Resources of many lines into the store: together where they can be, and one bad line spoils nothing.

A line that refers to what is not here yet is set aside and tried again after all others, so that files can come in
any order; what refers to one another is written together.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.errors import BadRequest, FhirError, Overtaken, PreconditionFailed
from fhir_server.prepare import Draft, Preparation
from fhir_server.references import each, local
from fhir_server.repository import ATTEMPTS, Repository, Written

BATCH = 250  # resources in one commit
BATCH_BYTES = 4 * 2**20
LARGEST_BATCH = 16 * BATCH  # when lines wait for one another
MAX_LINE_BYTES = 64 * 2**20
BUNDLES = ("transaction", "batch", "collection", "searchset")  # those that stand for what is in them
T = TypeVar("T")
_NAMES = uuid.UUID("6f7f4d0c-9d0e-4c53-8ac6-5d6bb9d4c1aa")  # of ids that follow from the content


@dataclass(frozen=True, slots=True)
class Line:
    """A resource as text, and where it stood. text: None for a line that is too long to be one."""

    source: int
    number: int
    text: bytes | None


@dataclass(slots=True)
class Stored:
    """What became of lines. written: resources that are now as their lines say."""

    written: int = 0
    waiting: list[Line] = field(default_factory=list)
    refused: list[tuple[Line, FhirError]] = field(default_factory=list)


def store_lines(
    repository: Repository, access: Access, lines: Sequence[Line], *, final: bool, unpack: bool
) -> Stored:
    """Store what the lines say, all that can be in one commit.

    final: no line is set aside any more. unpack: perform transactions and batches, and store what is in collections,
    rather than the Bundle itself.
    """
    stored = Stored()
    together: dict[tuple[str, str], tuple[Line, dict]] = {}
    for line in lines:
        try:
            resource = _parse(line)
            if unpack and resource.get("resourceType") == "Bundle" and resource.get("type") in BUNDLES:
                _flush(repository, access, together, stored, final)
                _unpack(repository, access, line, resource, stored)
                continue
        except FhirError as error:
            _refuse(stored, line, error, final)
            continue
        key = _key(resource)
        if key in together:  # a newer version of the same resource comes after the older one
            _flush(repository, access, together, stored, final)
        together[key] = (line, resource)
    _flush(repository, access, together, stored, final)
    return stored


def write_each(repository: Repository, access: Access, resources: Sequence[dict]) -> list[Written | FhirError]:
    """Commit together those of the resources that can be; for each what was written, or why it was refused.

    Each has its id, and none is there twice. Those that refer to a refused one are refused as well.
    """
    results: dict[int, Written | FhirError] = {}
    targets = {target for resource in resources for target in (_key(resource), *_targets(resource, repository))}
    ahead, attempt = repository.reading_ahead(targets), 1
    while len(results) < len(resources):
        preparation = Preparation(ahead, access)
        drafts = {n: Draft("update", resources[n]) for n in range(len(resources)) if n not in results}
        placed, refused = _each(drafts, preparation.place)
        outcomes, refused_later = _each({n: drafts[n] for n in placed}, preparation.prepare)
        results |= refused | refused_later
        if refused or refused_later:  # others may have relied on these: begin anew without them
            continue
        try:
            preparation.commit(outcomes.values())
        except Overtaken:
            if attempt == ATTEMPTS:
                raise
            ahead, attempt = repository.reading_ahead(targets), attempt + 1
            continue
        for n, outcome in outcomes.items():
            results[n] = Written(outcome.version, outcome.created, outcome.change is not None)
    return [results[n] for n in range(len(resources))]


def _each(drafts: dict[int, Draft], step: Callable[[Draft], T]) -> tuple[dict[int, T], dict[int, FhirError]]:
    """The step's result for each draft, and why others were refused."""
    done: dict[int, T] = {}
    refused: dict[int, FhirError] = {}
    for n, draft in drafts.items():
        try:
            done[n] = step(draft)
        except FhirError as error:
            refused[n] = error
    return done, refused


def batches(lines: Iterable[Line], size: int = BATCH) -> Iterator[list[Line]]:
    """The lines in groups of so many, or fewer where they are long."""
    batch: list[Line] = []
    held = 0
    for line in lines:
        batch.append(line)
        held += len(line.text or b"")
        if len(batch) >= size or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def read_lines(file: BinaryIO, source: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines of NDJSON from where the file stands; empty ones are counted and left out."""
    while text := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(text) == MAX_LINE_BYTES and not text.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Line(source, number, None)
        elif stripped := text.strip():
            yield Line(source, number, stripped)


def set_aside(line: Line) -> bytes:
    """The line as a line (without its end) of a file of those that wait."""
    return b"%d %d %s" % (line.source, line.number, line.text or b"")


def read_waiting(file: BinaryIO) -> Iterator[Line]:
    """What `set_aside` wrote, from where the file stands."""
    while record := file.readline():
        source, number, text = record.rstrip(b"\n").split(b" ", 2)
        yield Line(int(source), int(number), text)


def next_round(size: int, before: int | None, after: int) -> tuple[int, bool]:
    """For the lines that wait: how many to write together, and whether to set none aside any more.

    before, after: how many waited before (None: all were new) and after they were tried. Where none got on they may
    wait for one another, so more are tried together.
    """
    if before is None or after < before:
        return size, False
    return (size * 4, False) if size < LARGEST_BATCH else (size, True)


def _parse(line: Line) -> dict:
    if line.text is None:
        raise BadRequest(f"a line may have {MAX_LINE_BYTES // 2**20} MB")
    resource = fhir_json.loads(line.text)
    if not isinstance(resource, dict):
        raise BadRequest("a line is a resource, a JSON object")
    if "id" not in resource:  # the same content gets the same id, so that storing it again doubles nothing
        resource["id"] = str(uuid.uuid5(_NAMES, hashlib.sha256(line.text).hexdigest()))
    return resource


def _flush(
    repository: Repository,
    access: Access,
    together: dict[tuple[str, str], tuple[Line, dict]],
    stored: Stored,
    final: bool,
) -> None:
    if not final and repository.check_references:
        for key in _waiting(repository, access, together):
            stored.waiting.append(together.pop(key)[0])
    lines = list(together.values())
    together.clear()
    results = write_each(repository, access, [resource for _, resource in lines])
    for (line, _), result in zip(lines, results, strict=True):
        if isinstance(result, FhirError):
            _refuse(stored, line, result, final)
        else:
            stored.written += 1


def _waiting(
    repository: Repository, access: Access, together: dict[tuple[str, str], tuple[Line, dict]]
) -> list[tuple[str, str]]:
    """Those that refer to what is neither here nor among them. Found without preparing them, which costs more."""
    targets = {key: _targets(resource, repository) for key, (_, resource) in together.items()}
    there = repository.existing(access, set().union(*targets.values()) - targets.keys())
    waiting: list[tuple[str, str]] = []
    while found := [key for key in targets if not targets[key] <= there | targets.keys()]:
        waiting += found
        for key in found:
            del targets[key]
    return waiting


def _key(resource: dict) -> tuple[str, str]:
    return str(resource.get("resourceType")), str(resource["id"])


def _targets(resource: dict, repository: Repository) -> set[tuple[str, str]]:
    """(type, id) of what it refers to on this server."""
    try:
        found = [local(element["reference"], repository.base_url) for _, element in each(resource, "")]
    except RecursionError:  # too deep to be a resource, which the preparation says
        return set()
    return {target for target in found if target is not None}


def _refuse(stored: Stored, line: Line, error: FhirError, final: bool) -> None:
    if not final and _may_come(error):
        stored.waiting.append(line)
    else:
        stored.refused.append((line, error))


def _may_come(error: FhirError) -> bool:
    """Whether all that is wrong is that something is not here yet."""
    if isinstance(error, PreconditionFailed):  # a conditional reference that matches nothing
        return True
    return all(issue["code"] == "not-found" for issue in error.outcome()["issue"])


def _unpack(repository: Repository, access: Access, line: Line, bundle: dict, stored: Stored) -> None:
    if bundle["type"] == "transaction":
        stored.written += len(repository.perform(access, bundle)["entry"])
    elif bundle["type"] == "batch":
        for number, entry in enumerate(repository.perform(access, bundle)["entry"]):
            if entry["response"]["status"].startswith("2"):
                stored.written += 1
            else:
                stored.refused.append((line, _refusal(entry["response"], f"Bundle.entry[{number}]")))
    else:
        entries = bundle.get("entry", [])
        if not isinstance(entries, list):
            raise BadRequest("Bundle.entry is a list", "Bundle.entry")
        resources = [entry["resource"] for entry in entries if isinstance(entry, dict) and "resource" in entry]
        inner = [Line(line.source, number, fhir_json.dumps(resource)) for number, resource in enumerate(resources, 1)]
        for batch in batches(inner):
            found = store_lines(repository, access, batch, final=False, unpack=False)
            stored.written += found.written
            stored.waiting += found.waiting
            stored.refused += found.refused


def _refusal(response: dict, where: str) -> BadRequest:
    """The first fault of an entry of a batch-response."""
    issue = response.get("outcome", {}).get("issue", [{}])[0]
    return BadRequest(issue.get("diagnostics", response["status"]), *issue.get("expression", [where])[:1])
