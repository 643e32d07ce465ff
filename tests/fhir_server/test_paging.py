"""Links between pages: there and back, sealed, for a day. https://hl7.org/fhir/R4/http.html#paging"""

import os
import random
import threading
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import assert_outcome
from tests.fhir_server.test_search import ids, link, put

ORIGIN = BASE.removesuffix("/fhir")
SEED = int(os.environ.get("RADLOOP_TEST_SEED", "1"))


def get(client: FlaskClient, address: str) -> dict:
    answer = client.get(address.removeprefix(ORIGIN))
    assert answer.status_code == 200, answer.text
    return answer.get_json(force=True)


def follow(client: FlaskClient, bundle: dict, relation: str) -> Iterator[dict]:
    """The pages that the links of this relation lead to."""
    while address := link(bundle, relation):
        bundle = get(client, address)
        yield bundle


@pytest.fixture
def patients(client: FlaskClient) -> list[str]:
    """Eight of them, newest first; every other one has no date of birth, two have the same."""
    for number in range(8):
        dates = {"birthDate": f"19{50 + number // 4}-01-01"} if number % 2 else {}
        put(client, "Patient", f"p{number}", active=True, **dates)
    return [f"p{number}" for number in range(7, -1, -1)]


class TestLinks:
    @pytest.mark.parametrize(
        "query",
        [
            "",
            "&_sort=birthdate",
            "&_sort=-birthdate",
            "&_sort=-_lastUpdated",
            "&_sort=_id",
            "&active=true",
            "&_sort=family",
            "&_sort=active,-birthdate",
            "&_sort=-birthdate,_id",
        ],
    )
    @pytest.mark.parametrize("count", [1, 2, 3, 8])
    def test_lead_back_the_way_they_came(
        self, client: FlaskClient, patients: list[str], query: str, count: int
    ) -> None:
        first = get(client, f"/fhir/Patient?_count={count}{query}")
        forward = [first, *follow(client, first, "next")]
        backward = [forward[-1], *follow(client, forward[-1], "previous")]
        assert sorted(one for page in forward for one in ids(page)) == sorted(patients)
        assert [ids(page) for page in backward] == [ids(page) for page in reversed(forward)]
        assert link(first, "previous") is None
        assert link(backward[-1], "previous") is None
        again = [backward[-1], *follow(client, backward[-1], "next")]
        assert [ids(page) for page in again] == [ids(page) for page in forward]

    def test_lead_to_the_first_page_from_each(self, client: FlaskClient, patients: list[str]) -> None:
        first = get(client, "/fhir/Patient?_count=3")
        for page in [first, *follow(client, first, "next")]:
            assert ids(get(client, link(page, "first") or "")) == patients[:3]

    def test_of_history_too(self, client: FlaskClient, patients: list[str]) -> None:
        first = get(client, "/fhir/Patient/_history?_count=3")
        pages = [first, *follow(client, first, "next")]
        assert [len(page["entry"]) for page in pages] == [3, 3, 2]
        for page in pages:
            assert get(client, link(page, "first") or "")["entry"] == first["entry"]
            assert get(client, link(page, "self") or "")["entry"] == page["entry"]

    def test_of_a_page_whose_matches_are_gone_lead_on(self, client: FlaskClient, patients: list[str]) -> None:
        first = get(client, "/fhir/Patient?_count=6")
        second = get(client, link(first, "next") or "")
        for id in ids(second):
            client.delete(f"/fhir/Patient/{id}")
        empty = get(client, link(first, "next") or "")
        assert (ids(empty), link(empty, "next")) == ([], None)
        assert ids(get(client, link(empty, "previous") or "")) == ids(first)
        for id in ids(first):
            client.delete(f"/fhir/Patient/{id}")
        put(client, "Patient", "new")
        before = get(client, link(second, "previous") or "")
        assert ids(before) == ["new"]
        assert link(before, "previous") is None


class TestSeal:
    @pytest.fixture
    def following(self, client: FlaskClient, patients: list[str]) -> str:
        return link(get(client, "/fhir/Patient?active=true&_sort=birthdate&_count=3"), "next") or ""

    def test_shows_nothing_of_the_patient(self, client: FlaskClient) -> None:
        for number in range(4):
            put(client, "Patient", f"a-name-nobody-has-{number}")
        following = link(get(client, "/fhir/Patient?_sort=_id&_count=2"), "next") or ""
        token = dict(parse_qsl(urlsplit(following).query))["_page"]
        readable = token.encode() + b64decode(token, altchars=b"-_")
        assert b"nobody" not in readable

    def test_an_altered_token_is_refused(self, client: FlaskClient, following: str) -> None:
        query = dict(parse_qsl(urlsplit(following).query))
        chosen = random.Random(SEED)
        for _ in range(50):
            at = chosen.randrange(len(query["_page"]) - 4)  # the last characters have bits that mean nothing
            letter = "A" if query["_page"][at] != "A" else "B"
            altered = query | {"_page": query["_page"][:at] + letter + query["_page"][at + 1 :]}
            assert_outcome(client.get("/fhir/Patient", query_string=altered), 400, "invalid")

    @pytest.mark.parametrize(
        "changed", [{"active": "false"}, {"_sort": "-birthdate"}, {"_count": "2"}, {"gender": "male"}, {"_sort": ""}]
    )
    def test_it_does_for_no_other_query(self, client: FlaskClient, following: str, changed: dict) -> None:
        query = dict(parse_qsl(urlsplit(following).query)) | changed
        answer = client.get("/fhir/Patient", query_string={name: value for name, value in query.items() if value})
        assert_outcome(answer, 400, "invalid")

    def test_it_does_for_no_other_type_or_history(self, client: FlaskClient, following: str) -> None:
        query = urlsplit(following).query
        assert_outcome(client.get(f"/fhir/Person?{query}"), 400, "invalid")
        token = urlencode({"_page": dict(parse_qsl(query))["_page"]})
        assert_outcome(client.get(f"/fhir/Patient/_history?{token}"), 400, "invalid")

    def test_it_is_good_for_a_day(self, client: FlaskClient, repository: Repository, following: str) -> None:
        now = datetime.now(UTC)
        repository.clock = lambda: now + timedelta(hours=23)
        get(client, following)
        repository.clock = lambda: now + timedelta(hours=25)
        assert_outcome(client.get(following.removeprefix(ORIGIN)), 410, "expired")

    def test_another_process_can_read_it(self, client: FlaskClient, database: Database, following: str) -> None:
        anew = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC))
        query = parse_qsl(urlsplit(following).query)
        assert len(anew.search(PRACTICE, "Patient", query).matches) == 3

    def test_a_format_may_be_asked_for_beside_it(self, client: FlaskClient, following: str) -> None:
        assert get(client, f"{following}&_format=json&_pretty=true")["entry"] == get(client, following)["entry"]


