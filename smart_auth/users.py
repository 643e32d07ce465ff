"""Users: adding, logging in, deactivating. Called by the command line and by the log-in page."""

import re
from collections.abc import Collection
from datetime import datetime, timedelta

from smart_auth.models import ROLES, User, digest
from smart_auth.passwords import Passwords
from smart_auth.store import AuthStore

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}", re.ASCII)
REFERENCE = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9.-]{1,64}", re.ASCII)
_PEOPLE = ("Practitioner/", "PractitionerRole/", "Patient/", "RelatedPerson/", "Person/")

# How often one may guess: a name, and an address (an office shares one).
_FREE_BY_NAME, _FREE_BY_ADDRESS = 5, 50
_LONGEST_PAUSE = timedelta(minutes=15)
_MEMORY_BY_NAME, _MEMORY_BY_ADDRESS = timedelta(hours=24), timedelta(hours=1)


def add_user(
    store: AuthStore,
    passwords: Passwords,
    name: str,
    password: str,
    *,
    roles: Collection[str],
    organization: str | None = None,
    fhir_user: str | None = None,
    email: str | None = None,
) -> User:
    """Add a user who can log in at once. Raises ValueError (AlreadyThere when the name is taken).

    name: lower case letters, digits and `._@+-`. roles: of models.ROLES. organization: `Organization/<id>` of the
    referring office. fhir_user: the Practitioner, PractitionerRole, Patient, RelatedPerson or Person they are.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a user name has 1 to 64 of a-z, 0-9 and . _ @ + -, beginning with a letter or digit")
    if unknown := set(roles) - ROLES:
        raise ValueError(f"unknown role {sorted(unknown)[0]!r}; roles are {', '.join(sorted(ROLES))}")
    if organization is not None and not (REFERENCE.fullmatch(organization) and organization[:13] == "Organization/"):
        raise ValueError("the organization is given as Organization/<id>")
    if fhir_user is not None and not (REFERENCE.fullmatch(fhir_user) and fhir_user.startswith(_PEOPLE)):
        raise ValueError("the FHIR user is given as Practitioner/<id>, Patient/<id> ...")
    user = User(name, passwords.hash(password), frozenset(roles), organization, fhir_user, email)
    store.add_user(user)
    return user


def verify_password(
    store: AuthStore, passwords: Passwords, name: str, password: str, *, address: str, now: datetime
) -> User | None:
    """The active user of that name and password; None for every other case alike.

    Attempts are counted by name, known or not, and by address (network address of the browser); too many pause
    either, and during a pause even the right password is None, and nothing is hashed: who guesses costs nothing. Else
    the work is the same for every name. Raises Busy, before an attempt is counted.
    """
    with passwords.place():
        return _verified(store, passwords, name, password, address, now)


def _verified(
    store: AuthStore, passwords: Passwords, name: str, password: str, address: str, now: datetime
) -> User | None:
    name = name.strip().lower()
    by_name, by_address = f"name:{digest(name)}", f"address:{digest(address)}"
    open_address = store.begin_attempt(by_address, now, _FREE_BY_ADDRESS, _LONGEST_PAUSE, _MEMORY_BY_ADDRESS)
    open_name = store.begin_attempt(by_name, now, _FREE_BY_NAME, _LONGEST_PAUSE, _MEMORY_BY_NAME)
    if not (open_name and open_address):
        return None
    user = store.user(name)
    fits = passwords.verify(user.password_hash if user is not None and user.active else None, password)
    if not fits:
        return None
    store.forget_attempts(by_name)
    store.take_attempt_back(by_address)  # an office of many people logs in from one address
    return user


def deactivate_user(store: AuthStore, name: str) -> bool:
    """End a user's sessions and tokens, and let no new one begin. False when there is no such user."""
    return store.set_user(name, active=False)


def activate_user(store: AuthStore, name: str) -> bool:
    """Let a deactivated user in again; sessions and tokens that ended stay ended."""
    return store.set_user(name, active=True)


def set_password(store: AuthStore, passwords: Passwords, name: str, password: str) -> bool:
    """Change a password and end the user's sessions and tokens. False when there is no such user.

    Raises ValueError for a password too short or too long.
    """
    return store.set_user(name, password_hash=passwords.hash(password))
