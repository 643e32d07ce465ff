"""Fax to offices that have nothing else: one page that says that there is news, and where to see it.

A fax lies in a tray for anybody, and a number can be mistyped, so the page names no patient. It goes to a gateway of
the practice over HTTP, by two calls (docs/operations.md): POST a fax under a reference of ours, and GET how it fared.
The reference is made of the event, so nothing is kept here, and a crash sends no page twice.
"""

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from subscriptions.calling import call_once
from subscriptions.mail import MailSender, Message
from subscriptions.outgoing import EndpointUnavailable, Outgoing, OutgoingRefused, below
from subscriptions.pdf import Line, page

TIMEOUT_S = 30.0
QUEUED, SENT, FAILED = "queued", "sent", "failed"
NOT_KNOWN = 404


class FaxUnavailable(Exception):
    """The fax did not arrive; trying again later may help."""


class FaxSender(Protocol):
    """Where faxes go."""

    def deliver(self, message: Message, attempt: int) -> bool:
        """Send a fax, or look what became of it: whether it has arrived. attempt: how many failed before it.

        Raises FaxUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class FaxGateway:
    """The practice's gateway. token_file: what it wants as a bearer token, read anew each time; empty for none."""

    url: str
    token_file: str = ""


class HttpFaxSender:
    """Sends by the gateway. outgoing: allows its host."""

    def __init__(self, gateway: FaxGateway, outgoing: Outgoing, sender_name: Callable[[], str]) -> None:
        self._gateway = gateway
        self._outgoing = outgoing
        self._sender_name = sender_name

    def deliver(self, message: Message, attempt: int) -> bool:
        reference = hashlib.sha256(f"{message.id}/{attempt}".encode()).hexdigest()[:32]
        found = self._call("GET", below(self._gateway.url, reference), b"", [])
        if found is None:
            body, kind = multipart(message, reference, cover(message, self._sender_name()))
            found = self._call("POST", self._gateway.url, body, [("Content-Type", kind)])
        if found == FAILED:
            raise FaxUnavailable("the fax gateway could not deliver it")
        return found == SENT

    def _call(self, method: str, url: str, body: bytes, headers: list[tuple[str, str]]) -> str | None:
        """What the gateway says of the fax; None when it does not know it."""
        if self._gateway.token_file:
            token = Path(self._gateway.token_file).read_text().strip()
            headers = [*headers, ("Authorization", f"Bearer {token}")]
        try:
            answer = call_once(self._outgoing, method, url, body, headers, TIMEOUT_S)
        except (OutgoingRefused, EndpointUnavailable) as error:
            raise FaxUnavailable(f"the fax gateway: {error}") from None
        if method == "GET" and answer.status == NOT_KNOWN:
            return None
        if not answer.accepted:
            raise FaxUnavailable(f"the fax gateway answered {answer.status}")
        return _status(answer.body)


class FaxOutbox:
    """A FaxSender that keeps faxes for the front desk to see, while there is no gateway."""

    def __init__(self, outbox: MailSender) -> None:
        self._outbox = outbox

    def deliver(self, message: Message, attempt: int) -> bool:  # noqa: ARG002 - what is kept does not fail
        """Keep it; that is all that can be done."""
        self._outbox.deliver(message)
        return True


def cover(message: Message, sender_name: str) -> bytes:
    """The page as PDF."""
    return page([
        Line("Fax", 22, bold=True),
        Line(""),
        Line(f"To: {message.to.removeprefix('fax ')}"),
        Line(f"From: {sender_name}"),
        Line(f"Date: {_day(message.at)}"),
        Line("Pages: 1"),
        Line(""),
        Line(message.subject, 14, bold=True),
        Line(""),
        *(Line(text, 11) for text in message.body.split("\n")),
        Line(""),
        Line("This page is meant for the office it is addressed to. It names no patient.", 9),
        Line("If it has reached you by mistake, please tell the sender and destroy it.", 9),
    ])  # fmt: skip


def multipart(message: Message, reference: str, document: bytes) -> tuple[bytes, str]:
    """The form of a fax and its Content-Type. https://www.rfc-editor.org/rfc/rfc7578"""
    boundary = secrets.token_hex(16)
    parts = [("to", message.to.removeprefix("fax ").encode()), ("reference", reference.encode())]
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts
    )
    head = 'Content-Disposition: form-data; name="document"; filename="fax.pdf"\r\nContent-Type: application/pdf'
    body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + document + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _status(body: bytes) -> str:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    status = told.get("status") if isinstance(told, dict) else None
    if status not in (QUEUED, SENT, FAILED):
        raise FaxUnavailable("the fax gateway's answer has no status")
    return status


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
