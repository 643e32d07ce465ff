"""Numbered events and the state of each Subscription in MongoDB; the only module here that knows pymongo.

The log of events is the queue: an event is delivered once `delivered` of its Subscription has reached its
number. There is no counter beside the log: the next number is the newest one plus one, and unique indexes on
(subscription, number) and (subscription, source version) decide among writers. So numbers have no gaps, a
version that the stream hands over again adds nothing, and one insert is all that many events cost.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pymongo
from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from fhir_server.stream import await_earlier_writes
from subscriptions.definition import WEBSOCKET

log = logging.getLogger(__name__)

DUPLICATE_KEY = 11000
PAUSE_S = 0.5  # after an outage
AWAIT_MS = 500  # for the next wake; also how long a watcher takes to stop
FREE = {"lease_until": None, "lease_holder": None}


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one Subscription; focus `Task/12` in its version `version`, written by interaction `op`."""

    subscription: str
    number: int
    focus: str
    version: int
    op: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Happening:
    """A version that is an event of these Subscriptions; focus, version, op and at as in `Event`."""

    focus: str
    version: int
    op: str
    at: datetime
    subscriptions: Sequence[str]


@dataclass(frozen=True, slots=True)
class State:
    """How far a Subscription is. version: of its resource; born: the write number of the first version seen.
    position: of this version in the order of commits, 0 when not known. replays: how often `delivered` was set back.
    withheld: up to this number, events that the subscriber may not see (any more) are sent bare."""

    id: str
    version: int
    born: int
    topic: str
    owner: str
    channel: str
    status: str
    delivered: int = 0
    failures: int = 0
    failing_since: datetime | None = None
    next_attempt: datetime | None = None
    reason: str | None = None
    heartbeat_s: int | None = None
    last_sent: datetime | None = None
    end: datetime | None = None
    withheld: int = 0
    position: int = 0
    replays: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """Something was accepted by the endpoint at this moment. delivered: the last event number in it. replays: as the
    sender knew it, so that it does not count when the Subscription was set back since."""

    id: str
    at: datetime
    delivered: int | None
    replays: int

    def noted(self, holder: str, until: datetime) -> pymongo.UpdateOne:
        well = {"failures": 0, "failing_since": None, "next_attempt": None, "reason": None}
        change: dict[str, Any] = {"$set": well | {"last_sent": self.at, "lease_until": until}}
        if self.delivered is not None:
            change["$max"] = {"delivered": self.delivered}
        return pymongo.UpdateOne({"_id": self.id, "lease_holder": holder, **_at(self.replays)}, change)


@dataclass(frozen=True, slots=True)
class Failed:
    """The endpoint did not take it, for the first time `since`; the lease is given back."""

    id: str
    reason: str
    since: datetime
    next_attempt: datetime | None

    def noted(self, holder: str, until: datetime) -> pymongo.UpdateOne:  # noqa: ARG002 - none is kept
        told = {"failing_since": self.since, "next_attempt": self.next_attempt, "reason": self.reason} | FREE
        return pymongo.UpdateOne({"_id": self.id, "lease_holder": holder}, {"$set": told, "$inc": {"failures": 1}})


@dataclass(frozen=True, slots=True)
class Arrived:
    """A websocket client has the events up to this number, unless they were set back since: replays as in `Sent`."""

    id: str
    number: int
    at: datetime
    replays: int

    def noted(self) -> pymongo.UpdateOne:
        return pymongo.UpdateOne(
            {"_id": self.id, **_at(self.replays)},
            {"$max": {"delivered": self.number}, "$set": {"last_sent": self.at}},
        )


@dataclass(frozen=True, slots=True)
class Span:
    """The events of a Subscription from number `first` on, up to `end`, which is none of them."""

    id: str
    first: int
    end: int

    @property
    def filter(self) -> dict:
        return {"sub": self.id, "number": {"$gte": self.first, "$lt": self.end}}


@dataclass(frozen=True, slots=True)
class Wake:
    """Something is new about a Subscription: an event, or else its status or how far it is to go back."""

    subscription: str
    event: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """What a websocket's token stands for. numbers: Subscription id -> its newest event when the token was made."""

    digest: str
    subject: str
    numbers: Mapping[str, int]
    until: datetime


