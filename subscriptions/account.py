"""What the audit trail is told of Subscriptions: what is sent to whom, before it is sent, and what becomes of them.

Who creates, changes or deletes a Subscription through the API is audited there, like every interaction.
"""

import logging
import uuid
from collections.abc import Iterable

from fhir_server.audit.event import Actor, Datum, Event
from fhir_server.audit.touched import datum
from fhir_server.audit.trail import NotAudited, Trail
from fhir_server.version import Version
from subscriptions.definition import EMPTY, SubscriptionDefinition
from subscriptions.notification import Notified
from subscriptions.status import SERVER

log = logging.getLogger(__name__)

_NAMES = uuid.UUID("5c6f2a0e-3a5b-4f0e-9a3c-1d2a7be8c1f4")


class Account:
    """Thread safe."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def sending(self, id: str, owner: str, definition: SubscriptionDefinition, events: Iterable[Notified]) -> None:
        """These events go to the owner of the Subscription now. Those that tell of nothing but that there are some
        are no disclosure. Raises NotAudited when the trail cannot be written; then nothing must be sent."""
        if definition.content == EMPTY:
            return
        data = tuple(datum(event.source) for event in events if event.source is not None)
        if data:
            said = f"{definition.channel} notification of Subscription/{id}"
            self._trail.record(Event("disclosed", Actor(owner), data=data, description=said))

    def became(self, subscription: Version) -> None:
        """The server itself changed a Subscription: it is active, has failed, or has ended. Idempotent.

        It has happened already, and its version tells of it: what cannot be written is left to the log.
        """
        if subscription.by != SERVER.subject or subscription.deleted:
            return
        resource = subscription.resource()
        said = ": ".join(filter(None, (f"the Subscription is {resource.get('status')}", resource.get("error"))))
        event = Event(
            "update",
            Actor(subscription.by),
            data=(Datum(subscription.versioned_reference),),
            description=said,
            id=str(uuid.uuid5(_NAMES, subscription.versioned_reference)),
            at=int(subscription.last_updated.timestamp() * 1000),
        )
        try:
            self._trail.record(event)
        except NotAudited:
            log.error("not in the audit trail: %s, %s", subscription.versioned_reference, resource.get("status"))
