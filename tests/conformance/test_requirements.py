"""The form of conformance/requirements.csv."""

import pytest

from tests.conformance.requirements import Requirement, exists, requirements

PUBLISHERS = (
    "https://hl7.org/fhir/",
    "https://build.fhir.org/ig/argonautproject/smart-imaging/",
    "https://profiles.ihe.net/ITI/",
    "https://dicom.nema.org/medical/dicom/",
)


def test_each_clause_stands_once() -> None:
    ids = [row.id for row in requirements()]
    assert len(ids) >= 100
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("row", requirements(), ids=lambda row: row.id)
def test_a_row_is_a_clause_of_the_specification_and_its_test_is_there(row: Requirement) -> None:
    pages = (
        "http",
        "search",
        "bundle",
        "operations",
        "async",
        "bulk",
        "smart",
        "subscriptions",
        "audit",
        "balp",
        "imaging",
        "dicom",
    )
    assert row.id.partition("-")[0] in pages
    assert row.link.startswith(PUBLISHERS)
    assert row.level in ("SHALL", "SHALL NOT", "SHOULD", "rule")
    assert row.test == "" or exists(row.test), row.test


def test_a_test_that_is_not_there_is_found_out() -> None:
    here = "tests/conformance/test_requirements.py"
    assert exists(f"{here}::test_each_clause_stands_once")
    assert not exists(f"{here}::test_of_nothing")
    assert not exists(f"{here}::exists")
    assert not exists("tests/conformance/nothing.py::test_each_clause_stands_once")
