"""EHR launch: our pages open an app with what the user has in view. https://hl7.org/fhir/smart-app-launch/app-launch.html"""

from dataclasses import replace
from datetime import timedelta
from secrets import token_urlsafe
from urllib.parse import urlencode, urlsplit

from smart_auth import scopes
from smart_auth.models import Client, Context, Launch, User, digest
from smart_auth.service import AuthService

LIFETIME = timedelta(minutes=5)
INTENTS = frozenset({"referral-create", "referral-status", "view-images", "view-report"})


def launchable(service: AuthService) -> list[Client]:
    """The apps that can be opened from our pages, by name."""
    found = [client for client in service.store.clients() if _launchable(client)]
    return sorted(found, key=lambda client: client.name.lower())


def begin(service: AuthService, user: User, client_id: str, context: Context) -> str | None:
    """The address that opens the app with this context; None when there is no such app to open.

    The context itself is not in it: `launch` is an opaque value, good once, for five minutes, for this user and app.
    """
    client = service.store.client(client_id)
    if client is None or not _launchable(client):
        return None
    value = token_urlsafe(32)
    expires = service.clock() + LIFETIME
    if user.organization is not None:
        context = replace(context, tenant=user.organization.removeprefix("Organization/"))
    service.store.add_launch(Launch(digest(value), user.name, client.client_id, context, expires))
    address = client.launch_uris[0]
    joint = "&" if urlsplit(address).query else "?"
    return f"{address}{joint}{urlencode({'iss': service.fhir_base, 'launch': value})}"


def find(service: AuthService, value: str, client_id: str, user: User | None) -> Launch | None:
    """The launch of that value, if it is good for this app and user. user: None before the log-in."""
    launch = service.store.launch(digest(value))
    if launch is None or launch.used or launch.expires <= service.clock() or launch.client_id != client_id:
        return None
    return launch if user is None or user.name == launch.user else None


def _launchable(client: Client) -> bool:
    return client.active and bool(client.launch_uris) and "launch" in scopes.words(client.scope)
