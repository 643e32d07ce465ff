"""Bulk jobs in MongoDB: what was asked, how far it is, which files it made. This module alone knows pymongo here."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database

from fhir_server.access import Access, Clause, Scope

KEEP = timedelta(days=1)  # what came of a job, and an upload that never ended
LEASE = timedelta(seconds=20)
RENEW_EVERY_S = 2.0
ATTEMPTS = 5  # at a job whose worker dies or fails again and again without getting on
RECEIVING, OPEN, DONE, FAILED = "receiving", "open", "done", "failed"


class JobLost(Exception):
    """The job was cancelled, or another worker took it over: leave it as it is."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a job. kind: output, deleted, error, or work (nobody's to download); size: bytes that count."""

    kind: str
    type: str
    name: str
    count: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """kind: export or import. begun: the time of the data; request: the address asked; asked: what it asked for.

    position: where to go on, in the terms of the kind. progress: for the one who waits, without patient data.
    failure: HTTP status and OperationOutcome of what made it fail.
    """

    id: str
    kind: str
    request: str
    access: Access
    begun: datetime
    asked: dict
    state: str = OPEN
    position: dict = field(default_factory=dict)
    files: tuple[File, ...] = ()
    progress: str = "waiting"
    failure: dict | None = None
    expires: datetime | None = None
    attempts: int = 0
    runner: str = ""


def new_job(kind: str, request: str, access: Access, begun: datetime, asked: dict, state: str = OPEN) -> Job:
    return Job(uuid.uuid4().hex, kind, request, access, begun, asked, state)


class JobStore:
    """Jobs by id. A worker that takes one has it for LEASE and keeps it by saving or renewing."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._now = now
        self._database = database

    def add(self, job: Job, due: datetime) -> None:
        """due: when a worker may begin."""
        expires = self._now() + KEEP if job.state == RECEIVING else None
        self._jobs().insert_one(_document(replace(job, expires=expires)) | {"until": due})

    def find(self, id: str) -> Job | None:
        document = self._jobs().find_one({"_id": id})
        return _job(document) if document else None

    def count_waiting(self, subject: str) -> int:
        """Jobs of this subject that are not done yet."""
        return self._jobs().count_documents({"access.subject": subject, "state": {"$in": [RECEIVING, OPEN]}})

    def received(self, job: Job, files: tuple[File, ...]) -> None:
        """An upload has come in whole: the job can be done. Raises JobLost."""
        opened = {"state": OPEN, "files": [_file(one) for one in files], "expires": None}
        self._set({"_id": job.id, "state": RECEIVING}, opened)

    def claim(self) -> Job | None:
        """Take the job that has waited longest and is nobody's just now."""
        now = self._now()
        document = self._jobs().find_one_and_update(
            {"state": OPEN, "until": {"$lte": now}},
            {"$set": {"until": now + LEASE, "runner": uuid.uuid4().hex}, "$inc": {"attempts": 1}},
            sort=[("until", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _job(document) if document else None

    def renew(self, job: Job) -> None:
        """Keep the job. Raises JobLost."""
        self._set({"_id": job.id, "runner": job.runner}, {"until": self._now() + LEASE})

    def save(self, job: Job) -> None:
        """Note how far the job is, and keep it. Raises JobLost."""
        reached = {"position": job.position, "files": [_file(one) for one in job.files], "progress": job.progress}
        self._set({"_id": job.id, "runner": job.runner}, reached | {"until": self._now() + LEASE, "attempts": 0})

    def release(self, job: Job, pause: timedelta = timedelta()) -> None:
        """Let another job, or another worker, have its turn. Raises JobLost."""
        self._set({"_id": job.id, "runner": job.runner}, {"runner": "", "until": self._now() + pause})

    def finish(self, job: Job, state: str) -> None:
        """The end: DONE or FAILED. What came of it is kept for a day. Raises JobLost."""
        ended = _document(replace(job, state=state, runner="", expires=self._now() + KEEP))
        self._set({"_id": job.id, "runner": job.runner}, ended)

    def delete(self, id: str) -> None:
        self._jobs().delete_one({"_id": id})

    def delete_expired(self) -> None:
        self._jobs().delete_many({"expires": {"$lte": self._now()}})

    def known(self, ids: list[str]) -> set[str]:
        """Those of the ids that are jobs."""
        return {document["_id"] for document in self._jobs().find({"_id": {"$in": ids}}, {"_id": 1})}

    def _set(self, filter: dict, values: dict) -> None:
        if not self._jobs().update_one(filter, {"$set": values}).matched_count:
            raise JobLost(filter["_id"])

    def _jobs(self) -> Collection:
        # Few at any time, so the index on ids is enough.
        return self._database["bulk_jobs"]


def _document(job: Job) -> dict:
    return {
        "_id": job.id,
        "kind": job.kind,
        "request": job.request,
        "access": _access_document(job.access),
        "begun": job.begun,
        "asked": job.asked,
        "state": job.state,
        "position": job.position,
        "files": [_file(one) for one in job.files],
        "progress": job.progress,
        "failure": job.failure,
        "expires": job.expires,
        "attempts": job.attempts,
        "runner": job.runner,
    }


def _job(document: dict[str, Any]) -> Job:
    values = {name: document[name] for name in document if name not in ("_id", "until")}
    values |= {
        "access": _access(document["access"]),
        "files": tuple(File(**one) for one in document["files"]),
        "begun": document["begun"].astimezone(UTC),  # the driver has a type of its own for UTC
        "expires": document["expires"] and document["expires"].astimezone(UTC),
    }
    return Job(id=document["_id"], **values)


def _file(file: File) -> dict:
    return {"kind": file.kind, "type": file.type, "name": file.name, "count": file.count, "size": file.size}


def _access_document(access: Access) -> dict:
    return {
        "subject": access.subject,
        "scopes": [_scope_list(scope) for scope in access.scopes],
        "audience": _listed(access.audience),
        "client_id": access.client_id,
        "organization": access.organization,
        "fhir_user": access.fhir_user,
        "patient": access.patient,
        "roles": sorted(access.roles),
        "compartment": _listed(access.compartment),
    }


def _access(document: dict[str, Any]) -> Access:
    return Access(
        **document
        | {
            "scopes": tuple(_scope(*scope) for scope in document["scopes"]),
            "audience": _keys(document["audience"]),
            "roles": frozenset(document["roles"]),
            "compartment": _keys(document.get("compartment")),
        }
    )


def _scope_list(scope: Scope) -> list:
    clauses = [[clause.text, sorted(clause.keys)] for clause in scope.clauses]
    return [scope.context, scope.resource_type, scope.letters, clauses]


def _scope(context: str, resource_type: str, letters: str, clauses: Sequence[Sequence[Any]] = ()) -> Scope:
    read = tuple(Clause(text, frozenset(keys)) for text, keys in clauses)
    return Scope(context, resource_type, letters, read)


def _listed(keys: frozenset[str] | None) -> list[str] | None:
    return None if keys is None else sorted(keys)


def _keys(listed: Sequence[str] | None) -> frozenset[str] | None:
    return None if listed is None else frozenset(listed)
