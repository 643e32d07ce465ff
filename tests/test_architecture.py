"""Imports go one way (docs/architecture.md), pymongo is known where it should be, and every setting is explained."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from radloop.settings import NOT_SETTINGS, Settings, variable

ROOT = Path(__file__).resolve().parents[1]
LAYERS: dict[str, set[str]] = {
    "conformance": set(),
    "fhir_server": {"conformance"},
    "smart_auth": {"fhir_server", "conformance"},
    "dicomweb": {"fhir_server", "conformance"},
    "subscriptions": {"fhir_server", "conformance"},
    "referral": {"dicomweb", "subscriptions", "smart_auth", "fhir_server", "conformance"},
    "portal": {"referral", "dicomweb", "subscriptions", "smart_auth", "fhir_server", "conformance"},
    "radloop": {"portal", "referral", "dicomweb", "subscriptions", "smart_auth", "fhir_server", "conformance"},
}


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", LAYERS)
def test_packages_import_downwards_only(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        used = {module.partition(".")[0] for module in imports(file)} & LAYERS.keys()
        assert used <= LAYERS[package] | {package}, f"{file.relative_to(ROOT)} imports {used - LAYERS[package]}"


def test_no_package_is_left_out() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench", "docs"}
    assert packages == LAYERS.keys()


def test_nothing_imports_the_tests() -> None:
    for package in LAYERS:
        for file in (ROOT / package).rglob("*.py"):
            assert "tests" not in {module.partition(".")[0] for module in imports(file)}, file


def test_every_setting_has_its_paragraph() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    missing = [field.name for field in fields(Settings) if f"### `{variable(field.name)}`" not in page]
    assert missing == []


def test_every_paragraph_has_its_setting() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    explained = {line.strip("#` ") for line in page.splitlines() if line.startswith("### `RADLOOP_")}
    known = {variable(field.name) for field in fields(Settings)} | NOT_SETTINGS
    assert explained <= known
