"""What searches cost: `_explain` tells administrators, and everyday searches look at little more than they give."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pymongo
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.monitoring import CommandListener

from bench import radiology
from fhir_server import store
from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import assert_outcome
from tests.fhir_server.test_search import put, search

SIZE = 10_000
MOST_EXAMINED = 20  # documents for each that is returned
LITTLE = 200  # documents that may be examined whatever is returned: what few have in common has no index

WORKLIST = (
    "Task?code=http://loinc.org|fulfill&status=accepted,in-progress,requested&_sort=-modified&_count=50"
    "&_include=Task:focus&_include=Task:patient&_include=Task:requester"
)
STUDIES = (
    "ImagingStudy?subject:Patient.birthdate=1970&_include=ImagingStudy:subject&_include=ImagingStudy:basedon"
    "&_total=accurate"
)
CORPUS = (
    WORKLIST,
    STUDIES,
    "ServiceRequest?status=active&_count=20",
    "ServiceRequest?status=completed&priority=routine&_count=20",
    "ServiceRequest?patient=Patient/p17",
    "ServiceRequest?patient=Patient/p17&status=active",
    "ServiceRequest?identifier=urn:placer|ORD00000042",
    "ServiceRequest?_sort=-authored&_count=20",
    "ServiceRequest?status=active&_sort=-authored&_count=20",
    "ServiceRequest?authored=ge2026-11-01&_sort=-authored&_count=20",
    "ServiceRequest?requester=Organization/o3&status=active&_count=20",
    "Task?_has:ServiceRequest:patient:status=draft&_count=20",
    "Task?patient.family=Family0042",
    "Patient?family=Family0042",
    "Patient?birthdate=1970-05-05",
    "Patient?_has:ServiceRequest:patient:code=c150",
    "Patient?_id=p1,p2,p3&_revinclude=ServiceRequest:patient",
    "DiagnosticReport?based-on=ServiceRequest/s11",
    "DiagnosticReport?code=c0&date=ge2026-11-01&_sort=-date&_count=20",
    "ImagingStudy?modality=CT&_sort=-started&_count=20",
    "ImagingStudy?started=ge2026-10-01&started=lt2026-10-21&status=available&_count=20",
    "ImagingStudy?started=ge2026-10-20&started=lt2026-10-21&status=available&_sort=started&_count=20",
)


class RoundTrips(CommandListener):
    """Counts what goes to the database."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        self.commands.append(event.command_name)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        pass


@pytest.fixture(scope="module")
def trips() -> RoundTrips:
    return RoundTrips()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that takes long on a busy machine is given up, and another way is gone than is looked at here."""
    monkeypatch.setattr(store, "PROBE_MS", 10_000)


@pytest.fixture(scope="module")
def practice(mongodb_uri: str, trips: RoundTrips) -> Iterator[Repository]:
    with pymongo.MongoClient(mongodb_uri, tz_aware=True, event_listeners=[trips]) as client:
        database = client[f"test_{uuid.uuid4().hex[:16]}"]
        radiology.load(database, SIZE)
        repository = Repository(
            VersionStore(database, radiology.SORTED), BASE, lambda: datetime.now(UTC), check_references=False
        )
        repository.parameters._refresh_s = 3600
        yield repository
        client.drop_database(database.name)


def explained(repository: Repository, address: str) -> dict:
    type, _, query = address.partition("?")
    asked = [*parse_qsl(query, keep_blank_values=True), ("_explain", "true")]
    found = repository.search(PRACTICE, type, asked, strict=True).explanation
    assert found is not None
    return found


def value(parameters: dict | list, name: str) -> object:
    entries = parameters["parameter"] if isinstance(parameters, dict) else parameters
    (found,) = [entry for entry in entries if entry["name"] == name]
    return next(content for key, content in found.items() if key.startswith("value"))


class TestCorpus:
    @pytest.mark.parametrize("address", CORPUS)
    def test_little_more_is_examined_than_returned(self, practice: Repository, address: str) -> None:
        found = explained(practice, address)
        examined, returned = value(found, "examined"), value(found, "returned")
        assert isinstance(examined, int) and isinstance(returned, int)
        assert examined <= max(MOST_EXAMINED * returned, LITTLE), found

    @pytest.mark.parametrize("address", [WORKLIST, STUDIES])
    def test_everyday_lists_take_four_round_trips_at_most(
        self, practice: Repository, trips: RoundTrips, address: str
    ) -> None:
        type, _, query = address.partition("?")
        result = practice.search(PRACTICE, type, query, strict=True)
        assert result.matches and result.included
        trips.commands.clear()
        practice.search(PRACTICE, type, query, strict=True)
        assert 0 < len(trips.commands) <= 4, trips.commands

    def test_a_range_that_no_index_narrows_would_be_noticed(self, practice: Repository) -> None:
        found = explained(practice, "ServiceRequest?authored:missing=false&_count=1&status:not=active&_sort=_id")
        examined, returned = value(found, "examined"), value(found, "returned")
        assert isinstance(examined, int) and examined > 0 and returned

    def test_what_is_asked_to_choose_an_index_is_told_too(self, practice: Repository) -> None:
        found = explained(practice, "ImagingStudy?started=ge2026-10-20&started=lt2026-10-21&modality=CT&_count=20")
        queries = [entry["part"] for entry in found["parameter"] if entry["name"] == "query"]
        purposes = [value(one, "purpose") for one in queries]
        assert purposes[-1] == "matches"
        assert set(purposes[:-1]) == {"probe"}


class TestAnswer:
    def test_tells_what_was_done(self, client: FlaskClient) -> None:
        put(client, "Patient", "a", active=True)
        put(client, "Basic", "b", code={"text": "x"}, subject={"reference": "Patient/a"})
        found = search(
            client, "Basic", ("patient.active", "true"), ("_include", "Basic:patient"), ("_explain", "true")
        )
        assert found["resourceType"] == "Parameters"
        assert value(found, "driver") == "k"
        queries = [entry["part"] for entry in found["parameter"] if entry["name"] == "query"]
        assert [(value(one, "purpose"), value(one, "type")) for one in queries] == [
            ("chain", "Patient"),
            ("matches", "Basic"),
            ("include", "Patient"),
        ]
        assert value(found, "roundTrips") == len(queries)
        assert [value(one, "returned") for one in queries] == [1, 1, 1]

    def test_has_nothing_of_what_was_searched_for(self, client: FlaskClient) -> None:
        put(client, "Patient", "a", name=[{"family": "Unmistakable"}])
        answer = client.get("/fhir/Patient?family=unmistakable&_explain=true")
        assert "nmistakable" not in answer.text

    def test_false_is_a_search_like_any_other(self, client: FlaskClient) -> None:
        assert search(client, "Patient", ("_explain", "false"))["resourceType"] == "Bundle"
        assert_outcome(client.get("/fhir/Patient?_explain=perhaps"), 400, "value")

    @pytest.mark.parametrize(
        "access",
        [
            an_office("o1"),
            Access("user:desk", (Scope("user", "*", "cruds"),), None, roles=frozenset({"frontdesk"})),
        ],
    )
    def test_is_for_administrators(self, app: Flask, client: FlaskClient, access: Access) -> None:
        app.config["ACCESS"] = access
        assert_outcome(client.get("/fhir/Patient?_explain=true"), 403, "forbidden")
        assert search(client, "Patient")["resourceType"] == "Bundle"
