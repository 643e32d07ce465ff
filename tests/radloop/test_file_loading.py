"""`radloop load FILE...`"""

import gzip
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pymongo.database import Database

from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from radloop.file_loading import Fault, load_files
from radloop.parts import SORTED
from radloop.progress import Progress

ALL = Access.system("test")
BASE = "http://127.0.0.1:8080/fhir"


@pytest.fixture
def repository(database: Database) -> Repository:
    return Repository(VersionStore(database, SORTED), BASE, lambda: datetime.now(UTC))


class Bars:
    """Keeps what progress was shown, as (label, done, of all)."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []

    def __call__(self, label: str) -> Progress:
        return lambda done, total: self.shown.append((label, done, total))


@pytest.fixture
def load(repository: Repository) -> Callable[..., tuple[int, list[Fault]]]:
    def load(*files: Path) -> tuple[int, list[Fault]]:
        faults: list[Fault] = []
        return load_files(repository, files, Bars(), faults.append), faults

    return load


Load = Callable[..., tuple[int, list[Fault]]]


def a_patient(id: str, **more: object) -> dict:
    return {"resourceType": "Patient", "id": id, **more}


def written(path: Path, *resources: object) -> Path:
    text = b"\n".join(json.dumps(resource).encode() for resource in resources) + b"\n"
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def stored(repository: Repository, resource_type: str) -> dict[str, int]:
    """id -> version"""
    matches = repository.search(ALL, resource_type, "_count=1000").matches
    return {version.id: version.version for version in matches}


@pytest.mark.parametrize("name", ["p.ndjson", "p.jsonl", "p.ndjson.gz"])
def test_lines_of_ndjson(load: Load, repository: Repository, tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, *(a_patient(f"p{number}") for number in range(600)))
    assert load(file) == (600, [])
    assert load(file) == (600, [])
    assert stored(repository, "Patient") == {f"p{number}": 1 for number in range(600)}


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_a_file_of_one_resource(load: Load, repository: Repository, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    text = json.dumps(a_patient("a"), indent=2).encode()
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert load(file) == (1, [])
    assert stored(repository, "Patient") == {"a": 1}


def test_bundles_stand_for_what_is_in_them(load: Load, repository: Repository, tmp_path: Path) -> None:
    def entry(resource: dict) -> dict:
        request = {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
        return {"resource": resource, "request": request}

    kinds = ("transaction", "batch", "collection")
    bundles = [{"resourceType": "Bundle", "type": kind, "entry": [entry(a_patient(kind))]} for kind in kinds]
    message = {"resourceType": "Bundle", "id": "m", "type": "history"}
    files = [written(tmp_path / f"{bundle['type']}.json", bundle) for bundle in [*bundles, message]]
    assert load(*files) == (4, [])
    assert stored(repository, "Patient").keys() == set(kinds)
    assert stored(repository, "Bundle") == {"m": 1}


def test_refused_entries_of_a_batch_are_told(load: Load, tmp_path: Path) -> None:
    entries = [
        {"resource": a_patient(id, gender=gender), "request": {"method": "PUT", "url": f"Patient/{id}"}}
        for id, gender in (("a", "male"), ("b", 5))
    ]
    file = written(tmp_path / "b.json", {"resourceType": "Bundle", "type": "batch", "entry": entries})
    stored, (fault,) = load(file)
    assert stored == 1
    assert fault.place == f"{file}:1"
    assert "gender" in fault.reason


def test_files_may_come_in_any_order(load: Load, repository: Repository, tmp_path: Path) -> None:
    """Observations before patients, a transaction before those that its conditional reference means."""
    observations = [
        {
            "resourceType": "Observation",
            "id": f"o{number}",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient/p{number}"},
        }
        for number in range(300)
    ]
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient?identifier=urn:mrn|p7"},
    }
    entry = {"resource": encounter, "request": {"method": "POST", "url": "Encounter"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    patients = [a_patient(f"p{n}", identifier=[{"system": "urn:mrn", "value": f"p{n}"}]) for n in range(299)]
    count, faults = load(
        written(tmp_path / "a.ndjson.gz", *observations),
        written(tmp_path / "b.json", bundle),
        written(tmp_path / "c.ndjson", *patients),
    )
    assert count == 299 + 1 + 299
    assert [fault.place for fault in faults] == [f"{tmp_path / 'a.ndjson.gz'}:300"]
    assert "Observation.subject" in faults[0].reason


def test_one_bad_line_spoils_nothing(load: Load, repository: Repository, tmp_path: Path) -> None:
    file = written(tmp_path / "p.ndjson", a_patient("a"), a_patient("b", gender=5), "text", a_patient("c"))
    count, faults = load(file)
    assert count == 2
    assert sorted(fault.place for fault in faults) == [f"{file}:2", f"{file}:3"]
    assert stored(repository, "Patient").keys() == {"a", "c"}


def test_progress_goes_by_bytes_and_ends_once(repository: Repository, tmp_path: Path) -> None:
    bars = Bars()
    files = [written(tmp_path / f"{n}.ndjson", *(a_patient(f"p{n}-{k}") for k in range(600))) for n in range(2)]
    load_files(repository, files, bars, lambda fault: pytest.fail(fault.reason))
    total = sum(file.stat().st_size for file in files)
    done = [done for label, done, of in bars.shown if of == total]
    assert done == sorted(done)
    assert done.count(total) == 1
    assert done[-1] == total


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"{}", mtime=0)[:-6]], ids=["none", "cut off"])
def test_a_broken_gzip_file_is_told(load: Load, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "p.ndjson.gz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.ndjson\.gz"):
        load(file)


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


@pytest.mark.shared_data
class TestCorpora:
    def test_synthea_bundles_load_as_they_are(
        self, load: Load, shared_data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The patients' bundles refer to nothing but themselves; prints how fast it went."""
        folder = shared_data / "fhir" / "synthea"
        files = sorted([*folder.glob("*.json.gz"), *folder.glob("bundles/*.json.gz")])
        assert len(files) == 50
        began = time.monotonic()
        count, faults = load(*files)
        took = time.monotonic() - began
        assert faults == []
        assert count == sum(len(json.loads(gzip.decompress(file.read_bytes()))["entry"]) for file in files)
        tell(capsys, f"{count} resources of Synthea in {took:.1f} s: {count / took:.0f} a second")

    def test_a_bulk_export_loads_in_the_order_of_its_names(
        self, load: Load, shared_data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """AllergyIntolerance before Patient, and so on."""
        files = sorted((shared_data / "fhir" / "bulk-10-patients").glob("*.ndjson.gz"))
        began = time.monotonic()
        count, faults = load(*files)
        took = time.monotonic() - began
        lines = sum(len(gzip.decompress(file.read_bytes()).splitlines()) for file in files)
        assert (count, faults) == (lines, [])
        tell(capsys, f"{count} resources of {lines} in the worst order in {took:.1f} s: {count / took:.0f} a second")