class SubscriptionStore:
    """Events and states. Thread safe."""

    def __init__(self, database: Database) -> None:
        self._database = aware(database)
        self._states = self._database["subscription_state"]
        self._events = self._database["subscription_events"]
        self._last: dict[str, int] = {}  # newest numbers seen; a stale one is found out by the unique index

    def prepare(self) -> None:
        """Make the indexes; does nothing where they are."""
        self._events.create_indexes([
            pymongo.IndexModel([("sub", 1), ("number", -1)], unique=True, name="number"),
            pymongo.IndexModel([("sub", 1), ("source", 1)], unique=True, name="source"),
        ])  # fmt: skip

    # Events

    def append(self, happenings: Iterable[Happening]) -> None:
        """Add the events to each of their Subscriptions, in order, under its next numbers; not those that are there.

        Killed or failing anywhere in between it has added the first of them and none after.
        """
        waiting: list[dict[str, Any]] = [
            {"sub": sub, "source": f"{one.focus}/_history/{one.version}", "focus": one.focus, "v": one.version,
             "op": one.op, "at": one.at}
            for one in happenings
            for sub in dict.fromkeys(one.subscriptions)
        ]  # fmt: skip
        while waiting:
            last = self._newest({event["sub"] for event in waiting})
            numbered = []
            for event in waiting:
                last[event["sub"]] += 1
                numbered.append(event | {"number": last[event["sub"]]})
            try:
                self._events.insert_many(numbered, ordered=True)
            except BulkWriteError as error:
                for sub in last:
                    self._last.pop(sub, None)
                waiting = self._missing(waiting[_first_double(error) :])
            else:
                self._last.update(last)
                return

    def _missing(self, events: list[dict]) -> list[dict]:
        """Those that are not there yet: what was met was another writer's number, or the event itself."""
        of_these = {
            "sub": {"$in": [one["sub"] for one in events]},
            "source": {"$in": [one["source"] for one in events]},
        }
        there = {(one["sub"], one["source"]) for one in self._events.find(of_these, {"sub": 1, "source": 1})}
        return [event for event in events if (event["sub"], event["source"]) not in there]

    def _newest(self, subscriptions: Collection[str]) -> dict[str, int]:
        unknown = [sub for sub in subscriptions if sub not in self._last]
        if unknown:
            self._last.update(dict.fromkeys(unknown, 0))
            self._last.update(self.last_numbers(unknown))
        return {sub: self._last[sub] for sub in subscriptions}

    def forget_numbers(self) -> None:
        """Look the newest numbers up again; to be called by who begins to append, as others did so before."""
        self._last.clear()

    def last_numbers(self, subscriptions: Iterable[str] | None = None) -> dict[str, int]:
        """The newest event number of each Subscription that has events."""
        match = [] if subscriptions is None else [{"$match": {"sub": {"$in": list(subscriptions)}}}]
        newest = {"$group": {"_id": "$sub", "number": {"$first": "$number"}}}
        found = self._events.aggregate([*match, {"$sort": {"sub": 1, "number": -1}}, newest])
        return {document["_id"]: document["number"] for document in found}

    def last_number(self, subscription: str) -> int:
        return self.last_numbers([subscription]).get(subscription, 0)

    def first_number(self, subscription: str) -> int | None:
        """The oldest event that is kept; None when there is none."""
        found = self._events.find_one({"sub": subscription}, {"number": 1}, sort=[("number", 1)])
        return found["number"] if found else None

    def events(self, subscription: str, first: int, last: int | None = None, limit: int = 0) -> list[Event]:
        """Events from number `first` to `last`, both included, in order. limit 0: all."""
        numbers: dict[str, int] = {"$gte": first} | ({} if last is None else {"$lte": last})
        found = self._events.find({"sub": subscription, "number": numbers}).sort("number", 1).limit(limit)
        return [_event(one) for one in found]

    def spans(self, spans: Collection[Span]) -> dict[Span, list[Event]]:
        """The events of each span, in order, by one query."""
        found: dict[str, list[Event]] = {}
        for one in self._events.find({"$or": [span.filter for span in spans]}).sort([("sub", 1), ("number", 1)]):
            found.setdefault(one["sub"], []).append(_event(one))
        return {
            span: [event for event in found.get(span.id, ()) if span.first <= event.number < span.end]
            for span in spans
        }

    # States

    def record(self, states: Sequence[State]) -> None:
        """Take over what these versions of Subscriptions say, where no newer version was taken over before."""
        try:
            if states:
                self._states.bulk_write([_recording(state) for state in states])
        except BulkWriteError as error:
            # The upsert met this version or a newer one: a replay.
            self.record(states[_first_double(error) + 1 :])

    def remove(self, subscription: str, version: int) -> None:
        """Forget a Subscription that was deleted by that version, and its events."""
        if self._states.find_one({"_id": subscription, "version": {"$gt": version}}) is not None:
            return  # a replay: it was made anew since
        self._events.delete_many({"sub": subscription})
        self._states.delete_one({"_id": subscription})
        self._last.pop(subscription, None)

    def clear(self, before: datetime) -> None:
        """Forget older events; not the newest one of each Subscription, from which the counting goes on."""
        for subscription, newest in self.last_numbers().items():
            self._events.delete_many({"sub": subscription, "number": {"$lt": newest}, "at": {"$lt": before}})

    def state(self, subscription: str) -> State | None:
        document = self._states.find_one({"_id": subscription})
        return _state(document) if document else None

    def states(self, ids: Collection[str] | None = None, holder: str | None = None) -> list[State]:
        """All of them, or of these ids; those leased to this holder, where one is named."""
        wanted = ({} if ids is None else {"_id": {"$in": list(ids)}}) | ({"lease_holder": holder} if holder else {})
        return [_state(document) for document in self._states.find(wanted)]

    def for_delivery(self) -> tuple[list[State], set[str]]:
        """What a deliverer looks over: the states of those that it may have to do something about by itself, and the
        ids of those whose events are sent over websockets."""
        live = {"channel": WEBSOCKET}
        others: dict = {"$or": [{"channel": {"$ne": WEBSOCKET}}, {"status": "requested"}, {"end": {"$ne": None}}]}
        states = [_state(document) for document in self._states.find(others)]
        return states, {document["_id"] for document in self._states.find(live, {"_id": 1})}

    def claim(self, subscriptions: Collection[str], holder: str, now: datetime, for_s: float) -> None:
        """Lease Subscriptions to a deliverer, or lengthen its leases; not those that another one has."""
        free = [{"lease_until": None}, {"lease_until": {"$lt": now}}, {"lease_holder": holder}]
        self._states.update_many(
            {"_id": {"$in": list(subscriptions)}, "$or": free},
            {"$set": {"lease_holder": holder, "lease_until": now + timedelta(seconds=for_s)}},
        )

    def renew(self, subscriptions: Collection[str], holder: str, now: datetime, for_s: float) -> bool:
        """Lengthen those leases that this holder still has; whether these are all."""
        still = {"_id": {"$in": list(subscriptions)}, "lease_holder": holder, "lease_until": {"$gt": now}}
        renewed = self._states.update_many(still, {"$set": {"lease_until": now + timedelta(seconds=for_s)}})
        return renewed.matched_count == len(subscriptions)

    def release(self, holder: str) -> None:
        """Give back all leases of a deliverer that ends."""
        self._states.update_many({"lease_holder": holder}, {"$set": FREE})

    def note(self, outcomes: Sequence["Sent | Failed"], holder: str, now: datetime, for_s: float) -> bool:
        """Record how sendings ended, in one go. The lease of what was taken lasts so long from now on. Not recorded
        where another deliverer has the lease, or the Subscription was set back since; False where that is so of any
        of them."""
        until = now + timedelta(seconds=for_s)
        changes = [outcome.noted(holder, until) for outcome in outcomes]
        return self._states.bulk_write(changes, ordered=False).matched_count == len(changes)

    def withhold(self, subscription: str, number: int) -> None:
        """From a handshake on: events up to this number that the subscriber may not see are sent bare."""
        self._states.update_one({"_id": subscription}, {"$max": {"withheld": number}})

    def advance(self, arrivals: Sequence["Arrived"]) -> None:
        """Websocket clients have what they were sent."""
        self._states.bulk_write([one.noted() for one in arrivals], ordered=False)

    def rewind(self, subscription: str, number: int) -> bool:
        """Let delivery begin again with this event; False when it is not that far yet."""
        back = {"$set": {"delivered": number - 1, "next_attempt": None}, "$inc": {"replays": 1}}
        return self._states.update_one({"_id": subscription, "delivered": {"$gte": number}}, back).modified_count == 1

    # Waking

    def wakes(self, stop: threading.Event) -> Iterator[Wake | None]:
        """Subscriptions that have a new event or another status, as it happens, until `stop` is set.

        None each time watching begins: whatever happened before is to be looked up.
        """
        of_event = {"ns.coll": self._events.name, "operationType": "insert"}
        of_state: dict[str, Any] = {
            "ns.coll": self._states.name,
            "$or": [
                {"operationType": {"$in": ["insert", "delete"]}},
                {"updateDescription.updatedFields.status": {"$exists": True}},
                {"updateDescription.updatedFields.replays": {"$exists": True}},
            ],
        }
        pipeline: list[dict[str, Any]] = [
            {"$match": {"$or": [of_event, of_state]}},
            {"$project": {"event": "$fullDocument.sub", "state": "$documentKey._id"}},
        ]
        while not stop.is_set():
            try:
                with (
                    self._database.client.start_session(causal_consistency=True) as session,
                    self._database.watch(pipeline, max_await_time_ms=AWAIT_MS, session=session) as stream,
                ):
                    await_earlier_writes(self._database, session)
                    yield None
                    while not stop.is_set():
                        change = stream.try_next()
                        if change is not None:
                            event = change.get("event")
                            yield Wake(event or change["state"], event is not None)
            except PyMongoError as error:
                log.warning("subscriptions wait for MongoDB: %s", type(error).__name__)
                stop.wait(PAUSE_S)


