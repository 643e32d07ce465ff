"""Mail to offices without an EHR connection: that there is news, a number, and a link behind the log-in.

Mail is read by many on its way, so nothing of a patient is in subject or body, whatever the event is about.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fhir_server.version import Version
from subscriptions.definition import EMPTY, SubscriptionDefinition
from subscriptions.notification import Notified

SHOWN = re.compile(r"[A-Za-z0-9-]{1,40}")  # a number fit for a subject line


@dataclass(frozen=True, slots=True)
class Message:
    """A mail. id: the same whenever the same event is sent again to the same Subscription."""

    id: str
    subscription: str
    event: int
    to: str
    subject: str
    body: str
    at: datetime


class MailSender(Protocol):
    """Where mail goes. `deliver` takes a message once however often it is called with it."""

    def deliver(self, message: Message) -> None: ...


class Mailer:
    """Writes the mail of an event. referral_number: of a Task; shown only where it looks like a number."""

    def __init__(self, sender: MailSender, public_url: str, referral_number: Callable[[dict], str | None]) -> None:
        self._sender = sender
        self._public_url = public_url.rstrip("/")
        self._referral_number = referral_number

    def send(self, subscription: str, definition: SubscriptionDefinition, event: Notified, now: datetime) -> None:
        to = (definition.endpoint or "").partition(":")[2]
        about = None if definition.content == EMPTY else event.source
        subject, link = self._words(about)
        body = f"{subject}.\n\nTo see it, please log in: {link}\n\nThis message has no answer address."
        self._sender.deliver(
            Message(f"{subscription}/{event.number}", subscription, event.number, to, subject, body, now)
        )

    def _words(self, source: Version | None) -> tuple[str, str]:
        if source is None or source.resource_type != "Task" or source.deleted:
            return "There is news on one of your referrals", f"{self._public_url}/referrals"
        number = self._referral_number(source.resource()) or ""
        known = SHOWN.fullmatch(number) and any(sign.isdigit() for sign in number)
        subject = f"There is news on referral {number}" if known else "There is news on one of your referrals"
        return subject, f"{self._public_url}/referrals/{source.id}"
