"""https://github.com/Vermonster/fhir-kit-client, driven by fhir_kit_client.mjs"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from radloop.demo.oauth import BackendToken
from tests.server import Server

HERE = Path(__file__).parent
STEPS = ["discovery", "instance", "conditions", "search", "bundles", "operations"]


def test_does_all_its_interactions(server: Server, ehr: BackendToken) -> None:
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules" / "fhir-kit-client").is_dir():
        pytest.skip(
            "fhir-kit-client is not there: install Node 20, then `make node` or `npm ci --prefix tests/foreign`"
        )
    done = subprocess.run(
        [node, str(HERE / "fhir_kit_client.mjs")],
        env=os.environ | {"FHIR_BASE": server.settings.fhir_base, "FHIR_TOKEN": ehr()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == STEPS
