"""What is a hostile file's fault, and what is ours."""

import pytest

from dicomweb import part10
from dicomweb.failures import StoreFailure


def ours() -> None:
    """As a mistake in a line of dicomweb would be."""
    scope = {"__name__": "dicomweb.somewhere"}
    exec("def mistake(): return None.value", scope)
    scope["mistake"]()  # type: ignore[operator]


def test_a_mistake_of_ours_is_not_taken_for_a_bad_file() -> None:
    with pytest.raises(AttributeError), part10.refusing():
        ours()
    with pytest.raises(NameError), part10.refusing():
        undefined  # type: ignore[name-defined]  # noqa: B018, F821
    with pytest.raises(AssertionError), part10.refusing():
        raise AssertionError


@pytest.mark.parametrize("error", [ValueError, KeyError, RecursionError, OverflowError, EOFError, OSError])
def test_what_bytes_can_cause_is_a_reason_without_their_text(error: type[Exception]) -> None:
    with pytest.raises(StoreFailure) as found, part10.refusing():
        raise error("Doe^Jane")
    assert "Doe" not in found.value.text


def test_the_disk_is_not_the_files_fault() -> None:
    with pytest.raises(OSError, match="No space"), part10.refusing():
        raise OSError(28, "No space")


def test_the_shape_of_json_is_the_clients() -> None:
    with pytest.raises(StoreFailure), part10.refusing(shaped=False):
        ours()
