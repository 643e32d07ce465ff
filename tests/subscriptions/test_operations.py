"""$status, $events and $get-ws-binding-token.
http://hl7.org/fhir/uv/subscriptions-backport/artifacts.html
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, g
from flask.testing import FlaskClient

from fhir_server import http, routes
from fhir_server.access import Access, Scope
from fhir_server.errors import BadRequest, FhirError, Forbidden, NotFound, Unprocessable
from subscriptions import profile
from subscriptions.status import SERVER
from tests.subscriptions.conftest import (
    BASE,
    HILLCREST,
    LAKESIDE,
    LIVE,
    PRACTICE,
    World,
    a_subscription,
    a_websocket_subscription,
    an_office,
    topic,
)
from tests.subscriptions.hook_listener import events_of, status_of


def told(parameters: dict) -> dict[str, Any]:
    return {
        one["name"]: next(value for key, value in one.items() if key.startswith("value"))
        for one in parameters["parameter"]
    }


def about(bundle: dict) -> set[str]:
    """Ids of the Subscriptions that a searchset of statuses is about."""
    references = [told(entry["resource"])["subscription"]["reference"] for entry in bundle.get("entry", [])]
    return {reference.removeprefix(f"{BASE}/Subscription/") for reference in references}


class TestStatus:
    def test_of_one_subscription(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        world.task()
        world.pump()
        bundle = world.operate("status", LAKESIDE, id)
        assert (bundle["type"], bundle["total"]) == ("searchset", 1)
        (entry,) = bundle["entry"]
        assert entry["search"] == {"mode": "match"}
        assert "request" not in entry
        assert entry["fullUrl"].startswith("urn:uuid:")
        assert entry["resource"]["meta"]["profile"] == [profile.STATUS_PROFILE]
        assert told(entry["resource"]) == {
            "subscription": {"reference": f"{BASE}/Subscription/{id}"},
            "topic": topic("referral-status"),
            "status": "requested",
            "type": "query-status",
            "events-since-subscription-start": "1",
        }

    def test_before_the_stream_has_told_of_it(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        assert told(world.operate("status", LAKESIDE, id)["entry"][0]["resource"])["status"] == "requested"

    @pytest.mark.parametrize("status", ["active", "error", "off"])
    def test_in_every_state(self, world: World, status: str) -> None:
        id = world.subscribe(a_subscription())
        error = {"error": "the endpoint answered 500"} if status == "error" else {}
        world.repository.amend(SERVER, "Subscription", id, lambda one: one | {"status": status} | error)
        values = told(world.operate("status", LAKESIDE, id)["entry"][0]["resource"])
        assert values["status"] == status
        if error:
            assert values["error"]["text"] == error["error"]
            assert values["error"]["coding"][0]["system"] == profile.ERROR_SYSTEM

    def test_of_all_of_ones_own_of_those_named_and_of_those_in_a_state(self, world: World) -> None:
        mine = [world.subscribe(a_subscription()) for _ in range(3)]
        theirs = world.subscribe(a_subscription(), HILLCREST)
        world.change(f"Subscription/{mine[0]}", LAKESIDE, status="off")
        assert about(world.operate("status", LAKESIDE)) == set(mine)
        assert about(world.operate("status", LAKESIDE, id=mine[:2])) == set(mine[:2])
        assert about(world.operate("status", LAKESIDE, ids=f"{mine[0]},{mine[2]}")) == {mine[0], mine[2]}
        assert about(world.operate("status", LAKESIDE, status="off")) == {mine[0]}
        assert about(world.operate("status", LAKESIDE, status=["off", "requested"])) == set(mine)
        assert about(world.operate("status", LAKESIDE, id=[mine[0], theirs, "unknown"])) == {mine[0]}
        assert about(world.operate("status", an_office("nobody"))) == set()

    def test_the_practice_sees_the_state_of_all(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        assert about(world.operate("status", PRACTICE, id)) == {id}

    @pytest.mark.parametrize("parameters", [
        {"status": "broken"}, {"id": "not an id"}, {"id": ["x"] * 101}, {"id": {"reference": "Subscription/1"}},
    ])  # fmt: skip
    def test_what_cannot_be_asked_is_refused(self, world: World, parameters: dict) -> None:
        with pytest.raises(BadRequest):
            world.operate("status", LAKESIDE, **parameters)


class TestEvents:
    @pytest.fixture
    def subscription(self, world: World) -> str:
        """With five events, full resources."""
        id = world.subscribe(a_subscription(content="full-resource"))
        for status in ("requested", "received", "accepted", "in-progress", "completed"):
            world.task(status=status)
        world.pump()
        return id

    @pytest.mark.parametrize("since, until, numbers", [
        (None, None, [1, 2, 3, 4, 5]), ("2", None, [2, 3, 4, 5]), ("2", "3", [2, 3]), (None, "2", [1, 2]),
        ("0", "1", [1]), ("6", None, []), ("3", "2", []), ("999999999999", None, []), (4, 4, [4]),
    ])  # fmt: skip
    def test_from_one_number_to_another_both_included(
        self, world: World, subscription: str, since: Any, until: Any, numbers: list[int]
    ) -> None:
        bounds = {"eventsSinceNumber": since, "eventsUntilNumber": until}
        asked = {name: value for name, value in bounds.items() if value is not None}
        bundle = world.operate("events", LAKESIDE, subscription, **asked)
        assert bundle["type"] == "history"
        assert status_of(bundle)["type"] == "query-event"
        assert status_of(bundle)["events-since-subscription-start"] == "5"
        assert [number for number, _ in events_of(bundle)] == numbers
        assert len(bundle["entry"]) == 1 + len(numbers)

    @pytest.mark.parametrize("level, asked, entries, resources", [
        ("full-resource", "full-resource", 2, 1), ("full-resource", "id-only", 2, 0), ("id-only", "id-only", 2, 0),
        ("full-resource", "empty", 1, 0), ("id-only", "full-resource", 2, 0), ("empty", "full-resource", 1, 0),
    ])  # fmt: skip
    def test_tell_no_more_than_the_subscription(
        self, world: World, level: str, asked: str, entries: int, resources: int
    ) -> None:
        id = world.subscribe(a_subscription(content=level))
        world.task()
        world.pump()
        bundle = world.operate("events", LAKESIDE, id, content=asked)
        assert len(bundle["entry"]) == entries
        assert len([entry for entry in bundle["entry"][1:] if "resource" in entry]) == resources

    def test_are_exactly_those_that_are_kept_and_say_from_where(self, world: World, subscription: str) -> None:
        assert status_of(world.operate("events", LAKESIDE, subscription))["oldest-kept-event"] == "1"
        newest = world.store.events(subscription, 1)[-1]
        world.store.clear(newest.at + timedelta(days=1))  # the newest stays: from it the counting goes on
        bundle = world.operate("events", LAKESIDE, subscription, eventsSinceNumber="1")
        assert [number for number, _ in events_of(bundle)] == [newest.number]
        assert status_of(bundle)["oldest-kept-event"] == str(newest.number)
        assert status_of(bundle)["events-since-subscription-start"] == str(newest.number)

    @pytest.mark.parametrize("parameters", [
        {"eventsSinceNumber": "x"}, {"eventsSinceNumber": "-1"}, {"eventsSinceNumber": ""}, {"content": "all"},
        {"eventsUntilNumber": "1.5"}, {"eventsSinceNumber": "9" * 30}, {"eventsSinceNumber": True},
    ])  # fmt: skip
    def test_what_cannot_be_asked_is_refused(self, world: World, subscription: str, parameters: dict) -> None:
        with pytest.raises(BadRequest):
            world.operate("events", LAKESIDE, subscription, **parameters)

    @pytest.mark.parametrize("access, refusal", [
        (HILLCREST, NotFound), (PRACTICE, Forbidden),
        (an_office("lakeside", (Scope("system", "Subscription", "r"),)), Forbidden),
        (an_office("lakeside", (Scope("system", "Task", "r"),)), Forbidden),
    ])  # fmt: skip
    def test_are_the_owners_who_may_read_what_they_are_about(
        self, world: World, subscription: str, access: Access, refusal: type[FhirError]
    ) -> None:
        with pytest.raises(refusal):
            world.operate("events", access, subscription)

    def test_of_what_may_not_be_seen_any_more_are_bare_numbers(self, world: World, subscription: str) -> None:
        moved = Access(LAKESIDE.subject, LAKESIDE.scopes, frozenset({"@any", f"@owner/{LAKESIDE.subject}"}))
        bundle = world.operate("events", moved, subscription)
        assert events_of(bundle) == [(number, "") for number in (1, 2, 3, 4, 5)]
        assert len(bundle["entry"]) == 1


class TestBindingToken:
    def test_for_one_subscription(self, world: World) -> None:
        id = world.subscribe(a_websocket_subscription())
        answer = told(world.operate("get-ws-binding-token", LAKESIDE, id))
        assert answer["subscription"] == id
        assert answer["websocket-url"] == f"{LIVE}/ws/subscriptions"
        life = datetime.fromisoformat(answer["expiration"]) - datetime.now(UTC)
        assert timedelta(minutes=5) < life <= timedelta(minutes=30)
        bound = world.service.bindings.find(answer["token"])
        assert bound is not None
        assert (bound.subject, list(bound.numbers)) == (LAKESIDE.subject, [id])

    def test_for_those_named_or_all_of_ones_own(self, world: World) -> None:
        ids = [world.subscribe(a_websocket_subscription()) for _ in range(3)]
        world.subscribe(a_subscription())  # by rest-hook
        world.subscribe(a_websocket_subscription(), HILLCREST)
        off = world.subscribe(a_websocket_subscription())
        world.change(f"Subscription/{off}", LAKESIDE, status="off")
        for asked, expected in (({}, ids), ({"id": ids[:2]}, ids[:2]), ({"ids": ",".join(ids[1:])}, ids[1:])):
            answer = world.operate("get-ws-binding-token", LAKESIDE, **asked)
            bound = [one["valueString"] for one in answer["parameter"] if one["name"] == "subscription"]
            assert set(bound) == set(expected)

    def test_is_a_secret_of_which_a_hash_is_kept(self, world: World) -> None:
        answer = told(world.operate("get-ws-binding-token", LAKESIDE, world.subscribe(a_websocket_subscription())))
        kept = list(world.database["subscription_binding_tokens"].find())
        assert len(answer["token"]) >= 43
        assert answer["token"] not in str(kept)

    def test_is_for_the_owner_of_a_subscription_by_websocket(self, world: World) -> None:
        own, hook = world.subscribe(a_websocket_subscription()), world.subscribe(a_subscription())
        for access, id, refusal in (
            (LAKESIDE, hook, Unprocessable),
            (HILLCREST, own, NotFound),
            (PRACTICE, own, Forbidden),
            (LAKESIDE, "unknown", NotFound),
            (an_office("lakeside", (Scope("system", "Task", "r"),)), own, Forbidden),
        ):
            with pytest.raises(refusal):
                world.operate("get-ws-binding-token", access, id)
            with pytest.raises(refusal):
                world.operate("get-ws-binding-token", access, id=id)
        with pytest.raises(Unprocessable):
            world.operate("get-ws-binding-token", HILLCREST)


class TestOverHttp:
    @pytest.fixture
    def client(self, world: World) -> FlaskClient:
        app = Flask("test")
        http.install(app)

        @app.before_request
        def let_in() -> None:
            g.access = LAKESIDE

        blueprint = routes.create_blueprint(world.repository, world.service.operations, dict)
        app.register_blueprint(blueprint, url_prefix="/fhir")
        return app.test_client()

    @pytest.mark.parametrize("name", ["$status", "$events", "$get-ws-binding-token"])
    def test_by_get_and_by_post(self, world: World, client: FlaskClient, name: str) -> None:
        id = world.subscribe(a_websocket_subscription())
        world.pump()
        address = f"/fhir/Subscription/{id}/{name}"
        parameters = {"resourceType": "Parameters", "parameter": []}
        for answer in (client.get(address), client.post(address, json=parameters), client.post(address)):
            assert answer.status_code == 200, answer.text
            assert answer.headers["Cache-Control"] == "no-store"

    def test_of_the_type(self, world: World, client: FlaskClient) -> None:
        id = world.subscribe(a_websocket_subscription())
        assert client.get(f"/fhir/Subscription/$status?id={id}&status=requested").get_json(force=True)["total"] == 1
        body = {"resourceType": "Parameters", "parameter": [{"name": "id", "valueId": id}]}
        answer = client.post("/fhir/Subscription/$get-ws-binding-token", json=body)
        assert told(answer.get_json(force=True))["subscription"] == id
        assert client.get("/fhir/Subscription/$events").status_code == 404


class TestSearch:
    """The guide's search parameters beside R4's. http://hl7.org/fhir/uv/subscriptions-backport/artifacts.html"""

    @pytest.mark.parametrize("query, found", [
        ("url", "http://127.0.0.1:9/hook"), ("status", "requested"), ("criteria", topic("referral-status")),
        ("topic", topic("referral-status")), ("payload-type", "id-only"), ("filter-criteria", "Task?status"),
        ("identifier", "urn:office|s-1"), ("type", "rest-hook"), ("payload", "application/fhir+json"),
    ])  # fmt: skip
    def test_finds_what_a_subscription_says(self, world: World, query: str, found: str) -> None:
        identifier = {"system": "urn:office", "value": "s-1"}
        extension = [{"url": profile.R5_IDENTIFIER, "valueIdentifier": identifier}]
        id = world.subscribe(a_subscription("referral-status", "Task?status=accepted", extension=extension))
        for value, expected in ((found, [id]), ("urn:other", [])):
            matches = world.repository.search(LAKESIDE, "Subscription", [(query, value)], strict=True).matches
            assert [version.id for version in matches] == expected
        assert world.repository.search(HILLCREST, "Subscription", [(query, found)], strict=True).matches == []
