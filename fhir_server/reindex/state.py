"""How far the indexing of each type is, in MongoDB; and the current versions that are not indexed as wanted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.database import Database

from fhir_server.index import Entry
from fhir_server.index.active import LAYOUT
from fhir_server.store import PREFIX, version_of
from fhir_server.version import Version

_SERVER = "*"  # the id of what is noted of the store as a whole
_BATCH = 50


class NewerLayout(ValueError):
    """The store was written by a later version of this server."""


@dataclass(frozen=True, slots=True)
class TypeState:
    """layout: what all current versions were indexed by when a pass last ended. ready: the parameters among it.

    rebuilds: how often it was asked to be made anew. closed: not to be searched until the next pass ends. wanted,
    begun, position, done: of the pass under way, from when to which write number, and how many it indexed. failure:
    why it cannot go on.
    """

    layout: str = LAYOUT
    ready: frozenset[str] = frozenset()
    rebuilds: int = 0
    closed: bool = False
    wanted: str = ""
    begun: datetime | None = None
    position: int = 0
    done: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A current version as it is stored, with the scope that its keys say."""

    version: Version
    scope: list[str] = field(default_factory=list)


class IndexState:
    """One document a type that was ever indexed anew; the others are as they were written."""

    def __init__(self, database: Database) -> None:
        self._state = database["index_state"]
        self._database = database

    def all(self) -> dict[str, TypeState]:
        """By type."""
        return {one["_id"]: _type_state(one) for one in self._state.find({"_id": {"$ne": _SERVER}})}

    def mark_of(self, resource_type: str) -> tuple[int, int]:
        """Changes whenever a version of the type comes or goes."""
        versions = self._database[PREFIX + resource_type]
        newest = versions.find_one({}, {"_id": 1}, sort=[("_id", -1)])
        # Commits can overtake one another, so that the newest number alone would not tell.
        return (newest["_id"] if newest else 0), versions.estimated_document_count()

    def open(self, types: Iterable[str]) -> list[str]:
        """Note that this layout is in use; types: that have resources. Returns those that have to be indexed anew.

        Raises NewerLayout. What has no layout noted was written before layouts were.
        """
        noted = self._state.find_one({"_id": _SERVER})
        layout = noted["layout"] if noted else ""
        if layout and int(layout) > int(LAYOUT):
            raise NewerLayout(
                f"the store is indexed in layout {layout} of a later version; this one knows {LAYOUT} at most"
            )
        older = [] if layout == LAYOUT else sorted(types)
        for resource_type in older:  # first these, then the layout: if we die between, they are found again
            self._set(resource_type, {"closed": True, "layout": layout or "1", "failure": ""})
        self._state.update_one({"_id": _SERVER}, {"$set": {"layout": LAYOUT}}, upsert=True)
        return older

    def rebuild(self, resource_type: str) -> None:
        """Ask for the type to be indexed anew. It can be searched meanwhile: its entries are replaced one by one."""
        change = {"$inc": {"rebuilds": 1}, "$set": {"failure": ""}}
        self._state.update_one({"_id": resource_type}, change, upsert=True)

    def begin(self, resource_type: str, wanted: str) -> None:
        """A pass that makes all current versions what is wanted, from the beginning."""
        now = datetime.now(UTC)
        self._set(resource_type, {"wanted": wanted, "begun": now, "position": 0, "done": 0, "failure": ""})

    def note(self, resource_type: str, wanted: str, position: int, more: int) -> None:
        """The pass has come to this write number, and indexed so many more."""
        change = {"$set": {"position": position}, "$inc": {"done": more}}
        self._state.update_one({"_id": resource_type, "wanted": wanted}, change)

    def fail(self, resource_type: str, failure: str) -> None:
        self._set(resource_type, {"failure": failure})

    def finish(self, resource_type: str, wanted: str, ready: Iterable[str]) -> None:
        """All current versions are as wanted."""
        ended = {"layout": wanted, "ready": sorted(ready), "closed": False, "wanted": "", "failure": ""}
        self._set(resource_type, ended)

    def stale(self, resource_type: str, wanted: str, after: int) -> Iterator[Stored]:
        """Current versions that are not indexed as wanted, with higher write numbers, in that order."""
        query = {"_id": {"$gt": after}, "keys": {"$exists": True}, "g": {"$ne": wanted}}
        found = self._database[PREFIX + resource_type].find(query, batch_size=_BATCH).hint("_id_").sort("_id", 1)
        for document in found:
            yield Stored(version_of(resource_type, document), document["scope"])

    def count(self, resource_type: str, wanted: str | None = None) -> int:
        """Current versions; those that are indexed as wanted."""
        query: dict = {"keys": "*"} if wanted is None else {"keys": "*", "g": wanted}
        return self._database[PREFIX + resource_type].count_documents(query, hint="k")

    def replace(self, resource_type: str, entries: Iterable[tuple[Stored, Entry]]) -> None:
        """Give versions their new entries; one that was followed, or seen by others, meanwhile is left as it is."""
        self._database[PREFIX + resource_type].bulk_write(
            [_replacement(stored, entry) for stored, entry in entries], ordered=False
        )

    def _set(self, resource_type: str, values: dict[str, Any]) -> None:
        self._state.update_one({"_id": resource_type}, {"$set": values}, upsert=True)


def _replacement(stored: Stored, entry: Entry) -> UpdateOne:
    same = {"_id": stored.version.number, "keys": {"$exists": True}, "scope": stored.scope}
    values: dict[str, Any] = {"keys": ["*", *sorted(stored.scope), *entry.keys], "g": entry.layout}
    gone = {}
    for name, value in (("r", entry.ranges), ("s", entry.sorts)):
        if value:
            values[name] = value
        else:
            gone[name] = ""
    return UpdateOne(same, {"$set": values} | ({"$unset": gone} if gone else {}))


def _type_state(document: dict[str, Any]) -> TypeState:
    values = {name: value for name, value in document.items() if name != "_id"}
    begun = values.get("begun")
    values |= {"ready": frozenset(values.get("ready", ())), "begun": begun and begun.replace(tzinfo=UTC)}
    return TypeState(**values)
