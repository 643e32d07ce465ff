"""All parts of the subscriptions, made once a process; each process uses those it needs."""

import os
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Flask
from pymongo.database import Database

from conformance import Topic
from fhir_server import stream
from fhir_server.capability import Capability
from fhir_server.operation import Operation
from fhir_server.repository import Repository
from subscriptions.binding import Bindings
from subscriptions.capability import capability
from subscriptions.courier import Courier, RetryPolicy
from subscriptions.delivery import KEEP, Delivery
from subscriptions.feed import Sources
from subscriptions.live import PATH, Sessions, create_live_app
from subscriptions.mail import Mailer, MailSender
from subscriptions.matching import CONSUMER, Matching
from subscriptions.operations import SubscriptionOperations
from subscriptions.outgoing import Outgoing
from subscriptions.rights import AccessOf, Rights
from subscriptions.store import BindingTokens, Outbox, SubscriptionStore


@dataclass(frozen=True, slots=True)
class SubscriptionService:
    """web: `operations`, `capability`, and `bindings.bind` for the portal's pages. worker: `match` and `deliver`,
    each in a thread of its own. live: `live_app`. The admission is made before, as the repository needs it."""

    store: SubscriptionStore
    bindings: Bindings
    operations: list[Operation]
    capability: Capability
    outbox: Outbox
    _database: Database
    _matching: Matching
    _delivery: Delivery
    _sources: Sources

    def match(self, stop: threading.Event) -> None:
        """Turn versions into events until `stop` is set."""
        stream.follow(self._database, CONSUMER, self._matching, stop, self._matching.begin)

    def deliver(self, stop: threading.Event) -> None:
        """Deliver by rest-hook and mail until `stop` is set."""
        self._delivery.run(stop)

    def live_app(
        self, origins: Callable[[], Collection[str]], subject_of: Callable[[str], str] | None = None
    ) -> Flask:
        """The app of the live process. origins: those whose pages may connect, as `Origin` says them. subject_of: of
        an access token, for R4's own `bind`; raises NotAuthenticated."""
        return create_live_app(Sessions(self._sources, self.bindings, origins, subject_of))


def create_service(
    database: Database,
    repository: Repository,
    topics: Mapping[str, Topic],
    access_of: AccessOf,
    outgoing: Outgoing,
    *,
    public_url: str,
    live_url: str,
    referral_number: Callable[[dict], str | None],
    clock: Callable[[], datetime],
    mail_sender: MailSender | None = None,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    keep: timedelta = KEEP,
) -> SubscriptionService:
    """Put the parts together and create the indexes.

    access_of: the present access of `client:x` or `user:y`. outgoing: as given to the admission. public_url,
    live_url: the origins that clients know, without a slash at the end. referral_number: of a Task, for mail.
    mail_sender: None puts mail into the outbox. clock: the practice's time. keep: how long events stay.
    """
    store, tokens, outbox = SubscriptionStore(database), BindingTokens(database), Outbox(database)
    store.prepare()
    tokens.prepare()
    rights = Rights(access_of, repository.store)
    bindings = Bindings(store, tokens)
    operations = SubscriptionOperations(store, repository, topics, rights, bindings, f"{live_url}{PATH}", clock)
    mailer = Mailer(mail_sender or outbox, public_url, referral_number)
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    courier = Courier(store, repository, topics, rights, outgoing, mailer, clock, holder, policy)
    return SubscriptionService(
        store=store,
        bindings=bindings,
        operations=operations.declared(),
        capability=capability(topics),
        outbox=outbox,
        _database=database,
        _matching=Matching(store, repository, topics, rights),
        _delivery=Delivery(store, courier, keep=keep),
        _sources=Sources(store, repository, topics, rights, clock),
    )
