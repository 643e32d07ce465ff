"""https://hl7.org/fhir/R4/http.html#history"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fhir_server import history
from fhir_server.access import Access, Scope
from fhir_server.history import HistoryRequest
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.test_rest import PATIENT, assert_outcome, send

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def written(repository: Repository) -> Callable[[int, str, int], None]:
    """Write content number n of a Patient so many minutes after noon."""

    def write(minute: int, id: str, content: int) -> None:
        repository.clock = lambda: NOON + timedelta(minutes=minute)
        if content < 0:
            repository.delete(PRACTICE, "Patient", id)
        else:
            repository.update(PRACTICE, {**PATIENT, "id": id, "multipleBirthInteger": content})

    return write


def entries(client: FlaskClient, address: str) -> list[str]:
    """`a/2` of each entry, through all pages."""
    found: list[str] = []
    while address:
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
        bundle = answer.get_json(force=True)
        for entry in bundle.get("entry", []):
            number = entry["response"]["etag"].strip('W/"')
            found.append(f"{entry['fullUrl'].rpartition('/')[2]}/{number}")
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        address = links.get("next", "").removeprefix("http://127.0.0.1:8080")
    return found


class TestAt:
    @pytest.mark.parametrize(
        ("at", "expected"),
        [
            ("2026-03-01T11:00:00Z", []),
            ("2026-03-01T12:00:00Z", ["a/1"]),
            ("2026-03-01T12:05:00Z", ["b/1", "a/1"]),
            ("2026-03-01T12:15:00Z", ["a/2", "b/1"]),
            ("2026-03-01T12:25:00Z", ["b/2", "a/2"]),
            ("2026-03-01T12:35:00Z", ["a/3", "b/2"]),
            ("2026-03-01T12:05Z", ["b/1", "a/1"]),
            ("2026-03-01", ["a/3", "b/2", "a/2", "b/1", "a/1"]),
            ("2026-03-02", ["a/3", "b/2"]),
            ("2026", ["a/3", "b/2", "a/2", "b/1", "a/1"]),
        ],
    )
    def test_shows_what_was_current_then(
        self, client: FlaskClient, written: Callable, at: str, expected: list[str]
    ) -> None:
        for write in ((0, "a", 1), (2, "b", 1), (10, "a", 2), (20, "b", 2), (30, "a", -1)):
            written(*write)
        assert entries(client, f"/fhir/Patient/_history?_at={at}") == expected
        assert entries(client, f"/fhir/Patient/_history?_at={at}&_count=1") == expected
        assert entries(client, f"/fhir/_history?_at={at}") == expected
        of_a = [entry for entry in expected if entry.startswith("a")]
        assert entries(client, f"/fhir/Patient/a/_history?_at={at}") == of_a

    def test_goes_on_where_a_page_has_looked_at_enough(
        self, repository: Repository, written: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "CHUNK", 3)
        monkeypatch.setattr(history, "SCANNED", 6)
        for minute in range(20):
            written(minute, "a", minute)
        at = (NOON + timedelta(minutes=25), NOON + timedelta(minutes=26))
        found, position, pages = [], None, 0
        while True:
            page = repository.history_page(PRACTICE, "Patient", None, HistoryRequest(10, at=at, position=position))
            found += [version.version for version in page.versions]
            pages += 1
            if page.next is None:
                break
            position = page.next
        assert found == [20]
        assert pages > 2
        found, pages = [], 0
        position = page.previous
        while position is not None:
            request = HistoryRequest(10, at=at, position=position, backward=True)
            page = repository.history_page(PRACTICE, "Patient", None, request)
            found += [version.version for version in page.versions]
            position, pages = page.previous, pages + 1
        assert found == [20]
        assert pages > 2


def test_since_includes_its_own_moment(client: FlaskClient, written: Callable) -> None:
    for minute in range(3):
        written(minute, "a", minute)
    assert entries(client, "/fhir/Patient/a/_history?_since=2026-03-01T12:01:00Z") == ["a/3", "a/2"]
    assert entries(client, "/fhir/Patient/a/_history?_since=2026-03-01T13:01:00%2B01:00") == ["a/3", "a/2"]
    assert entries(client, "/fhir/_history?_since=2026-03-01T12:02:30Z") == []


@pytest.mark.parametrize("address", ["_history", "Patient/_history", "Patient/a/_history"])
@pytest.mark.parametrize("query", ["_since=yesterday", "_at=2026-13", "_count=-1", "_count=x", "_page=x", "_at=9999"])
def test_refuses_values_that_it_cannot_read(client: FlaskClient, written: Callable, address: str, query: str) -> None:
    written(0, "a", 0)
    answer = client.get(f"/fhir/{address}?{query}")
    if query != "_at=9999":
        assert_outcome(answer, 400, "invalid")
    assert answer.status_code < 500


class TestSystemHistory:
    def test_has_all_types_newest_first(self, client: FlaskClient, repository: Repository) -> None:
        repository.update(PRACTICE, {**PATIENT, "id": "a"})
        repository.update(PRACTICE, {"resourceType": "Basic", "id": "b", "code": {"text": "x"}})
        repository.update(PRACTICE, {**PATIENT, "id": "a", "gender": "other"})
        for count in ("", "?_count=1", "?_count=2"):
            assert entries(client, f"/fhir/_history{count}") == ["a/2", "b/1", "a/1"]

    def test_has_only_what_the_caller_may_see(self, app: Flask, client: FlaskClient, repository: Repository) -> None:
        repository.update(PRACTICE, {**PATIENT, "id": "a"})
        app.config["ACCESS"] = an_office("o1")
        own = send(client, "POST", "/fhir/Patient", PATIENT).get_json(force=True)["id"]
        assert entries(client, "/fhir/_history") == [f"{own}/1"]

    def test_has_only_types_of_the_granted_scopes(
        self, app: Flask, client: FlaskClient, repository: Repository
    ) -> None:
        repository.update(PRACTICE, {**PATIENT, "id": "a"})
        repository.update(PRACTICE, {"resourceType": "Basic", "id": "b", "code": {"text": "x"}})
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Basic", "rs"),), None)
        assert entries(client, "/fhir/_history") == ["b/1"]
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Basic", "c"),), None)
        assert_outcome(client.get("/fhir/_history"), 403, "forbidden")


def follow(client: FlaskClient, page: dict, relation: str) -> list[dict]:
    """The page and those that the links of this relation lead to."""
    pages = [page]
    while address := {link["relation"]: link["url"] for link in pages[-1]["link"]}.get(relation):
        pages.append(client.get(address.removeprefix("http://127.0.0.1:8080")).get_json(force=True))
    return pages


class TestPrevious:
    """Of a history there is a way back too. https://hl7.org/fhir/R4/http.html#paging"""

    @pytest.mark.parametrize("address", ["_history", "Patient/_history", "Patient/a/_history"])
    @pytest.mark.parametrize("query", ["", "&_since=2026-03-01T12:02:00Z", "&_at=2026-03-01"])
    @pytest.mark.parametrize("count", [1, 2, 3, 20])
    def test_leads_back_the_way_it_came(
        self, client: FlaskClient, written: Callable, address: str, query: str, count: int
    ) -> None:
        for number in range(7):
            written(number, "a", number)
            written(number, "b", number)
        forward = follow(client, client.get(f"/fhir/{address}?_count={count}{query}").get_json(force=True), "next")
        backward = follow(client, forward[-1], "previous")
        assert [page["entry"] for page in backward] == [page["entry"] for page in reversed(forward)]
        again = follow(client, backward[-1], "next")
        assert [page["entry"] for page in again] == [page["entry"] for page in forward]
        assert len(forward) > 1 or count == 20
        assert "previous" not in {link["relation"] for link in forward[0]["link"]}
        assert "previous" not in {link["relation"] for link in backward[-1]["link"]}

    @pytest.mark.parametrize("address", ["_history", "Patient/_history", "Patient/a/_history"])
    def test_leads_to_what_was_written_meanwhile(self, client: FlaskClient, written: Callable, address: str) -> None:
        for number in range(4):
            written(number, "a", number)
        second = follow(client, client.get(f"/fhir/{address}?_count=2").get_json(force=True), "next")[1]
        written(30, "a", 30)
        back = follow(client, second, "previous")
        etags = [entry["response"]["etag"] for page in reversed(back) for entry in page["entry"]]
        assert etags == [f'W/"{number}"' for number in (5, 4, 3, 2, 1)]

    def test_is_there_where_the_entries_of_a_page_are_gone(
        self, client: FlaskClient, repository: Repository, written: Callable
    ) -> None:
        written(0, "a", 0)
        written(1, "b", 0)
        written(2, "b", 1)
        first = client.get("/fhir/Patient/_history?_count=2").get_json(force=True)
        repository.store.expunge("Patient", "a", 1, guards=False)
        empty = follow(client, first, "next")[1]
        assert "entry" not in empty
        assert follow(client, empty, "previous")[1]["entry"] == first["entry"]
        repository.store.expunge("Patient", "b", 2, guards=False)
        nothing = follow(client, empty, "previous")[1]
        assert "entry" not in nothing
        assert follow(client, nothing, "next")[1:] != []

    def test_shows_only_what_the_caller_may_see(self, app: Flask, client: FlaskClient, written: Callable) -> None:
        for number in range(4):
            written(number, "a", number)
        second = follow(client, client.get("/fhir/Patient/_history?_count=2").get_json(force=True), "next")[1]
        app.config["ACCESS"] = an_office("o1")
        (address,) = [link["url"] for link in second["link"] if link["relation"] == "previous"]
        answer = client.get(address.removeprefix("http://127.0.0.1:8080")).get_json(force=True)
        assert "entry" not in answer


@pytest.mark.parametrize("address", ["_history", "Patient/_history", "Patient/a/_history"])
def test_pages_stay_the_same_while_others_write(client: FlaskClient, written: Callable, address: str) -> None:
    for number in range(7):
        written(number, "a", number)
    first = client.get(f"/fhir/{address}?_count=3").get_json(force=True)
    written(30, "a", 30)
    written(31, "b", 31)
    following = {link["relation"]: link["url"] for link in first["link"]}["next"]
    rest = entries(client, following.removeprefix("http://127.0.0.1:8080"))
    assert rest == ["a/4", "a/3", "a/2", "a/1"]


def test_a_count_of_nothing_has_no_entries(client: FlaskClient, written: Callable) -> None:
    written(0, "a", 0)
    assert entries(client, "/fhir/Patient/_history?_count=0") == []
