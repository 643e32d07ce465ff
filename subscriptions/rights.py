"""What a subscriber may be told, looked up anew before each sending."""

from collections.abc import Callable, Iterable

from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions.notification import Notified
from subscriptions.reach import Reach
from subscriptions.store import Event

AccessOf = Callable[[str], Access | None]
SYSTEM = "system:"
OWNER = "@owner/"


def owner_of(subscription: Version) -> str:
    """The subject that a Subscription belongs to, whoever wrote this version; empty when it is nobody's."""
    return next((key.removeprefix(OWNER) for key in subscription.scope if key.startswith(OWNER)), "")


class RightsLost(Exception):
    """The subscriber may no longer read what the Subscription is about; the text says what is missing."""


class Rights:
    """access_of: the present access of `client:x` or `user:y`, None when there is none any more."""

    def __init__(self, access_of: AccessOf, repository: Repository) -> None:
        self._access_of = access_of
        self._repository = repository

    def access(self, owner: str) -> Access | None:
        """The present access of a Subscription's owner; parts of this server own some too."""
        if owner.startswith(SYSTEM):
            return Access.system(owner.removeprefix(SYSTEM))
        return self._access_of(owner)

    def required(self, owner: str, resource_type: str, reach: Reach | None = None) -> Access:
        """The owner's access, as far as the Subscription reaches. Raises RightsLost when it does not read the
        type of the topic."""
        return self.reaching(self.access(owner), resource_type, reach)

    def reaching(self, access: Access | None, resource_type: str, reach: Reach | None = None) -> Access:
        """This access as it was looked up, as far as the Subscription reaches. Raises RightsLost when it does not
        read the type of the topic."""
        if access is None:
            raise RightsLost("the subscriber has no access any more")
        if not access.allows("read", resource_type):
            raise RightsLost(f"the subscriber may no longer read {resource_type}")
        return access if reach is None else reach.narrow(access, resource_type)

    def notified(self, events: Iterable[Event], access: Access, withheld: int) -> list[Notified]:
        """The events with what may be told of each.

        A resource that has since moved out of the subscriber's sight leaves a bare event, so that its number is
        there. One that was in sight of the subscriber then, and would not be now, means that the subscriber's
        own rights have shrunk: RightsLost, except for numbers up to `withheld`.
        """
        return [Notified(event.number, event.at, self._visible(event, access, withheld)) for event in events]

    def _visible(self, event: Event, access: Access, withheld: int) -> Version | None:
        resource_type, id = event.focus.split("/")
        versions = self._repository.store
        newest = versions.newest(resource_type, id)
        if newest is None:
            return None
        source: Version | None = newest
        if newest.version != event.version:
            source = versions.version(resource_type, id, event.version)
        if source is None:
            return None
        if not access.sees(source.scope):
            if event.number > withheld:
                raise RightsLost("the subscriber may no longer see what happened")
            return None
        told = access.sees(newest.scope) and all(
            self._repository.reached(access, "r", version) for version in (source, newest)
        )
        return source if told else None
