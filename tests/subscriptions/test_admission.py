"""What a Subscription must pass before it is stored, through the Repository."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fhir_server.access import Scope
from fhir_server.errors import FhirError, Forbidden, InvalidStructure, NotFound, Unprocessable
from subscriptions.masking import masked
from subscriptions.status import SERVER
from tests.subscriptions.conftest import (
    HILLCREST,
    LAKESIDE,
    PRACTICE,
    World,
    a_subscription,
    a_websocket_subscription,
)

SECRET = "Authorization: Bearer abc"


def refused(world: World, subscription: dict, kind: type[FhirError] = Unprocessable) -> set[str | None]:
    """The elements named in the refusal; nothing is stored."""
    with pytest.raises(kind) as refusal:
        world.subscribe(subscription)
    assert world.repository.store.history("Subscription", None) == []
    return {issue.expression for issue in refusal.value.issues} or {refusal.value.expression}


class TestCreate:
    @pytest.mark.parametrize("asked", ["requested", "active"])
    def test_is_stored_as_requested(self, world: World, asked: str) -> None:
        id = world.subscribe(a_subscription(status=asked, error="made up"))
        assert world.status(id) == "requested"
        assert "error" not in world.subscription(id)

    @pytest.mark.parametrize("status", ["error", "entered-in-error"])
    def test_a_client_says_no_other_status(self, world: World, status: str) -> None:
        with pytest.raises((Unprocessable, InvalidStructure)):
            world.subscribe(a_subscription(status=status))

    def test_what_was_sent_is_kept_word_for_word(self, world: World) -> None:
        sent = a_subscription("referral-status", "Task?status=accepted", channel={"header": [SECRET]})
        stored = world.subscription(world.subscribe(sent))
        assert stored["_criteria"] == sent["_criteria"]
        assert stored["channel"] == sent["channel"]

    def test_every_fault_is_named(self, world: World) -> None:
        subscription = a_subscription("referral-status", "nonsense=1", channel={"payload": "text/csv"})
        assert refused(world, subscription) == {
            "Subscription.criteria.extension[0].value",
            "Subscription.channel.payload",
        }

    @pytest.mark.parametrize("endpoint", [
        "https://10.0.0.1/hook", "https://127.0.0.2/hook", "http://10.0.0.1/hook", "https://[::1]/hook",
        "https://169.254.169.254/latest/meta-data", "https://no-such-host.invalid/",
    ])  # fmt: skip
    def test_an_endpoint_out_of_bounds_is_refused(self, world: World, endpoint: str) -> None:
        subscription = a_subscription(channel={"endpoint": endpoint})
        assert refused(world, subscription) == {"Subscription.channel.endpoint"}

    def test_an_end_in_the_past_is_refused(self, world: World) -> None:
        end = (world.clock() - timedelta(minutes=1)).isoformat()
        assert refused(world, a_subscription(end=end)) == {"Subscription.end"}

    def test_who_may_not_read_the_topics_type_may_not_subscribe(self, world: World) -> None:
        scopes = (Scope("system", "Subscription", "cruds"), Scope("system", "Patient", "rs"))
        with pytest.raises(Forbidden):
            world.subscribe(a_subscription(), replace(LAKESIDE, scopes=scopes))


class TestUpdate:
    def change(self, world: World, id: str, **elements: Any) -> dict:
        return world.change(f"Subscription/{id}", LAKESIDE, **elements).resource()

    @pytest.mark.parametrize("was", ["requested", "active", "error"])
    @pytest.mark.parametrize("asked, becomes", [("requested", "requested"), ("active", "requested"), ("off", "off")])
    def test_a_client_asks_for_a_new_beginning_or_for_the_end(
        self, world: World, was: str, asked: str, becomes: str
    ) -> None:
        id = world.subscribe(a_subscription())
        error = {"error": "no answer"} if was == "error" else {}
        world.repository.amend(SERVER, "Subscription", id, lambda one: one | {"status": was} | error)
        changed = self.change(world, id, status=asked)
        assert changed["status"] == becomes
        assert "error" not in changed

    def test_a_client_cannot_say_error_nor_talk_it_away(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        with pytest.raises(Unprocessable):
            self.change(world, id, status="error")
        world.repository.amend(
            SERVER, "Subscription", id, lambda one: one | {"status": "error", "error": "no answer"}
        )
        assert self.change(world, id, reason="another", error="all is well")["error"] == "no answer"

    def test_what_may_not_be_created_may_not_become(self, world: World) -> None:
        id = world.subscribe(a_websocket_subscription())
        with pytest.raises(Unprocessable):
            self.change(world, id, criteria="http://example.org/other")
        assert world.subscription(id)["meta"]["versionId"] == "1"

    def test_switching_off_is_possible_even_where_the_topic_is_gone(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        assert self.change(world, id, status="off", criteria="http://example.org/gone")["status"] == "off"
        with pytest.raises(Unprocessable):
            self.change(world, id, status="requested")


class TestOwner:
    def test_nobody_else_finds_or_changes_it(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        with pytest.raises(NotFound):
            world.repository.read(HILLCREST, "Subscription", id)
        with pytest.raises(Forbidden):
            world.repository.update(HILLCREST, a_subscription(id=id))
        with pytest.raises(Forbidden):
            world.repository.delete(HILLCREST, "Subscription", id)

    def test_it_stays_theirs_whoever_changes_it(self, world: World) -> None:
        id = world.subscribe(a_subscription())
        world.repository.amend(SERVER, "Subscription", id, lambda one: one | {"status": "active"})
        assert world.repository.read(LAKESIDE, "Subscription", id).version == 2


class TestMasking:
    """`channel.header` is a secret of the endpoint."""

    def test_header_values_are_shown_to_the_owner_only(self, world: World) -> None:
        id = world.subscribe(a_subscription(channel={"header": [SECRET, "X-Office: 7"]}))
        version = world.repository.read(PRACTICE, "Subscription", id)
        assert masked(LAKESIDE, version) is version
        assert masked(SERVER, version) is version
        shown = masked(PRACTICE, version).resource()
        assert shown["channel"].pop("header") == ["Authorization: ***", "X-Office: ***"]
        whole = version.resource()
        del whole["channel"]["header"]
        assert shown == whole

    def test_one_without_headers_is_shown_as_it_is(self, world: World) -> None:
        version = world.repository.read(PRACTICE, "Subscription", world.subscribe(a_subscription()))
        assert masked(PRACTICE, version) is version

    def test_what_comes_back_masked_stays_as_it_was(self, world: World) -> None:
        id = world.subscribe(a_subscription(channel={"header": [SECRET]}))
        shown = masked(PRACTICE, world.repository.read(PRACTICE, "Subscription", id)).resource()
        world.repository.update(PRACTICE, shown | {"reason": "read, changed and written back"})
        assert world.subscription(id)["channel"]["header"] == [SECRET]

    def test_a_secret_goes_to_no_other_endpoint(self, world: World) -> None:
        id = world.subscribe(a_subscription(channel={"header": [SECRET]}))
        shown = masked(PRACTICE, world.repository.read(PRACTICE, "Subscription", id)).resource()
        shown["channel"]["endpoint"] = "http://127.0.0.1:10/elsewhere"
        with pytest.raises(Unprocessable) as refusal:
            world.repository.update(PRACTICE, shown)
        assert refusal.value.expression == "Subscription.channel.header[0]"

    def test_a_mask_of_nothing_is_refused(self, world: World) -> None:
        assert refused(world, a_subscription(channel={"header": ["Authorization: ***"]})) == {
            "Subscription.channel.header[0]"
        }
