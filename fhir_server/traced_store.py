"""The store as it is, which takes down what is asked of it, so that a search can be explained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymongo.cursor import Cursor

from fhir_server.store import PREFIX, SEARCH_TIMEOUT_MS, Page, VersionStore


@dataclass(slots=True)
class Query:
    """One query of a search. purpose: probe, matches, chain, total, or include."""

    purpose: str
    resource_type: str
    cursor: Cursor | None = None
    pipeline: list[dict] = field(default_factory=list)
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What MongoDB says of a query that it did again. indexes: those it read, in the order of the plan."""

    indexes: tuple[str, ...]
    keys: int
    documents: int
    returned: int
    milliseconds: int


class TracedStore(VersionStore):
    """A VersionStore for one search. queries: what it was asked, in order."""

    def __init__(self, store: VersionStore) -> None:
        self.__dict__.update(store.__dict__)
        self.queries: list[Query] = []
        self._purpose = "include"

    def bounded_page(self, *arguments: Any, **named: Any) -> Page:
        with self._for("matches"):
            return super().bounded_page(*arguments, **named)

    def reckoned_page(self, *arguments: Any, **named: Any) -> Page:
        with self._for("matches"):
            return super().reckoned_page(*arguments, **named)

    def ids(self, *arguments: Any, **named: Any) -> list[str]:
        with self._for("chain"):
            return super().ids(*arguments, **named)

    def key_tails(self, *arguments: Any, **named: Any) -> set[str]:
        with self._for("chain"):
            return super().key_tails(*arguments, **named)

    def count_up_to(self, *arguments: Any, **named: Any) -> int:
        with self._for("probe"):
            return super().count_up_to(*arguments, **named)

    def _probe(self, resource_type: str, filter: dict, limit: int, hint: str) -> int:
        self._note(resource_type, _counting(filter, limit), hint)
        return super()._probe(resource_type, filter, limit, hint)

    def walked_page(self, *arguments: Any, **named: Any) -> Page | None:
        with self._for("matches"):
            found = super().walked_page(*arguments, **named)
        if found is None:  # it told no more than that there are few
            self.queries[-1].purpose = "probe"
        return found

    def count(
        self,
        resource_type: str,
        filter: dict,
        limit: int | None = None,
        hint: str | None = None,
        timeout_ms: int = SEARCH_TIMEOUT_MS,
    ) -> int:
        with self._for("probe" if self._purpose == "probe" else "total"):
            self._note(resource_type, _counting(filter, limit), hint)
        return super().count(resource_type, filter, limit, hint, timeout_ms)

    def total(self, resource_type: str) -> int:
        self.queries.append(Query("total", resource_type))  # noted before, so that there is no plan to look at
        return super().total(resource_type)

    def cost(self, query: Query) -> Cost:
        """Do the query again and see what it looks at."""
        if query.cursor is None and not query.pipeline:
            return Cost((), 0, 0, 1, 0)
        if query.cursor is not None:
            plan = query.cursor.clone().explain()
        else:
            command: dict[str, Any] = {
                "aggregate": PREFIX + query.resource_type,
                "pipeline": query.pipeline,
                "cursor": {},
            }
            if query.hint:
                command["hint"] = query.hint
            plan = self.database.command("explain", command, verbosity="executionStats")
        return _cost(plan)

    def _find(self, resource_type: str, filter: dict, hint: str | None, projection: dict | None = None) -> Cursor:
        cursor = super()._find(resource_type, filter, hint, projection)
        self.queries.append(Query(self._purpose, resource_type, cursor))
        return cursor

    def _aggregate(
        self, resource_type: str, pipeline: list[dict], hint: str | None = None, timeout_ms: int = SEARCH_TIMEOUT_MS
    ) -> Iterator[Mapping[str, Any]]:
        self._note(resource_type, pipeline, hint)
        return super()._aggregate(resource_type, pipeline, hint, timeout_ms)

    def _note(self, resource_type: str, pipeline: list[dict], hint: str | None) -> None:
        used = hint if hint and self.has_index(resource_type, hint) else None
        self.queries.append(Query(self._purpose, resource_type, None, pipeline, used))

    @contextmanager
    def _for(self, purpose: str) -> Iterator[None]:
        before, self._purpose = self._purpose, purpose
        try:
            yield
        finally:
            self._purpose = before


def _counting(filter: dict, limit: int | None) -> list[dict]:
    return [{"$match": filter}, *([{"$limit": limit}] if limit else []), {"$count": "n"}]


def _cost(plan: Mapping[str, Any]) -> Cost:
    found = list(_executions(plan))
    stages = [stage for one in found for stage in _stages(one["executionStages"])]
    return Cost(
        tuple(dict.fromkeys(stage["indexName"] for stage in stages if "indexName" in stage)),
        sum(one["totalKeysExamined"] for one in found),
        sum(one["totalDocsExamined"] for one in found),
        int(plan["stages"][-1]["nReturned"]) if "stages" in plan else sum(one["nReturned"] for one in found),
        sum(one["executionTimeMillis"] for one in found),
    )


def _executions(plan: Any) -> Iterator[Mapping[str, Any]]:
    """The statistics of the plans that were chosen, wherever they are."""
    if isinstance(plan, Mapping):
        if "executionStages" in plan and "totalKeysExamined" in plan:
            yield plan
            return
        for name, part in plan.items():
            if name != "allPlansExecution":
                yield from _executions(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from _executions(part)


def _stages(stage: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(stage, Mapping):
        yield stage
        for part in stage.values():
            yield from _stages(part)
    elif isinstance(stage, list):
        for part in stage:
            yield from _stages(part)
