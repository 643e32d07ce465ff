"""An import, bit by bit: each line of an upload through the Repository, as if its sender had written it by itself.

The upload is gone through once, and then what had to wait, until nothing waits or nothing gets on. After a crash some
lines are done again, which changes nothing: what is stored already makes no version.
"""

from collections.abc import Iterator
from dataclasses import replace

from fhir_server import fhir_json
from fhir_server.bulk.files import Files, Output
from fhir_server.bulk.jobs import DONE, File, Job, JobStore
from fhir_server.bulk.lines import BATCH, Line, batches, next_round, read_lines, read_waiting, set_aside, store_lines
from fhir_server.bulk.turn import Turn
from fhir_server.errors import FhirError
from fhir_server.repository import Repository

UPLOAD = "upload"
BEGINNING = {
    "round": 0,
    "offset": 0,
    "line": 0,
    "size": BATCH,
    "waited": None,
    "final": False,
    "stored": 0,
    "refused": 0,
}


def run_import(repository: Repository, jobs: JobStore, files: Files, job: Job, turn: Turn) -> None:
    """Go on with the import until it is done or its turn is over. Raises JobLost."""
    position = {**BEGINNING, **job.position}
    output = Output(files, job.id, job.files)
    try:
        while True:
            for lines, offset in _batches(files, job, position):
                stored = store_lines(repository, job.access, lines, final=position["final"], unpack=False)
                for line in stored.waiting:
                    output.write("work", _waiting(position["round"] + 1), set_aside(line))
                for line, error in stored.refused:
                    output.write("error", "OperationOutcome", fhir_json.dumps(outcome_of(line, error)))
                position["stored"] += stored.written
                position["refused"] += len(stored.refused)
                position |= {"offset": offset, "line": lines[-1].number}
                if turn.is_due():
                    progress = f"{position['stored']} stored, {position['refused']} refused"
                    job = replace(job, position=dict(position), progress=progress, files=output.sync())
                    jobs.save(job)
                    if turn.is_over():
                        jobs.release(job)
                        return
            output.close()
            job = replace(job, files=output.sync())
            if not _next_round(job, position):
                break
        of_use = tuple(file for file in job.files if file.kind != "work")
        jobs.finish(replace(job, position=position, progress="done", files=of_use), DONE)
        for file in job.files:
            if file.kind == "work":
                files.path(job.id, file.name).unlink(missing_ok=True)
    finally:
        output.close()


def outcome_of(line: Line, error: FhirError) -> dict:
    """Why a line was refused: the error's OperationOutcome, each issue of which names the line."""
    outcome = error.outcome()
    for issue in outcome["issue"]:
        issue["diagnostics"] = f"line {line.number}: {issue['diagnostics']}"
    return outcome


def _next_round(job: Job, position: dict) -> bool:
    """Set the position to the beginning of the next round; False when nothing waits."""
    waiting = _file(job, _waiting(position["round"] + 1))
    if waiting is None:
        return False
    size, final = next_round(position["size"], position["waited"], waiting.count)
    position |= {"round": position["round"] + 1, "offset": 0, "waited": waiting.count, "size": size, "final": final}
    return True


def _batches(files: Files, job: Job, position: dict) -> Iterator[tuple[list[Line], int]]:
    """Lines of this round, and where in its file the next ones begin."""
    first = position["round"] == 0
    source = _file(job, UPLOAD if first else _waiting(position["round"]))
    if source is None:
        raise RuntimeError("the file of this round is not noted")
    with files.path(job.id, source.name).open("rb") as file:
        file.seek(position["offset"])
        lines = read_lines(file, number=position["line"]) if first else read_waiting(file)
        for batch in batches(lines, position["size"]):
            yield batch, file.tell()


def _waiting(round: int) -> str:
    return f"waiting-{round}"


def _file(job: Job, type: str) -> File | None:
    return next((file for file in job.files if file.kind == "work" and file.type == type), None)
