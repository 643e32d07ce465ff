"""`radloop reindex` beside a running server."""

import subprocess

from tests.server import Server


def test_all_types_or_some_are_indexed_anew(server: Server) -> None:
    desk = server.user("frontdesk")
    before = desk.get("Slot?_summary=count")["total"]
    for types in ([], ["Slot", "Patient"]):
        done = server.command("reindex", *types)
        assert done.returncode == 0, done.stdout
        assert "all resources are indexed as they should be" in done.stdout
        assert desk.get("Slot?_summary=count")["total"] == before


def test_with_nothing_to_do_it_ends_at_once(server: Server) -> None:
    assert server.command("reindex", "--wait").returncode == 0


def test_what_is_no_type_is_refused(server: Server) -> None:
    done: subprocess.CompletedProcess = server.command("reindex", "Patients")
    assert (done.returncode, done.stdout.strip()) == (1, "radloop: Patients is no resource type")
