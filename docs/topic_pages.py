"""Writes a page for each topic into docs/topics: `make topics`. All in it is asked of the code that serves: triggers,
filters, and the notifications, which are made as a subscriber gets them.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

import conformance
from conformance import Topic
from fhir_server import fhir_json
from fhir_server.version import Version
from subscriptions import notification
from subscriptions.definition import EMPTY, FULL_RESOURCE, ID_ONLY
from subscriptions.matching import fires, watched
from subscriptions.notification import EVENT, About, Notified

PAGES = Path(__file__).parent / "topics"
BASE = "https://radiology.example/fhir"
AT = datetime(2026, 3, 2, 11, 20, 30, tzinfo=UTC)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LEVELS = {
    EMPTY: "that something happened, and nothing else",
    ID_ONLY: "what it was about; the subscriber reads it with its own token",
    FULL_RESOURCE: "the resource as it was then",
}


def pages() -> dict[str, str]:
    """The text of each page by the name of its topic."""
    return {topic.name: "\n".join(_page(topic)) + "\n" for topic in conformance.topics().values()}


def example(topic: Topic) -> dict:
    """A resource that is an event of the topic. Raises ValueError when it is none."""
    _, resource = conformance.topic_pages()[topic.name]
    op = "update" if "update" in topic.interactions else "create"
    if resource["resourceType"] != topic.resource_type or not fires(topic, op, None, resource):
        raise ValueError(f"the example of {topic.name} is no event of it")
    return resource


def _page(topic: Topic) -> Iterator[str]:
    endings, _ = conformance.topic_pages()[topic.name]
    yield f"# {topic.title}"
    yield ""
    yield f"`{topic.url}`"
    yield ""
    yield topic.description
    yield ""
    yield "## When"
    yield ""
    yield f"- At a {' or '.join(sorted(topic.interactions))} of a `{topic.resource_type}`, which is the focus."
    if topic.statuses:
        yield f"- Its `status` has come to {', '.join(f'`{one}`' for one in sorted(topic.statuses))}."
    if elements := watched(topic):
        changed = " or ".join(f"`{one}`" for one in elements)
        yield f"- An update counts when it has changed {changed}."
    yield f"- {endings}"
    yield ""
    yield "## Filters"
    yield ""
    yield "| filter | modifiers |"
    yield "|---|---|"
    for code, modifiers in sorted(topic.filters.items()):
        yield f"| `{code}` | {', '.join(f'`:{one}`' for one in modifiers)} |"
    yield ""
    yield "## Notifications"
    for level, words in LEVELS.items():
        yield ""
        yield f"### `{level}`: {words}"
        yield ""
        yield "```json"
        yield _notification(topic, level)
        yield "```"


def _notification(topic: Topic, level: str) -> str:
    op = "update" if "update" in topic.interactions else "create"
    version_number = 2 if op == "update" else 1
    meta = {"versionId": str(version_number), "lastUpdated": notification.instant(AT)}
    resource = example(topic)
    body = fhir_json.dumps(resource | {"meta": meta})
    version = Version(topic.resource_type, resource["id"], version_number, 1, 1, AT, "system:example", op, body)
    about = About("s-1", topic.url, "active", level, 7)
    made = notification.bundle(EVENT, about, [Notified(7, AT, version)], BASE, AT)
    text = json.dumps(json.loads(fhir_json.dumps(made)), indent=2, ensure_ascii=False)
    return UUID.sub("00000000-0000-4000-8000-000000000000", text)  # new ones each time


@click.command()
def main() -> None:
    """Write all pages."""
    PAGES.mkdir(exist_ok=True)
    for name, text in pages().items():
        (PAGES / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
