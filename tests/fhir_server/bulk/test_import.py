"""NDJSON in: `$import`."""

import gzip
import json
import threading
from datetime import timedelta

import pytest
from flask import Flask

from fhir_server.access import Access, Scope
from fhir_server.bulk import importing, lines
from fhir_server.bulk.jobs import LEASE
from fhir_server.bulk.routes import IMPORT_COUNTS
from fhir_server.repository import Repository
from tests.fhir_server.bulk.conftest import MAX_UPLOAD, Bulk
from tests.fhir_server.bulk.test_export import a_patient, an_observation
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import assert_outcome


def counts(manifest: dict) -> tuple[int, int]:
    """(stored, refused)"""
    said = manifest["extension"][IMPORT_COUNTS]
    return said["stored"], said["refused"]


def stored(repository: Repository, resource_type: str) -> set[str]:
    return {version.id for version in repository.search(PRACTICE, resource_type, "_count=1000").matches}


class TestUpload:
    def test_each_line_is_stored_under_its_id(self, bulk: Bulk, repository: Repository) -> None:
        manifest = bulk.import_(a_patient("a"), a_patient("b"))
        assert counts(manifest) == (2, 0)
        assert (manifest["output"], manifest["error"]) == ([], [])
        assert manifest["request"] == f"{BASE}/$import"
        assert stored(repository, "Patient") == {"a", "b"}

    def test_it_may_be_gzipped(self, bulk: Bulk, repository: Repository) -> None:
        first, second = (json.dumps(a_patient(id)).encode() + b"\n" for id in ("a", "b"))
        answer = bulk.send(gzip.compress(first) + gzip.compress(second), Content_Encoding="gzip")
        assert answer.status_code == 202
        bulk.work()
        assert stored(repository, "Patient") == {"a", "b"}

    def test_it_may_be_a_parameters(self, bulk: Bulk, repository: Repository) -> None:
        entries = [{"name": "resource", "resource": a_patient(id)} for id in ("a", "b")]
        body = json.dumps({"resourceType": "Parameters", "parameter": entries}).encode()
        assert bulk.send(body, "application/fhir+json").status_code == 202
        bulk.work()
        assert stored(repository, "Patient") == {"a", "b"}

    def test_it_fetches_nothing_from_elsewhere(self, bulk: Bulk) -> None:
        entry = {"name": "input", "part": [{"name": "url", "valueUrl": "http://127.0.0.1/Patient.ndjson"}]}
        body = json.dumps({"resourceType": "Parameters", "parameter": [entry]}).encode()
        answer = bulk.send(body, "application/fhir+json")
        assert_outcome(answer, 400, "not-supported", "Parameters.parameter[0]")

    @pytest.mark.parametrize(
        ("body", "headers", "status", "code"),
        [
            (b"", {}, 400, "invalid"),
            (b"{}", {"Content_Encoding": "br"}, 415, "not-supported"),
            (b"no gzip", {"Content_Encoding": "gzip"}, 400, "invalid"),
            (gzip.compress(b"{}")[:-9], {"Content_Encoding": "gzip"}, 400, "invalid"),
            (gzip.compress(b"\n" * (MAX_UPLOAD + 1)), {"Content_Encoding": "gzip"}, 413, "too-long"),
            (b"\n" * (MAX_UPLOAD + 1), {}, 413, "too-long"),
            (b"{}", {"Prefer": "return=minimal"}, 400, "invalid"),
        ],
        ids=["nothing", "brotli", "not gzip", "cut gzip", "a bomb", "too much", "not asynchronous"],
    )
    def test_what_cannot_be_taken_is_refused_and_leaves_nothing(
        self, bulk: Bulk, body: bytes, headers: dict[str, str], status: int, code: str
    ) -> None:
        assert_outcome(bulk.send(body, **headers), status, code)
        assert bulk.jobs.count_waiting(PRACTICE.subject) == 0
        assert bulk.files.job_ids() == []

    def test_other_content_is_refused(self, bulk: Bulk) -> None:
        assert_outcome(bulk.send(b"a,b", "text/csv"), 415, "not-supported")

    def test_it_is_for_systems_of_the_practice(self, bulk: Bulk, app: Flask) -> None:
        app.config["ACCESS"] = an_office("o1")
        assert_outcome(bulk.send(b"{}"), 403, "forbidden")
        app.config["ACCESS"] = Access("client:reader", (Scope("system", "*", "rs"),), None)
        assert_outcome(bulk.send(b"{}"), 403, "forbidden")