class BindingTokens:
    """Short-lived tokens that bind a websocket to Subscriptions; only their hashes are kept."""

    def __init__(self, database: Database) -> None:
        self._tokens = aware(database)["subscription_binding_tokens"]

    def prepare(self) -> None:
        self._tokens.create_index("until", expireAfterSeconds=0)

    def add(self, bound: Bound) -> None:
        numbers = [{"id": id, "number": number} for id, number in bound.numbers.items()]
        self._tokens.insert_one(
            {"_id": bound.digest, "subject": bound.subject, "numbers": numbers, "until": bound.until}
        )

    def find(self, digest: str, now: datetime) -> Bound | None:
        """What a token stands for, while it is good."""
        found = self._tokens.find_one({"_id": digest, "until": {"$gt": now}})
        if found is None:
            return None
        numbers = {one["id"]: one["number"] for one in found["numbers"]}
        return Bound(digest, found["subject"], numbers, found["until"])


def _first_double(error: BulkWriteError) -> int:
    """The index of the first insert that a unique index refused. Raises the error when that is not what happened: a
    majority that did not confirm may not have the others either."""
    failures = error.details["writeErrors"]
    if error.details["writeConcernErrors"] or not failures or failures[0]["code"] != DUPLICATE_KEY:
        raise error
    return int(failures[0]["index"])


def _recording(state: State) -> pymongo.UpdateOne:
    told: dict[str, Any] = {
        "version": state.version, "position": state.position, "topic": state.topic, "owner": state.owner,
        "channel": state.channel, "status": state.status, "heartbeat_s": state.heartbeat_s, "end": state.end,
    }  # fmt: skip
    begin: dict[str, Any] = {"born": state.born, "delivered": 0, "withheld": 0}
    if state.status == "requested":  # a new beginning: what failed before does not count
        told |= {"failures": 0, "failing_since": None, "next_attempt": None, "reason": None}
    older = {"_id": state.id, "version": {"$lt": state.version}}
    return pymongo.UpdateOne(older, {"$set": told, "$setOnInsert": begin}, upsert=True)


def _event(document: dict) -> Event:
    return Event(
        document["sub"], document["number"], document["focus"], document["v"], document["op"], document["at"]
    )


def _at(replays: int) -> dict:
    return {"replays": replays or {"$in": [0, None]}}


def aware(database: Database) -> Database:
    """The same database, its times with their zone."""
    return database.with_options(CodecOptions(tz_aware=True))


def _state(document: dict) -> State:
    known = {name: document[name] for name in State.__dataclass_fields__ if name in document}
    return State(id=document["_id"], **known)
