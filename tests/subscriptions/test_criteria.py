"""Plain criteria hold for what a search finds: generated searches, each made, and held against each resource."""

from urllib.parse import urlencode

import pytest

from fhir_server.index import Indexer
from fhir_server.repository import Repository
from subscriptions import criteria
from subscriptions.filters import BadFilter, matches
from subscriptions.matching import facts_of
from subscriptions.watching import Watcher, Watchers
from tests.fhir_server.conftest import BASE, PRACTICE
from tests.fhir_server.oracle import PARAMETERS
from tests.fhir_server.test_search_oracle import EACH, all_pages, filled, generated, ids

__all__ = ["filled"]
NEED_MORE = ("_has", "_list", "_filter", "near")  # other resources, or the database's own arithmetic
OF_CODES = ("in", "not-in", "below", "above")  # modifiers that need a terminology, where they are about codes


def needs_more(name: str) -> bool:
    """Whether a parameter of a search is about more than the resource itself."""
    code, _, modifier = name.partition(":")
    return "." in name or code in NEED_MORE or modifier in OF_CODES


@pytest.mark.parametrize("searches", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hold_for_exactly_what_the_search_finds(filled: Repository, searches: int) -> None:
    indexer, watchers = Indexer(BASE), Watchers()
    stored = {
        type: filled.store.newest_many([(type, f"{type.lower()}-{number}") for number in range(EACH)])
        for type in PARAMETERS
    }
    facts = {
        version.reference: (version, facts_of(version, version.resource(), indexer))
        for versions in stored.values()
        for version in versions
    }
    expected: dict[str, tuple[str, set[str]]] = {}
    for what, _, type, parameters in generated(7, searches):
        text = f"{type}?{urlencode(parameters)}"
        try:
            topic, clauses = criteria.parse(text, BASE)
        except BadFilter as fault:
            assert any(needs_more(name) for name, _ in parameters), f"{what}: {fault}"
            continue
        found = {f"{type}/{id}" for id in ids(all_pages(filled, PRACTICE, type, parameters))}
        held = {reference for reference, (version, known) in facts.items()
                if version.resource_type == type and matches(clauses, known)}  # fmt: skip
        assert held == found, what
        watcher = Watcher(what, 1, topic, tuple(clauses), "client:lakeside", True)
        watchers.add(watcher)
        expected[watcher.id] = (what, found)
    assert len(expected) > searches / 3, "hardly any search could be held"
    told = {
        (watcher.id, version.reference)
        for version, known in facts.values()
        for watcher in watchers.concerned(version, known)
    }
    assert told == {(id, reference) for id, (_, found) in expected.items() for reference in found}
    for id in expected:
        watchers.remove(id)
    assert watchers._types == {}
