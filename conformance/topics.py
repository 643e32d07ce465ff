"""The topics that can be subscribed to: what triggers them, what they can be filtered by.

Each is a file in `definitions/topics/`; a file more is a topic more, and no code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from conformance.canonical import CANONICAL
from conformance.definitions import search_parameters

# Modifiers that a filter may carry, by the type of its search parameter.
MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "reference": ("identifier", "missing"),
    "token": ("not", "missing"),
    "uri": ("missing",),
}
WRITTEN = "_lastUpdated"  # the one date that a filter can ask for: that of the version itself
INTERACTIONS = frozenset({"create", "update"})
_NEEDED = frozenset({"name", "title", "description", "resource", "interactions", "filters"})
_KNOWN = _NEEDED | {"watched", "statuses", "endings", "example"}  # the last two are for its page


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic; its focus is the resource whose version triggered it.

    interactions: create, update. watched: elements of which an update must change one; empty: any version counts.
    statuses: the version has come to one of these statuses; empty: any. filters: search parameter code -> modifiers.
    """

    url: str
    name: str
    title: str
    description: str
    resource_type: str
    interactions: frozenset[str]
    watched: tuple[str, ...]
    statuses: frozenset[str]
    filters: Mapping[str, tuple[str, ...]]


@cache
def topics() -> Mapping[str, Topic]:
    """The topics of this server by their canonical URL."""
    return read_topics(files("conformance") / "definitions" / "topics")


@cache
def topic_pages() -> Mapping[str, tuple[str, dict]]:
    """What the page of a topic adds, by its name: what deletion and `entered-in-error` mean, and an example."""
    folder = files("conformance") / "definitions" / "topics"
    rows = [json.loads((folder / f"{topic.name}.json").read_text()) for topic in topics().values()]
    return {row["name"]: (row.get("endings", ""), row["example"]) for row in rows if "example" in row}


def read_topics(folder: Traversable) -> Mapping[str, Topic]:
    """The topics that the `*.json` files of a folder define, by canonical URL. Raises ValueError for a faulty one."""
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".json"))
    made = (_topic(name, json.loads((folder / name).read_text())) for name in names)
    return MappingProxyType({topic.url: topic for topic in made})


def _topic(file: str, row: dict) -> Topic:
    if faults := sorted((_NEEDED - row.keys()) | (row.keys() - _KNOWN)):
        raise ValueError(f"{file}: missing or not known: {', '.join(faults)}")
    if f"{row['name']}.json" != file:
        raise ValueError(f"{file} defines {row['name']}")
    if not row["interactions"] or not INTERACTIONS.issuperset(row["interactions"]):
        raise ValueError(f"{file}: interactions are {' and '.join(sorted(INTERACTIONS))}")
    parameters = search_parameters(row["resource"])
    for code in row["filters"]:
        if code != WRITTEN and (code not in parameters or parameters[code].type not in MODIFIERS):
            raise ValueError(f"{file}: {row['resource']} cannot be filtered by {code}")
    return Topic(
        url=f"{CANONICAL}/SubscriptionTopic/{row['name']}",
        name=row["name"],
        title=row["title"],
        description=row["description"],
        resource_type=row["resource"],
        interactions=frozenset(row["interactions"]),
        watched=tuple(row.get("watched", ())),
        statuses=frozenset(row.get("statuses", ())),
        filters=MappingProxyType({code: MODIFIERS.get(parameters[code].type, ()) for code in row["filters"]}),
    )
