"""The audit trail of a whole server: what was answered is in it, whatever process is killed."""

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from radloop.demo.stage import Caller, wait_for
from tests.server import running


@pytest.mark.slow
def test_what_was_answered_is_audited_though_processes_are_killed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        caller = server.user("frontdesk", "user/*.rs")
        answered = []
        for number in range(60):
            if number in (20, 40):
                server.kill("web" if number == 20 else "worker")
            request = urllib.request.Request(
                f"{server.settings.fhir_base}/Patient?_count=1",
                headers={"Authorization": f"Bearer {caller.token()}", "X-Request-Id": f"audit-{number:02}"},
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answered.append(answer.headers["X-Request-Id"])
            except (urllib.error.URLError, OSError):
                wait_for("the web process", lambda: server.pids("web") or None)
        assert len(answered) >= 40
        report = server.command("check", "audit")
        assert report.returncode == 0, report.stdout
        assert re.search(r"the audit trail is whole", report.stdout), report.stdout
        auditor = Caller(
            server.settings.fhir_base,
            lambda: server.command("token", "--user", "admin", "--scope", "user/AuditEvent.rs").stdout.strip(),
        )

        def ids() -> set[str]:
            found = auditor.get("AuditEvent?subtype=search-type&_count=1000")
            entities = [one for entry in found["entry"] for one in entry["resource"]["entity"]]
            return {one["what"]["identifier"]["value"] for one in entities if one["type"]["code"] == "XrequestId"}

        wait_for("all that was answered", lambda: set(answered) <= ids() or None)
