"""What validation costs: `python -m bench.validation [FOLDER OF JSON FILES]`; ours, and fhir.resources beside it.

Without a folder: the patients of the demonstration and our own definitions. Then the same with a profile: R4's blood
pressure as it is shipped, and as a copy under another name in the store, over a MongoDB of its own.
"""

import copy
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pymongo
from fhir.resources.R4B import get_fhir_model_class

import conformance
from conformance.profiles import shipped_profile
from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.validation import faults
from radloop import clock, mongod

REPEATS = 20
BP = "http://hl7.org/fhir/StructureDefinition/bp"
STORED = "http://example.org/fhir/StructureDefinition/bp"


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    resources = given(Path(folder)) if folder else ours()
    print(f"{'resource type':26}{'n':>4}{'kB':>8}{'first ms':>10}{'ms':>8}{'ms / 4 kB':>11}{'fhir.resources ms':>19}")
    for resource_type, found in sorted(resources.items()):
        first = timed(faults, found[:1], 1)
        size = sum(len(fhir_json.dumps(one)) for one in found) / len(found) / 1024
        took = timed(faults, found, REPEATS)
        other = timed(model_of(resource_type), found, 3)
        print(
            f"{resource_type:26}{len(found):4}{size:8.1f}{first:10.2f}{took:8.3f}{took / size * 4:11.3f}"
            f"{f'{other:.3f}' if other else 'no such type':>19}"
        )
    with tempfile.TemporaryDirectory() as folder_of_mongod:
        port = mongod.free_port()
        process = mongod.start(Path(folder_of_mongod), port, cache_gb=0.25)
        try:
            by_profile(mongod.uri(port))
        finally:
            process.terminate()
            process.wait(timeout=60)


def by_profile(uri: str) -> None:
    """Prints what a blood pressure of about 4 kB costs in all validation, without and with a profile."""
    with pymongo.MongoClient(uri, tz_aware=True) as client:
        repository = Repository(VersionStore(client.bench), "http://127.0.0.1/fhir", clock.real_clock)
        stored = copy.deepcopy(shipped_profile(BP) or {}) | {"url": STORED, "id": "bp"}
        repository.update(Access.system("bench"), stored | {"status": "active", "abstract": False})
        print(f"\n{'blood pressure':26}{'kB':>8}{'first ms':>10}{'best ms':>9}{'median ms':>11}")
        for name, profiles in (("no profile", []), ("shipped profile", [BP]), ("stored profile", [STORED])):
            resource = blood_pressure(profiles)
            first = timed(repository.judge, [resource], 1)
            took = sorted(timed(repository.judge, [resource], 1) or 0 for _ in range(50 * REPEATS))
            size = len(fhir_json.dumps(resource)) / 1024
            print(f"{name:26}{size:8.1f}{first:10.2f}{took[0]:9.3f}{took[len(took) // 2]:11.3f}")


def blood_pressure(profiles: list[str]) -> dict:
    def coded(system: str, code: str) -> dict:
        return {"coding": [{"system": system, "code": code}]}

    def pressure(code: str, value: int) -> dict:
        unit = {"unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
        return {"code": coded("http://loinc.org", code), "valueQuantity": {"value": value, **unit}}

    return {
        "resourceType": "Observation",
        **({"meta": {"profile": profiles}} if profiles else {}),
        "status": "final",
        "category": [coded("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")],
        "code": coded("http://loinc.org", "85354-9"),
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-01-01",
        "note": [{"text": f"{number}: " + "at rest, left arm " * 12} for number in range(14)],
        "component": [pressure("8480-6", 120), pressure("8462-4", 80)],
    }


def ours() -> dict[str, list[dict]]:
    text = (files("radloop") / "data" / "fhir" / "synthea-patients.ndjson").read_bytes()
    return by_type([*map(fhir_json.loads, text.splitlines()), *conformance.conformance_resources()])


def given(folder: Path) -> dict[str, list[dict]]:
    read = [fhir_json.loads(file.read_bytes()) for file in sorted(folder.rglob("*.json"))]
    return by_type([one for one in read if isinstance(one, dict) and "resourceType" in one])


def by_type(resources: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = defaultdict(list)
    for resource in resources:
        found[resource["resourceType"]].append(resource)
    return found


def model_of(resource_type: str) -> Callable[[dict], Any] | None:
    try:
        model = get_fhir_model_class(resource_type)
    except ValueError:
        return None
    return lambda resource: model.model_validate(dict(resource))


def timed(check: Callable[[dict], Any] | None, resources: list[dict], repeats: int) -> float | None:
    """Mean milliseconds for one resource; None when there is nothing to time or it is refused."""
    if check is None:
        return None
    began = time.perf_counter()
    try:
        for _ in range(repeats):
            for resource in resources:
                check(resource)
    except ValueError:
        return None
    return (time.perf_counter() - began) / repeats / len(resources) * 1000


if __name__ == "__main__":
    main()
