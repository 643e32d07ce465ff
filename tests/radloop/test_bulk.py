"""Bulk data of a whole server, over HTTP with tokens, done by its worker."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from radloop.demo.stage import wait_for
from tests.server import Server, running

PATIENTS = 40_000


class Client:
    """A bulk data client as the guide describes it."""

    def __init__(self, server: Server, token: Callable[[], str]) -> None:
        self._fhir = server.settings.fhir_base
        self._token = token
        self._http = requests.Session()

    def call(self, method: str, address: str, **options: Any) -> requests.Response:
        """Sent again while the server is starting anew."""
        url = address if address.startswith("http") else f"{self._fhir}/{address}"
        headers = {"Authorization": f"Bearer {self._token()}", **options.pop("headers", {})}
        while True:
            try:
                answer = self._http.request(method, url, headers=headers, timeout=60, **options)
            except requests.ConnectionError:
                time.sleep(0.2)
                continue
            if answer.status_code != 503:
                return answer
            time.sleep(0.2)

    def kick_off(self, method: str, address: str, **options: Any) -> str:
        headers = {"Prefer": "respond-async", **options.pop("headers", {})}
        answer = self.call(method, address, headers=headers, **options)
        assert answer.status_code == 202, answer.text
        return answer.headers["Content-Location"]

    def manifest(self, status: str, timeout_s: float = 60) -> dict:
        def look() -> dict | None:
            answer = self.call("GET", status)
            assert answer.status_code in (200, 202), answer.text
            return answer.json() if answer.status_code == 200 else None

        return wait_for("the bulk job", look, timeout_s)

    def lines(self, manifest: dict) -> list[dict]:
        answers = [self.call("GET", file["url"]) for file in manifest["output"]]
        return [json.loads(line) for answer in answers for line in answer.content.splitlines()]


def client_of(server: Server, user: str, scope: str = "user/*.cruds") -> Client:
    return Client(server, server.user(user, scope).token)


def test_export_and_import(server: Server) -> None:
    staff = client_of(server, "frontdesk")
    patient = {"resourceType": "Patient", "id": "bulk-1", "active": True}
    status = staff.kick_off(
        "POST",
        "$import",
        data=json.dumps(patient) + "\n{broken\n",
        headers={"Content-Type": "application/fhir+ndjson"},
    )
    manifest = staff.manifest(status)
    assert list(manifest["extension"].values()) == [{"stored": 1, "refused": 1}]
    status = staff.kick_off("GET", "$export?_type=Patient,Organization")
    found = staff.lines(staff.manifest(status))
    assert "bulk-1" in {one["id"] for one in found}
    assert {one["resourceType"] for one in found} == {"Patient", "Organization"}
    office = client_of(server, "lakeside")
    mine = office.lines(office.manifest(office.kick_off("GET", "$export")))
    assert "bulk-1" not in {one["id"] for one in mine}
    assert office.call("GET", status).status_code == 404
    assert staff.call("DELETE", status).status_code == 202
    assert staff.call("GET", status).status_code == 404


def test_the_capability_statement_tells_of_it(server: Server) -> None:
    (rest,) = requests.get(f"{server.settings.fhir_base}/metadata", timeout=10).json()["rest"]
    assert {"export", "import"} <= {operation["name"] for operation in rest["operation"]}


@pytest.mark.slow
def test_kill_9_of_the_worker_loses_and_doubles_no_line(tmp_path: Path) -> None:
    """The worker is killed again and again in the middle of an export of many patients."""
    file = tmp_path / "patients.ndjson"
    with file.open("w") as out:
        for number in range(PATIENTS):
            out.write(json.dumps({"resourceType": "Patient", "id": f"p{number}", "active": True}) + "\n")
    with running(tmp_path) as server:
        loaded = server.command("load", str(file))
        assert loaded.returncode == 0, loaded.stdout
        staff = client_of(server, "frontdesk")
        before = {one["id"] for one in staff.lines(staff.manifest(staff.kick_off("GET", "$export?_type=Patient")))}
        assert len(before) >= PATIENTS
        status = staff.kick_off("GET", "$export?_type=Patient")
        deaths = 0
        while deaths < 4 and staff.call("GET", status).status_code == 202:
            began = list((server.settings.data_path / "bulk" / status.rpartition("/")[2]).glob("*.ndjson"))
            if began and began[0].stat().st_size > deaths * 300_000:
                server.kill("worker")
                deaths += 1
            time.sleep(0.02)
        found = [one["id"] for one in staff.lines(staff.manifest(status, timeout_s=240))]
        assert deaths >= 1
        assert len(found) == len(set(found))
        assert set(found) == before
