"""The delivery loop of a worker: wakes at each new event and gives every Subscription its turn.

Any number of workers may run it: a turn needs the Subscription's lease. What is due is found in the store, by
watching it and by looking it over now and then, so a crash forgets nothing.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

from subscriptions.courier import Courier, Next
from subscriptions.definition import WEBSOCKET
from subscriptions.store import State, SubscriptionStore, Wake

log = logging.getLogger(__name__)

LOOK_OVER_S = 5.0  # finds what a crashed worker left, and what is due by time
TROUBLE_PAUSE_S = 2.0
KEEP = timedelta(days=30)  # events, for `$events` and for those who were away, where no setting says otherwise
CLEAR_EVERY_S = 3600.0
RENEW_EVERY_S = 1.0
FAILING = 128  # of those that failed last time, so many are tried at once
CHANGED = 256  # of those that were not woken by an event, as at their handshakes
GRACE_S = 5.0  # for what is under way when the worker stops; then it is left to the next one


class Delivery:
    """All turns are in one thread: one that waits for its endpoint takes nothing that others need, however many do.
    look_over_s: between two looks at all Subscriptions. keep: how long events stay."""

    def __init__(
        self,
        store: SubscriptionStore,
        courier: Courier,
        look_over_s: float = LOOK_OVER_S,
        keep: timedelta = KEEP,
    ) -> None:
        self._store = store
        self._courier = courier
        self._look_over_s = look_over_s
        self._keep = keep

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; turns that are under way may end first, but for those that wait too long."""
        asyncio.run(_Run(self._store, self._courier, stop).run(self._look_over_s, self._keep))


class _Run:
    """Delivery from one start to one stop. But for `_watch` all of it is in the event loop's thread."""

    def __init__(self, store: SubscriptionStore, courier: Courier, stop: threading.Event) -> None:
        self._store = store
        self._courier = courier
        self._stop = stop
        self._turns: dict[str, asyncio.Task] = {}
        self._again: set[str] = set()  # woken while running
        self._failing: set[str] = set()
        self._failing_at_once = asyncio.Semaphore(FAILING)
        self._changed_at_once = asyncio.Semaphore(CHANGED)
        self._live: set[str] = set()  # bound to websockets: their events are sent by the live process
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._woken: deque[Wake | None] = deque()  # not looked at yet
        self._taking = False  # whether `_take` is to come
        self._to_look = asyncio.Event()

    async def run(self, look_over_s: float, keep: timedelta) -> None:
        self._loop = asyncio.get_running_loop()
        self._courier.begin()
        watcher = asyncio.create_task(asyncio.to_thread(self._watch))
        chores = [
            asyncio.create_task(chore)
            for chore in (
                self._every(look_over_s, self._look_over, self._to_look),
                self._every(RENEW_EVERY_S, self._renew),
                self._every(CLEAR_EVERY_S, lambda: asyncio.to_thread(self._store.clear, datetime.now(UTC) - keep)),
            )
        ]
        try:
            await watcher  # which ends when it is to stop
        finally:
            for timer in self._timers.values():
                timer.cancel()
            await self._end(set(self._turns.values()), GRACE_S)
            await self._end(set(chores), 0)
            await _with_patience(lambda: asyncio.to_thread(self._courier.end))

    async def _end(self, tasks: set[asyncio.Task], grace_s: float) -> None:
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # What wakes

    def _watch(self) -> None:
        """In a thread of its own."""
        for wake in self._store.wakes(self._stop):
            self._woken.append(wake)
            if not self._taking:  # else it is taken along
                self._taking = True
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._taking = False  # before the look: what is appended from now on may be seen or not, and comes again
        while self._woken:
            wake = self._woken.popleft()
            if wake is None:
                self._to_look.set()
            elif not (wake.event and self._is_not_for_events(wake.subscription)):
                self._wake(wake.subscription, wake.event)

    def _is_not_for_events(self, subscription: str) -> bool:
        """Whether a new event is no reason for a turn: it shortens no back-off, and live ones are not ours."""
        waits = subscription in self._timers and subscription not in self._turns
        return subscription in self._live or (subscription in self._failing and waits)

    async def _every(
        self, seconds: float, do: Callable[[], Awaitable[None]], sooner: asyncio.Event | None = None
    ) -> None:
        while True:
            if sooner is not None:
                sooner.clear()
            await _with_patience(do)
            if sooner is None:
                await asyncio.sleep(seconds)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(sooner.wait(), seconds)

    async def _look_over(self) -> None:
        states, self._live, last = await asyncio.to_thread(self._all)
        for state in states:
            if _due(state, last.get(state.id, 0)):
                self._wake(state.id, state.status == "active")

    def _all(self) -> tuple[list[State], set[str], dict[str, int]]:
        last = self._store.last_numbers()
        return *self._store.for_delivery(), last

    async def _renew(self) -> None:
        if self._turns:
            await asyncio.to_thread(self._courier.renew, list(self._turns))

    # Turns

    def _wake(self, subscription: str, event: bool = True) -> None:
        """event: there is something to send; else it may be for a handshake, and thousands of those may be due."""
        if subscription in self._turns:
            self._again.add(subscription)
        elif not self._stop.is_set():
            gate: AbstractAsyncContextManager = nullcontext()
            if subscription in self._failing:
                gate = self._failing_at_once
            elif not event:
                gate = self._changed_at_once
            self._turns[subscription] = asyncio.create_task(self._turn(subscription, gate))

    async def _turn(self, subscription: str, gate: AbstractAsyncContextManager) -> None:
        step = Next(delay_s=TROUBLE_PAUSE_S, failing=True)
        try:
            async with gate:
                step = await self._courier.turn(subscription, self._stop.is_set)
        except PyMongoError as error:
            log.warning("subscription %s waits for MongoDB: %s", subscription, type(error).__name__)
        except Exception as error:
            # The class alone: an error's text may carry patient data.
            log.error("subscription %s: %s while delivering", subscription, type(error).__name__)
        (self._failing.add if step.failing else self._failing.discard)(subscription)
        del self._turns[subscription]
        if (timer := self._timers.pop(subscription, None)) is not None:
            timer.cancel()
        if subscription in self._again:
            self._again.discard(subscription)
            self._wake(subscription)
        elif step.delay_s is not None:
            self._timers[subscription] = self._loop.call_later(step.delay_s, self._come_again, subscription)

    def _come_again(self, subscription: str) -> None:
        del self._timers[subscription]
        self._wake(subscription)


async def _with_patience(do: Callable[[], Awaitable[None]]) -> None:
    try:
        await do()
    except PyMongoError as error:
        log.warning("deliveries wait for MongoDB: %s", type(error).__name__)
    except Exception as error:
        log.error("%s while looking after deliveries", type(error).__name__)


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
