"""From lines on disk to a chain in the store: nothing that was answered is lost, whatever is killed, and no change is
unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

from fhir_server.audit import spool
from fhir_server.audit.check import check
from fhir_server.audit.event import Actor, BadLine, Datum, Event, from_line, to_line
from fhir_server.audit.service import Audit, create_audit
from fhir_server.audit.spool import Spool
from fhir_server.errors import Overtaken
from fhir_server.repository import Repository
from fhir_server.stream import pipeline

READ = Event("read", Actor("user:nina", "app", roles=("front-desk",)), data=(Datum("Patient/1", ("Patient/1",)),))


def events(audit: Audit) -> int:
    return audit.store.count()


class TestLine:
    def test_round_trip(self) -> None:
        event = Event("search", READ.actor, "4", READ.data, ("Patient/2",), "q", "d", "w", {"a": [1]}, "r", "x")
        assert from_line(to_line(event)) == event

    @pytest.mark.parametrize(
        "line", [to_line(READ)[:-9], to_line(READ).replace(b"nina", b"otto"), b"x", b"00000000 "]
    )
    def test_what_is_not_as_it_was_written_is_known(self, line: bytes) -> None:
        with pytest.raises(BadLine):
            from_line(line)


class TestSpool:
    def test_a_file_is_removed_only_when_its_writer_is_gone(self, audit: Audit, folder: Path) -> None:
        audit.trail.record(READ)
        assert audit.ingester.catch_up() == 1
        assert len(list(spool.spools(folder))) == 1
        audit.trail.close()
        assert audit.ingester.catch_up() == 0
        assert list(spool.spools(folder)) == []
        assert audit.ingester.behind() == 0

    def test_goes_on_in_another_file_once_one_is_long(self, audit: Audit, folder: Path) -> None:
        writer = Spool(folder, rotate_bytes=1000)
        for _ in range(30):
            writer.append(to_line(Event("read", READ.actor)))
        assert len(list(spool.spools(folder))) > 3
        audit.ingester.catch_up()
        assert (events(audit), len(list(spool.spools(folder)))) == (30, 1)

    def test_is_the_owner_s_alone(self, audit: Audit, folder: Path) -> None:
        audit.trail.record(READ)
        (path,) = spool.spools(folder)
        assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)

    def test_what_a_killed_process_wrote_is_kept_and_its_torn_end_told(self, audit: Audit, folder: Path) -> None:
        program = """
import os, signal, sys
from pathlib import Path
from fhir_server.audit.event import Event, to_line
from fhir_server.audit.spool import Spool
writer = Spool(Path(sys.argv[1]))
for _ in range(100):
    writer.append(to_line(Event("read")))
writer.append(to_line(Event("read"))[:20])
os.kill(os.getpid(), signal.SIGKILL)
"""
        subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
        audit.ingester.catch_up()
        assert events(audit) == 100
        assert list(spool.spools(folder)) == []
        report = check(audit.store)
        assert (report.faults, len(report.notes)) == ([], 1)
        assert "20 bytes made no AuditEvent" in report.notes[0].text

    def test_a_line_that_was_changed_is_told_and_kept(self, audit: Audit, folder: Path) -> None:
        audit.trail.record(READ, Event("read"))
        (path,) = spool.spools(folder)
        path.write_bytes(path.read_bytes().replace(b"nina", b"otto"))
        audit.ingester.catch_up()
        assert events(audit) == 1
        (fault,) = check(audit.store).faults
        assert "made no AuditEvent" in fault.text
        (lost,) = audit.store.lost()
        assert b"otto" in lost.text


class TestStoring:
    def test_begins_where_it_stopped_and_stores_nothing_twice(
        self, audit: Audit, folder: Path, repository: Repository
    ) -> None:
        audit.trail.record(READ, Event("read"))
        audit.ingester.catch_up()
        audit.trail.record(Event("read"))
        create_audit(repository, folder).ingester.catch_up()
        assert events(audit) == 3
        assert check(audit.store).faults == []

    def test_all_of_a_batch_or_none(self, audit: Audit) -> None:
        event = {"resourceType": "AuditEvent", "id": "one"}
        assert audit.store.append("a.lines", 0, 100, [event]) == 1
        with pytest.raises(Overtaken):
            audit.store.append("a.lines", 0, 100, [event | {"id": "two"}])
        assert (events(audit), audit.store.position("a.lines")) == (1, 100)

    def test_events_of_one_id_are_one(self, audit: Audit) -> None:
        audit.trail.record(READ, READ)
        audit.trail.record(READ)
        audit.ingester.catch_up()
        assert events(audit) == 1

    def test_one_worker_a_folder_at_a_time(self, audit: Audit, repository: Repository, folder: Path) -> None:
        other = create_audit(repository, folder).ingester
        audit.trail.record(READ)
        with audit.ingester._alone() as alone:
            assert alone
            assert other.catch_up() == 0
        assert other.catch_up() == 1

    def test_what_is_large_is_told_in_parts(self, audit: Audit) -> None:
        data = tuple(Datum(f"Observation/{n}/_history/1", ("Patient/1",)) for n in range(1200))
        audit.trail.record(Event("transaction", data=data))
        audit.ingester.catch_up()
        assert events(audit) == 3

    def test_nothing_follows_from_them(self, audit: Audit, repository: Repository) -> None:
        with repository.store.database.watch(pipeline(), max_await_time_ms=100) as stream:
            audit.trail.record(READ)
            audit.ingester.catch_up()
            assert stream.try_next() is None
        assert list(repository.store.since(0)) == []


class TestChain:
    @pytest.fixture
    def whole(self, audit: Audit) -> Audit:
        for _ in range(3):
            audit.trail.record(Event("read"), Event("read"))
            audit.ingester.catch_up()
        return audit

    def test_is_whole(self, whole: Audit) -> None:
        report = check(whole.store)
        assert (report.links, report.events, report.faults) == (3, 6, [])
        assert check(whole.store, report.head).faults == []

    def test_a_missing_event(self, whole: Audit, repository: Repository) -> None:
        repository.store.database["versions_AuditEvent"].delete_one({})
        (fault,) = check(whole.store).faults
        assert "1 of 2 AuditEvents are missing" in fault.text

    def test_a_changed_event(self, whole: Audit, repository: Repository) -> None:
        repository.store.database["versions_AuditEvent"].update_one({}, {"$set": {"body": b"{}"}})
        (fault,) = check(whole.store).faults
        assert "are not what was stored" in fault.text

    def test_an_event_more(self, whole: Audit, repository: Repository) -> None:
        repository.store.database["versions_AuditEvent"].insert_one({"_id": 1, "id": "x", "v": 1})
        (fault,) = check(whole.store).faults
        assert "1 versions are in no link" in fault.text

    def test_a_missing_link(self, whole: Audit, repository: Repository) -> None:
        repository.store.database["audit_links"].delete_one({"_id": 2})
        assert any("1 links before it are missing" in fault.text for fault in check(whole.store).faults)

    def test_a_chain_that_was_cut_is_known_by_an_end_that_was_noted(
        self, whole: Audit, repository: Repository
    ) -> None:
        head, database = check(whole.store).head, repository.store.database
        last = database["audit_links"].find_one_and_delete({"_id": 3})
        database["versions_AuditEvent"].delete_many({"_id": {"$in": last["numbers"]}})
        assert check(whole.store).faults == []
        (fault,) = check(whole.store, head).faults
        assert "was noted as its end" in fault.text
