"""Who somebody from another server is here."""

from smart_auth.models import NO_PASSWORD, User, digest
from smart_auth.outside.flow import Arrival, Refused
from smart_auth.service import AuthService
from smart_auth.store import AlreadyThere


def user_of(service: AuthService, arrival: Arrival) -> User:
    """The active user here, made at their first arrival where the server's set-up says so. Raises Refused.

    Known by `sub` alone. The first time they may be recognized by an e-mail address that the other server confirmed.
    """
    server, subject = arrival.server, digest(arrival.subject)
    name = service.store.linked(server.name, subject) or _recognized(service, arrival)
    if name is None and not server.roles:
        raise Refused("Nobody here is known by that log-in. Ask the practice to add you.")
    if name is None:
        name = _made(service, arrival)
    service.store.link(server.name, subject, name)
    user = service.store.user(service.store.linked(server.name, subject) or name)
    if user is None or not user.active:
        raise Refused("Your access here was ended.")
    return user


def _recognized(service: AuthService, arrival: Arrival) -> str | None:
    email, confirmed = arrival.claims.get("email"), arrival.claims.get("email_verified")
    if arrival.server.roles or not isinstance(email, str) or confirmed is not True or len(email) > 254:
        return None
    found = service.store.users_by_email(email)
    return found[0].name if len(found) == 1 else None


def _made(service: AuthService, arrival: Arrival) -> str:
    server = arrival.server
    name = server.user_name(arrival.subject)
    try:
        service.store.add_user(User(name, NO_PASSWORD, server.roles, server.organization))
    except AlreadyThere:
        pass  # two windows at once: the other one made them
    return name
