"""All parts of the subscriptions, made once a process; each process uses those it needs."""

import os
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from flask import Flask
from pymongo.database import Database

from conformance import Topic
from fhir_server import stream
from fhir_server.audit.trail import Trail
from fhir_server.capability import Capability
from fhir_server.operation import Operation
from fhir_server.repository import Repository
from subscriptions.account import Account
from subscriptions.addresses import Addresses
from subscriptions.binding import Bindings
from subscriptions.capability import capability
from subscriptions.courier import Courier, RetryPolicy
from subscriptions.delivery import KEEP, Delivery
from subscriptions.desk import SubscriptionDesk
from subscriptions.fax import FaxGateway, FaxOutbox, FaxSender, HttpFaxSender
from subscriptions.feed import Sources, sources
from subscriptions.live import PATH, Sessions, create_live_app
from subscriptions.mail import Mailer, MailSender
from subscriptions.mail_store import MongoAddresses, Outbox
from subscriptions.matching import CONSUMER, Matching
from subscriptions.operations import SubscriptionOperations
from subscriptions.outgoing import Outgoing
from subscriptions.reading import Reading
from subscriptions.rights import AccessesOf, AccessOf, Rights
from subscriptions.smtp import SmtpSender, SmtpServer
from subscriptions.store import BindingTokens, SubscriptionStore


@dataclass(frozen=True, slots=True)
class SubscriptionService:
    """web: `operations`, `capability`, and `bindings.bind` for the portal's pages. worker: `match` and `deliver`,
    each in a thread of its own. live: `live_app`. The admission is made before, as the repository needs it."""

    store: SubscriptionStore
    bindings: Bindings
    operations: list[Operation]
    capability: Capability
    outbox: Outbox
    addresses: Addresses
    desk: SubscriptionDesk
    _database: Database
    _matching: Matching
    _delivery: Delivery
    _sources: Sources

    def match(self, stop: threading.Event) -> None:
        """Turn versions into events until `stop` is set."""
        matching = self._matching
        stream.follow(self._database, CONSUMER, matching, stop, matching.begin, matching.together)

    def deliver(self, stop: threading.Event) -> None:
        """Deliver by rest-hook and mail until `stop` is set."""
        self._delivery.run(stop)

    def live_app(
        self, origins: Callable[[], Collection[str]], subject_of: Callable[[str], str | None] | None = None
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
    trail: Trail,
    smtp: SmtpServer | None = None,
    fax: FaxGateway | None = None,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    keep: timedelta = KEEP,
    accesses_of: AccessesOf | None = None,
) -> SubscriptionService:
    """Put the parts together and create the indexes.

    access_of, accesses_of: the present access of `client:x` or `user:y`, as in `Rights`. outgoing: as given to the
    admission. public_url, live_url: the origins that clients know, without a slash at the end. referral_number: of a
    Task, for mail. smtp, fax: the mail server and the fax gateway; None leaves mail or faxes in the outbox. clock:
    the practice's time. trail: of what is audited. keep: how long events stay.
    """
    store, tokens, outbox = SubscriptionStore(database), BindingTokens(database), Outbox(database)
    known_addresses = MongoAddresses(database)
    store.prepare()
    tokens.prepare()
    known_addresses.prepare()
    sender: MailSender = SmtpSender(smtp, outbox) if smtp else outbox
    addresses = Addresses(known_addresses, sender, public_url)
    rights = Rights(access_of, repository, accesses_of)
    reading = Reading(store, repository, topics, rights)
    bindings = Bindings(store, tokens)
    operations = SubscriptionOperations(store, repository, topics, rights, bindings, f"{live_url}{PATH}", clock)
    fax_sender: FaxSender = FaxOutbox(outbox)
    if fax is not None:
        own = Outgoing([urlsplit(fax.url).hostname or ""])  # the operator named it, so it may be a private one
        fax_sender = HttpFaxSender(fax, own, lambda: public_url)
    mailer = Mailer(sender, public_url, referral_number)
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    account = Account(trail)
    courier = Courier(
        store, repository, reading, rights, outgoing, mailer, addresses, fax_sender, clock, holder, policy, account
    )
    return SubscriptionService(
        store=store,
        bindings=bindings,
        operations=operations.declared(),
        capability=capability(topics),
        outbox=outbox,
        addresses=addresses,
        desk=SubscriptionDesk(store, repository, topics),
        _database=database,
        _matching=Matching(store, repository, topics, rights, account),
        _delivery=Delivery(store, courier, keep=keep),
        _sources=sources(store, repository, reading, clock, account),
    )
