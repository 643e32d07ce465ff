"""Each topic has its page, and the page is true."""

import pytest

from docs.topic_pages import PAGES, example, pages
from fhir_server.validation import check_structure
from tests.subscriptions.conftest import TOPICS

NAMES = sorted(topic.name for topic in TOPICS.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_code_does(name: str) -> None:
    assert (PAGES / f"{name}.md").read_text() == pages()[name], "run `make topics`"


def test_there_is_no_page_of_nothing() -> None:
    assert sorted(file.stem for file in PAGES.glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_valid(name: str) -> None:
    check_structure(next(example(topic) for topic in TOPICS.values() if topic.name == name))
