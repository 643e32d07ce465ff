"""Which apps have access on a user's behalf, and taking it back. https://hl7.org/fhir/smart-app-launch/conformance.html"""

from dataclasses import dataclass
from datetime import datetime

from smart_auth import scopes
from smart_auth.consent import describe
from smart_auth.models import Grant, User
from smart_auth.service import AuthService


@dataclass(frozen=True, slots=True)
class App:
    """One app that a user let in, with all that its grants allow now. since, until: of the oldest and the latest."""

    client_id: str
    name: str
    allowed: tuple[str, ...]
    since: datetime
    until: datetime


def apps_of(service: AuthService, user: User) -> list[App]:
    """The apps that have access as this user, by name."""
    by_client: dict[str, list[Grant]] = {}
    for grant in service.store.grants_of(user.subject, service.clock()):
        if grant.client_id is not None:
            by_client.setdefault(grant.client_id, []).append(grant)
    return sorted((_app(service, *found) for found in by_client.items()), key=lambda app: app.name.lower())


def take_back(service: AuthService, user: User, client_id: str) -> int:
    """End all access of an app as this user, refresh tokens too; how many grants that were."""
    standing = service.store.grants_of(user.subject, service.clock())
    grants = [grant for grant in standing if grant.client_id == client_id]
    for grant in grants:
        service.store.revoke_grant(grant.id, grant.expires)
    return len(grants)


def _app(service: AuthService, client_id: str, grants: list[Grant]) -> App:
    client = service.store.client(client_id)
    words = [describe(item) for grant in grants for item in scopes.parse(grant.scope)]
    return App(
        client_id,
        client.name if client is not None else client_id,
        tuple(dict.fromkeys(words)),
        min(grant.created for grant in grants),
        max(grant.expires for grant in grants),
    )
