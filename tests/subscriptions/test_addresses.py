"""An address gets no mail before somebody there has said that it may."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database

from subscriptions import addresses
from subscriptions.addresses import MAX_OF_ADDRESS, MAX_OF_OWNER, Addresses, AddressRefused
from subscriptions.mail import Message
from subscriptions.mail_store import MongoAddresses
from tests.subscriptions.conftest import HILLCREST, LAKESIDE, ORIGIN, World, a_subscription, eventually

OWNER, ADDRESS = LAKESIDE.subject, "office@lakeside.example"
CHANNEL = {"type": "email", "endpoint": f"mailto:{ADDRESS}", "payload": "text/plain"}


class Time:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        """A little later each time."""
        self.now += timedelta(milliseconds=1)
        return self.now


class Post:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.messages.append(message)

    def token(self) -> str:
        return token_in(self.messages[-1].body)


def token_in(body: str) -> str:
    found = re.search(rf"{ORIGIN}/mail/confirm/([A-Za-z0-9_-]+)", body)
    assert found, body
    return found[1]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def book(database: Database, post: Post, time: Time) -> Iterator[Addresses]:
    store = MongoAddresses(database)
    store.prepare()
    yield Addresses(store, post, ORIGIN, time)


class TestQuestion:
    def test_an_address_is_asked_once_for_a_wish_and_ready_once_confirmed(self, book: Addresses, post: Post) -> None:
        assert not book.ready(OWNER, ADDRESS, "s/1")
        assert not book.ready(OWNER, ADDRESS, "s/1")
        assert [message.to for message in post.messages] == [ADDRESS]
        assert book.confirm(post.token()) == ADDRESS
        assert book.ready(OWNER, ADDRESS, "s/1")
        assert book.ready(OWNER, ADDRESS.upper(), "other/1")  # known from now on
        assert len(post.messages) == 1

    def test_an_address_confirmed_for_one_owner_is_not_so_for_another(self, book: Addresses, post: Post) -> None:
        book.ready(OWNER, ADDRESS, "s/1")
        book.confirm(post.token())
        assert not book.ready(HILLCREST.subject, ADDRESS, "t/1")
        assert len(post.messages) == 2

    def test_what_the_operator_set_up_needs_no_question(self, book: Addresses, post: Post) -> None:
        assert book.ready("system:load", ADDRESS, "s/1")
        assert post.messages == []

    def test_a_link_is_good_once(self, book: Addresses, post: Post) -> None:
        book.ready(OWNER, ADDRESS, "s/1")
        assert book.shown(post.token()) == ADDRESS  # to look uses nothing up
        assert book.confirm(post.token()) == ADDRESS
        assert book.shown(post.token()) is None
        assert book.confirm(post.token()) is None

    @pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 10_000, "\u00e9", "$ne"])
    def test_other_links_are_not_good(self, book: Addresses, token: str) -> None:
        assert book.shown(token) is None
        assert book.confirm(token) is None

    def test_a_link_ends_and_the_wish_with_it(self, book: Addresses, post: Post, time: Time) -> None:
        book.ready(OWNER, ADDRESS, "s/1")
        time.now += addresses.LIFE
        assert book.confirm(post.token()) is None
        with pytest.raises(AddressRefused, match="not confirmed in time"):
            book.ready(OWNER, ADDRESS, "s/1")
        assert not book.ready(OWNER, ADDRESS, "s/2")  # a new wish is a new question
        assert book.confirm(post.token()) == ADDRESS

    def test_a_secret_of_which_a_hash_is_kept(self, book: Addresses, post: Post, database: Database) -> None:
        book.ready(OWNER, ADDRESS, "s/1")
        assert len(post.token()) >= 43
        assert post.token() not in str(list(database["mail_questions"].find()))

    def test_nobody_is_flooded(self, book: Addresses, post: Post, time: Time) -> None:
        for number in range(MAX_OF_ADDRESS):
            book.ready(f"client:{number}", ADDRESS, f"s{number}/1")
        with pytest.raises(AddressRefused, match="too often"):
            book.ready(OWNER, ADDRESS, "s/1")
        for number in range(MAX_OF_OWNER):
            book.ready(OWNER, f"a{number}@b.example", f"t{number}/1")
        with pytest.raises(AddressRefused, match="too many"):
            book.ready(OWNER, "one@more.example", "t/1")
        time.now += addresses.DAY + timedelta(seconds=1)
        assert not book.ready(OWNER, "one@more.example", "t/1")
        assert len(post.messages) == MAX_OF_ADDRESS + MAX_OF_OWNER + 1


class TestSubscription:
    def test_is_active_once_its_address_is_confirmed(self, world: World) -> None:
        world.service._delivery._look_over_s = 0.05
        id = world.subscribe(a_subscription(channel=CHANNEL))
        world.start()
        eventually(lambda: len(world.service.outbox.list()) == 1)
        world.task()
        assert world.status(id) == "requested"
        (question,) = world.service.outbox.list()
        assert world.service.addresses.confirm(token_in(question.body)) == ADDRESS
        eventually(lambda: world.status(id) == "active")
        eventually(lambda: len(world.service.outbox.list()) == 2)
        assert world.service.outbox.list()[0].event == 1

    def test_turns_to_error_when_too_much_is_asked(self, world: World) -> None:
        ids = [world.subscribe(a_subscription(channel=CHANNEL)) for _ in range(MAX_OF_ADDRESS + 1)]
        world.start()
        eventually(lambda: sorted(world.status(id) for id in ids)[0] == "error")
        failed = [world.subscription(id) for id in ids if world.status(id) == "error"]
        assert ["too often" in one["error"] for one in failed] == [True]
