"""The worker's part: takes jobs in turn, does each bit by bit, and clears away what nobody may fetch any more."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from pymongo.errors import PyMongoError

from fhir_server.bulk.export import run_export
from fhir_server.bulk.files import Files
from fhir_server.bulk.importing import run_import
from fhir_server.bulk.jobs import ATTEMPTS, FAILED, Job, JobLost, JobStore
from fhir_server.bulk.turn import SLICE_S, Turn
from fhir_server.errors import FhirError
from fhir_server.repository import Repository

log = logging.getLogger(__name__)

PAUSE_S = 1.0
SWEEP_EVERY_S = 60.0
RETRY_AFTER = timedelta(seconds=10)

Runner = Callable[[Repository, JobStore, Files, Job, Turn], None]
RUNNERS: Mapping[str, Runner] = {"export": run_export, "import": run_import}


class BulkWorker:
    """Any number of these may run; each job is one worker's at a time."""

    def __init__(self, repository: Repository, jobs: JobStore, files: Files, slice_s: float = SLICE_S) -> None:
        self._repository = repository
        self._jobs = jobs
        self._files = files
        self._slice_s = slice_s

    def run(self, stop: threading.Event) -> None:
        """Do jobs until `stop` is set; survives outages of MongoDB."""
        swept = float("-inf")
        while not stop.is_set():
            try:
                if time.monotonic() - swept > SWEEP_EVERY_S:
                    self.sweep()
                    swept = time.monotonic()
                if not self.run_next(stop):
                    stop.wait(PAUSE_S)
            except PyMongoError as error:
                log.warning("bulk jobs wait for MongoDB: %s", type(error).__name__)
                stop.wait(PAUSE_S)

    def run_next(self, stop: threading.Event) -> bool:
        """Give the next job its turn; False when there is none to do."""
        job = self._jobs.claim()
        if job is None:
            return False
        try:
            if job.attempts > ATTEMPTS:
                raise FhirError(f"this job was tried {ATTEMPTS} times and did not get on")
            RUNNERS[job.kind](self._repository, self._jobs, self._files, job, Turn(stop, self._slice_s))
        except JobLost:
            self._leave(job)
        except FhirError as error:
            self._fail(job, error)
        except PyMongoError:
            raise  # an outage: its lease runs out, and it goes on from what was noted
        except Exception as error:
            # Class and lines only: an error's text may carry patient data.
            lines = "".join(traceback.format_tb(error.__traceback__))
            log.error("bulk job %s: %s\n%s", job.id, type(error).__name__, lines)
            self._again(job)
        return True

    def sweep(self) -> None:
        """Remove jobs whose time is over, and the folders of jobs that are gone."""
        self._jobs.delete_expired()
        # Folders first: a job is there before its folder is.
        ids = self._files.job_ids()
        for id in set(ids) - self._jobs.known(ids):
            self._files.delete(id)

    def _fail(self, job: Job, error: FhirError) -> None:
        failure = {"status": error.status, "outcome": error.outcome()}
        try:
            self._jobs.finish(replace(job, files=(), failure=failure, progress="failed"), FAILED)
            self._files.delete(job.id)
        except JobLost:
            self._leave(job)

    def _again(self, job: Job) -> None:
        try:
            self._jobs.release(job, RETRY_AFTER)
        except JobLost:
            self._leave(job)

    def _leave(self, job: Job) -> None:
        """The job is not this worker's any more. When it was cancelled, what was written meanwhile goes as well."""
        if not self._jobs.known([job.id]):
            self._files.delete(job.id)
