"""Who listens to which Subscription in this process. One watcher of the store wakes them all."""

import logging
import threading
from typing import Protocol

from subscriptions.store import SubscriptionStore

log = logging.getLogger(__name__)

MAX_OF_SUBJECT = 50  # websockets of one client or user in this process
PAUSE_S = 1.0


class Listener(Protocol):
    def wake(self, subscription: str | None) -> None:
        """Something is new about this Subscription; None: perhaps about any."""


class TooMany(Exception):
    """The subject has as many websockets as it may."""


class Hub:
    """Thread safe. The watcher starts with the first listener, so after the server has forked its processes."""

    def __init__(self, store: SubscriptionStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._listeners: dict[str, set[Listener]] = {}
        self._of_subject: dict[str, set[Listener]] = {}
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def listen(self, subject: str, subscription: str, listener: Listener) -> None:
        """Wake the listener from now on. Raises TooMany."""
        with self._lock:
            own = self._of_subject.setdefault(subject, set())
            if listener not in own and len(own) >= MAX_OF_SUBJECT:
                raise TooMany
            own.add(listener)
            self._listeners.setdefault(subscription, set()).add(listener)
            if self._watcher is None and not self._stop.is_set():
                self._watcher = threading.Thread(target=self._watch, name="subscription-wakes", daemon=True)
                self._watcher.start()

    def leave(self, listener: Listener, subscription: str | None = None) -> None:
        """Wake the listener no more: about this Subscription, or (None) at all."""
        with self._lock:
            if subscription is not None:
                _discard(self._listeners, subscription, listener)
                return
            for table in (self._listeners, self._of_subject):
                for key in [key for key, listeners in table.items() if listener in listeners]:
                    _discard(table, key, listener)

    def close(self) -> None:
        """End the watcher."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                for wake in self._store.wakes(self._stop):
                    self._wake(wake.subscription if wake else None)
            except Exception as error:
                # Without the watcher every listener would be deaf without a sign.
                log.error("watching subscriptions begins anew after %s", type(error).__name__)
                self._stop.wait(PAUSE_S)

    def _wake(self, subscription: str | None) -> None:
        with self._lock:
            if subscription is None:
                listeners = set().union(*self._listeners.values())
            else:
                listeners = set(self._listeners.get(subscription, ()))
        for listener in listeners:
            listener.wake(subscription)


def _discard(table: dict[str, set[Listener]], key: str, listener: Listener) -> None:
    listeners = table.get(key, set())
    listeners.discard(listener)
    if not listeners:
        table.pop(key, None)
