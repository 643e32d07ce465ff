"""Mail addresses are asked whether they want our mail before they get any: a link that is good once and not for long.

An address is verified for one owner of Subscriptions; somebody else's has to be confirmed anew.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from subscriptions.binding import real_time
from subscriptions.mail import MailSender, MailUnavailable, Message
from subscriptions.rights import SYSTEM

LIFE = timedelta(days=3)  # of a link
DAY = timedelta(days=1)
MAX_OF_OWNER = 20  # addresses that one owner may have asked in a day
MAX_OF_ADDRESS = 3  # times that one address is asked in a day, whoever wants it
MAX_TOKEN = 200  # characters of what is worth looking up
PATH = "/mail/confirm/"


class AddressRefused(Exception):
    """The address is not confirmed and will not be; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to an address. wish: the Subscription and its version that it was asked for."""

    digest: str
    owner: str
    address: str
    wish: str
    at: datetime
    until: datetime
    used: bool = False


class AddressStore(Protocol):
    """Where questions and confirmed addresses are kept."""

    def is_verified(self, owner: str, address: str) -> bool: ...

    def asked_for(self, wish: str) -> Asked | None: ...

    def earlier(self, asked: Asked, since: datetime, name: str) -> int:
        """How many questions of the same `name` (owner, address) came before this one."""
        ...

    def add(self, asked: Asked) -> None: ...

    def remove(self, asked: Asked) -> None: ...

    def find(self, digest: str, now: datetime) -> Asked | None: ...

    def confirm(self, digest: str, now: datetime) -> Asked | None: ...


class Addresses:
    """Asks addresses, and takes their answer. now: the real time, whatever the practice's is."""

    def __init__(
        self, store: AddressStore, sender: MailSender, public_url: str, now: Callable[[], datetime] = real_time
    ) -> None:
        self._store = store
        self._sender = sender
        self._public_url = public_url.rstrip("/")
        self._now = now

    def ready(self, owner: str, address: str, wish: str) -> bool:
        """Whether the owner's mail may go to the address; asks it where it was not asked for this wish yet.

        What this server itself or its operator set up needs no question. Raises AddressRefused, MailUnavailable.
        """
        address = address.lower()
        if owner.startswith(SYSTEM) or self._store.is_verified(owner, address):
            return True
        asked, now = self._store.asked_for(wish), self._now()
        if asked is None:
            self._ask(owner, address, wish, now)
        elif asked.until <= now:
            raise AddressRefused(
                "the address was not confirmed in time; ask again by an update with status requested"
            )
        return False

    def shown(self, token: str) -> str | None:
        """The address that a link is about; None when the link is none of ours, used or too old."""
        asked = self._store.find(_digest(token), self._now()) if len(token) <= MAX_TOKEN else None
        return asked.address if asked else None

    def confirm(self, token: str) -> str | None:
        """Take the answer: the address, or None for such a link. A link is good once."""
        asked = self._store.confirm(_digest(token), self._now()) if len(token) <= MAX_TOKEN else None
        return asked.address if asked else None

    def _ask(self, owner: str, address: str, wish: str, now: datetime) -> None:
        token = secrets.token_urlsafe(32)
        asked = Asked(_digest(token), owner, address, wish, now, now + LIFE)
        self._store.add(asked)  # first, so that those who ask at the same time count one another
        try:
            self._check_limits(asked)
            link = f"{self._public_url}{PATH}{token}"
            body = (
                "Somebody asked us to send notices about referrals to this address.\n\n"
                f"If that is right, please confirm it within three days: {link}\n\n"
                "If not, there is nothing to do: without it nothing is sent.\n\nThis message has no answer address."
            )
            subject, of = "Please confirm this address", wish.partition("/")[0]
            self._sender.deliver(Message(f"confirm/{asked.digest}", of, 0, address, subject, body, now))
        except (AddressRefused, MailUnavailable):
            self._store.remove(asked)
            raise

    def _check_limits(self, asked: Asked) -> None:
        since = asked.at - DAY
        if self._store.earlier(asked, since, "owner") >= MAX_OF_OWNER:
            raise AddressRefused("too many addresses were to be confirmed today; try again tomorrow")
        if self._store.earlier(asked, since, "address") >= MAX_OF_ADDRESS:
            raise AddressRefused("this address was asked too often today; try again tomorrow")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
