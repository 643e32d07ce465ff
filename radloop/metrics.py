"""/metrics: what an operator watches, in the text format of Prometheus. For the practice's staff and systems."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from flask import Blueprint, Response
from pymongo.database import Database

from fhir_server.errors import Forbidden
from fhir_server.http import current_access
from subscriptions.store import SubscriptionStore


def create_blueprint(database: Database, subscriptions: SubscriptionStore) -> Blueprint:
    metrics = Blueprint("metrics", __name__)

    @metrics.get("/metrics")
    def read() -> Response:
        if not current_access().is_practice:
            raise Forbidden("figures of the server are for the practice")
        lines = [*_subscriptions(subscriptions), *_consumers(database)]
        return Response("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")

    return metrics


def _subscriptions(store: SubscriptionStore) -> Iterator[str]:
    states, last = store.states(), store.last_numbers()
    yield "# HELP radloop_subscriptions Subscriptions by channel and status."
    yield "# TYPE radloop_subscriptions gauge"
    for (channel, status), count in sorted(Counter((state.channel, state.status) for state in states).items()):
        yield f'radloop_subscriptions{{channel="{channel}",status="{status}"}} {count}'
    waiting = sum(max(0, last.get(state.id, 0) - state.delivered) for state in states if state.status == "active")
    yield "# HELP radloop_events_waiting Events of active Subscriptions that are not delivered yet."
    yield "# TYPE radloop_events_waiting gauge"
    yield f"radloop_events_waiting {waiting}"
    yield "# HELP radloop_events_total Events generated so far."
    yield "# TYPE radloop_events_total counter"
    yield f"radloop_events_total {sum(last.values())}"


def _consumers(database: Database) -> Iterator[str]:
    now = datetime.now(UTC)
    yield "# HELP radloop_consumer_idle_seconds Seconds since a consumer of the stream last kept its place."
    yield "# TYPE radloop_consumer_idle_seconds gauge"
    for place in database["consumers"].find().sort("_id", 1):
        yield f'radloop_consumer_idle_seconds{{consumer="{place["_id"]}"}} {(now - place["at"]).total_seconds():.1f}'
    yield "# HELP radloop_consumer_failures Versions that a consumer could not take; `radloop check loop` has them."
    yield "# TYPE radloop_consumer_failures gauge"
    yield f"radloop_consumer_failures {database['consumer_failures'].count_documents({})}"