class TestAccess:
    """What a caller sees is looked up anew on each page."""

    @pytest.fixture
    def following(self, app: Flask, client: FlaskClient) -> str:
        app.config["ACCESS"] = an_office("o1")
        for number in range(4):
            put(client, "Basic", f"mine{number}", code={"text": "x"})
        app.config["ACCESS"] = PRACTICE
        for number in range(4):
            put(client, "Basic", f"theirs{number}", code={"text": "x"})
        first = get(client, "/fhir/Basic?_count=2&_total=accurate")
        assert first["total"] == 8
        return link(first, "next") or ""

    def test_another_token_sees_no_more_by_the_link_than_without(
        self, app: Flask, client: FlaskClient, following: str
    ) -> None:
        app.config["ACCESS"] = an_office("o1")
        page = get(client, following)
        found = [*ids(page), *(one for more in follow(client, page, "next") for one in ids(more))]
        assert found == ["mine3", "mine2", "mine1", "mine0"]
        assert page["total"] == 4

    def test_rights_that_shrank_are_missing_on_the_next_page(
        self, app: Flask, client: FlaskClient, following: str
    ) -> None:
        app.config["ACCESS"] = Access("client:x", (Scope("system", "Task", "cruds"),), None)
        assert_outcome(client.get(following.removeprefix(ORIGIN)), 403, "forbidden")
        app.config["ACCESS"] = replace(PRACTICE, audience=frozenset({"@any"}))
        page = get(client, following)
        assert (ids(page), page["total"]) == ([], 0)


class TestWhileOthersWrite:
    """Eight writers create, change and delete; what is there from beginning to end comes once, in order."""

    WRITERS = 8

    def traverse(self, repository: Repository, chosen: random.Random, backward: bool) -> tuple[list[str], set]:
        query: list[tuple[str, str]] = [("active", "true"), ("_count", str(chosen.choice((1, 3, 7, 20))))]
        query += chosen.choice(([], [("_sort", "birthdate")], [("_sort", "-birthdate")], [("_sort", "_id")]))
        query += chosen.choice(([], [("_total", "accurate")]))
        found, totals = [], set()
        result = repository.search(PRACTICE, "Patient", query)
        while True:
            found += [version.id for version in result.matches]
            totals.add(result.total)
            if not result.next:
                break
            result = repository.search(PRACTICE, "Patient", result.next)
        if backward:
            found = [version.id for version in result.matches]
            while result.previous:
                result = repository.search(PRACTICE, "Patient", result.previous)
                found[:0] = [version.id for version in result.matches]
                totals.add(result.total)
        return found, totals

    @pytest.mark.parametrize("traversals", [20, pytest.param(1000, marks=pytest.mark.slow)])
    def test_none_is_lost_and_none_repeated(self, repository: Repository, traversals: int) -> None:
        chosen = random.Random(SEED)
        steady = {f"steady{number}" for number in range(40)}
        for number in range(40):
            for kind in ("steady", "shaky"):
                patient = {"resourceType": "Patient", "id": f"{kind}{number}", "active": True}
                born = {"birthDate": f"19{50 + number}"} if number % 3 else {}
                repository.update(PRACTICE, patient | born)
        stop = threading.Event()
        faults: list[Exception] = []

        def write(writer: int) -> None:
            mine = random.Random(SEED * 1000 + writer)
            try:
                while not stop.is_set():
                    number = mine.randrange(40)
                    born = {"birthDate": f"19{50 + number}"} if number % 3 else {}
                    patient = {"resourceType": "Patient", "id": f"steady{number}", "active": True, **born}
                    repository.update(PRACTICE, patient | {"multipleBirthInteger": mine.randrange(10**6)})
                    shaky = f"shaky{mine.randrange(5) * self.WRITERS + writer}"
                    repository.delete(PRACTICE, "Patient", shaky)
                    repository.update(PRACTICE, {"resourceType": "Patient", "id": shaky, "active": True} | born)
            except Exception as fault:
                faults.append(fault)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(self.WRITERS)]
        for writer in writers:
            writer.start()
        try:
            for traversal in range(traversals):
                found, totals = self.traverse(repository, chosen, backward=traversal % 2 == 1)
                lasting = [id for id in found if id in steady]
                hint = f"RADLOOP_TEST_SEED={SEED}, traversal {traversal}"
                assert len(lasting) == len(set(lasting)), hint
                assert set(lasting) == steady, hint
                assert len(totals) == 1, hint
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert faults == []
