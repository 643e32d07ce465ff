"""The delivery loop of a worker: wakes at each new event and gives every Subscription its turn.

Any number of workers may run it: a turn needs the Subscription's lease. What is due is found in the store, by
watching it and by looking it over now and then, so a crash forgets nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

from subscriptions.courier import Courier, Next
from subscriptions.definition import WEBSOCKET
from subscriptions.store import State, SubscriptionStore

log = logging.getLogger(__name__)

LOOK_OVER_S = 5.0  # finds what a crashed worker left, and what is due by time
TROUBLE_PAUSE_S = 2.0
KEEP = timedelta(days=30)  # events, for `$events` and for those who were away, where no setting says otherwise
CLEAR_EVERY_S = 3600.0
RENEW_EVERY_S = 3.0


class Delivery:
    """workers: most threads for endpoints in good health; they are many, as one that begins to hang keeps its thread
    until its time is over. Those that failed last time share other threads, so that they wait for one another and
    nobody else waits for them. keep: how long events stay."""

    def __init__(
        self,
        store: SubscriptionStore,
        courier: Courier,
        workers: int = 512,
        workers_for_failing: int = 32,
        look_over_s: float = LOOK_OVER_S,
        keep: timedelta = KEEP,
    ) -> None:
        self._store = store
        self._courier = courier
        self._sizes = (workers, workers_for_failing)
        self._look_over_s = look_over_s
        self._keep = keep
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._again: set[str] = set()  # woken while running
        self._failing: set[str] = set()
        self._live: set[str] = set()  # bound to websockets: their events are sent by the live process
        self._timers: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; turns that are under way end first."""
        with (
            ThreadPoolExecutor(self._sizes[0], "deliver") as healthy,
            ThreadPoolExecutor(self._sizes[1], "retry") as failing,
        ):
            self._pools = (healthy, failing)
            watcher = threading.Thread(target=self._watch, args=(stop,), name="subscription-wakes")
            watcher.start()
            chores = [
                _Chore(self._look_over_s, lambda: self._look_over(stop)),
                _Chore(RENEW_EVERY_S, self._renew),
                _Chore(CLEAR_EVERY_S, lambda: self._store.clear(datetime.now(UTC) - self._keep)),
            ]
            while not stop.is_set():
                for chore in chores:
                    chore.do_when_due()
                self._wait(min(chore.due for chore in chores), stop)
            watcher.join()
            for pool in self._pools:
                pool.shutdown(cancel_futures=True)

    def _watch(self, stop: threading.Event) -> None:
        for wake in self._store.wakes(stop):
            if wake is None:
                _with_patience(lambda: self._look_over(stop))
            elif not (wake.event and self._is_not_for_events(wake.subscription)):
                self._wake(wake.subscription, stop)
        with self._changed:
            self._changed.notify()  # stopped: the loop need not wait for its next chore

    def _is_not_for_events(self, subscription: str) -> bool:
        """Whether a new event is no reason for a turn: it shortens no back-off, and live ones are not ours."""
        with self._changed:
            waits = subscription in self._timers and subscription not in self._running
            return subscription in self._live or (subscription in self._failing and waits)

    def _wait(self, until: float, stop: threading.Event) -> None:
        """Sleep until then or the next timer; give their turn to those whose time has come."""
        with self._changed:
            first = min(self._timers.values(), default=until)
            self._changed.wait(max(0.0, min(until, first) - time.monotonic()))
            now = time.monotonic()
            due = [subscription for subscription, at in self._timers.items() if at <= now]
            for subscription in due:
                del self._timers[subscription]
        for subscription in due:
            self._wake(subscription, stop)

    def _look_over(self, stop: threading.Event) -> None:
        last, states = self._store.last_numbers(), self._store.states()
        self._live = {state.id for state in states if state.channel == WEBSOCKET}
        for state in states:
            if _due(state, last.get(state.id, 0)):
                self._wake(state.id, stop)

    def _renew(self) -> None:
        with self._changed:
            running = list(self._running)
        if running:
            self._courier.renew(running)

    def _wake(self, subscription: str, stop: threading.Event) -> None:
        with self._changed:
            if subscription in self._running:
                self._again.add(subscription)
                return
            self._running.add(subscription)
            self._submit(subscription, stop)

    def _submit(self, subscription: str, stop: threading.Event) -> None:
        if not stop.is_set():
            self._pools[subscription in self._failing].submit(self._turn, subscription, stop)

    def _turn(self, subscription: str, stop: threading.Event) -> None:
        step = Next(delay_s=TROUBLE_PAUSE_S, failing=True)
        try:
            step = self._courier.turn(subscription, stop.is_set)
        except PyMongoError as error:
            log.warning("subscription %s waits for MongoDB: %s", subscription, type(error).__name__)
        except Exception as error:
            # The class alone: an error's text may carry patient data.
            log.error("subscription %s: %s while delivering", subscription, type(error).__name__)
        with self._changed:
            (self._failing.add if step.failing else self._failing.discard)(subscription)
            self._timers.pop(subscription, None)
            if step.delay_s is not None:
                self._timers[subscription] = time.monotonic() + step.delay_s
                self._changed.notify()
            if subscription in self._again:
                self._again.discard(subscription)
                self._submit(subscription, stop)
            else:
                self._running.discard(subscription)


class _Chore:
    """Something done now and then by the loop."""

    def __init__(self, every_s: float, do: Callable[[], None]) -> None:
        self.due = time.monotonic()
        self._every_s = every_s
        self._do = do

    def do_when_due(self) -> None:
        if time.monotonic() >= self.due:
            _with_patience(self._do)
            self.due = time.monotonic() + self._every_s


def _with_patience(do: Callable[[], None]) -> None:
    try:
        do()
    except PyMongoError as error:
        log.warning("deliveries wait for MongoDB: %s", type(error).__name__)


def _due(state: State, last: int) -> bool:
    now = datetime.now(UTC)
    if state.status == "requested":
        return True
    if state.status != "active":
        return False
    if state.end is not None:
        return True  # the courier knows the practice's time
    if state.channel == WEBSOCKET:
        return False
    return state.heartbeat_s is not None or (last > state.delivered and (state.next_attempt or now) <= now)
