"""A Subscription made through a token that sees less than its owner tells no more than that token saw.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from dataclasses import replace

import pytest

from fhir_server.access import Access, Scope
from fhir_server.clauses import clauses_of
from fhir_server.errors import Forbidden
from subscriptions.reach import EXTENSION
from tests.subscriptions.conftest import (
    LAKESIDE,
    PRACTICE,
    World,
    a_plain_subscription,
    a_subscription,
    a_websocket_subscription,
)

URGENT = "priority=urgent"


def limited(*queries: str, owner: Access = LAKESIDE) -> Access:
    """A token of the office with scopes on Tasks that have parameters."""
    clauses = [clauses_of("Task", query) for query in queries]
    scopes = tuple(Scope("user", "Task", "rs", made) for made in clauses if made)
    assert len(scopes) == len(queries)
    return replace(owner, scopes=(*scopes, Scope("user", "Subscription", "cruds")))


def about(patient: str, owner: Access = LAKESIDE) -> Access:
    """A token of the office about one patient."""
    within = frozenset({"@any", f"@{patient}", f"@owner/{owner.subject}"})
    scopes = (Scope("patient", "*", "rs"), Scope("user", "Subscription", "cruds"))
    return replace(owner, scopes=scopes, patient=patient, compartment=within)


def reach(world: World, id: str) -> list[dict]:
    return [one for one in world.subscription(id).get("extension", []) if one["url"] == EXTENSION]


def test_tells_of_what_scopes_with_parameters_reach(world: World) -> None:
    id = world.subscribe(a_subscription(), limited(URGENT, "code=http://acme.example|x&status=requested"))
    all_of_it = world.subscribe(a_subscription(), LAKESIDE)
    urgent, coded = (
        world.task(priority="urgent"),
        world.task(code={"coding": [{"system": "http://acme.example", "code": "x"}]}),
    )
    other = world.task(priority="routine")
    world.pump()
    assert [focus for _, focus in world.events(id)] == [f"{urgent}/_history/1", f"{coded}/_history/1"]
    assert f"{other}/_history/1" in [focus for _, focus in world.events(all_of_it)]


def test_tells_of_the_patient_of_its_token(world: World) -> None:
    for name in ("p1", "p2"):
        world.create({"resourceType": "Patient", "id": name})

    def order(office: str, patient: str) -> str:
        parties = {"subject": {"reference": patient}, "requester": {"reference": f"Organization/{office}"}}
        body = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", **parties}
        return f"ServiceRequest/{world.create(body)}/_history/1"

    id = world.subscribe(a_plain_subscription("ServiceRequest?status=active"), about("Patient/p1"))
    every = world.subscribe(a_plain_subscription("ServiceRequest?status=active"), LAKESIDE)
    mine, other = order("lakeside", "Patient/p1"), order("lakeside", "Patient/p2")
    order("hillcrest", "Patient/p1")
    world.pump()
    assert [focus for _, focus in world.events(id)] == [mine]
    assert [focus for _, focus in world.events(every)] == [mine, other]


def test_what_left_the_scope_since_is_told_bare(world: World) -> None:
    id = world.subscribe(a_subscription(content="full-resource"), limited(URGENT))
    task = world.task(priority="urgent")
    world.change(task, priority="routine")
    world.pump()
    assert world.events(id) == [(1, f"{task}/_history/1")], "the second version is none of its events"

    def tasks(access: Access) -> list[dict]:
        entries = world.operate("events", access, id)["entry"]
        return [one["resource"] for one in entries if one.get("resource", {}).get("resourceType") == "Task"]

    assert len(tasks(LAKESIDE)) == 1
    assert tasks(limited(URGENT)) == []


def test_the_server_alone_says_how_far_it_reaches(world: World) -> None:
    made_up = {"url": EXTENSION, "extension": [{"url": "scope", "valueString": "priority=routine"}]}
    id = world.subscribe(a_subscription(extension=[made_up]), limited(URGENT))
    expected = [{"url": EXTENSION, "extension": [{"url": "scope", "valueString": URGENT}]}]
    assert reach(world, id) == expected
    world.repository.amend(limited(URGENT), "Subscription", id, lambda one: one | {"extension": [made_up]})
    assert reach(world, id) == expected
    bare = {name: value for name, value in world.subscription(id).items() if name != "extension"}
    world.repository.update(PRACTICE, bare | {"reason": "x"})
    assert reach(world, id) == expected, "it is no token of its owner"
    world.repository.amend(LAKESIDE, "Subscription", id, lambda one: one | {"reason": "y"})
    assert reach(world, id) == [], "its owner, with all their rights"
    world.repository.amend(limited(URGENT), "Subscription", id, lambda one: one | {"status": "off"})
    assert reach(world, id) == expected, "nobody switches it on again with the reach of another token"


def test_of_another_token_is_not_bound_to_a_websocket(world: World) -> None:
    wide = world.subscribe(a_websocket_subscription(), LAKESIDE)
    narrow = world.subscribe(a_websocket_subscription(), limited(URGENT))
    with pytest.raises(Forbidden):
        world.operate("get-ws-binding-token", limited(URGENT), wide)
    bound = world.operate("get-ws-binding-token", limited(URGENT))["parameter"]
    assert [one["valueString"] for one in bound if one["name"] == "subscription"] == [narrow]
    bound = world.operate("get-ws-binding-token", LAKESIDE)["parameter"]
    assert {one["valueString"] for one in bound if one["name"] == "subscription"} == {narrow, wide}
