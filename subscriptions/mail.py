"""Mail to offices without an EHR connection: that there is news, a number, and a link behind the log-in.

Mail is read by many on its way, so nothing of a patient is in subject or body, whatever the event is about.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Protocol

from fhir_server.version import Version
from subscriptions.definition import EMPTY, SubscriptionDefinition
from subscriptions.notification import Notified

SHOWN = re.compile(r"[A-Za-z0-9-]{1,40}")  # a number fit for a subject line


@dataclass(frozen=True, slots=True)
class Message:
    """A mail. id: the same whenever the same event is sent again to the same Subscription. html: the body once more,
    for whom it is wanted; attached: a notification as FHIR JSON, likewise."""

    id: str
    subscription: str
    event: int
    to: str
    subject: str
    body: str
    at: datetime
    html: str = ""
    attached: str = ""


class MailSender(Protocol):
    """Where mail goes. `deliver` takes a message once however often it is called with it. Raises MailUnavailable."""

    def deliver(self, message: Message) -> None: ...


class MailUnavailable(Exception):
    """The mail was not taken; trying again later may help."""


class Mailer:
    """Writes the mail of an event. referral_number: of a Task; shown only where it looks like a number."""

    def __init__(self, sender: MailSender, public_url: str, referral_number: Callable[[dict], str | None]) -> None:
        self._sender = sender
        self._public_url = public_url.rstrip("/")
        self._referral_number = referral_number

    def send(
        self,
        subscription: str,
        definition: SubscriptionDefinition,
        event: Notified,
        now: datetime,
        attached: str = "",
    ) -> None:
        to = address_of(definition)
        subject, link = self.words(definition, event)
        body = f"{subject}.\n\nTo see it, please log in: {link}\n\nThis message has no answer address."
        html = _html(subject, link) if definition.mime.lower().startswith("text/html") else ""
        self._sender.deliver(
            Message(
                f"{subscription}/{event.number}", subscription, event.number, to, subject, body, now, html, attached
            )
        )

    def fax(self, subscription: str, definition: SubscriptionDefinition, event: Notified, now: datetime) -> Message:
        """The same news as a fax."""
        subject, link = self.words(definition, event)
        body = f"To see it, please log in:\n{link}"
        to = f"fax {address_of(definition)}"
        return Message(f"{subscription}/{event.number}", subscription, event.number, to, subject, body, now)

    def words(self, definition: SubscriptionDefinition, event: Notified) -> tuple[str, str]:
        """What an event may be called in public, and the address that shows it behind the log-in."""
        return self._words(None if definition.content == EMPTY else event.source)

    def _words(self, source: Version | None) -> tuple[str, str]:
        if source is None or source.resource_type != "Task" or source.deleted:
            return "There is news on one of your referrals", f"{self._public_url}/referrals"
        number = self._referral_number(source.resource()) or ""
        known = SHOWN.fullmatch(number) and any(sign.isdigit() for sign in number)
        subject = f"There is news on referral {number}" if known else "There is news on one of your referrals"
        return subject, f"{self._public_url}/referrals/{source.id}"


def address_of(definition: SubscriptionDefinition) -> str:
    """The address in `mailto:address`."""
    return (definition.endpoint or "").partition(":")[2]


def _html(subject: str, link: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Radloop</title></head><body>'
        f'<p>{escape(subject)}.</p><p><a href="{escape(link)}">Log in to see it</a></p>'
        "<p>This message has no answer address.</p></body></html>"
    )
