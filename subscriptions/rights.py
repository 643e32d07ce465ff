"""What a subscriber may be told, looked up anew before each sending."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fhir_server.access import Access
from fhir_server.repository import Repository
from fhir_server.version import Version
from subscriptions.notification import Notified
from subscriptions.reach import Reach
from subscriptions.store import Event

AccessOf = Callable[[str], Access | None]
AccessesOf = Callable[[Collection[str]], Mapping[str, Access]]
SYSTEM = "system:"
OWNER = "@owner/"


def owner_of(subscription: Version) -> str:
    """The subject that a Subscription belongs to, whoever wrote this version; empty when it is nobody's."""
    return next((key.removeprefix(OWNER) for key in subscription.scope if key.startswith(OWNER)), "")


class RightsLost(Exception):
    """The subscriber may no longer read what the Subscription is about; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What events are about: the newest version of each focus, and the very versions, by (type, id, version)."""

    newest: Mapping[tuple[str, str], Version]
    versions: Mapping[tuple[str, str, int], Version]


class Rights:
    """access_of: the present access of `client:x` or `user:y`, None when there is none any more. accesses_of: of many
    at once, without those who have none; where it is not given they are asked for one by one."""

    def __init__(self, access_of: AccessOf, repository: Repository, accesses_of: AccessesOf | None = None) -> None:
        self._access_of = access_of
        self._accesses_of = accesses_of or self._one_by_one
        self._repository = repository

    def access(self, owner: str) -> Access | None:
        """The present access of a Subscription's owner; parts of this server own some too."""
        if owner.startswith(SYSTEM):
            return Access.system(owner.removeprefix(SYSTEM))
        return self._access_of(owner)

    def accesses(self, owners: Collection[str]) -> dict[str, Access]:
        """The same of many; without those who have no access any more."""
        parts = {owner for owner in owners if owner.startswith(SYSTEM)}
        found = {owner: Access.system(owner.removeprefix(SYSTEM)) for owner in parts}
        others = [owner for owner in owners if owner not in parts]
        return found | dict(self._accesses_of(others)) if others else found

    def _one_by_one(self, owners: Collection[str]) -> Mapping[str, Access]:
        return {owner: access for owner in owners if (access := self._access_of(owner)) is not None}

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

    def notified(self, events: Sequence[Event], access: Access, withheld: int) -> list[Notified]:
        """The events with what may be told of each; see `told`."""
        return self.told(events, access, withheld, self.sources(events))

    def told(self, events: Iterable[Event], access: Access, withheld: int, sources: Sources) -> list[Notified]:
        """The events with what may be told of each.

        A resource that has since moved out of the subscriber's sight leaves a bare event, so that its number is
        there. One that was in sight of the subscriber then, and would not be now, means that the subscriber's
        own rights have shrunk: RightsLost, except for numbers up to `withheld`.
        """
        return [Notified(event.number, event.at, self._visible(event, access, withheld, sources)) for event in events]

    def sources(self, events: Iterable[Event]) -> Sources:
        """What these events are about, as it is now."""
        store = self._repository.store
        wanted = {(*_focus(event), event.version) for event in events}
        foci = {(type, id) for type, id, _ in wanted}
        newest = {(version.resource_type, version.id): version for version in store.newest_many(foci)}
        for type, id in foci - newest.keys():  # deleted; or erased, and then there is nothing
            if (version := store.newest(type, id)) is not None:
                newest[type, id] = version
        versions = {(*focus, version.version): version for focus, version in newest.items()}
        older = [key for key in wanted if key not in versions and key[:2] in newest]
        versions |= {(one.resource_type, one.id, one.version): one for one in store.versions_many(older)}
        return Sources(newest, versions)

    def _visible(self, event: Event, access: Access, withheld: int, sources: Sources) -> Version | None:
        focus = _focus(event)
        newest, source = sources.newest.get(focus), sources.versions.get((*focus, event.version))
        if newest is None or source is None:
            return None
        if not access.sees(source.scope):
            if event.number > withheld:
                raise RightsLost("the subscriber may no longer see what happened")
            return None
        told = access.sees(newest.scope) and all(
            self._repository.reached(access, "r", version) for version in (source, newest)
        )
        return source if told else None


def _focus(event: Event) -> tuple[str, str]:
    resource_type, _, id = event.focus.partition("/")
    return resource_type, id
