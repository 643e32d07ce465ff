"""Following one Subscription by websocket: every event once and in order, over lost connections and ended tokens.

What a connection missed is asked for by $events from the last number on, so nothing depends on what the server holds
to be delivered.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import simple_websocket

from fhir_server import fhir_json
from fhir_server.errors import BadRequest
from radloop.subscriber.api import Api, Away, Refused
from radloop.subscriber.events import Event, Notification, read

PAUSES_S = (0.5, 1, 2, 5, 10, 30)  # between attempts to connect; the last one again and again
RENEW_BEFORE_S = 60
MEND = frozenset({1003, 1008, 1009, 4400, 4429})  # closed for good, and opening again would not help
PROFILE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"


def create(api: Api, topic: str, filters: tuple[str, ...], content: str) -> str:
    """The id of a new Subscription by websocket. topic: its canonical URL, or the last part of it. Raises Refused."""
    criteria: dict = {"criteria": _canonical(api, topic)}
    if filters:
        said = [{"url": f"{PROFILE}/backport-filter-criteria", "valueString": text} for text in filters]
        criteria["_criteria"] = {"extension": said}
    level = {"url": f"{PROFILE}/backport-payload-content", "valueCode": content}
    subscription = {
        "resourceType": "Subscription",
        "meta": {"profile": [f"{PROFILE}/backport-subscription"]},
        "status": "requested",
        "reason": "events shown in a terminal",
        **criteria,
        "channel": {
            "type": "websocket",
            "payload": "application/fhir+json",
            "_payload": {"extension": [level]},
        },
    }
    return str(api.call("POST", "Subscription", subscription)["id"])


def _canonical(api: Api, topic: str) -> str:
    if ":" in topic:
        return topic
    offered = []
    for resource in (api.call("GET", "metadata").get("rest") or [{}])[0].get("resource", []):
        if resource.get("type") == "Subscription":
            offered = [one["valueCanonical"] for one in resource.get("extension", []) if "valueCanonical" in one]
    for canonical in offered:
        if canonical.rpartition("/")[2] == topic:
            return canonical
    known = ", ".join(sorted(canonical.rpartition("/")[2] for canonical in offered)) or "none"
    raise Refused(f"the server has no topic {topic}; it has {known}")


class Follower:
    """last: number of the last event that is known already, None to begin with what has not been delivered yet.

    say: told what is no event (connections lost, events that are kept no longer). wait: sleeps that many seconds.
    """

    def __init__(
        self,
        api: Api,
        id: str,
        last: int | None,
        say: Callable[[str], None],
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._api = api
        self._id = id
        self.last = last
        self._say = say
        self._wait = wait
        self._failed = 0  # attempts in a row

    def events(self) -> Iterator[Event]:
        """Each event as it comes, for ever. Raises Refused when the Subscription has ended or is in error."""
        while True:
            try:
                yield from self._connection()
            except (Away, OSError) as fault:
                self._pause(str(fault))

    def _connection(self) -> Iterator[Event]:
        token, ends, address = self._token()
        try:
            socket = simple_websocket.Client.connect(address, ping_interval=25)
        except simple_websocket.ConnectionError as fault:
            raise Away(f"the websocket is not opened ({fault.status_code})") from None
        try:
            self._bind(socket, token)
            while True:
                frame = socket.receive(timeout=max(0.1, ends - time.time() - RENEW_BEFORE_S))
                if frame is None:  # the token ends soon: bind with another one on the same connection
                    token, ends, _ = self._token()
                    self._bind(socket, token)
                    continue
                yield from self._told(_notification(frame))
                self._failed = 0
        except simple_websocket.ConnectionClosed as end:
            if int(end.reason) in MEND:
                raise Refused(f"the server closed the websocket ({int(end.reason)}): {end.message or ''}") from None
            raise Away(f"the websocket was closed ({int(end.reason)})") from None
        finally:
            try:
                socket.close()
            except (simple_websocket.ConnectionClosed, OSError):
                pass  # it is closed already

    def _token(self) -> tuple[str, float, str]:
        """A token, when it ends (seconds since 1970), and the address to bind it at."""
        answer = self._api.call("GET", f"Subscription/{self._id}/$get-ws-binding-token")
        said = {one["name"]: one for one in answer.get("parameter", [])}
        try:
            ends = datetime.fromisoformat(said["expiration"]["valueDateTime"])
            return said["token"]["valueString"], ends.astimezone(UTC).timestamp(), said["websocket-url"]["valueUrl"]
        except (KeyError, TypeError, ValueError):
            raise Refused("the server gives no token to bind a websocket with") from None

    @staticmethod
    def _bind(socket: simple_websocket.Client, token: str) -> None:
        socket.send(json.dumps({"type": "bind-with-token", "payload": {"token": token}}))

    def _told(self, told: Notification) -> Iterator[Event]:
        """The events of a notification that are not known yet, those first that it shows to be missing."""
        reached = min((event.number for event in told.events), default=told.total + 1)
        if self.last is not None and reached > self.last + 1 and told.status not in ("error", "off"):
            yield from self._missed(reached - 1)
        yield from self._new(told.events)
        if told.status in ("error", "off"):
            reason = f": {'; '.join(told.errors)}" if told.errors else ""
            raise Refused(f"Subscription/{self._id} is {told.status}{reason}")

    def _missed(self, until: int) -> Iterator[Event]:
        """What lies between the last event and number `until`, as far as it is kept."""
        while self.last is not None and self.last < until:
            wanted = {"eventsSinceNumber": str(self.last + 1), "eventsUntilNumber": str(until)}
            told = read(self._api.call("GET", f"Subscription/{self._id}/$events", query=wanted))
            first = told.events[0].number if told.events else until + 1
            if first > self.last + 1:
                self._say(f"events {self.last + 1} to {first - 1} are not kept any more")
                self.last = first - 1
            yield from self._new(told.events)

    def _new(self, events: tuple[Event, ...]) -> Iterator[Event]:
        for event in events:
            if self.last is None or event.number > self.last:
                yield event  # noted after it was taken: what stops half-way comes again
                self.last = event.number

    def _pause(self, why: str) -> None:
        seconds = PAUSES_S[min(self._failed, len(PAUSES_S) - 1)]
        self._failed += 1
        self._say(f"{why}; again in {seconds:g} s")
        self._wait(seconds)


def _notification(frame: str | bytes) -> Notification:
    try:
        return read(fhir_json.loads(frame))
    except BadRequest as fault:
        raise ValueError(f"the server sent what is no JSON: {fault.diagnostics}") from None
