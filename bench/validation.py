"""What validation costs: `python -m bench.validation [FOLDER OF JSON FILES]`; ours, and fhir.resources beside it.

Without a folder: the patients of the demonstration and our own definitions.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from fhir.resources.R4B import get_fhir_model_class

import conformance
from fhir_server import fhir_json
from fhir_server.validation import faults

REPEATS = 20


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
