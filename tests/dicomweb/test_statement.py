"""The DICOM conformance statement says what the code does, and names a test or a reason for each capability."""

import csv

import pytest

from dicomweb import failures
from dicomweb.failures import StoreFailure
from dicomweb.statement import FILE, REASONS, TABLE, statement
from tests.conformance.requirements import exists

with TABLE.open(newline="") as file:
    ROWS = list(csv.DictReader(file))


def test_the_page_is_what_the_code_says() -> None:
    assert FILE.read_text() == statement(), "python -m dicomweb.statement writes it anew"


@pytest.mark.parametrize("row", ROWS, ids=[row["capability"] for row in ROWS])
def test_a_capability_has_a_test_or_a_reason(row: dict[str, str]) -> None:
    assert row["support"] in ("yes", "partly", "no")
    if row["support"] == "no":
        assert row["remark"]
        assert not row["test"]
    else:
        assert exists(row["test"]), row["test"]
        assert row["remark"] or row["support"] == "yes"


def test_every_failure_reason_is_explained() -> None:
    codes = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, int)}
    assert codes - {failures.COERCED} == set(REASONS)
    assert StoreFailure(0x0110, "x").reason in REASONS
