"""Fax by a gateway of the outside world, and the page that it gets."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from fhir_server.errors import Unprocessable
from subscriptions import courier, profile
from subscriptions.courier import RetryPolicy
from subscriptions.definition import parse
from subscriptions.fax import FaxGateway, FaxUnavailable, HttpFaxSender, cover
from subscriptions.mail import Message
from subscriptions.outgoing import Outgoing
from tests.subscriptions.conftest import (
    BASE,
    LAKESIDE,
    ORIGIN,
    PRACTICE,
    TOPICS,
    World,
    a_subscription,
    eventually,
    make_world,
)  # fmt: skip

NUMBER = "+41441234567"
MESSAGE = Message(
    "s/1", "s", 1, f"fax {NUMBER}", "There is news on referral LK-12", "To see it (soon):\nhttps://a",
    datetime(2026, 3, 1, 8, tzinfo=UTC),
)  # fmt: skip
PATIENT = {"reference": "Patient/p-1", "display": "Ernestine Quackenbush"}


class Gateway:
    """Keeps the contract of docs/operations.md. `becomes`: the statuses that the next faxes get when looked at."""

    def __init__(self) -> None:
        self.faxes: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str | None] = set()
        self.becomes = "sent"
        self.answer: Any = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.tokens.add(self.headers["Authorization"])
                reference = self.path.removeprefix("/faxes/")
                known = reference in outer.faxes
                self._say(200 if known else 404, {"status": outer.becomes} if known else {})

            def do_POST(self) -> None:
                boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
                form = {}
                for part in self.rfile.read(int(self.headers["Content-Length"])).split(b"--" + boundary)[1:-1]:
                    head, _, value = part.partition(b"\r\n\r\n")
                    name = re.search(rb'name="(\w+)"', head)
                    assert name
                    form[name[1].decode()] = value.removesuffix(b"\r\n")
                outer.faxes[form["reference"].decode()] = form
                self._say(202, {"status": "queued"} if outer.answer is None else outer.answer)

            def _say(self, status: int, told: Any) -> None:
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/faxes"
        threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.close()


@pytest.fixture
def sender(gateway: Gateway, tmp_path: Path) -> HttpFaxSender:
    (tmp_path / "token").write_text("t0ken\n")
    settings = FaxGateway(gateway.url, str(tmp_path / "token"))
    return HttpFaxSender(settings, Outgoing(["127.0.0.1"]), lambda: "Radiology")


def a_fax_subscription(content: str = "id-only", **channel: Any) -> dict:
    coding = {"system": profile.CHANNEL_SYSTEM, "code": "fax"}
    custom = {"extension": [{"url": profile.CHANNEL_TYPE, "valueCoding": coding}]}
    usual = {"_type": custom, "endpoint": f"tel:{NUMBER}", "payload": "application/pdf"}
    subscription = a_subscription(content=content, channel=usual | channel)
    del subscription["channel"]["type"]
    return subscription


class TestGateway:
    def test_a_fax_is_handed_over_once_and_has_arrived_when_the_gateway_says_so(
        self, sender: HttpFaxSender, gateway: Gateway
    ) -> None:
        gateway.becomes = "queued"
        assert not sender.deliver(MESSAGE, 0)
        assert not sender.deliver(MESSAGE, 0)
        gateway.becomes = "sent"
        assert sender.deliver(MESSAGE, 0)
        (form,) = gateway.faxes.values()
        assert form["to"] == NUMBER.encode()
        assert form["document"].startswith(b"%PDF-")
        assert gateway.tokens == {"Bearer t0ken"}

    def test_a_failed_one_is_tried_again_under_another_reference(
        self, sender: HttpFaxSender, gateway: Gateway
    ) -> None:
        sender.deliver(MESSAGE, 0)
        gateway.becomes = "failed"
        with pytest.raises(FaxUnavailable):
            sender.deliver(MESSAGE, 0)
        gateway.becomes = "sent"
        sender.deliver(MESSAGE, 1)
        assert len(gateway.faxes) == 2

    @pytest.mark.parametrize("answer", [[], "sent", {"status": "lost"}, {"state": "sent"}, None])
    def test_an_answer_that_says_nothing_is_no_arrival(
        self, sender: HttpFaxSender, gateway: Gateway, answer: Any
    ) -> None:
        gateway.answer = {} if answer is None else answer
        with pytest.raises(FaxUnavailable):
            sender.deliver(MESSAGE, 0)

    def test_a_gateway_that_is_not_there_is_told(self, sender: HttpFaxSender, gateway: Gateway) -> None:
        gateway.close()
        with pytest.raises(FaxUnavailable):
            sender.deliver(MESSAGE, 0)


class TestPage:
    def test_is_a_pdf_whose_table_leads_to_its_objects(self) -> None:
        document = cover(MESSAGE, "Radiology \u2013 Z\u00fcrich")
        start = int(document.rsplit(b"startxref\n", 1)[1].split()[0])
        assert document[start:].startswith(b"xref\n0 7\n")
        places = re.findall(rb"(\d{10}) 00000 n", document)
        for number, place in enumerate(places, 1):
            assert document[int(place) :].startswith(b"%d 0 obj" % number)
        length = re.search(rb"/Length (\d+) >>\nstream\n(.*)\nendstream", document, re.DOTALL)
        assert length
        assert int(length[1]) == len(length[2])

    def test_says_what_a_cover_says_and_escapes_what_pdf_reads(self) -> None:
        document = cover(replace(MESSAGE, subject="a) Tj (b\\"), "Z\u00fcrich")
        assert rb"(a\) Tj \(b\\) Tj" in document
        for text in (NUMBER.encode(), b"Z\xfcrich", b"2026-03-01 08:00 UTC", b"names no patient", b"\\(soon\\)"):
            assert text in document


class TestSubscription:
    def test_each_event_is_a_page_without_a_patient(
        self, database: Database, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(courier, "FAX_LOOK_S", 0.05)
        policy = RetryPolicy(delays_s=(0.05,), give_up_after_s=3600)
        world = make_world(database, {}, policy, fax=FaxGateway(gateway.url))
        id = world.subscribe(a_fax_subscription(), PRACTICE)
        world.start()
        try:
            eventually(lambda: world.status(id) == "active")
            tasks = [world.task(**{"for": PATIENT}, identifier=[{"value": f"LK-{n}"}]) for n in (1, 2)]
            eventually(lambda: world.store.state(id).delivered == 2)
            documents = [form["document"] for form in gateway.faxes.values()]
            assert [re.findall(rb"referral (LK-\d)", one) for one in documents] == [[b"LK-1"], [b"LK-2"]]
            for document, task in zip(documents, tasks, strict=True):
                assert f"{ORIGIN}/referrals/{task.split('/')[1]}".encode() in document
                assert not any(word in document for word in (b"Ernestine", b"Quackenbush", b"p-1"))
        finally:
            world.stop()

    def test_without_a_gateway_faxes_stay_in_the_outbox(self, world: World) -> None:
        id = world.subscribe(a_fax_subscription(), PRACTICE)
        world.start()
        eventually(lambda: world.status(id) == "active")
        world.task()
        eventually(lambda: len(world.service.outbox.list()) == 1)
        assert world.service.outbox.list()[0].to == f"fax {NUMBER}"

    def test_offices_do_not_set_up_numbers(self, world: World) -> None:
        with pytest.raises(Unprocessable) as refusal:
            world.subscribe(a_fax_subscription(), LAKESIDE)
        assert refusal.value.issues[0].expression == "Subscription.channel.endpoint"

    @pytest.mark.parametrize("subscription, element", [
        (a_fax_subscription(endpoint="tel:0441234567"), "endpoint"),
        (a_fax_subscription(endpoint="tel:+41 44"), "endpoint"),
        (a_fax_subscription(endpoint=f"tel:{NUMBER}\r\nX: y"), "endpoint"),
        (a_fax_subscription(endpoint=None), "endpoint"),
        (a_fax_subscription(payload="text/plain"), "payload"),
        (a_fax_subscription("full-resource"), "payload.extension[0].value"),
    ])  # fmt: skip
    def test_what_is_no_fax_is_refused(self, subscription: dict, element: str) -> None:
        with pytest.raises(Unprocessable) as refusal:
            parse(subscription, TOPICS, BASE)
        assert [issue.expression for issue in refusal.value.issues] == [f"Subscription.channel.{element}"]

    def test_has_nothing_that_a_websocket_could_be_bound_to(self, world: World) -> None:
        id = world.subscribe(a_fax_subscription(), PRACTICE)
        with pytest.raises(Unprocessable):
            world.operate("get-ws-binding-token", PRACTICE, id)

    def test_is_found_by_its_channel(self, world: World) -> None:
        id = world.subscribe(a_fax_subscription(), PRACTICE)
        query = [("custom-channel", f"{profile.CHANNEL_SYSTEM}|fax")]
        found = world.repository.search(PRACTICE, "Subscription", query, strict=True).matches
        assert [version.id for version in found] == [id]
