"""Tokens that bind a websocket to Subscriptions: short-lived secrets, good for any number of sockets until they end.

Whoever calls `bind` has made sure that the subject may be told what these Subscriptions tell. What a socket is sent
is measured against the subject's rights all the same, each time.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from subscriptions.store import BindingTokens, Bound, SubscriptionStore

LIFE = timedelta(minutes=30)
MAX_TOKEN = 200  # characters of what is worth looking up


def real_time() -> datetime:
    return datetime.now(UTC)


class Bindings:
    """Makes tokens and finds out what they stand for. now: the real time, whatever the practice's is."""

    def __init__(
        self, store: SubscriptionStore, tokens: BindingTokens, now: Callable[[], datetime] = real_time
    ) -> None:
        self._store = store
        self._tokens = tokens
        self.now = now

    def bind(self, subject: str, subscriptions: Sequence[str]) -> tuple[str, datetime]:
        """A token for a websocket of `subject` (`user:x`, `client:y`) to these Subscriptions, and when it ends.

        Of the subject's own Subscriptions the socket gets all that was not delivered yet; of others (a part of this
        server keeps one for its pages) what happens from now on.
        """
        token, until = secrets.token_urlsafe(32), self.now().replace(microsecond=0) + LIFE
        last = self._store.last_numbers(subscriptions)
        numbers = {id: last.get(id, 0) for id in subscriptions}
        self._tokens.add(Bound(_digest(token), subject, numbers, until))
        return token, until

    def find(self, token: str) -> Bound | None:
        """What the token stands for; None when it is none of ours or has ended."""
        return self._tokens.find(_digest(token), self.now()) if len(token) <= MAX_TOKEN else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