class TestLines:
    def test_a_bad_line_spoils_nothing_and_is_named(self, bulk: Bulk, repository: Repository) -> None:
        good = [json.dumps(a_patient(id)).encode() for id in ("a", "b", "c")]
        bad = [
            b"{",
            b"[]",
            b'{"resourceType":"Patient","id":"x","gender":5}',
            b'{"resourceType":["Patient"],"id":"y"}',
        ]
        answer = bulk.send(b"\n".join([good[0], bad[0], b"", good[1], *bad[1:], good[2]]))
        bulk.work()
        manifest = bulk.manifest(answer.headers["Content-Location"].removeprefix(BASE.removesuffix("/fhir")))
        assert counts(manifest) == (3, 4)
        assert stored(repository, "Patient") == {"a", "b", "c"}
        issues = [outcome["issue"][0] for outcome in bulk.lines(manifest, "error")]
        assert [issue["diagnostics"].partition(":")[0] for issue in issues] == [
            "line 2",
            "line 5",
            "line 6",
            "line 7",
        ]
        assert issues[2]["expression"] == ["Patient.gender"]

    def test_scopes_hold_for_each_line(self, bulk: Bulk, app: Flask, repository: Repository) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Patient", "cruds"),), None)
        manifest = bulk.import_(a_patient("a"), {"resourceType": "Organization", "id": "o", "name": "O"})
        assert counts(manifest) == (1, 1)
        assert stored(repository, "Organization") == set()

    def test_repeating_it_changes_nothing(self, bulk: Bulk, repository: Repository) -> None:
        nameless = {"resourceType": "Patient", "gender": "other"}
        for _ in range(2):
            assert counts(bulk.import_(a_patient("a"), nameless)) == (2, 0)
        assert len(stored(repository, "Patient")) == 2
        for version in repository.search(PRACTICE, "Patient", "").matches:
            assert version.version == 1

    def test_the_last_line_of_an_id_wins(self, bulk: Bulk, repository: Repository) -> None:
        bulk.import_(a_patient("a"), a_patient("a", gender="female"), a_patient("a", gender="other"))
        assert repository.read(PRACTICE, "Patient", "a").resource()["gender"] == "other"

    def test_lines_may_come_before_what_they_refer_to(
        self, bulk: Bulk, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fhir_server.bulk.importing.BEGINNING", {**_beginning(), "size": 2})
        observations = [an_observation(f"o{number}", f"p{number}") for number in range(5)]
        manifest = bulk.import_(*observations, *(a_patient(f"p{number}") for number in range(4)))
        assert counts(manifest) == (8, 1)
        (outcome,) = bulk.lines(manifest, "error")
        assert outcome["issue"][0]["code"] == "not-found"
        assert outcome["issue"][0]["expression"] == ["Observation.subject"]
        assert outcome["issue"][0]["diagnostics"].startswith("line 5: ")

    def test_lines_may_wait_for_one_another(
        self, bulk: Bulk, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fhir_server.bulk.importing.BEGINNING", {**_beginning(), "size": 2})
        ring = [a_patient(f"p{n}", link=[_link(f"p{(n + 1) % 7}")]) for n in range(7)]
        assert counts(bulk.import_(*ring)) == (7, 0)
        assert len(stored(repository, "Patient")) == 7

    def test_a_line_without_end_takes_no_memory(self, bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
        manifest = bulk.import_(a_patient("a"), a_patient("b", name=[{"text": "x" * 5000}]), a_patient("c"))
        assert counts(manifest) == (2, 1)
        assert "line 2" in bulk.lines(manifest, "error")[0]["issue"][0]["diagnostics"]


class TestJob:
    def test_the_upload_is_gone_when_it_is_done(self, bulk: Bulk) -> None:
        answer = bulk.send(b"{\n" + json.dumps(an_observation("o", "nobody")).encode())
        assert answer.status_code == 202
        (folder,) = bulk.folder.iterdir()
        status = answer.headers["Content-Location"].removeprefix(BASE.removesuffix("/fhir"))
        assert_outcome(bulk.client.get(f"{status}/upload"), 404, "not-found")
        bulk.work()
        assert [file.name for file in folder.iterdir()] == ["error.OperationOutcome.1.ndjson"]

    def test_a_crash_loses_and_doubles_nothing(
        self, bulk: Bulk, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker dies after every commit in turn, before it could note it."""
        monkeypatch.setattr("fhir_server.bulk.importing.BEGINNING", {**_beginning(), "size": 3})
        monkeypatch.setattr("fhir_server.bulk.turn.Turn.is_due", lambda turn: True)
        monkeypatch.setattr("fhir_server.bulk.worker.ATTEMPTS", 1000)
        sent = [an_observation(f"o{n}", f"p{n}") for n in range(7)] + [{"resourceType": "Patient", "id": "?"}]
        sent += [a_patient(f"p{n}") for n in range(7)]
        answer = bulk.send(b"\n".join(json.dumps(one).encode() for one in sent))
        status = answer.headers["Content-Location"].removeprefix(BASE.removesuffix("/fhir"))
        save, saves = bulk.jobs.save, 0

        class Killed(BaseException):
            pass

        def die_or_save(job: object) -> None:
            nonlocal saves
            saves += 1
            if saves % 2:
                raise Killed
            save(job)  # type: ignore[arg-type]

        monkeypatch.setattr(bulk.jobs, "save", die_or_save)
        while bulk.client.get(status).status_code == 202:
            bulk.moved += LEASE + timedelta(seconds=1)
            try:
                bulk.worker().run_next(threading.Event())
            except Killed:
                continue
        manifest = bulk.manifest(status)
        assert counts(manifest) == (14, 1)
        assert len(bulk.lines(manifest, "error")) == 1
        assert stored(repository, "Observation") == {f"o{n}" for n in range(7)}
        assert {version.version for version in repository.search(PRACTICE, "Patient", "").matches} == {1}

    def test_what_was_exported_can_be_imported(self, bulk: Bulk, repository: Repository) -> None:
        repository.update(PRACTICE, a_patient("a"))
        repository.update(PRACTICE, an_observation("o", "a"))
        found = bulk.lines(bulk.export())
        repository.delete(PRACTICE, "Observation", "o")
        repository.delete(PRACTICE, "Patient", "a")
        assert counts(bulk.import_(*found)) == (2, 0)
        assert repository.read(PRACTICE, "Observation", "o").version == 3

    def test_an_upload_that_never_ended_is_cleared_away(self, bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
        class Killed(BaseException):
            pass

        def die(*_arguments: object) -> None:
            raise Killed

        monkeypatch.setattr(bulk.jobs, "received", die)
        monkeypatch.setattr(bulk.jobs, "delete", lambda _id: None)
        monkeypatch.setattr(bulk.files, "delete", lambda _id: None)
        with pytest.raises(Killed):
            bulk.send(b"{}")
        monkeypatch.undo()
        bulk.work()
        assert bulk.files.job_ids() != []
        bulk.moved = timedelta(hours=25)
        bulk.worker().sweep()
        assert bulk.files.job_ids() == []
        assert bulk.jobs.count_waiting(PRACTICE.subject) == 0


def _beginning() -> dict:
    return dict(importing.BEGINNING)


def _link(id: str) -> dict:
    return {"other": {"reference": f"Patient/{id}"}, "type": "seealso"}
